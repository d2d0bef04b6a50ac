"""The symbols of one file, in the order of their addresses.

libdw compares all symbols of a file with each address that it names: 0.8 ms of CPU an address of a compiler
with 28,000 symbols. Of several symbols at an address, the same one is chosen here as by
libdwfl/dwfl_module_addrsym.c (elfutils 0.192).

The file is hostile: a table can have any content.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from typing import Final

import numpy as np
import numpy.typing as npt

from tracer.capture.symbols.libelf_file import SHT_SYMTAB, LibelfFile

_SHT_DYNSYM: Final = 11
_MOST_TABLE_BYTES: Final = 64 << 20  # more than two million symbols
_MOST_NAMES_BYTES: Final = 256 << 20
_LONGEST_NAME: Final = 4096
_MOST_NESTED: Final = 64  # symbols that reach over one address
_SYMBOL: Final = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
"""Elf64_Sym (elf(5))."""
_TYPE: Final = 15  # the bits of STT_* in `info`; STB_* is above them
_NEVER_NAMED: Final = (3, 4, 6)  # STT_SECTION, STT_FILE, STT_TLS
_RANKS: Final = (1, 3, 2, *[0] * 13)  # of STB_LOCAL, STB_GLOBAL, STB_WEAK, and the others


class SymbolIndex:
    """The symbols that have a size, and the places of those that have none: labels.

    `count`: libdw has so many symbols. If the table of the file does not have the same number (others are
    compressed, in .gnu_debugdata), none is known here.
    """

    def __init__(self, file: LibelfFile, count: int) -> None:
        symbols, self._names, first_global = _tables(file)
        self._is_known = len(symbols) == count
        is_named = _begins_a_name(symbols["name"], self._names) & (symbols["section"] != 0)
        is_named &= ~np.isin(symbols["info"] & _TYPE, _NEVER_NAMED)
        is_label = symbols["size"] == 0
        self._labels = array("Q", np.sort(symbols["value"][is_named & is_label]).tobytes())
        is_global = np.arange(len(symbols)) >= first_global
        self._parts = [_Sized(symbols[is_named & ~is_label & part]) for part in (is_global, ~is_global)]

    def at(self, address: int) -> tuple[bytes, int] | None:
        """Return the symbol with a size at an address, and the offset in it; None if none is known.

        A local symbol counts only where there is no global one, and no label either.
        """
        of_global, of_local = self._parts
        if not self._is_known:
            return None
        chosen = of_global.at(address)
        if chosen is None and not self.has_label(address, address):
            chosen = of_local.at(address)
        if chosen is None:
            return None
        name_at, value = chosen
        end = self._names.find(b"\0", name_at, name_at + _LONGEST_NAME)
        name = self._names[name_at : end if end >= 0 else name_at + _LONGEST_NAME]
        return name, address - value

    def has_label(self, first: int, last: int) -> bool:
        """Return whether a label may be at one of the addresses."""
        at = bisect_left(self._labels, first)
        return not self._is_known or (at < len(self._labels) and self._labels[at] <= last)


class _Sized:
    """Symbols with a size. Of those with the same addresses and the same rank, the first one is kept."""

    def __init__(self, symbols: npt.NDArray[np.void]) -> None:
        values, sizes = symbols["value"], symbols["size"]
        ranks = np.array(_RANKS, np.uint8)[symbols["info"] >> 4]
        order = np.lexsort((ranks, sizes, values))
        columns = [one[order] for one in (values, sizes, ranks)]
        is_first = np.ones(len(order), bool)
        is_first[1:] = np.logical_or.reduce([one[1:] != one[:-1] for one in columns])
        values, self._sizes, self._ranks = (one[is_first] for one in columns)
        self._position = order[is_first]
        self._names = symbols["name"][self._position]
        self._values = array("Q", values.tobytes())
        reach = np.maximum.accumulate(values + self._sizes)
        self._reach = array("Q", reach.tobytes())  # the highest end so far

    def at(self, address: int) -> tuple[int, int] | None:
        """Return the place of the name and the value of the symbol at an address."""
        last = bisect_right(self._values, address) - 1
        over = []
        for at in range(last, max(last - _MOST_NESTED, -1), -1):
            if self._reach[at] <= address:
                break
            value, size = self._values[at], int(self._sizes[at])
            if address - value < size:
                over.append((int(self._position[at]), at, value, size, int(self._ranks[at])))
        best = None
        for one in sorted(over):
            if best is None or _is_better(one[2:], best[2:]):
                best = one
        return None if best is None else (int(self._names[best[1]]), best[2])


def _is_better(one: tuple[int, int, int], than: tuple[int, int, int]) -> bool:
    """Return whether a symbol counts more than an earlier one of the table; both as value, size and rank."""
    (value, size, rank), (other_value, other_size, other_rank) = one, than
    is_smaller = value == other_value and size < other_size and rank >= other_rank
    return value > other_value or rank > other_rank or is_smaller


def _tables(file: LibelfFile) -> tuple[npt.NDArray[np.void], bytes, int]:
    """Return the symbols of a file, the text of their names, and the place of the first global one."""
    sections = [*file.sections()]
    by_type = {one.type: one for one in reversed(sections)}
    table = by_type.get(SHT_SYMTAB) or by_type.get(_SHT_DYNSYM)
    if table is None or table.size > _MOST_TABLE_BYTES or not 0 < table.link <= len(sections):
        return np.empty(0, _SYMBOL), b"", 0
    texts = sections[table.link - 1]  # the first section of a file is empty, and not listed
    content = file.bytes(table.offset, table.size)
    symbols = np.frombuffer(content, _SYMBOL, len(content) // _SYMBOL.itemsize)
    return symbols, file.bytes(texts.offset, min(texts.size, _MOST_NAMES_BYTES)), table.info


def _begins_a_name(places: npt.NDArray[np.uint32], names: bytes) -> npt.NDArray[np.bool_]:
    text = np.frombuffer(names, np.uint8)
    found: npt.NDArray[np.bool_] = places < len(text)
    found[found] = text[places[found]] != 0
    return found
