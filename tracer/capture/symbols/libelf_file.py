"""An ELF file that libdw has opened: its segments, its sections, and its bytes, by libelf.

The file is hostile: counts and places in it are bounded.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Final

SHT_SYMTAB: Final = 2
"""The type of the section with all symbols (elf(5)); a stripped file has none."""
_SHF_EXECINSTR: Final = 4
_MOST_PARTS: Final = 1024  # segments, and sections

_Pointer = ctypes.c_void_p
_Word = ctypes.c_uint64


class Segment(ctypes.Structure):
    """GElf_Phdr (gelf.h)."""

    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("type", "flags")),
        *((name, _Word) for name in ("offset", "vaddr", "paddr", "filesz", "memsz", "align")),
    )


class Section(ctypes.Structure):
    """GElf_Shdr (gelf.h)."""

    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("name", "type")),
        *((name, _Word) for name in ("flags", "address", "offset", "size")),
        *((name, ctypes.c_uint32) for name in ("link", "info")),
        *((name, _Word) for name in ("alignment", "entry_size")),
    )


class _Data(ctypes.Structure):
    """The begin of Elf_Data (libelf.h)."""

    _fields_ = (
        ("buffer", _Pointer),
        ("type", ctypes.c_int),
        ("version", ctypes.c_uint),
        ("size", ctypes.c_size_t),
    )


class LibelfFile:
    """One file. `dw` is libdw, which has libelf's functions, and `elf` an Elf *."""

    def __init__(self, dw: ctypes.CDLL, elf: ctypes.c_void_p) -> None:
        dw.elf_getdata_rawchunk.restype = ctypes.POINTER(_Data)
        for name in ("gelf_getphdr", "gelf_getshdr", "elf_nextscn", "elf_getscn"):
            getattr(dw, name).restype = _Pointer
        self._dw = dw
        self._elf = elf

    def segment(self, kind: int) -> Segment | None:
        """Return the first segment of a type; None if there is none."""
        count, segment = ctypes.c_size_t(), Segment()
        if self._dw.elf_getphdrnum(self._elf, ctypes.byref(count)):
            return None
        for number in range(min(count.value, _MOST_PARTS)):
            if not self._dw.gelf_getphdr(self._elf, number, ctypes.byref(segment)):
                return None
            if segment.type == kind:
                return segment
        return None

    def sections(self) -> Iterator[Section]:
        """Yield the sections, but for the empty first one."""
        part = _Pointer()
        for _ in range(_MOST_PARTS):
            part, section = _Pointer(self._dw.elf_nextscn(self._elf, part)), Section()
            if not part or not self._dw.gelf_getshdr(part, ctypes.byref(section)):
                return
            yield section

    def code(self, address: int, size: int) -> bytes:
        """Return bytes of the section of code at an address; nothing if it does not have them all."""
        for one in self.sections():
            if one.flags & _SHF_EXECINSTR and one.address <= address <= one.address + one.size - size:
                return self.bytes(one.offset + address - one.address, size)
        return b""

    def bytes(self, offset: int, size: int) -> bytes:
        """Return bytes of the file; nothing if it does not have them all."""
        if not 0 <= offset < 1 << 63:
            return b""
        found = self._dw.elf_getdata_rawchunk(self._elf, ctypes.c_int64(offset), ctypes.c_size_t(size), 0)
        return ctypes.string_at(found[0].buffer, found[0].size) if found and found[0].buffer else b""
