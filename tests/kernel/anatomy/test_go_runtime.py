"""What the Go runtime shows, compared with what it says of itself, and programs that look like Go."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.elf_files import elf_of, truncate_once_opened
from support.go_program import built

from tracer.kernel.anatomy import go_runtime
from tracer.kernel.anatomy.go_functions import GoFunctions
from tracer.kernel.anatomy.process_anatomy import read_process
from tracer.kernel.anatomy.shown import Shown
from tracer.kernel.process.elf_file import ElfFile, Section, elf_file
from tracer.kernel.process.live_memory import Memory

MIB = 1 << 20


@pytest.fixture(scope="module")
def cache(pytestconfig: pytest.Config) -> Path:
    return Path(pytestconfig.cache.mkdir("go"))


@contextmanager
def holding(program: Path, **environment: str) -> Iterator[tuple[int, list[int]]]:
    """Start tests/workloads/go_holder.go, and yield its pid with what the runtime says of itself."""
    pipe = subprocess.PIPE
    with subprocess.Popen([program], stdin=pipe, stdout=pipe, text=True, env=environment) as one:
        try:
            assert one.stdout is not None
            yield one.pid, [int(word) for word in one.stdout.readline().split()]
        finally:
            one.kill()


def shown_by(pid: int) -> list[Shown]:
    found = read_process(pid)
    assert found is not None
    return [one for one in found.runtimes if one.kind == "go"]


def test_numbers_and_profile_are_those_of_the_runtime(tmp_path: Path, cache: Path) -> None:
    program = built("go_holder", tmp_path, cache)
    with holding(program, GOMEMLIMIT="200MiB", GOGC="70") as (pid, said):
        shown = shown_by(pid)
    is_ = {one.name: one.value or 0 for one in shown if one.text is None}
    in_use, idle, released, live, goal, collections = said
    assert abs(is_["heap_in_use_bytes"] - in_use) < MIB
    assert abs(is_["heap_free_bytes"] + is_["heap_released_bytes"] - idle) < MIB
    assert abs(is_["heap_released_bytes"] - released) < MIB
    assert abs(is_["heap_live_bytes"] - live) < MIB
    assert abs(is_["heap_goal_bytes"] - goal) < MIB
    assert (is_["collections"], is_["gc_percent"]) == (collections, 70)
    assert is_["memory_limit_bytes"] == 200 * MIB
    assert in_use < is_["runtime_bytes"] < in_use + 16 * MIB
    sites = [(round((one.value or 0) / MIB), one.text or "") for one in shown if one.name == "site_bytes"]
    source = Path(__file__).parents[2] / "workloads" / "go_holder.go"
    lines = source.read_text(encoding="ascii").splitlines()
    make, *calls = (number for number, line in enumerate(lines, 1) if re.search(r"make\(|touched\(1", line))
    ends = [number for number, line in enumerate(lines, 1) if line in ("\tloadRows()", "\tparse()")]
    assert sites[:2] == [
        (
            mib,
            f"main.touched ({source}:{make});main.{name} ({source}:{call});main.main ({source}:{end})",
        )
        for mib, name, call, end in zip((35, 15), ("loadRows", "parse"), calls, ends, strict=True)
    ]
    assert is_["profiled_bytes"] >= 50 * MIB


def test_program_without_symbols_says_so(tmp_path: Path, cache: Path) -> None:
    with holding(built("go_holder", tmp_path, cache, "-ldflags=-s")) as (pid, _):
        (version, unread) = shown_by(pid)
    assert version.text is not None
    assert version.text.startswith("1.")
    assert unread == Shown("go", "unread", None, "the program has no symbol table (it was built with -s)")


class Pretender:
    """An ELF file that claims to be of Go: a version, a table of functions, and any symbol."""

    def __init__(self, version: bytes, table: bytes) -> None:
        info = b"\xff Go buildinf:\x08\x02".ljust(32, b"\0") + bytes([len(version)]) + version
        self._data = info + table
        self._sections = {
            b".go.buildinfo": Section(0, 0, len(info)),
            b".gopclntab": Section(0, len(info), len(table)),
        }

    def read(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size] if offset >= 0 else b""

    def unpack(self, form: struct.Struct, offset: int) -> tuple[int, ...]:
        return form.unpack(self.read(offset, form.size))

    def section(self, name: bytes) -> Section | None:
        return self._sections.get(name)

    def symbol(self, _name: bytes) -> int:
        return 4096

    def offset(self, address: int) -> int:
        return address

    def as_elf(self) -> ElfFile:
        return cast(ElfFile, self)


class Words:
    """Memory in which every number is one of a few, so that lists lead in circles."""

    def __init__(self, words: list[int]) -> None:
        self._words = words

    def read(self, address: int, size: int) -> bytes:
        words = self._words
        whole = struct.pack("<Q", words[address % len(words)]) * (size // 8 + 1)
        return whole[:size]

    def number(self, address: int) -> int:
        return self.numbers(address, 1)[0]

    def numbers(self, address: int, count: int) -> tuple[int, ...]:
        return tuple(self._words[(address + at) % len(self._words)] for at in range(count))


WORD = st.one_of(st.integers(0, 9), st.integers(0, (1 << 64) - 1))
TABLE = st.binary(max_size=400).map(lambda rest: struct.pack("<IHBB", 0xFFFFFFF1, 0, 1, 8) + rest)


@given(words=st.lists(WORD, min_size=1, max_size=40), table=TABLE, version=st.binary(max_size=20))
def test_hostile_memory_and_tables_end(words: list[int], table: bytes, version: bytes) -> None:
    memory: Any = Words(words)
    for claimed in (b"go1.24.4", b"go1.27", version):
        elf = Pretender(claimed, table).as_elf()
        begin_s = time.thread_time()
        try:
            shown = list(go_runtime._numbers(elf, memory, 0, time.monotonic() + 0.05))
        except (OSError, struct.error, ValueError, OverflowError):
            continue  # read_runtime gives a reason
        assert time.thread_time() - begin_s < 5
        assert all(one.value is None or -1 <= one.value <= go_runtime.NO_LIMIT for one in shown)
        assert all(len(one.text or "") <= 800 for one in shown)
        assert len(shown) <= 40


@given(table=TABLE, address=WORD)
def test_damaged_table_of_functions_has_no_names(table: bytes, address: int) -> None:
    try:
        functions = GoFunctions(Pretender(b"go1.24", table).as_elf())
    except ValueError:
        return
    frame = functions.frame(address)
    assert frame is None or (len(frame.function) <= 1024 and frame.line >= 0)


@pytest.mark.parametrize("version", [(1, 20), (1, 28), (2, 0)])
def test_other_version_is_not_guessed(version: tuple[int, int]) -> None:
    text = f"{version[0]}.{version[1]}"
    elf = Pretender(f"go{text}.3".encode(), b"").as_elf()
    assert list(go_runtime._numbers(elf, cast(Memory, Words([1])), 0, time.monotonic() + 60)) == [
        Shown("go", "version", None, text),
        Shown("go", "unread", None, f"the runtime of Go {text} is not known"),
    ]


def test_program_of_another_language_has_no_version() -> None:
    with elf_file(Path("/proc/self/exe")) as elf:
        assert elf is not None
        assert go_runtime.go_version(elf) is None


def test_program_that_is_truncated_meanwhile_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "exe").write_bytes(elf_of({b"runtime.gcController": 1}))
    truncate_once_opened(tmp_path / "exe", monkeypatch)
    assert list(go_runtime.read_runtime(tmp_path, cast(Memory, Words([1])), 0, time.monotonic() + 60)) == [
        Shown("go", "unread", None, "its file was truncated while it was read")
    ]


def test_memory_that_is_not_mapped_is_an_error() -> None:
    with closing(Memory(os.getpid())) as memory:
        for address in (0, 8, (1 << 63) - 4, 1 << 64):
            with pytest.raises(OSError, match=r"0x|Input/output"):
                memory.read(address, 8)
