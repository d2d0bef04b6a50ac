"""Files whose pages are not in the page cache."""

from __future__ import annotations

import mmap
import os
from pathlib import Path


def write_uncached_pages(path: Path, pages: int) -> None:
    """Write a file of random content, and drop its pages from the page cache."""
    path.write_bytes(os.urandom(pages * mmap.PAGESIZE))
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
