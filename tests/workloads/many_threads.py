"""A process that is killed while many of its threads fill pages: `many_threads.py CGROUP THREADS`.

Each thread waits to read a pipe into pages that were never touched. The contents of the pipe fill the cgroup
before all threads have read. SIGKILL wakes the others, which find data, go on to read, and reach the limit
before they end.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
from pathlib import Path

_PAGES_OF_A_THREAD = 256

_held: list[mmap.mmap] = []


def main(cgroup: str, threads: str) -> None:
    """Enter the cgroup, start the threads, and let them read once all are there."""
    (Path(cgroup) / "cgroup.procs").write_text("0", encoding="ascii")
    data, feed = os.pipe()
    begin = threading.Barrier(int(threads) + 1)
    for _ in range(int(threads)):
        threading.Thread(target=_fill, args=(data, begin)).start()
    begin.wait()
    os.write(feed, bytes(int(threads) * _PAGES_OF_A_THREAD))


def _fill(data: int, begin: threading.Barrier) -> None:
    memory = mmap.mmap(-1, _PAGES_OF_A_THREAD * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    _held.append(memory)
    bytes_of_pages = [memoryview(memory)[at : at + 1] for at in range(0, len(memory), mmap.PAGESIZE)]
    begin.wait()
    os.readv(data, bytes_of_pages)


if __name__ == "__main__":
    main(*sys.argv[1:])
