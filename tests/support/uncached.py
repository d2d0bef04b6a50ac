"""Files, and how much of them is in the page cache."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from tracer.lab.scratch import cached_pages


def write_uncached_pages(path: Path, pages: int) -> None:
    """Write a file of random content, and drop its pages from the page cache."""
    path.write_bytes(os.urandom(pages * mmap.PAGESIZE))
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cached_bytes(path: Path) -> int:
    """Return the bytes of a file that are in the page cache (mincore(2))."""
    with path.open("r+b") as file:
        return cached_pages(file.fileno(), path.stat().st_size) * mmap.PAGESIZE
