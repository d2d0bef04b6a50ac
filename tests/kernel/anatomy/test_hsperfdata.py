"""Counters of Java virtual machines, and files that look like them."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.kernel.anatomy.hsperfdata import memory_numbers, parse_counters, read_counters
from tracer.kernel.anatomy.own_files import Identity

MIB = 1 << 20
OURS = Identity(os.geteuid(), 7)
ENTRY, PROLOGUE = struct.Struct("=iiiBBBBi"), struct.Struct("=4sBBBBiiqii")
NUMBERS = {
    "sun.gc.generation.0.capacity": 21 * MIB,
    "sun.gc.generation.0.maxCapacity": 22 * MIB,
    "sun.gc.generation.0.space.0.capacity": 16 * MIB,
    "sun.gc.generation.0.space.0.maxCapacity": 20 * MIB,
    "sun.gc.generation.0.space.0.used": 5 * MIB,
    "sun.gc.generation.0.space.1.used": 2 * MIB,
    "sun.gc.generation.1.capacity": 40 * MIB,
    "sun.gc.generation.1.maxCapacity": 42 * MIB,
    "sun.gc.generation.1.space.0.used": 31 * MIB,
    "sun.gc.metaspace.used": 11 * MIB,
    "sun.gc.metaspace.capacity": 13 * MIB,
    "sun.gc.collector.0.invocations": 17,
    "sun.gc.collector.1.invocations": 3,
}


def content_of(counters: Mapping[str, int | str]) -> bytes:
    """Return the content of a file with these counters, as HotSpot of this machine's byte order writes it."""
    entries = b""
    for name, value in counters.items():
        named = name.encode() + b"\0"
        named += bytes(-(ENTRY.size + len(named)) % 8)
        if isinstance(value, int):
            data, vector, kind = struct.pack("=q", value), 0, "J"
        else:
            data, vector, kind = value.encode() + b"\0", len(value) + 1, "B"
        data += bytes(-len(data) % 8)
        at = ENTRY.size + len(named)
        entries += ENTRY.pack(at + len(data), ENTRY.size, vector, ord(kind), 0, 1, 1, at) + named + data
    little = struct.pack("=H", 1)[0]
    head = PROLOGUE.pack(
        b"\xca\xfe\xc0\xc0", little, 2, 0, 1, len(entries), 0, 0, PROLOGUE.size, len(counters)
    )
    return head + entries + bytes(64)


@given(
    st.dictionaries(
        st.from_regex(r"[a-z.]{1,40}", fullmatch=True),
        st.integers(-(1 << 63), (1 << 63) - 1) | st.from_regex(r"[ -~]{1,40}", fullmatch=True),
        max_size=12,
    )
)
def test_written_counters_are_read(counters: dict[str, int | str]) -> None:
    assert parse_counters(content_of(counters)) == counters


@given(st.binary(max_size=400), st.binary(max_size=8), st.integers(0, 400))
def test_damaged_files_give_counters_or_nothing(tail: bytes, piece: bytes, at: int) -> None:
    parse_counters(tail)
    content = content_of(NUMBERS)
    parse_counters(content[:at] + tail)
    memory_numbers(parse_counters(content[:at] + piece + content[at + len(piece) :]))


def test_memory_is_that_of_all_generations() -> None:
    assert memory_numbers(NUMBERS) == {
        "heap_used_bytes": 38 * MIB,
        "heap_committed_bytes": 61 * MIB,
        "heap_max_bytes": 64 * MIB,
        "metaspace_used_bytes": 11 * MIB,
        "metaspace_committed_bytes": 13 * MIB,
        "collections": 20,
    }


@pytest.mark.parametrize("collector", ["G1 young collection pauses", "ZGC minor collection pauses"])
def test_each_generation_of_a_collector_without_bounds_may_be_the_whole_heap(collector: str) -> None:
    counters: dict[str, Any] = {
        "sun.gc.collector.0.name": collector,
        "sun.gc.generation.0.capacity": 9 * MIB + 24,
        "sun.gc.generation.1.capacity": 119 * MIB + 8,
        "sun.gc.generation.0.maxCapacity": 128 * MIB + 24,
        "sun.gc.generation.1.maxCapacity": 128 * MIB + 8,
    }
    numbers = memory_numbers(counters)
    assert (numbers["heap_committed_bytes"], numbers["heap_max_bytes"]) == (128 * MIB, 128 * MIB)


def test_counters_without_a_heap_say_nothing() -> None:
    assert memory_numbers({"sun.gc.metaspace.used": 7, "java.version": "21"}) == {}


@pytest.fixture
def process(tmp_path: Path) -> Path:
    """Return a folder like one of /proc, with `tmp` in its root."""
    (tmp_path / "7" / "root" / "tmp").mkdir(parents=True)
    return tmp_path / "7"


def put(process: Path, content: bytes, user: str = "web") -> Path:
    folder = process / "root" / "tmp" / f"hsperfdata_{user}"
    folder.mkdir()
    file = folder / str(OURS.pid)
    file.write_bytes(content)
    return file


def test_file_in_the_root_of_the_process_is_read(process: Path) -> None:
    put(process, b"no counters", user="other")
    (process / "root" / "tmp" / "hsperfdata_other" / str(OURS.pid)).unlink()
    put(process, content_of(NUMBERS))
    assert read_counters(process, OURS) == NUMBERS


def test_links_pipes_and_folders_are_refused(process: Path, tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(content_of(NUMBERS))
    file = put(process, b"")
    file.unlink()
    makers: tuple[Callable[[], object], ...] = (
        lambda: file.symlink_to(tmp_path / "real"),
        lambda: os.mkfifo(file),
        file.mkdir,
        lambda: file.symlink_to("/dev/zero"),
    )
    for make in makers:
        make()
        assert read_counters(process, OURS) == {}
        file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink()
    file.parent.rmdir()
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / str(OURS.pid)).write_bytes(content_of(NUMBERS))
    file.parent.symlink_to(folder)
    assert read_counters(process, OURS) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to another user")
def test_file_of_another_user_is_refused(process: Path) -> None:
    file = put(process, content_of(NUMBERS))
    os.chown(file, 4711, 4711)
    assert read_counters(process, Identity(4712, OURS.pid)) == {}
    assert read_counters(process, Identity(4711, OURS.pid)) == NUMBERS


def test_process_that_has_ended_has_no_counters(tmp_path: Path) -> None:
    assert read_counters(tmp_path / "7", OURS) == {}
