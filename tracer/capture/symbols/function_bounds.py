"""Where the functions of a mapped file begin and end, by the table for its unwinder.

A stripped file has few symbols, and a function in assembly has often one without a size. The nearest symbol
before an address is no answer then: 400 KiB of assembly in libx264 have 12 symbols. The table of
.eh_frame_hdr has the begin of each function that a stack can be unwound through, in order, and .eh_frame its
length (Linux Standard Base Core 5.0, 10.6).

The file is hostile. An entry counts only if both sections agree on it.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from typing import Final, NamedTuple

from tracer.capture.symbols.libelf_file import SHT_SYMTAB, LibelfFile

_PT_GNU_EH_FRAME: Final = 0x6474E550
_MOST_TABLE_BYTES: Final = 16 << 20  # two million functions
_SYMBOL_BYTES: Final = 24  # Elf64_Sym (elf(5))
_SYMBOL_INFO_AT: Final = 4
_STT_FUNC: Final = 2
_STT_FILE: Final = 4
_HEAD: Final = struct.Struct("<BBBBiI")
_FORM: Final = (1, 0x1B, 0x03, 0x3B)
"""The version, and the encodings that linkers write: pcrel|sdata4, udata4, datarel|sdata4 (DW_EH_PE_*)."""
_PAIR_BYTES: Final = 8  # of the table: a begin and its entry
_ENTRY: Final = struct.Struct("<IIiI")  # an FDE: length, distance to its CIE, begin (pcrel|sdata4), length


class Around(NamedTuple):
    """What is known of an address in the file: `begin`, where its function begins, if that is known, and
    `least`, from where on the last symbol before the address is one of its function."""

    begin: int | None
    least: int


class FunctionBounds:
    """The functions of one file."""

    def __init__(self, file: LibelfFile) -> None:
        self._file = file
        self._begins: array[int] = array("i")  # from the table's own address, as the entries
        self._entries: array[int] = array("i")
        self._address = self._offset = 0
        self._has_all_symbols = self._has_local_symbols()
        if (found := file.segment(_PT_GNU_EH_FRAME)) is not None:
            self._address, self._offset = found.vaddr, found.offset
            self._read_table(file.bytes(found.offset, min(found.filesz, _MOST_TABLE_BYTES)))

    def around(self, address: int) -> Around:
        """Return what is known of an address. Behind the end of one function, another can begin without
        unwinding information; only a file that is not stripped has a symbol for it."""
        begin, end = self._last_before(address)
        if begin is not None and address < end:
            return Around(begin, begin)
        return Around(None, end if self._has_all_symbols else address)

    def _last_before(self, address: int) -> tuple[int | None, int]:
        """Return the begin and the end of the last function that begins at or before an address."""
        at = bisect_right(self._begins, address - self._address) - 1
        if at < 0:
            return None, 0
        begin, entry = self._address + self._begins[at], self._entries[at]
        head = self._file.bytes(self._offset + entry, _ENTRY.size)
        if len(head) < _ENTRY.size:
            return None, 0
        _, cie_pointer, pc_begin, length = _ENTRY.unpack(head)
        is_agreed = cie_pointer and self._address + entry + 8 + pc_begin == begin and begin >= 0
        return (begin, begin + length) if is_agreed else (None, 0)

    def _has_local_symbols(self) -> bool:
        """Return whether the table of symbols has those that other files do not see. `strip -x` leaves no
        function of them, and `ld -x` no source file; compilers add both to each program (crtstuff.c)."""
        for section in self._file.sections():
            if section.type == SHT_SYMTAB:  # `info`: the number of local symbols, which come first
                local_bytes = min(section.info * _SYMBOL_BYTES, _MOST_TABLE_BYTES)
                local = self._file.bytes(section.offset, local_bytes)
                return {_STT_FUNC, _STT_FILE} <= {info & 15 for info in local[_SYMBOL_INFO_AT::_SYMBOL_BYTES]}
        return False

    def _read_table(self, table: bytes) -> None:
        if len(table) < _HEAD.size:
            return
        *form, _, count = _HEAD.unpack_from(table)
        if tuple(form) == _FORM:
            count = min(count, (len(table) - _HEAD.size) // _PAIR_BYTES)
            words = array("i", table[_HEAD.size : _HEAD.size + count * _PAIR_BYTES])
            self._begins, self._entries = words[::2], words[1::2]
