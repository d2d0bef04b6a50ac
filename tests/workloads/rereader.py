"""Reads pages of a file at random, one at a time: `python rereader.py FILE PAGES READS`."""

from __future__ import annotations

import mmap
import os
import random
import sys


def main(file: str, pages: int, reads: int) -> None:
    """Read so many pages, the same ones in each run, without readahead."""
    descriptor, choose = os.open(file, os.O_RDONLY), random.Random(3)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    for _ in range(reads):
        os.pread(descriptor, mmap.PAGESIZE, choose.randrange(pages) * mmap.PAGESIZE)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
