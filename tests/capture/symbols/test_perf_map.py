"""Perf maps of processes that write them, and of those that mean no good."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.capture.symbols import perf_map
from tracer.capture.symbols.perf_map import CodeSymbols, PerfMap

TGID, INNER = 700, 7
MAPS = """\
1000-3000 r-xp 00000000 08:01 77                         /bin/work
3000-4000 rw-p 00002000 08:01 77                         /bin/work
5000-9000 rwxp 00000000 00:00 0
c000-d000 r-xp 00000000 00:00 0                          [vdso]
"""


class Process:
    """A /proc with one process, which is number 7 in a container."""

    def __init__(self, proc: Path) -> None:
        self.proc = proc
        folder = proc / str(TGID)
        (folder / "root" / "tmp").mkdir(parents=True)
        (folder / "maps").write_text(MAPS)
        self.status = folder / "status"
        self.runs_as(os.geteuid())
        self.map = folder / "root" / "tmp" / f"perf-{INNER}.map"

    def runs_as(self, uid: int) -> None:
        self.status.write_text(f"Name:\twork\nUid:\t1\t{uid}\t1\t1\nNSpid:\t{TGID}\t{INNER}\n")

    def open(self) -> PerfMap:
        return PerfMap(TGID, self.proc)


@pytest.fixture
def process(tmp_path: Path) -> Process:
    return Process(tmp_path)


def test_a_function_has_its_bounds(process: Process) -> None:
    process.map.write_text("5000 10 LazyCompile:*add /app/a.js:3\n5100 8 other\n")
    opened = process.open()
    assert opened.name(0x5000) == ("LazyCompile:*add /app/a.js:3", 0)
    assert opened.name(0x500F) == ("LazyCompile:*add /app/a.js:3", 0xF)
    assert opened.name(0x5104) == ("other", 4)
    assert [opened.name(address) for address in (0, 0x4FFF, 0x5010, 0x5108, (1 << 64) - 1)] == [None] * 5


def test_lines_that_come_later_are_read_and_count_more(process: Process) -> None:
    process.map.write_text("5000 10 first\n5100 10 ha")
    opened = process.open()
    assert opened.name(0x5105) is None, "its line is not yet whole"
    with process.map.open("a") as stream:
        stream.write("lf\n5000 20 second\n")
    assert opened.name(0x5105) == ("half", 5)
    assert opened.name(0x5015) == ("second", 0x15)


def test_a_file_that_begins_anew(process: Process) -> None:
    process.map.write_text("5000 10 first\n5100 10 more\n")
    opened = process.open()
    assert opened.name(0x5100) == ("more", 0)
    process.map.write_text("5200 10 anew\n")
    assert (opened.name(0x5100), opened.name(0x5200)) == (None, ("anew", 0))


def test_no_map(process: Process) -> None:
    assert process.open().name(0x5000) is None
    assert PerfMap(TGID + 1, process.proc).name(0x5000) is None


def test_a_map_of_another_user_is_not_read(process: Process) -> None:
    process.map.write_text("5000 10 planted\n")
    os.chown(process.map, 4242, -1)
    assert process.open().name(0x5000) is None
    process.runs_as(4242)
    assert process.open().name(0x5000) == ("planted", 0)


@pytest.mark.parametrize("what", ["fifo", "link", "folder", "link of tmp"])
def test_what_is_no_file_is_not_read(process: Process, tmp_path: Path, what: str) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir()
    (target / process.map.name).write_text("5000 10 planted\n")
    if what == "fifo":
        os.mkfifo(process.map)
    elif what == "link":
        process.map.symlink_to(target / process.map.name)
    elif what == "folder":
        process.map.mkdir()
    else:
        process.map.parent.rmdir()
        process.map.parent.symlink_to(target)
    assert process.open().name(0x5000) is None


def test_no_more_than_a_bound_is_read(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perf_map, "_MOST_BYTES", 60)
    process.map.write_text("".join(f"{0x5000 + number * 16:x} 10 f{number}\n" for number in range(100)))
    opened = process.open()
    assert opened.name(0x5000) == ("f0", 0)
    assert opened.name(0x5000 + 16 * 50) is None
    for number in range(20):  # nor by beginning anew
        process.map.write_text(f"7000 10 anew{number}\n")
        opened.name(0x7000)
        process.map.write_text("")
        opened.name(0x7000)
    process.map.write_text("7000 10 last\n")
    assert opened.name(0x7000) is None


@given(st.binary(max_size=300))
def test_any_content(content: bytes) -> None:
    opened = PerfMap(0)
    opened._take(content + b"\n5000 10 f\n")
    opened._starts.sort()
    assert all(0 <= start < end <= 1 << 64 for start, (end, _) in opened._functions.items())
    assert 0x5000 in opened._functions


class Table:
    """BCC's: it knows functions in files, and maps that anyone made."""

    def resolve(self, address: int) -> tuple[str | None, int, str | None]:
        if address < 0x2000:
            return "work", address - 0x1000, "/bin/work"
        return "planted", 0, "/tmp/perf-700.map"

    def close(self) -> None: ...


def test_files_have_symbols_and_the_rest_has_the_map(process: Process) -> None:
    process.map.write_text("1000 4000 everything\n5000 10 add\n")
    symbols = CodeSymbols(Table(), TGID, process.proc)
    assert symbols.resolve(0x1010) == ("work", 0x10, "/bin/work")
    assert symbols.resolve(0x5004) == ("add", 4, None)
    assert symbols.resolve(0x5010) == (None, 0x5010, None)
    assert symbols.resolve(0xC010)[0] is None
