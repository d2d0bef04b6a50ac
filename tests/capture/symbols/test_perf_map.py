"""Perf maps, honest and hostile ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.capture.symbols import symbol_tables
from tracer.capture.symbols.address_names import Resolved
from tracer.capture.symbols.symbol_tables import CodeSymbols, PerfMap

TGID, INNER = 700, 7
MAPS = """\
1000-3000 r-xp 00000000 08:01 77                         /bin/work
3000-4000 rw-p 00002000 08:01 77                         /bin/work
5000-9000 rwxp 00000000 00:00 0
c000-d000 r-xp 00000000 00:00 0                          [vdso]
"""


class Process:
    """A folder like /proc with one process, whose pid in its container is 7."""

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


def test_name_in_a_function_gives_name_and_offset(process: Process) -> None:
    process.map.write_text("5000 10 LazyCompile:*add /app/a.js:3\n5100 8 other\n")
    opened = process.open()
    assert opened.name(0x5000) == ("LazyCompile:*add /app/a.js:3", 0)
    assert opened.name(0x500F) == ("LazyCompile:*add /app/a.js:3", 0xF)
    assert opened.name(0x5104) == ("other", 4)
    assert [opened.name(address) for address in (0, 0x4FFF, 0x5010, 0x5108, (1 << 64) - 1)] == [None] * 5


def test_lines_added_later_replace_earlier_ones(process: Process) -> None:
    process.map.write_text("5000 10 first\n5100 10 ha")
    opened = process.open()
    assert opened.name(0x5105) is None, "the line is incomplete"
    with process.map.open("a") as stream:
        stream.write("lf\n5000 20 second\n")
    assert opened.name(0x5105) == ("half", 5)
    assert opened.name(0x5015) == ("second", 0x15)


def test_truncated_file_is_read_anew(process: Process) -> None:
    process.map.write_text("5000 10 first\n5100 10 more\n")
    opened = process.open()
    assert opened.name(0x5100) == ("more", 0)
    process.map.write_text("5200 10 anew\n")
    assert (opened.name(0x5100), opened.name(0x5200)) == (None, ("anew", 0))


def test_missing_map_names_nothing(process: Process) -> None:
    assert process.open().name(0x5000) is None
    assert PerfMap(TGID + 1, process.proc).name(0x5000) is None


def test_map_of_another_user_is_not_read(process: Process) -> None:
    process.map.write_text("5000 10 planted\n")
    os.chown(process.map, 4242, -1)
    assert process.open().name(0x5000) is None
    process.runs_as(4242)
    assert process.open().name(0x5000) == ("planted", 0)


@pytest.mark.parametrize("what", ["fifo", "link", "folder", "link of tmp"])
def test_map_that_is_not_a_regular_file_is_not_read(process: Process, tmp_path: Path, what: str) -> None:
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


def test_read_stops_at_the_bound(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbol_tables, "_MOST_BYTES", 60)
    process.map.write_text("".join(f"{0x5000 + number * 16:x} 10 f{number}\n" for number in range(100)))
    opened = process.open()
    assert opened.name(0x5000) == ("f0", 0)
    assert opened.name(0x5000 + 16 * 50) is None
    for number in range(20):  # truncating the file does not reset the bound
        process.map.write_text(f"7000 10 anew{number}\n")
        opened.name(0x7000)
        process.map.write_text("")
        opened.name(0x7000)
    process.map.write_text("7000 10 last\n")
    assert opened.name(0x7000) is None


@given(st.binary(max_size=300))
def test_any_content_gives_valid_functions(content: bytes) -> None:
    opened = PerfMap(0)
    opened._take(content + b"\n5000 10 f\n")
    opened._starts.sort()
    assert all(0 <= start < end <= 1 << 64 for start, (end, _) in opened._functions.items())
    assert 0x5000 in opened._functions


class Table:
    """A table like BCC's: it has functions in files, and names from perf maps of any user."""

    def resolve(self, address: int) -> Resolved:
        if address < 0x2000:
            return Resolved("work", address - 0x1000, "/bin/work")
        return Resolved("planted", 0, "/tmp/perf-700.map")

    def close(self) -> None: ...


def test_code_in_files_is_named_by_the_table_and_the_rest_by_the_map(process: Process) -> None:
    process.map.write_text("1000 4000 everything\n5000 10 add\n")
    symbols = CodeSymbols(Table, TGID, process.proc)
    assert symbols.resolve(0x1010) == Resolved("work", 0x10, "/bin/work")
    assert symbols.resolve(0x5004) == Resolved("add", 4, None)
    assert symbols.resolve(0x5010) == Resolved(None, 0x5010, None)
    assert symbols.resolve(0xC010)[0] is None


@pytest.mark.parametrize("where", ["root", "shared"])
@pytest.mark.parametrize("kind", ["link", "pipe", "large"])
@pytest.mark.parametrize("is_early", [True, False])
def test_hostile_map_is_kept_from_bcc(
    process: Process, tmp_path: Path, where: str, kind: str, is_early: bool
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    planted = process.map if where == "root" else shared / f"perf-{TGID}.map"

    def plant() -> None:
        if kind == "link":
            planted.symlink_to("/dev/zero")
        elif kind == "pipe":
            os.mkfifo(planted)
        else:
            with planted.open("wb") as file:
                file.truncate(symbol_tables._MOST_BYTES + 1)

    if is_early:
        plant()
    made: list[Table] = []
    symbols = CodeSymbols(lambda: made.append(Table()) or made[0], TGID, process.proc, shared)  # type: ignore
    plant() if not is_early else None
    assert len(made) == (not is_early)
    assert symbols.resolve(0x1010) == Resolved(None, 0x1010, None)
    symbols.close()
