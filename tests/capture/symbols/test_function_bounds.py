"""Functions of a stripped library without a symbol of their own."""

from __future__ import annotations

import ctypes
import shutil
import struct
from pathlib import Path

import pytest
from support.mapped_library import mapped_library

from tracer.capture.symbols import unwinding
from tracer.capture.symbols.address_names import Resolved
from tracer.capture.symbols.unwinding import Unwinder

pytestmark = [
    pytest.mark.skipif(unwinding.why_not() is not None, reason=f"{unwinding.why_not()}"),
    pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler"),
]

SOURCE = r"""
asm(".text\n.globl labelled\nlabelled: nop\nnop\nret\n"
    "unlabelled: nop\nnop\nret\n"
    ".globl unwound\nunwound: .cfi_startproc\nnop\nnop\nret\n.cfi_endproc\n"
    "other: .cfi_startproc\nnop\nnop\nret\n.cfi_endproc\n");
extern "C" char labelled[], unlabelled[], unwound[], other[];
static __attribute__((noinline, noclone)) int hidden(volatile int *sink)
{
    return *sink + (*sink *= 3);
}
extern "C" int outer(volatile int *sink)
{
    return hidden(sink) + 1;
}
extern "C" const void *const places[] = {labelled, unlabelled, unwound, other, (void *)hidden};
"""
"""`labelled` and `unwound` are symbols without a size; no stack can be unwound through the first two."""


def resolved(folder: Path, *flags: str) -> dict[str, tuple[Resolved, int]]:
    """Return what is at the second byte of each function, and the address of that in the file."""
    (folder / "rows.cpp").write_text(SOURCE)
    library = mapped_library(folder, folder / "rows.cpp", *flags)
    bias = int((folder / "7" / "maps").read_text().partition("-")[0], 16)
    unwinder = Unwinder(7, folder)
    names = ("labelled", "unlabelled", "unwound", "other", "hidden")
    places = (ctypes.c_uint64 * len(names)).in_dll(library, "places")
    return {
        name: (unwinder.resolve(place + 1), place - bias) for name, place in zip(names, places, strict=True)
    }


@pytest.mark.parametrize("stripped", ["-s", "-Wl,-x"])
def test_function_of_a_stripped_file_is_known_by_its_begin_and_by_no_other_symbol(
    tmp_path: Path, stripped: str
) -> None:
    found = resolved(tmp_path, stripped)
    path = str(tmp_path / "librows.so")
    for name in ("other", "hidden"):
        of, begin = found[name]
        assert of == Resolved(None, begin + 1, path, begin=begin)
    for name in ("labelled", "unlabelled"):
        of, begin = found[name]
        assert of == Resolved(None, begin + 1, path), "libdw names both `labelled`"
    assert found["unwound"][0][:2] == ("unwound", 1)


def test_functions_of_a_file_with_all_symbols_are_named_without_sizes(tmp_path: Path) -> None:
    found = resolved(tmp_path, "-fno-lto")
    assert {name: (of.symbol, of.offset) for name, (of, _) in found.items()} == {
        **{name: (name, 1) for name in ("labelled", "unlabelled", "unwound", "other")},
        "hidden": ("hidden(int volatile*)", 1),
    }


@pytest.mark.parametrize("damage", ["entries", "count", "form", "end"])
def test_damaged_table_names_no_function(tmp_path: Path, damage: str) -> None:
    (tmp_path / "rows.cpp").write_text(SOURCE)
    library = mapped_library(tmp_path, tmp_path / "rows.cpp", "-s")
    place = (ctypes.c_uint64 * 5).in_dll(library, "places")[4]
    damaged = bytearray((tmp_path / "librows.so").read_bytes())
    table, size = _table(damaged)
    if damage == "entries":
        for entry in range(table + 12, table + size, 8):
            damaged[entry + 4 : entry + 8] = (0x7FFF_FFFF).to_bytes(4, "little")
    elif damage == "count":
        damaged[table + 8 : table + 12] = bytes(4)
    elif damage == "form":
        damaged[table + 3] = 0
    else:
        del damaged[table + 8 :]
    (link,) = (tmp_path / "7" / "map_files").iterdir()
    link.unlink()
    (tmp_path / "damaged.so").write_bytes(damaged)
    link.symlink_to(tmp_path / "damaged.so")
    found = Unwinder(7, tmp_path).resolve(place + 1)
    assert (found.symbol, found.begin) == (None, None)


def _table(library: bytes | bytearray) -> tuple[int, int]:
    """Return where .eh_frame_hdr lies in a file, and its size (Elf64_Phdr, PT_GNU_EH_FRAME)."""
    (segments,) = struct.unpack_from("<Q", library, 32)
    for at in range(segments, segments + 56 * 32, 56):
        kind, _, offset, _, _, size = struct.unpack_from("<IIQQQQ", library, at)
        if kind == 0x6474E550:
            return offset, size
    raise AssertionError("the linker wrote no table")
