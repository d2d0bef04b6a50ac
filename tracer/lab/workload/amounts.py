"""Memory and files in parts of a MiB: the common part of the steps."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from typing import Final

CHUNK_BYTES: Final = 1 << 20
PRIVATE: Final = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
SHARED: Final = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS

Pause = Callable[[], None]

kept: Final[list[object]] = []
"""Files and mappings that stay open until the process ends."""


def parts(size_bytes: int) -> Iterator[range]:
    """Yield the range from 0 to `size_bytes` in parts of 1 MiB."""
    for offset in range(0, size_bytes, CHUNK_BYTES):
        yield range(offset, min(offset + CHUNK_BYTES, size_bytes))


def mapped(size_bytes: int, flags: int) -> mmap.mmap:
    """Return memory that is charged page by page (no huge pages) and kept until the process ends."""
    memory = mmap.mmap(-1, size_bytes, flags=flags)
    kept.append(memory)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory


def touched(pause: Pause, memory: mmap.mmap) -> Iterator[None]:
    """Write to all pages of the memory, and yield after each page."""
    for part in parts(len(memory)):
        for page in part[:: mmap.PAGESIZE]:
            memory[page] = 1
            yield
        pause()
