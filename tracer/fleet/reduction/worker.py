"""A worker process: `python -m tracer.fleet.reduction.worker DESCRIPTOR`, with its end of the pipe."""

from __future__ import annotations

import gc
import pickle
import sys
import traceback
from multiprocessing.connection import Connection
from pathlib import Path


def _serve(connection: Connection) -> None:
    """Answer calls with (error, pickled result) until the other end is closed.

    The first messages are the other end's `sys.path`, so that the same functions are found, and the function
    to call first. The first answer confirms that it was called.
    """
    sys.path[:] = [entry for entry in connection.recv() if Path(entry).is_absolute()]
    gc.disable()  # what is imported is no garbage: neither now, nor in any later collection
    connection.recv()()
    gc.freeze()
    gc.enable()
    connection.send(None)
    while True:
        try:
            request = connection.recv_bytes()
        except EOFError:
            return
        error, result = None, b""
        try:
            function, arguments = pickle.loads(request)
            del request
            given = [pickle.loads(one) if isinstance(one, bytes) else one for one in arguments]
            del arguments
            result = pickle.dumps(function(*given), pickle.HIGHEST_PROTOCOL)
        except Exception as raised:
            error = raised
            error.add_note(traceback.format_exc())
        given = []
        connection.send((error, result))


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])))
