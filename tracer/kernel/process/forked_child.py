"""Children that the tracer forks to do a part of its own work."""

from __future__ import annotations

import ctypes
import json
import os
import signal
from collections.abc import Callable
from typing import Any, Final

from tracer.errors import TracerError
from tracer.kernel.process.priority import prefer_this_thread

_PR_SET_PDEATHSIG: Final = 1  # include/uapi/linux/prctl.h
_libc = ctypes.CDLL(None)


def end_with_parent() -> None:
    """Kill the calling process when its parent ends, and ignore SIGINT, SIGTERM and SIGHUP until then.

    Ctrl-C reaches a terminal's whole foreground group; only the parent decides when its child ends.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def call_in_child(function: Callable[[], Any]) -> Any:
    """Call a function in a child, and return its result, a JSON document. The memory of the call is freed
    with the child.

    Raises TracerError if the function does, or if the child ends without an answer.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            end_with_parent()
            prefer_this_thread()  # the parent waits, maybe with a higher priority that its child lacks
            answer: dict[str, Any] = {}
            try:
                answer = {"returned": function()}
            except TracerError as error:
                answer = {"raised": str(error)}
            with os.fdopen(writer, "w") as stream:
                json.dump(answer, stream)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        document = stream.read()
    os.waitpid(child, 0)
    try:
        answer = json.loads(document)
    except ValueError:
        raise TracerError("a child process of the tracer ended without an answer") from None
    if "raised" in answer:
        raise TracerError(answer["raised"])
    return answer["returned"]
