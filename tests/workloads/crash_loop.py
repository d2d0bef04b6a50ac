"""Processes that fill a cgroup all at once: `crash_loop.py CGROUP N` returns once all N were killed.

They begin to grow at the same moment, so that one kill follows the other, and most decisions in between kill
nobody: while a victim exits, the kernel waits for it.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

_CHUNK_BYTES = 64 << 10


def main(cgroup: str, number: str) -> int:
    """Return 0 if all processes were killed by SIGKILL."""
    gate, closed_by = os.pipe()
    children = []
    for _ in range(int(number)):
        child = os.fork()
        if child == 0:
            os.close(closed_by)
            _grow(Path(cgroup), gate)
        children.append(child)
    os.close(closed_by)
    ends = [os.waitpid(child, 0)[1] for child in children]
    return int(any(not os.WIFSIGNALED(end) or os.WTERMSIG(end) != signal.SIGKILL for end in ends))


def _grow(cgroup: Path, gate: int) -> None:
    """Enter the cgroup, wait until the gate is closed, and grow until the kill."""
    (cgroup / "cgroup.procs").write_text("0", encoding="ascii")
    os.read(gate, 1)
    held: list[bytes] = []
    while True:
        held.append(b"\x01" * (_CHUNK_BYTES + len(held)))  # of differing lengths: none is shared


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
