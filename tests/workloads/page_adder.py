"""A process on the lowest CPU that adds pages to the page cache one by one, inside a system call.

Usage: page_adder.py FILE PAGES ROUNDS PAUSE_S. It maps a sparse file, and each round populates the mapping
and truncates the file. With a pause before each round it runs at a real-time priority, so that it preempts
what runs on the CPU.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from typing import Final

_MADV_POPULATE_READ: Final = 22  # include/uapi/asm-generic/mman-common.h; Python has no name for it


def main() -> None:
    name, pages, rounds, pause_s = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    file = os.open(name, os.O_CREAT | os.O_RDWR)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if pause_s:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    for _ in range(rounds):
        time.sleep(pause_s)
        os.ftruncate(file, pages * mmap.PAGESIZE)
        with mmap.mmap(file, pages * mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ) as area:
            area.madvise(mmap.MADV_RANDOM)
            area.madvise(_MADV_POPULATE_READ)
        os.ftruncate(file, 0)


if __name__ == "__main__":
    main()
