"""How much of the memory that glibc's malloc took from the kernel is free inside, read from a live process.

The layout is that of struct malloc_state and struct malloc_chunk (malloc/malloc.c) and of struct heap_info
(malloc/arena.c) in glibc 2.26 to 2.42 on 64-bit machines. No version is asked for: what is read has to agree
with itself and with the mappings, or nothing is shown. All arenas are in a ring, and the main one is in the
data of libc.

A free chunk is in a bin of its arena, or is `top`, the end of the heap. What each thread keeps for itself
(tcache), at most a few chunks of each size, counts as used. The program changes its lists while they are
read, so a number is as of about that moment.
"""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from tracer.kernel.anatomy.shown import Shown
from tracer.kernel.anatomy.smaps import Mapping
from tracer.kernel.process.live_memory import Memory

KIND: Final = "glibc"
_LIBC: Final = (b"/libc.so.6", b"/libc-2.")
_HEAP_BYTES: Final = 64 << 20  # HEAP_MAX_SIZE
_TOP: Final = 96
_BINS: Final = 112
_BIN_COUNT: Final = 127
_NEXT: Final = 2160
_SYSTEM: Final = 2184
_MEMBERS: Final = (_TOP, _NEXT, _SYSTEM)
_STATE_BYTES: Final = 2200
_FLAGS_OF_SIZE: Final = 7
_MOST_ARENAS: Final = 1024
_MOST_CHUNKS: Final = 1 << 14
_MOST_DATA_BYTES: Final = 1 << 20
_OF_CHUNK: Final = 48  # its head and links, which stay when its pages are given back


class _Arena(NamedTuple):
    """An arena: its address, its bytes from the kernel, and the links of its bins: (forward, back)."""

    address: int
    system_bytes: int
    top: int
    bins: Sequence[int]


def read_arenas(memory: Memory, mappings: Sequence[Mapping], until_s: float) -> Iterator[Shown]:
    """Yield what is free inside of malloc's heaps; nothing if they are not found, or not all present.

    `mappings` are those of the process, by address. Memory that is swapped out is not read, which would
    charge it again.
    """
    heaps = [one for one in mappings if one.name == b"[heap]" or _may_be_arena(one)]
    if not heaps or any(one.swap_bytes for one in heaps):
        return
    try:
        arenas = list(_arenas(memory, mappings))
        if not arenas:
            return
        free = _Free(memory, until_s)
        for arena in arenas:
            free.add(arena)
    except (OSError, struct.error):
        return
    yield Shown(KIND, "arena_count", len(arenas))
    yield Shown(KIND, "system_bytes", sum(arena.system_bytes for arena in arenas))
    yield Shown(KIND, "top_bytes", free.top_bytes)
    least = "" if free.is_whole else "at_least_"
    yield Shown(KIND, f"free_{least}bytes", free.free_bytes)
    yield Shown(KIND, f"free_pages_{least}bytes", free.page_bytes)


def _may_be_arena(mapping: Mapping) -> bool:
    is_aligned = mapping.start % _HEAP_BYTES == 0
    return is_aligned and mapping.is_private_anonymous and mapping.permissions.startswith("rw")


def _arenas(memory: Memory, mappings: Sequence[Mapping]) -> Iterator[_Arena]:
    """Yield the arenas of a process, the main one first; nothing if their ring is not found."""
    libc = [
        one
        for one in mappings
        if one.inode and one.permissions == "rw-p" and any(name in one.name for name in _LIBC)
    ]
    if len(libc) != 1 or libc[0].end - libc[0].start > _MOST_DATA_BYTES:
        return
    data = libc[0]
    main = _main_arena(memory, data, [one.start for one in mappings if _may_be_arena(one)])
    if main is None:
        return
    address, seen = main, set[int]()
    while address not in seen and len(seen) < _MOST_ARENAS:
        seen.add(address)
        state = memory.read(address, _STATE_BYTES)
        top, following, system = (struct.unpack_from("<Q", state, at)[0] for at in _MEMBERS)
        if not _is_mapped(mappings, top) or not 0 < system <= sum(one.end - one.start for one in mappings):
            return
        yield _Arena(address, system, top, struct.unpack_from(f"<{2 * _BIN_COUNT}Q", state, _BINS))
        address = following


def _main_arena(memory: Memory, data: Mapping, heaps: Sequence[int]) -> int | None:
    """Return the address of the main arena in the data of libc; None if it is not found.

    A heap of another arena leads to the ring. Without one, the main arena is the ring.
    """
    for heap in heaps[:_MOST_ARENAS]:
        address = memory.number(heap)  # heap_info.ar_ptr
        if address // _HEAP_BYTES * _HEAP_BYTES not in heaps:
            continue
        for _ in range(_MOST_ARENAS):
            if data.start <= address < data.end:
                return address
            address = memory.number(address + _NEXT)
    content = memory.read(data.start, data.end - data.start)
    for at in range(0, len(content) - _STATE_BYTES, 8):
        if struct.unpack_from("<Q", content, at + _NEXT)[0] == data.start + at:
            return data.start + at
    return None


def _is_mapped(mappings: Sequence[Mapping], address: int) -> bool:
    return any(one.start <= address < one.end and one.is_private_anonymous for one in mappings)


class _Free:
    """Adds up the free chunks of arenas, the largest bins first, within bounds."""

    def __init__(self, memory: Memory, until_s: float) -> None:
        self._memory = memory
        self._until_s = until_s
        self._left = _MOST_CHUNKS
        self.top_bytes = self.free_bytes = self.page_bytes = 0
        self.is_whole = True

    def add(self, arena: _Arena) -> None:
        self.top_bytes += self._memory.number(arena.top + 8) & ~_FLAGS_OF_SIZE
        for number in [0, *range(_BIN_COUNT - 1, 0, -1)]:  # 0: chunks that are not sorted yet
            end = arena.address + _BINS + 16 * number - 16  # where a chunk would have the bin as its links
            self._add_bin(arena.bins[2 * number], end, arena.system_bytes)

    def _add_bin(self, chunk: int, end: int, most_bytes: int) -> None:
        before = end
        while chunk != end:
            self._left -= 1
            if self._left < 0 or time.monotonic() > self._until_s:
                self.is_whole = False
                return
            _, size, following, back = self._memory.numbers(chunk, 4)
            size &= ~_FLAGS_OF_SIZE
            if back != before or size > most_bytes:  # it changes now, or it is no list of chunks
                self.is_whole = False
                return
            self.free_bytes += size
            first = -(-(chunk + _OF_CHUNK) // mmap.PAGESIZE)
            self.page_bytes += max((chunk + size) // mmap.PAGESIZE - first, 0) * mmap.PAGESIZE
            before, chunk = chunk, following
