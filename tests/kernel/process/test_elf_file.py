"""Symbols of ELF files, whole, damaged, and truncated while they are read."""

from __future__ import annotations

import os
import struct
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.elf_files import elf_of, truncate_once_opened

from tracer.kernel.process.cpython import NotReadError, find_interpreter
from tracer.kernel.process.elf_file import CutOffError, elf_file
from tracer.kernel.process.live_memory import Memory

MANY = {b"name_%d" % number: number + 1 for number in range(9_000)}


def test_file_that_is_no_elf_has_no_symbols(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for content in (b"", b"\x7fELF", b"\x7fELF\x02\x01" + bytes(58), b"#!/bin/sh\n" * 99):
        file.write_bytes(content)
        with elf_file(file) as elf:
            assert elf is None or (elf.symbol(b"main"), elf.section(b".text")) == (None, None)


@given(content=st.binary(max_size=300))
def test_hostile_elf_files_are_bounded(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / "hostile-elf"
    file.write_bytes(b"\x7fELF\x02\x01" + bytes(10) + content)
    with elf_file(file) as elf:
        assert elf is None or elf.symbol(b"main") is None
        with suppress(struct.error):
            assert elf is None or elf.unpacked_bytes() >= 0


def test_sections_compressed_in_either_way_are_unpacked_to_the_bytes_that_they_say(tmp_path: Path) -> None:
    file = tmp_path / "file"
    content = bytearray(elf_of({b"main": 1}))
    (sections_at,) = struct.unpack_from("<Q", content, 40)
    symtab, strtab = sections_at + 64, sections_at + 128
    content += struct.pack("<I4xQQ", 1, 5_000, 1) + struct.pack(">4sQ", b"ZLIB", 1 << 40)
    struct.pack_into("<Q", content, symtab + 8, 1 << 11)  # SHF_COMPRESSED
    struct.pack_into("<Q", content, symtab + 24, len(content) - 36)
    struct.pack_into("<Q", content, strtab + 24, len(content) - 12)
    file.write_bytes(content)
    with elf_file(file) as elf:
        assert elf is not None
        assert elf.unpacked_bytes() == 5_000 + (1 << 40)


def test_file_whose_sections_are_counted_elsewhere_is_not_read(tmp_path: Path) -> None:
    """libelf reads more than 65,279 sections, whose number is in the first one."""
    file = tmp_path / "file"
    content = bytearray(elf_of({b"main": 1}))
    struct.pack_into("<H", content, 60, 0)  # e_shnum
    file.write_bytes(content)
    with elf_file(file) as elf:
        assert elf is None


def test_symbols_of_large_tables_are_found_wherever_they_are(tmp_path: Path) -> None:
    """Tables of several blocks, whose names and entries lie across their ends."""
    file = tmp_path / "file"
    file.write_bytes(elf_of(MANY))
    with elf_file(file) as elf:
        assert elf is not None
        of_interest = [*range(0, 9_000, 97), *range(5_400, 5_480), 8_999]
        assert {number: elf.symbol(b"name_%d" % number) for number in of_interest} == {
            number: number + 1 for number in of_interest
        }
        assert elf.symbol(b"ame_7") is None
        section = elf.section(b".strtab")
        assert section is not None
        assert elf.read(section.offset, 8) == b"\0name_0\0"


def test_file_that_is_truncated_meanwhile_is_an_error_and_no_sigbus(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(elf_of(MANY))
    with elf_file(file) as elf:
        assert elf is not None
        os.truncate(file, 4096)
        with pytest.raises(CutOffError, match="truncated"):
            elf.symbol(b"name_8000")


def test_python_that_is_truncated_meanwhile_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / str(os.getpid())
    (folder / "map_files").mkdir(parents=True)
    (folder / "maps").write_text("1000-2000 r--p 00000000 00:01 7  /usr/bin/python3.12\n")
    file = folder / "map_files" / "1000-2000"
    file.write_bytes(elf_of({b"_PyRuntime": 64}))
    memory = Memory(os.getpid())
    truncate_once_opened(file, monkeypatch)
    with pytest.raises(NotReadError, match="its file was truncated while it was read"):
        find_interpreter(os.getpid(), memory, tmp_path)
    memory.close()


def test_hostile_tables_cost_little(tmp_path: Path) -> None:
    """Sections without end that are all tables of symbols, and entries that look alike at each byte."""
    head, section = elf_of({b"main": 1})[:64], struct.Struct("<IIQQQQIIQQ")
    of_names = section.pack(0, 3, 0, 0, 64, 32 << 20, 0, 0, 1, 0)
    for count in (60_000, 1_000):
        file = tmp_path / f"file-{count}"
        table = section.pack(0, 2, 0, 0, 1 << 20, 32 << 20, 0, 0, 8, 24)
        with file.open("wb") as stream:
            stream.write(head[:40] + struct.pack("<Q", 128) + head[48:60] + struct.pack("<HH", count, 0))
            stream.seek(128)
            stream.write(of_names + table * (count - 1))
            stream.truncate(40 << 20)
        begin_s = time.thread_time()
        with elf_file(file) as elf:
            assert elf is None or elf.symbol(b"main") is None
        assert time.thread_time() - begin_s < 5


def test_pipe_and_folder_have_no_symbols(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with elf_file(path) as elf:
            assert elf is None
