"""A process that is killed by SIGKILL, and reaches a limit after that: `dying_at_limit.py CGROUP BYTES`.

It reads that much of a hole into memory by one system call, at which a signal does not end it. BYTES is
several times the limit. The parent, outside of the cgroup, sends SIGKILL at half of the limit, and waits for
its end. The kernel may mark such a process as a victim of the OOM killer, and kills none.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
from pathlib import Path


def main(cgroup: str, size: str) -> int:
    """Return 0 if the process was ended by SIGKILL."""
    memcg, size_bytes = Path(cgroup), int(size)
    usage = memcg / "memory.current"
    if not usage.exists():
        usage = memcg / "memory.usage_in_bytes"
    limit = memcg / ("memory.max" if usage.name == "memory.current" else "memory.limit_in_bytes")
    half_bytes = int(limit.read_text("ascii")) // 2
    child = os.fork()
    if child == 0:
        (memcg / "cgroup.procs").write_text("0", encoding="ascii")
        os.nice(10)
        memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        hole = os.memfd_create("hole")
        os.ftruncate(hole, size_bytes)
        os.preadv(hole, [memory], 0)
        os._exit(0)
    with usage.open("rb", buffering=0) as now:
        while os.waitpid(child, os.WNOHANG) == (0, 0) and int(os.pread(now.fileno(), 32, 0)) < half_bytes:
            pass
    try:
        os.kill(child, signal.SIGKILL)
        _, end = os.waitpid(child, 0)
    except (ProcessLookupError, ChildProcessError):  # it reached the limit before
        return 0
    return int(not os.WIFSIGNALED(end) or os.WTERMSIG(end) != signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
