"""Names of the functions of a Go program: .gopclntab, which also stripped programs have.

The layout is that of Go 1.20 and later: pcHeader, _func (runtime/runtime2.go) and inlinedCall
(runtime/symtabinl.go). The table belongs to a process and may be hostile: an entry that leads nowhere has no
name.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from tracer.kernel.process.elf_file import ElfFile

_MAGIC: Final = 0xFFFFFFF1
_HEADER: Final = struct.Struct("<IHBB8Q")
_ENTRY: Final = struct.Struct("<II")
_PLACE: Final = struct.Struct("<I")
_FUNCTION: Final = struct.Struct("<IiiIIIIIIiBBBB")
_INLINED: Final = struct.Struct("<B3xiii")
_OF_FUNCTIONS: Final = (b"go:func.*", b"go.func.*")
_TEXT: Final = b"runtime.text"
_TABLES: Final = (b".gopclntab", b".data.rel.ro.gopclntab")  # the second one in PIE
_INLINE_INDEX: Final = 2  # PCDATA_InlTreeIndex
_INLINE_TREE: Final = 3  # FUNCDATA_InlTree
_NO_FUNCDATA: Final = 0xFFFFFFFF
_MOST_TEXT: Final = 256
_MOST_VARINT: Final = 10
_MOST_STEPS: Final = 1 << 13  # of one table of a function


class GoFrame(NamedTuple):
    """A function and the line of its source that runs in it."""

    function: str
    file: str
    line: int


class GoFunctions:
    """The functions of a program. Raises ValueError if its table has another form, or is damaged."""

    def __init__(self, elf: ElfFile) -> None:
        section, text = next(filter(None, map(elf.section, _TABLES)), None), elf.symbol(_TEXT)
        if section is None or text is None:
            raise ValueError("the program has no table of functions")
        self._elf, self._at, self._text = elf, section.offset, text
        self._end = section.offset + section.size
        try:
            magic, _, self._least, word, count, _, _, *places = elf.unpack(_HEADER, self._at)
        except struct.error as error:
            raise ValueError("the table of functions is cut off") from error
        if magic != _MAGIC or word != 8:
            raise ValueError("the table of functions has another form")
        self._count = min(count, section.size // _ENTRY.size)
        self._names, self._units, self._files, self._values, self._functions = (
            self._at + place for place in places
        )
        self._of_functions = next(filter(None, map(elf.symbol, _OF_FUNCTIONS)), None)

    def frame(self, address: int) -> GoFrame | None:
        """Return the innermost function at an address of the file, inlined or not; None if there is none."""
        try:
            return self._frame(address - self._text)
        except (struct.error, IndexError, OverflowError):
            return None

    def _frame(self, at: int) -> GoFrame | None:
        place = self._place(at)
        if place is None:
            return None
        entry, name, *_ = fields = self._elf.unpack(_FUNCTION, place)
        file_table, line_table, data_count, unit = fields[5:9]
        tables_at = place + _FUNCTION.size
        if data_count > _INLINE_INDEX:
            (table,) = self._elf.unpack(_PLACE, tables_at + 4 * _INLINE_INDEX)
            index = self._value(table, entry, at)
            inlined = self._inlined(tables_at + 4 * data_count, fields[13], index)
            name = name if inlined is None else inlined
        number = self._value(file_table, entry, at)
        if number is None:
            return None
        (file,) = self._elf.unpack(_PLACE, self._units + 4 * (unit + number))
        line = self._value(line_table, entry, at)
        return GoFrame(self._string(self._names + name), self._string(self._files + file), max(line or 0, 0))

    def _place(self, at: int) -> int | None:
        """Return where the _func of an address is, which is relative to the text."""
        low, high = 0, self._count
        while low < high:
            middle = (low + high) // 2
            if self._elf.unpack(_ENTRY, self._functions + middle * _ENTRY.size)[0] <= at:
                low = middle + 1
            else:
                high = middle
        if not low:
            return None
        _, place = self._elf.unpack(_ENTRY, self._functions + (low - 1) * _ENTRY.size)
        return int(self._functions + place)

    def _inlined(self, data_at: int, count: int, index: int | None) -> int | None:
        """Return the place of the name of an inlined function; None if the function is not inlined."""
        if index is None or index < 0 or count <= _INLINE_TREE or self._of_functions is None:
            return None
        (tree,) = self._elf.unpack(_PLACE, data_at + 4 * _INLINE_TREE)
        offset = self._elf.offset(self._of_functions + tree + index * _INLINED.size)
        if tree == _NO_FUNCDATA or offset is None:
            return None
        return int(self._elf.unpack(_INLINED, offset)[1])

    def _value(self, table: int, entry: int, at: int) -> int | None:
        """Return the value of a table of a function at an address (pcvalue in runtime/symtab.go)."""
        if not table:
            return None
        place, value, reached = self._values + table, -1, entry
        for step in range(_MOST_STEPS):
            delta, place = self._varint(place)
            if delta == 0 and step:
                return None
            value += -(delta >> 1) - 1 if delta & 1 else delta >> 1
            advance, place = self._varint(place)
            reached += advance * self._least
            if at < reached:
                return value
        return None

    def _varint(self, place: int) -> tuple[int, int]:
        value = 0
        for length, byte in enumerate(self._elf.read(place, _MOST_VARINT), 1):
            value |= (byte & 0x7F) << 7 * (length - 1)
            if byte < 0x80:
                return value, place + length
        raise IndexError(place)

    def _string(self, place: int) -> str:
        if not self._at <= place < self._end:
            raise IndexError(place)
        found = self._elf.read(place, _MOST_TEXT).partition(b"\0")[0]
        return found.decode(errors="backslashreplace")
