"""Looks at the processes of a cgroup: a folder with a cgroup.procs stands for it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest
from support.waiting import wait_for
from synthetic.sample_series import series

from tracer.capture.rows import mapping_rows
from tracer.capture.rows.mapping_rows import MappingRows, Tables
from tracer.kernel.anatomy.mapping_kinds import KINDS
from tracer.kernel.anatomy.process_anatomy import ProcessAnatomy
from tracer.kernel.anatomy.shown import Shown
from tracer.schema import TABLES
from tracer.trace.arrow_columns import rows_of

MIB = 1 << 20
OFFSET_NS = 1_000_000_000_000_000
NEAR = series(lambda _: {"anon": 95}, 0)  # a sample of cgroup 7


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def rows(tmp_path: Path, warnings: list[str]) -> Iterator[MappingRows]:
    known = {7: tmp_path}
    with closing(MappingRows(known.get, warnings.append)) as found:
        yield found


def put(tmp_path: Path, *tgids: int) -> None:
    (tmp_path / "cgroup.procs").write_text("".join(f"{tgid}\n" for tgid in tgids))


def taken(rows: MappingRows) -> Tables:
    """Return the rows of the look that has begun, or begins now."""
    return rows.finish(OFFSET_NS, within_s=60)


def test_largest_processes_are_read_and_their_rows_fit_the_table(
    tmp_path: Path, rows: MappingRows, holder: Callable[[int], int]
) -> None:
    sizes = {holder(mib): mib for mib in (3, 19, 11, 7)}
    put(tmp_path, *sizes)
    rows.look(NEAR)
    tables = taken(rows)
    held: dict[int, int] = {}
    for row in tables["mappings"]:
        assert row["kind"] in KINDS
        held[row["tgid"]] = held.get(row["tgid"], 0) + row["anon_bytes"]
    assert {sizes[tgid] for tgid in held} == {19, 11, 7}
    assert all(0 <= bytes_ - sizes[tgid] * MIB < 12 * MIB for tgid, bytes_ in held.items())
    assert {row["cgroup_id"] for row in tables["mappings"]} == {7}
    ages = [time.monotonic_ns() + OFFSET_NS - row["time"] for row in tables["mappings"]]
    assert all(0 <= age < 100e9 for age in ages)
    for table, listed in tables.items():
        assert rows_of(table, listed).schema == TABLES[table]


def test_processes_of_cgroups_below_are_read(
    tmp_path: Path, rows: MappingRows, holder: Callable[[int], int]
) -> None:
    (tmp_path / "below").mkdir()
    put(tmp_path)
    child = holder(5)
    put(tmp_path / "below", child)
    rows.look(NEAR)
    assert {row["tgid"] for row in taken(rows)["mappings"]} == {child}


def test_process_that_was_just_read_is_not_read_again(
    tmp_path: Path, rows: MappingRows, monkeypatch: Any
) -> None:
    monkeypatch.setattr(mapping_rows, "AGAIN_S", 3600.0)
    put(tmp_path, os.getpid())
    rows.look(NEAR)
    assert taken(rows)["mappings"]
    rows._waiting[7] = None  # as another cgroup would ask for the same process
    assert not taken(rows)["mappings"]


def test_nothing_runs_while_no_cgroup_is_near_its_limit(tmp_path: Path, rows: MappingRows) -> None:
    put(tmp_path, os.getpid())
    rows.look(series(lambda _: {"anon": 50}, 1))
    assert not taken(rows)["mappings"]
    assert rows._reader is None


def test_looks_take_a_share_of_a_cpu(tmp_path: Path, rows: MappingRows, monkeypatch: Any) -> None:
    put(tmp_path, os.getpid())
    monkeypatch.setattr(mapping_rows, "MOST_SHARE", 1e-9)
    rows.look(NEAR)
    wait_for(lambda: rows.take(OFFSET_NS) and not rows._reader.is_busy)  # type: ignore[union-attr]
    rows._waiting[7] = None
    rows.take(OFFSET_NS)
    assert rows._waiting, "the next look has to wait"


def test_ended_processes_and_removed_cgroups_have_no_rows(tmp_path: Path, rows: MappingRows) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    put(tmp_path, ended.pid, 0)
    rows.look(NEAR)
    assert taken(rows) == {"mappings": [], "runtimes": []}
    rows.look(series(lambda _: {"anon": 95}, 0, cgroup_id=8))
    assert taken(rows) == {"mappings": [], "runtimes": []}


def sleep_long(*_: object) -> NoReturn:
    time.sleep(3600)
    raise AssertionError


def test_reader_that_hangs_is_given_up_and_said(
    tmp_path: Path, rows: MappingRows, warnings: list[str], monkeypatch: Any
) -> None:
    put(tmp_path, os.getpid())
    monkeypatch.setattr(mapping_rows, "read_process", sleep_long)
    monkeypatch.setattr(mapping_rows, "_ANSWERS_WITHIN_S", 0.0)
    for _ in range(mapping_rows._MOST_FAILURES):
        rows._waiting[7] = None
        rows.take(OFFSET_NS)
        child = rows._reader._child  # type: ignore[union-attr]
        wait_for(lambda: rows.take(OFFSET_NS) and rows._reader is None)
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)
    assert warnings == ["the mappings of processes are no longer read: reading them took too long"]
    rows._waiting[7] = None
    rows.take(OFFSET_NS)
    assert rows._reader is None


def test_reader_that_dies_is_replaced(tmp_path: Path, rows: MappingRows, monkeypatch: Any) -> None:
    put(tmp_path, os.getpid())
    with monkeypatch.context() as broken:
        broken.setattr(mapping_rows, "read_process", lambda _: os._exit(3))
        rows._waiting[7] = None
        rows.take(OFFSET_NS)
        wait_for(lambda: rows.take(OFFSET_NS) and rows._reader is None)
    rows._waiting[7] = None
    assert taken(rows)["mappings"]


def test_reader_ends_when_there_is_nothing_to_read(
    tmp_path: Path, rows: MappingRows, monkeypatch: Any
) -> None:
    put(tmp_path, os.getpid())
    rows.look(NEAR)
    taken(rows)
    assert rows._reader is not None
    child = rows._reader._child
    rows.take(OFFSET_NS)
    assert rows._reader is not None, "there may be another look soon"
    monkeypatch.setattr(mapping_rows, "_IDLE_S", -1e9)
    rows.take(OFFSET_NS)
    assert rows._reader is None
    with suppress(ChildProcessError):  # it has ended already
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_names_are_bounded_and_kept_as_text(tmp_path: Path, rows: MappingRows) -> None:
    folder = tmp_path / ("d" * 200) / ("e" * 200)
    folder.mkdir(parents=True)
    name = os.fsencode(folder) + b"/\xff\x1b[31m"
    program = "import mmap, sys; file = open(sys.argv[1], 'w+b'); file.truncate(9 << 20)\n"
    program += (
        "held = mmap.mmap(file.fileno(), 9 << 20)\nheld[:] = b'x' * (9 << 20); print(flush=True); input()"
    )
    argv: list[str | bytes] = [sys.executable, "-I", "-S", "-c", program, name]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        put(tmp_path, child.pid)
        rows.look(NEAR)
        (shared,) = [row for row in taken(rows)["mappings"] if row["rss_bytes"] == 9 * MIB]
        child.communicate(b"\n")
    assert shared["kind"] == "shared"
    assert shared["name"] == os.fsdecode(folder)[:256]


@pytest.mark.parametrize("value", [-1, 0, (1 << 63) - 1, None])
def test_numbers_that_a_trace_may_have_are_kept(value: int | None) -> None:
    """-1: Go without garbage collection (GOGC=off)."""
    shown = Shown("go", "gc_percent", value)
    assert [one["value"] for one in answered(shown)] == [value]


@pytest.mark.parametrize("value", [-2, -1 << 31, 1 << 63, 1 << 70])
def test_number_that_makes_a_trace_unreadable_is_left_out(value: int) -> None:
    """A process may claim to be of any size."""
    kept = Shown("jvm", "collections", 3)
    assert [one["value"] for one in answered(Shown("jvm", "heap_max_bytes", value), kept)] == [3]


def answered(*shown: Shown) -> list[dict[str, Any]]:
    anatomy = ProcessAnatomy(41, 0, [], shown)
    runtimes: list[dict[str, Any]] = mapping_rows._answer(7, anatomy)["runtimes"]
    return runtimes
