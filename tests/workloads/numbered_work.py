"""Writes that add one page after the other to the page cache, with a record of their times.

Usage: numbered_work.py FILE TIMES. The time of page n is stored before the page is written. A hole is
punched over it some pages later, before it reaches a disk.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import time
from pathlib import Path

BURST, KEPT = 8, 256
PAGE_BYTES = 4096
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2  # include/uapi/linux/falloc.h


def main() -> None:
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    with Path(sys.argv[1]).open("r+b", buffering=0) as file, Path(sys.argv[2]).open("r+b") as times:
        written_ns = memoryview(mmap.mmap(times.fileno(), 0)).cast("Q")
        for page in range(len(written_ns)):
            written_ns[page] = time.monotonic_ns()
            os.pwrite(file.fileno(), bytes(PAGE_BYTES), page * PAGE_BYTES)
            if page % BURST == 0:
                time.sleep(0.001)
            if page % KEPT == 0 and page >= 2 * KEPT:
                begin = (page - 2 * KEPT) * PAGE_BYTES
                mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
                if fallocate(file.fileno(), mode, begin, KEPT * PAGE_BYTES):
                    raise OSError(ctypes.get_errno(), "fallocate")


if __name__ == "__main__":
    main()
