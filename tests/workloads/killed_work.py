"""Processes that grow one after the other until the OOM killer kills them, with a record of each kill.

Usage: killed_work.py MEMCG KILLS. A kill is three 64-bit words in the file KILLS: the pid, and
CLOCK_MONOTONIC before the process began and after it was gone. The parent process stays outside of the
cgroup.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
import time
from pathlib import Path

STEP_BYTES = 1 << 20


def grow(memcg: Path) -> None:
    (memcg / "cgroup.procs").write_text("0", encoding="ascii")
    held = []
    while True:
        held.append(bytearray(b"x") * STEP_BYTES)


def main() -> None:
    with Path(sys.argv[2]).open("r+b") as file:
        kills = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")
    for begin in range(0, len(kills), 3):
        kills[begin + 1] = time.monotonic_ns()
        pid = os.fork()
        if pid == 0:
            grow(Path(sys.argv[1]))
        _, status = os.waitpid(pid, 0)
        if os.WTERMSIG(status) != signal.SIGKILL:
            raise SystemExit(f"{pid} was not killed")
        kills[begin + 2] = time.monotonic_ns()
        kills[begin] = pid


if __name__ == "__main__":
    main()
