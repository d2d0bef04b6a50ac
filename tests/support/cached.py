"""How much of a file is in the page cache."""

from __future__ import annotations

import mmap
from pathlib import Path

from tracer.lab.scratch import cached_pages


def cached_bytes(path: Path) -> int:
    """Return the bytes of a file that are in the page cache (mincore(2))."""
    with path.open("r+b") as file:
        return cached_pages(file.fileno(), path.stat().st_size) * mmap.PAGESIZE
