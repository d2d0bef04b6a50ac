"""Symbols and sections of an ELF file (elf(5)): 64 bits, little-endian.

The file may be hostile, and its owner may change it at any time. So it is not mapped: an access to a page
behind the end of a file that was truncated is a SIGBUS. It is bounded in size, and a damaged table has no
symbols.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

_MOST_FILE_BYTES: Final = 1 << 30
_MOST_SYMBOLS_BYTES: Final = 1 << 25
_MOST_NAMES_BYTES: Final = 1 << 26
_MOST_PARTS: Final = 1024  # segments, and sections: a linked file has tens of each
_BLOCK_BYTES: Final = 1 << 16
_MOST_BLOCKS: Final = 64  # that are kept: a look-up reads a few bytes here and there
_HEADER: Final = struct.Struct("<4sBB10xHHIQQQIHHHHHH")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_ELF64_LITTLE: Final = (b"\x7fELF", 2, 1)
_PT_LOAD: Final = 1
_PF_X: Final = 1
_SHT_SYMTAB: Final = 2
_SHF_COMPRESSED: Final = 1 << 11
_COMPRESSED: Final = struct.Struct("<I4xQ")  # Elf64_Chdr
_GNU_COMPRESSED: Final = struct.Struct(">4sQ")
_GNU_MARK: Final = b"ZLIB"
_SHT_DYNSYM: Final = 11
_ET_DYN: Final = 3


class CutOffError(Exception):
    """A file that was truncated while it was read."""

    def __init__(self) -> None:
        super().__init__("its file was truncated while it was read")


class Section(NamedTuple):
    """A section: its address in the file's segments, its place in the file, and its size in bytes."""

    address: int
    offset: int
    size: int


class ElfFile:
    """An ELF file of `size` bytes, read through a descriptor that its opener closes.

    Raises ValueError or struct.error if it is none, or if its tables are cut off. Each method raises
    CutOffError if the file was truncated meanwhile, and OSError if it cannot be read.
    """

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._size = size
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        head = self.unpack(_HEADER, 0)
        if head[:3] != _ELF64_LITTLE:
            raise ValueError("no ELF file of 64 bits, little-endian")
        self._is_relocated = head[3] == _ET_DYN
        segments_at, sections_at = head[7], head[8]
        segment_bytes, segments, section_bytes, sections, self._names = head[11:16]
        is_counted_elsewhere = sections_at and not sections  # in the first one, from 0xff00 on (gABI)
        if max(segments, sections) > _MOST_PARTS or is_counted_elsewhere:
            raise ValueError("an ELF file of too many parts")
        loaded = [self.unpack(_SEGMENT, segments_at + at * segment_bytes) for at in range(segments)]
        loaded = [one for one in loaded if one[0] == _PT_LOAD]
        self._loaded = [(one[3], one[2], one[5]) for one in loaded]
        self._code = [range(one[3], one[3] + one[6]) for one in loaded if one[1] & _PF_X]
        self._sections = [self.unpack(_SECTION, sections_at + at * section_bytes) for at in range(sections)]

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes of the file, as a slice of them: fewer at its end."""
        end = min(offset + size, self._size)
        if not 0 <= offset < end:
            return b""
        first, last = offset // _BLOCK_BYTES, (end - 1) // _BLOCK_BYTES
        begin = first * _BLOCK_BYTES
        if first == last:
            return self._block(first)[offset - begin : end - begin]
        return b"".join(map(self._block, range(first, last + 1)))[offset - begin : end - begin]

    def unpack(self, form: struct.Struct, offset: int) -> tuple[Any, ...]:
        """Return the numbers at a place in the file. Raises struct.error if it is not within the file."""
        return form.unpack(self.read(offset, form.size))

    def _block(self, number: int) -> bytes:
        if (known := self._blocks.get(number)) is not None:
            self._blocks.move_to_end(number)
            return known
        at = number * _BLOCK_BYTES
        size = min(_BLOCK_BYTES, self._size - at)
        found = os.pread(self._fd, size, at)
        if len(found) < size:
            raise CutOffError
        self._blocks[number] = found
        if len(self._blocks) > _MOST_BLOCKS:
            self._blocks.popitem(last=False)
        return found

    def shift(self, start: int) -> int:
        """Return what to add to an address of the file, if its first mapping begins at `start`."""
        lowest = min((address for address, _, _ in self._loaded), default=0)
        return start - lowest if self._is_relocated else 0

    def code(self) -> Sequence[range]:
        """Return the addresses of the segments with code."""
        return self._code

    def begin(self) -> int:
        """Return the address of the file's first byte, which need not be in a segment."""
        return min((address - offset for address, offset, _ in self._loaded), default=0)

    def shift_of_code(self, start_code: int) -> int | None:
        """Return what to add to an address of the file, if the kernel has set mm_struct.start_code so for it:
        to the lowest address with code (load_elf_binary() in fs/binfmt_elf.c); None: it cannot have."""
        if not self._code:
            return None
        shift = start_code - min(one.start for one in self._code)
        is_possible = shift >= 0 and shift % mmap.PAGESIZE == 0 if self._is_relocated else shift == 0
        return shift if is_possible else None

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
            if self.read(texts + one[0], len(wanted)) == wanted:
                return Section(*one[3:6])
        return None

    def unpacked_bytes(self) -> int:
        """Return how many bytes the compressed sections say they have once they are unpacked.

        They are compressed as the gABI says, or in GNU's older way, by which their data begin with "ZLIB"
        (elf_compress_gnu() of libelf). The latter are named `.zdebug_*`, but no name is asked for.
        """
        compressed = [one[4] for one in self._sections if one[2] & _SHF_COMPRESSED]
        sizes_bytes: list[int] = [self.unpack(_COMPRESSED, at)[1] for at in compressed]
        heads = (self.read(one[4], _GNU_COMPRESSED.size) for one in self._sections)
        older = (_GNU_COMPRESSED.unpack(head) for head in heads if len(head) == _GNU_COMPRESSED.size)
        sizes_bytes += [size for mark, size in older if mark == _GNU_MARK]
        return sum(sizes_bytes)

    def symbol(self, name: bytes) -> int | None:
        """Return the address of a symbol of either table; None if neither has it."""
        found = (self._symbol_in(symbols, texts, name) for symbols, texts in self._tables)
        return next((address for address in found if address is not None), None)

    @cached_property
    def _tables(self) -> Sequence[tuple[Section, Section]]:
        """Return the tables of symbols, each with its table of names. A file has one of each type (gABI)."""
        first = {one[1]: one for one in reversed(self._sections)}
        return [
            (Section(*one[3:6]), Section(*self._sections[one[6]][3:6]))
            for kind in (_SHT_DYNSYM, _SHT_SYMTAB)
            if (one := first.get(kind)) is not None and one[6] < len(self._sections)
        ]

    def _symbol_in(self, symbols: Section, texts: Section, name: bytes) -> int | None:
        text = self._place_of(b"\0" + name + b"\0", texts)
        if text is None:
            return None
        wanted = struct.pack("<I", text + 1)
        for chunk in self._chunks(symbols, _MOST_SYMBOLS_BYTES, _SYMBOL.size):
            at = chunk.find(wanted)
            while 0 <= at <= len(chunk) - _SYMBOL.size:
                if at % _SYMBOL.size == 0:
                    *_, section, address, _ = _SYMBOL.unpack_from(chunk, at)
                    if section:
                        return int(address)
                at = chunk.find(wanted, at - at % _SYMBOL.size + _SYMBOL.size)
        return None

    def _place_of(self, wanted: bytes, texts: Section) -> int | None:
        """Return where in a table of names a text begins; None if it is not there."""
        end, at = b"", 0
        for chunk in self._chunks(texts, _MOST_NAMES_BYTES, 1):
            found = (end + chunk).find(wanted)
            if found >= 0:
                return at - len(end) + found
            at += len(chunk)
            end = (end + chunk)[1 - len(wanted) :]
        return None

    def _chunks(self, section: Section, most: int, unit: int) -> Iterator[bytes]:
        """Yield the bytes of a section, at most so many, in chunks of whole units."""
        size = _BLOCK_BYTES // unit * unit
        for at in range(0, min(section.size, most, max(self._size - section.offset, 0)), size):
            yield self.read(section.offset + at, min(size, section.size - at))


@contextmanager
def elf_file(path: Path) -> Iterator[ElfFile | None]:
    """Open an ELF file; None if it is none, or too large.

    Raises OSError if it cannot be opened, and CutOffError if it is truncated meanwhile.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        yield None
        return
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        size = os.fstat(fd).st_size
        found = None
        if _HEADER.size <= size <= _MOST_FILE_BYTES:
            with suppress(struct.error, ValueError):
                found = ElfFile(fd, size)
        yield found
    finally:
        os.close(fd)
