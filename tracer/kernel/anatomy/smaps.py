"""The mappings of a process with the memory in each: /proc/PID/smaps, read within bounds.

A process decides how many mappings it has, and how their files are named. So the text is read up to a number
of bytes and up to a moment, and what is read by then counts. The kernel holds the lock of the process's
mappings while it counts the pages of one mapping: 16 ms for each GiB of 4-KiB pages (measured). During that
time the process can neither map nor unmap memory.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from tracer.kernel.process.mapped_ranges import parse_maps

MOST_BYTES: Final = 8 << 20
"""The most text of one process that is read: about 12,000 mappings."""

_MOST_NAME_BYTES: Final = 4096  # PATH_MAX, of which " (deleted)" is cut off
_CHUNK_BYTES: Final = 1 << 16
_DELETED: Final = b" (deleted)"
_KIB: Final = 1 << 10


class Mapping(NamedTuple):
    """A mapping of a process: [start, end), as show_map_vma() and show_smap() in fs/proc/task_mmu.c print it.

    `permissions`: "rw-p". `inode`: 0 for memory without a file. `name`: the path of its file, or a name of
    the kernel or the process in brackets. `rss_bytes`: present pages, also those that other processes share.
    `pss_bytes`: each page divided by the number of its users. `anon_bytes`: the present pages that belong to
    no file. `swap_bytes`: swapped out. `is_small_paged`: it gets no huge pages (`nh` in VmFlags).
    """

    start: int
    end: int
    permissions: str
    inode: int
    name: bytes
    rss_bytes: int = 0
    pss_bytes: int = 0
    anon_bytes: int = 0
    swap_bytes: int = 0
    is_small_paged: bool = False

    @property
    def is_private_anonymous(self) -> bool:
        """Return whether it is private memory of no file, whatever its name."""
        return self.inode == 0 and self.permissions.endswith("p")

    @property
    def is_guard(self) -> bool:
        """Return whether it is private memory of no file that cannot be touched."""
        return self.is_private_anonymous and self.permissions.startswith("---")


class Smaps(NamedTuple):
    """The mappings that were read, by address; `why_partial` is the reason if there are more, else None."""

    mappings: list[Mapping]
    why_partial: str | None = None


def read_smaps(process: Path, until_s: float, most_bytes: int = MOST_BYTES) -> Smaps:
    """Read the mappings of a process (a directory of /proc) until a moment of CLOCK_MONOTONIC.

    Raises OSError if the process has ended or may not be read.
    """
    chunks, left, why = [], most_bytes, None
    fd = os.open(process / "smaps", os.O_RDONLY | os.O_CLOEXEC)
    try:
        while chunk := os.read(fd, min(_CHUNK_BYTES, left) or 1):
            if left <= 0:
                why = f"more than {most_bytes >> 20} MiB of text"
            elif time.monotonic() > until_s:
                why = "no time was left"
            if why is not None:
                break
            chunks.append(chunk)
            left -= len(chunk)
    finally:
        os.close(fd)
    return Smaps(list(parse_smaps(b"".join(chunks), is_whole=why is None)), why)


def parse_smaps(text: bytes, *, is_whole: bool = True) -> Iterator[Mapping]:
    """Yield the mappings in the text of an smaps file; lines of another form are left out.

    The last mapping of a text that is not whole is left out too.
    """
    header: Mapping | None = None
    sizes: dict[bytes, int] = {}
    is_small_paged = False
    for line in text.split(b"\n"):
        name, colon, value = line.partition(b":")
        if not colon or not name[:1].isupper():
            if (following := _header(line)) is not None:
                if header is not None:
                    yield _filled(header, sizes, is_small_paged=is_small_paged)
                header, sizes, is_small_paged = following, {}, False
        elif name == b"VmFlags":
            is_small_paged = b"nh" in value.split()
        elif name in _FIELDS:
            number, _, unit = value.strip().partition(b" ")
            if unit == b"kB" and number.isdigit():
                sizes[name] = int(number) * _KIB
    if header is not None and is_whole:
        yield _filled(header, sizes, is_small_paged=is_small_paged)


_FIELDS: Final = (b"Rss", b"Pss", b"Anonymous", b"Swap")


def _header(line: bytes) -> Mapping | None:
    """Return the mapping of a line `7f00-7f10 rw-p 00000000 00:00 0    NAME`, without sizes."""
    found = next(parse_maps(line), None)
    if found is None:
        return None
    name = found.name.removesuffix(_DELETED) if found.inode else found.name
    return Mapping(found.start, found.end, found.permissions, found.inode, name[:_MOST_NAME_BYTES])


def _filled(header: Mapping, sizes: dict[bytes, int], *, is_small_paged: bool) -> Mapping:
    rss, pss, anon, swap = (sizes.get(name, 0) for name in _FIELDS)
    return header._replace(
        rss_bytes=rss, pss_bytes=pss, anon_bytes=anon, swap_bytes=swap, is_small_paged=is_small_paged
    )
