"""The process that becomes the traced command: it waits at a gate, then execs. Run as a script by `spawn`.

A process of its own, rather than code between fork and exec, for two reasons: the pages that it touches were
charged where it started, so that the traced cgroup sees almost nothing before the exec; and threads of the
recorder cannot hold a lock that the child would need.

Arguments: the gate's descriptor, the status pipe's descriptor, then the command. On the status pipe it writes
"r" when it stands at the gate, and the number of the error if the exec fails; the exec closes it. The
gate's end without a byte means that the recorder is gone: nothing is run.
"""

from __future__ import annotations

import os
import signal
import sys


def main(arguments: list[str]) -> int:
    gate, status, command = int(arguments[0]), int(arguments[1]), arguments[2:]
    os.set_inheritable(gate, False)
    os.set_inheritable(status, False)
    for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored_by_python, signal.SIG_DFL)
    os.write(status, b"r")
    if not os.read(gate, 1):
        return 1
    try:
        os.execvpe(os.fsencode(command[0]), [os.fsencode(word) for word in command], _initial_environment())
    except OSError as error:
        os.write(status, str(error.errno).encode("ascii"))
    return 1


def _initial_environment() -> dict[bytes, bytes]:
    """The environment as it was given: the interpreter itself may have added LC_CTYPE to it (PEP 538)."""
    with open("/proc/self/environ", "rb") as stream:  # noqa: PTH123  (pathlib would cost its import)
        entries = stream.read().split(b"\0")
    return dict(entry.split(b"=", 1) for entry in entries if b"=" in entry)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
