"""What is free inside of malloc's heaps, in programs of known memory and in hostile ones."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.compiled import compiled

from tracer.kernel.anatomy.glibc_arenas import read_arenas
from tracer.kernel.anatomy.process_anatomy import read_process
from tracer.kernel.anatomy.smaps import Mapping

KIB, MIB = 1 << 10, 1 << 20
DATA, HEAP = 0x7F0000000000, 0x5000000000


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("fragmenting", tmp_path_factory.mktemp("fragmenting"), "-pthread")


@pytest.mark.parametrize(("mode", "arenas", "freed"), [("threads", 8, 7 * 318), ("pieces", 1, 2204)])
def test_free_memory_is_what_the_program_freed(program: Path, mode: str, arenas: int, freed: int) -> None:
    """Each thread keeps 2 of 320 pieces of 16 KiB, or the first one 36 of 2,240; a chunk has a head of 16."""
    pipe = subprocess.PIPE
    with subprocess.Popen([program, mode], stdin=pipe, stdout=pipe, text=True, env={}) as one:
        try:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n"
            found = read_process(one.pid)
        finally:
            one.kill()
    assert found is not None
    shown = {each.name: each.value or 0 for each in found.runtimes}
    assert shown["arena_count"] == arenas
    assert abs(shown["free_bytes"] - freed * (16 * KIB + 16)) < 17 * KIB
    assert 0 <= shown["free_bytes"] - shown["free_pages_bytes"] < MIB
    assert 35 * MIB <= shown["system_bytes"] < 37 * MIB
    assert shown["top_bytes"] + shown["free_bytes"] < shown["system_bytes"]


def mapping(start: int, size: int, name: bytes, inode: int = 0, swapped: int = 0) -> Mapping:
    return Mapping(start, start + size, "rw-p", inode, name, size, size, size, swapped)


class Memory:
    """Memory that consists of a few numbers; 8 of 9 of them lead back to where the reader has been."""

    def __init__(self, words: list[int]) -> None:
        self._words = words
        self.reads = 0

    def _word(self, address: int) -> int:
        return self._words[(address // 8) % len(self._words)]

    def number(self, address: int) -> int:
        return self.numbers(address, 1)[0]

    def numbers(self, address: int, count: int) -> tuple[int, ...]:
        self.reads += 1
        return tuple(self._word(address + 8 * at) for at in range(count))

    def read(self, address: int, size: int) -> bytes:
        return b"".join(word.to_bytes(8, "little") for word in self.numbers(address, -(-size // 8)))[:size]


PLACES = st.sampled_from([DATA, DATA + 8, DATA + 96, DATA + 112, HEAP, HEAP + 16, 0, 33, 4096])


@given(words=st.lists(PLACES | st.integers(0, (1 << 64) - 1), min_size=1, max_size=300))
def test_hostile_lists_end(words: list[int]) -> None:
    memory: Any = Memory(words)
    listed = [mapping(HEAP, 64 * MIB, b"[heap]"), mapping(DATA, 8 * KIB, b"/lib/libc.so.6", inode=7)]
    shown = list(read_arenas(memory, listed, time.monotonic() + 60))
    assert len(shown) in (0, 5)
    assert memory.reads < 40_000
    assert all((one.value or 0) >= 0 for one in shown)


@pytest.mark.parametrize(
    "listed",
    [
        pytest.param([mapping(HEAP, MIB, b"[heap]")], id="no libc"),
        pytest.param([mapping(DATA, 8 * KIB, b"/lib/libc.so.6", inode=7)], id="no heap"),
        pytest.param(
            [
                mapping(HEAP, MIB, b"[heap]", swapped=4 * KIB),
                mapping(DATA, 8 * KIB, b"/lib/libc.so.6", inode=7),
            ],
            id="swapped out",
        ),
    ],
)
def test_nothing_is_read_without_a_present_heap_of_glibc(listed: list[Mapping]) -> None:
    memory: Any = Memory([1])
    assert list(read_arenas(memory, listed, time.monotonic() + 60)) == []
    assert memory.reads == 0
