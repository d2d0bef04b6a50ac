"""The process that becomes the traced command: it waits at a gate, then execs. `spawn` runs it as a script.

It is a separate process, and not code between fork and exec, for two reasons. Its pages are charged to the
cgroup in which it started, so that almost nothing is charged to the traced cgroup before the exec. And no
thread of the recorder can hold a lock that the child would need.

Arguments: the descriptor of the gate, the descriptor of the status pipe, then the command. The process writes
"r" to the status pipe when it waits at the gate, and the number of the error if the exec fails; the exec
closes the pipe. If the gate is closed without a byte, the recorder has ended, and nothing is run.
"""

from __future__ import annotations

import os
import signal
import sys


def main(arguments: list[str]) -> int:
    """Wait at the gate, then exec; return the exit status if nothing was executed."""
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
    """Return the environment as it was given: the interpreter may have added LC_CTYPE to it (PEP 538)."""
    with open("/proc/self/environ", "rb") as stream:  # noqa: PTH123  (pathlib would cost its import)
        entries = stream.read().split(b"\0")
    return dict(entry.split(b"=", 1) for entry in entries if b"=" in entry)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
