"""Run a command with another CLOCK_MONOTONIC: `python -m support.other_clock SECONDS COMMAND ...`.

The clock of the command and of its children is ahead by SECONDS, so their clock pair (realtime, monotonic)
has another phase: a boot begins at no particular fraction of a second. Kernel programs stamp the clock of the
machine, which stays as it is, so this is for tests without them. It takes root, and CONFIG_TIME_NS.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Final

S: Final = 1_000_000_000
_CLONE_NEWTIME: Final = 0x80  # include/uapi/linux/sched.h; os.unshare is of Python 3.12


def main(seconds: float, *command: str) -> None:
    """Become the command; OSError if this machine refuses."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWTIME):
        raise OSError(ctypes.get_errno(), "no time namespace")
    offsets = Path("/proc/self/timens_offsets")  # from the machine's clocks
    (was,) = (line.split()[1:] for line in offsets.open(encoding="ascii") if line.startswith("monotonic"))
    offset_ns = int(was[0]) * S + int(was[1]) + round(seconds * S)
    offsets.write_text(f"monotonic {offset_ns // S} {offset_ns % S}\n", encoding="ascii")
    # A child is in the namespace; this process is not, before an exec of recent kernels.
    if child := os.fork():
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(float(sys.argv[1]), *sys.argv[2:])
