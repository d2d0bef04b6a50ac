"""The symbol at an address, compared with the one that libdw finds in the same file."""

from __future__ import annotations

import ctypes
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.mapped_library import mapped_library

from tracer.capture.symbols import unwinding
from tracer.capture.symbols.libelf_file import LibelfFile, Section
from tracer.capture.symbols.symbol_index import SymbolIndex
from tracer.capture.symbols.unwinding import Unwinder

needs_libdw = pytest.mark.skipif(unwinding.why_not() is not None, reason=f"{unwinding.why_not()}")
needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
SIZE = 600
SYMTAB = 2


def source(seed: int) -> str:
    """Return a program with `SIZE` bytes of code under symbols that overlap, of each kind of binding."""
    chosen = random.Random(seed)
    lines = [".text", ".globl area", f"area: .fill {SIZE}, 1, 0x90"]
    for number in range(120):
        at, size = chosen.randrange(SIZE), chosen.choice((0, 1, 7, 40, 300))
        binding = chosen.choice((".globl", ".weak", ".local"))
        lines += [f"{binding} f{number}", f".set f{number}, area + {at}", f".type f{number}, @function"]
        lines += [f".size f{number}, {size}"] * bool(size)
    for number in range(100):  # the linker folds functions of the same code
        lines += [f".local same{number}", f".set same{number}, area + 500", f".size same{number}, 9"]
    text = r"\n".join(lines)
    return f'asm("{text}\\n");\nextern "C" char area[];\nextern "C" const void *const places[] = {{area}};\n'


@needs_libdw
@needs_compiler
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("stripped", [False, True])
def test_symbol_is_the_one_that_libdw_chooses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, stripped: bool
) -> None:
    (tmp_path / "area.cpp").write_text(source(seed))
    library = mapped_library(tmp_path, tmp_path / "area.cpp", *["-s"] * stripped)
    begin = ctypes.c_uint64.in_dll(library, "places").value
    places = range(begin, begin + SIZE + 8)
    asked: list[int] = []
    ask = Unwinder._asked

    def count(
        unwinder: Unwinder, module: ctypes.c_void_p, address: int, most: int
    ) -> tuple[bytes, int] | None:
        asked.append(address)
        return ask(unwinder, module, address, most)

    monkeypatch.setattr(Unwinder, "_asked", count)
    unwinder = Unwinder(7, tmp_path)
    found = [unwinder.resolve(place) for place in places]
    by_index = set(places) - set(asked)
    asked.clear()
    monkeypatch.setattr(SymbolIndex, "at", lambda *_: None)
    monkeypatch.setattr(SymbolIndex, "has_label", lambda *_: True)
    assert found == [unwinder.resolve(place) for place in places]
    assert set(asked) == set(places), "libdw was asked for each"
    names = {found[place - begin].symbol for place in by_index}
    assert len(names) > 20, "most names are of the index"


class Damaged:
    """A file whose sections are two tables of any content."""

    def __init__(self, symbols: bytes, names: bytes, first_global: int, link: int) -> None:
        self.parts = [symbols, names]
        self.heads = [Section(type=SYMTAB, link=link, info=first_global), Section()]
        for number, (head, part) in enumerate(zip(self.heads, self.parts, strict=True)):
            head.offset, head.size = number, len(part)

    def sections(self) -> Iterator[Section]:
        yield from self.heads

    def bytes(self, offset: int, size: int) -> bytes:
        return self.parts[offset][:size]


def entries() -> st.SearchStrategy[bytes]:
    """Return tables of symbols that lie near each other, and ends of tables."""
    near = st.sampled_from([0, 1, 2, 3, 7, (1 << 63) + 1, (1 << 64) - 1])
    entry = st.tuples(st.integers(0, 9), st.integers(0, 255), near, near)
    packed = entry.map(
        lambda of: b"".join(
            number.to_bytes(size, "little")
            for number, size in zip((of[0], of[1], 0, 1, *of[2:]), (4, 1, 1, 2, 8, 8), strict=True)
        )
    )
    tables = st.lists(packed, max_size=90).map(b"".join)
    return st.tuples(tables, st.binary(max_size=30)).map(b"".join)


@given(entries(), st.binary(max_size=9), st.integers(0, 99), st.integers(0, 3))
def test_table_of_any_content_has_an_answer(symbols: bytes, names: bytes, first: int, link: int) -> None:
    index = SymbolIndex(cast("LibelfFile", Damaged(symbols, names, first, link)), len(symbols) // 24)
    for address in (0, 1, 2, 5, 1 << 63, (1 << 64) - 1):
        found = index.at(address)
        assert found is None or (found[0] and 0 <= found[1] <= address)
        index.has_label(0, address)


@given(entries())
def test_nothing_is_known_of_a_table_that_libdw_has_more_symbols_of(symbols: bytes) -> None:
    index = SymbolIndex(cast("LibelfFile", Damaged(symbols, b"\0a\0", 0, 2)), len(symbols) // 24 + 1)
    assert all(index.at(address) is None for address in range(8))
    assert index.has_label(3, 3)
