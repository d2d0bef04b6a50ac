"""The memory of the recorder's own process, which must stay small while the recorder runs."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Final

_PAGE_BYTES: Final = os.sysconf("SC_PAGESIZE")
_MALLOC_SETTINGS: Final = {-1: 64 << 10, -3: 64 << 10, -8: 1}
"""Values of M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_ARENA_MAX (glibc's malloc.h)."""
_MADV_DONTNEED: Final = 4  # include/uapi/asm-generic/mman-common.h
_libc: Final = ctypes.CDLL(None)


def resident_bytes() -> int:
    """Return the resident memory of this process, including mapped rings (RSS in /proc/self/statm)."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES


def return_early() -> None:
    """Make malloc return freed memory to the kernel at once instead of keeping it."""
    if mallopt := getattr(_libc, "mallopt", None):
        for setting, value in _MALLOC_SETTINGS.items():
            mallopt(setting, value)


def trim() -> None:
    """Return all free memory of malloc to the kernel, including free pages between used pieces."""
    if malloc_trim := getattr(_libc, "malloc_trim", None):
        malloc_trim(0)


def drop_code() -> None:
    """Unmap the pages of programs and libraries, code and tables: most were needed only at the start.

    A page that is needed again is mapped again from the page cache. Libraries that are loaded after the first
    call keep their pages.
    """
    unchanged = _mappings_without_own_pages()
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        if line in unchanged:
            begin, end = (int(address, 16) for address in line.split()[0].split("-"))
            _libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_DONTNEED)


@cache
def _mappings_without_own_pages() -> frozenset[str]:
    """Return the lines of /proc/self/maps that are read-only mappings of files without anonymous pages.

    In the other mappings of files, the dynamic linker has written pages, and its changes would be lost.
    """
    found, mapping = [], ""
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace").splitlines():
        first, *fields = line.split(maxsplit=5)
        if not first.endswith(":"):
            _, _, _, inode = fields[:4]
            mapping = line if fields[0] in ("r-xp", "r--p") and inode != "0" else ""
        elif mapping and first == "Anonymous:" and fields[0] == "0":
            found.append(mapping)
    return frozenset(found)
