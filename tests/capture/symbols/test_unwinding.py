"""Stacks unwound by libdw: a made stack of known frames in the C library, and files that are refused."""

from __future__ import annotations

import ctypes
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.compiled import compiled

from tracer.capture.symbols import unwinding
from tracer.capture.symbols.address_names import StackCopy
from tracer.capture.symbols.unwinding import Unwinder, _Demangler
from tracer.errors import TracerError

REGISTERS = 21  # struct pt_regs of x86-64
IP, SP = 16, 19
STACK = 0x7FFF_0000_0000
FUNCTIONS = ("qsort", "atoi", "labs")

needs_libdw = pytest.mark.skipif(unwinding.why_not() is not None, reason=f"{unwinding.why_not()}")


@pytest.fixture
def process(tmp_path: Path) -> Path:
    """Return a /proc that has this process as number 7, with the C library mapped, but no file yet."""
    folder = tmp_path / "7"
    (folder / "map_files").mkdir(parents=True)
    maps = Path("/proc/self/maps").read_text()
    (folder / "maps").write_text("".join(line for line in maps.splitlines(True) if "/libc.so" in line))
    return folder


def loaded(process: Path) -> tuple[str, str]:
    """Return the addresses of the library's beginning, and its path. libdw maps it, too, as data."""
    before_code = r"(\S+) r--p 00000000 \S+ \d+ +(/\S+)\n\S+ r-x"
    found = re.search(before_code, (process / "maps").read_text())
    assert found is not None
    return found[1], found[2]


@pytest.fixture
def unwinder(process: Path) -> Iterator[Unwinder]:
    addresses, path = loaded(process)
    (process / "map_files" / addresses).symlink_to(path)
    yield Unwinder(7, process.parent)


def copied(ip: int, *words: int) -> StackCopy:
    registers = [0] * REGISTERS
    registers[IP], registers[SP] = ip, STACK
    return StackCopy(struct.pack(f"<{REGISTERS}Q", *registers), struct.pack(f"<{len(words)}Q", *words))


def entry(function: str) -> int:
    """Return the address of a function of the C library. There, the stack pointer points to the return
    address."""
    address = ctypes.cast(getattr(ctypes.CDLL(None), function), ctypes.c_void_p).value
    assert address is not None
    return address


@needs_libdw
def test_each_return_address_is_where_the_file_says(unwinder: Unwinder) -> None:
    """A return address lies behind the call, so 1 behind an entry is still the entry."""
    first, *callers = map(entry, FUNCTIONS)
    returns = [address + 1 for address in callers]
    assert unwinder.unwind(copied(first, *returns, 0)) == [first, *returns]
    assert unwinder.unwind(copied(callers[0], first + 1, 0)) == [callers[0], first + 1], "the next one"


@needs_libdw
def test_functions_of_cpp_are_named_as_they_are_written(tmp_path: Path) -> None:
    """A program of C++ is told apart from its standard library by these names (views/grown_functions.py)."""
    grown = ctypes.CDLL("libstdc++.so.6")["_ZNSs7reserveEm"]
    lines = Path("/proc/self/maps").read_text().splitlines()
    library = [line for line in lines if "/libstdc++.so" in line]
    folder = tmp_path / "7"
    (folder / "map_files").mkdir(parents=True)
    (folder / "maps").write_text("\n".join(library))
    addresses, *_, path = library[0].split()
    (folder / "map_files" / addresses).symlink_to(path)
    address = ctypes.cast(grown, ctypes.c_void_p).value
    assert address is not None
    name, offset, module, *_ = Unwinder(7, tmp_path).resolve(address)
    assert (offset, module) == (0, path)
    assert name == "std::string::reserve(unsigned long)"


def test_name_that_is_not_mangled_stays() -> None:
    for name in ("main", "_Z", "_Zonk", "_ZN10Generation7promote", "_RNvC6mycrate3foo"):
        assert _Demangler().name(name) == name
    assert _Demangler().name("_ZN4Rows3addEi.constprop.0") == "Rows::add(int) [clone .constprop.0]"


@needs_libdw
def test_frames_end_where_the_copy_ends_or_a_file_is_missing(unwinder: Unwinder) -> None:
    first, second, _ = map(entry, FUNCTIONS)
    assert unwinder.unwind(copied(first, second + 1)) == [first, second + 1]
    assert unwinder.unwind(copied(first)) == [first]
    assert unwinder.unwind(copied(0x1000, first, second))[:1] == [0x1000]


@needs_libdw
def test_caller_of_assembly_that_no_table_describes_is_found(tmp_path: Path, process: Path) -> None:
    """As memset() of musl. A frame pointer would lead past `caller`, since `leaf` does not keep it."""
    library = compiled("leaf", tmp_path, "-O2", "-fomit-frame-pointer", "-shared", "-fPIC")
    loaded_library = ctypes.CDLL(str(library))
    leaf, caller = (
        ctypes.cast(getattr(loaded_library, name), ctypes.c_void_p).value for name in ("leaf", "caller")
    )
    assert leaf is not None and caller is not None
    called = caller + ctypes.string_at(caller, 32).index(b"\xe8") + 5
    maps = Path("/proc/self/maps").read_text().splitlines(True)
    (process / "maps").write_text(
        "".join(line for line in maps if "/libc.so" in line or str(library) in line)
    )
    for line in (process / "maps").read_text().splitlines():
        (process / "map_files" / line.split()[0]).symlink_to(line.split()[-1])
    unwinder = Unwinder(7, process.parent)
    outer = entry("labs") + 1
    assert unwinder.unwind(copied(leaf + 1, called, 0, outer, 0)) == [leaf + 1, called, outer]
    for no_return in (caller, leaf, STACK):
        assert unwinder.unwind(copied(leaf + 1, no_return, 0, outer, 0))[:2] != [leaf + 1, no_return]


@needs_libdw
def test_endless_stack_is_cut(unwinder: Unwinder) -> None:
    first = entry(FUNCTIONS[0])
    found = unwinder.unwind(copied(first, *[first + 1] * 2000))
    assert found == [first] + [first + 1] * 126


@needs_libdw
@pytest.mark.parametrize("kind", ["pipe", "device", "text", "32 bits", "folder", "absent"])
def test_file_that_is_no_program_of_this_machine_is_not_read(
    process: Path, tmp_path: Path, kind: str
) -> None:
    mapped = process / "map_files" / loaded(process)[0]
    if kind == "pipe":
        os.mkfifo(mapped)
    elif kind == "device":
        mapped.symlink_to("/dev/zero")
    elif kind == "folder":
        mapped.mkdir()
    elif kind == "text":
        mapped.write_text("#!/bin/sh\n")
    elif kind == "32 bits":
        mapped.write_bytes(b"\x7fELF\x01\x01" + bytes(12) + b"\x03\x00" + bytes(100))
    before = len([*Path("/proc/self/fd").iterdir()])
    with pytest.raises(TracerError):
        Unwinder(7, process.parent)
    assert len([*Path("/proc/self/fd").iterdir()]) == before


def test_file_is_taken_with_the_mapping_of_its_beginning_before_its_code(tmp_path: Path) -> None:
    """Others are of data. Two copies of a library have different addresses."""
    (tmp_path / "maps").write_text(
        "1000-2000 r--p 00000000 08:01 7 /bin/work\n"
        "2000-3000 r-xp 00001000 08:01 7 /bin/work\n"
        "3000-4000 r-xp 00003000 08:01 7 /bin/work\n"
        "5000-6000 r--p 00000000 08:01 8 /usr/share/data\n"
        "7000-8000 r-xp 00000000 00:00 0 \n"
        "8000-9000 r--p 00000000 08:01 9 /lib/late name (deleted)\n"
        "a000-b000 r-xp 00000000 08:01 9 /lib/late name (deleted)\n"
        "c000-d000 r-xp 00001000 08:01 6 /lib/without its beginning\n"
        "d000-e000 r--p 00000000 08:01 7 /bin/work\n"
        "e000-f000 r-xp 00001000 08:01 7 /bin/work\n"
        "f000-f100 r-xp 00000000 00:00 0 [vdso]\n"
        "f200-f300 r--p 00000000 08:01 7 /bin/work\n"
    )
    found = [(one.path, one.link, one.begin) for one in unwinding._files(tmp_path)]
    assert found == [
        (b"/bin/work", "1000-2000", 0x1000),
        (b"/lib/late name (deleted)", "a000-b000", 0xA000),
        (b"/bin/work", "d000-e000", 0xD000),
    ]


def test_absent_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unwinding, "_LIBRARY", "libdw-that-is-not-there.so.1")
    unwinding.why_not.cache_clear()
    unwinding._library.cache_clear()
    try:
        assert "libdw-that-is-not-there.so.1" in (unwinding.why_not() or "") or os.uname().machine != "x86_64"
    finally:
        unwinding.why_not.cache_clear()
        unwinding._library.cache_clear()
