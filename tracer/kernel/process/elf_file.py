"""Symbols and sections of an ELF file (elf(5)): 64 bits, little-endian.

The file may be hostile: it is mapped, bounded in size, and a damaged table has no symbols.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple

_MOST_FILE_BYTES: Final = 1 << 30
_MOST_SYMBOLS_BYTES: Final = 1 << 25
_MOST_NAMES_BYTES: Final = 1 << 26
_HEADER: Final = struct.Struct("<4sBB10xHHIQQQIHHHHHH")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_ELF64_LITTLE: Final = (b"\x7fELF", 2, 1)
_PT_LOAD: Final = 1
_SHT_SYMTAB: Final = 2
_SHT_DYNSYM: Final = 11
_ET_DYN: Final = 3


class Section(NamedTuple):
    """A section: its address in the file's segments, its place in the file, and its size in bytes."""

    address: int
    offset: int
    size: int


class ElfFile:
    """An ELF file, mapped. Raises ValueError or struct.error if it is none, or if its tables are cut off."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        head = _HEADER.unpack_from(data)
        if head[:3] != _ELF64_LITTLE:
            raise ValueError("no ELF file of 64 bits, little-endian")
        self._is_relocated = head[3] == _ET_DYN
        segments_at, sections_at = head[7], head[8]
        segment_bytes, segments, section_bytes, sections, self._names = head[11:16]
        loaded = [_SEGMENT.unpack_from(data, segments_at + at * segment_bytes) for at in range(segments)]
        self._loaded = [(one[3], one[2], one[5]) for one in loaded if one[0] == _PT_LOAD]
        self._sections = [
            _SECTION.unpack_from(data, sections_at + at * section_bytes) for at in range(sections)
        ]

    def shift(self, start: int) -> int:
        """Return what to add to an address of the file, if its first mapping begins at `start`."""
        lowest = min((address for address, _, _ in self._loaded), default=0)
        return start - lowest if self._is_relocated else 0

    def offset(self, address: int) -> int | None:
        """Return the place in the file of an address of its segments; None if it is in none of them."""
        for begin, offset, size in self._loaded:
            if begin <= address < begin + size:
                return int(offset + address - begin)
        return None

    def section(self, name: bytes) -> Section | None:
        """Return a section; None if there is none of this name."""
        if self._names >= len(self._sections):
            return None
        texts = self._sections[self._names][4]
        wanted = name + b"\0"
        for one in self._sections:
            at = texts + one[0]
            if self.data[at : at + len(wanted)] == wanted:
                return Section(*one[3:6])
        return None

    def symbol(self, name: bytes) -> int | None:
        """Return the address of a symbol of either table; None if neither has it."""
        found = (_symbol_in(self.data, symbols, texts, name) for symbols, texts in self._tables)
        return next((address for address in found if address is not None), None)

    @cached_property
    def _tables(self) -> Sequence[tuple[Section, Section]]:
        """Return the tables of symbols, each with its table of names."""
        return [
            (Section(*one[3:6]), Section(*self._sections[one[6]][3:6]))
            for one in self._sections
            if one[1] in (_SHT_DYNSYM, _SHT_SYMTAB) and one[6] < len(self._sections)
        ]


def _symbol_in(data: mmap.mmap, symbols: Section, texts: Section, name: bytes) -> int | None:
    found = data.find(b"\0" + name + b"\0", texts.offset, texts.offset + min(texts.size, _MOST_NAMES_BYTES))
    if found < 0:
        return None
    wanted = struct.pack("<I", found + 1 - texts.offset)
    end = symbols.offset + min(symbols.size, _MOST_SYMBOLS_BYTES)
    at = data.find(wanted, symbols.offset, end)
    while at >= 0:
        if (at - symbols.offset) % _SYMBOL.size == 0:
            *_, section, address, _ = _SYMBOL.unpack_from(data, at)
            if section:
                return int(address)
        at = data.find(wanted, at + 1, end)
    return None


@contextmanager
def elf_file(path: Path) -> Iterator[ElfFile | None]:
    """Open an ELF file; None if it is none, or too large. Raises OSError if it cannot be opened."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        size = os.fstat(fd).st_size
        if not _HEADER.size <= size <= _MOST_FILE_BYTES:
            yield None
            return
        try:
            data = mmap.mmap(fd, size, access=mmap.ACCESS_READ)
        except ValueError:  # it is no regular file
            yield None
            return
        with data:
            try:
                found = ElfFile(data)
            except (struct.error, ValueError):
                found = None
            yield found
    finally:
        os.close(fd)
