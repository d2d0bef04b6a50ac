"""Journals that another process turns into Parquet: no row is lost or doubled, whatever was there before."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tracer.directory import Directory
from tracer.schema import TABLES
from tracer.trace import layout
from tracer.trace.journal_stream import read_journal
from tracer.trace.read.reader import Trace
from tracer.trace.write.journal import StoredJournal, compact_stored
from tracer.trace.write.writer import TraceWriter

RowsOf = Callable[[str, range], pa.RecordBatch]
OpenWriter = Callable[..., TraceWriter]


class Died(BaseException):
    """A stand-in for SIGKILL, which no code of the tracer catches."""


@pytest.fixture
def left(open_writer: OpenWriter, rows_of: RowsOf) -> Path:
    """Return a trace with journals only: three parts of loss, one of charge, and tasks, two updated."""
    writer = open_writer(part_rows=3, compacts=False)
    writer.append("charge", rows_of("charge", range(2)))
    for start in range(0, 9, 3):
        writer.append("loss", rows_of("loss", range(start, start + 3)))
        writer.flush()
    writer.append("tasks", rows_of("tasks", range(4)))
    writer.append("tasks", rows_of("tasks", range(1, 3)))
    writer.append("oom", rows_of("oom", range(1)))
    writer.leave("quiet")
    return writer.path


def compact(path: Path) -> None:
    with Directory.open(path) as trace:
        compact_stored(trace)


def tables(path: Path) -> dict[str, pa.Table]:
    return {name: Trace(path).table(name) for name in TABLES}


def files(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()} - {layout.META}


COMPACTED = {"charge.parquet", "tasks.parquet", "oom.parquet", *(f"loss/00000{n}.parquet" for n in (1, 2, 3))}


def test_all_journals_become_parquet_with_the_same_rows(left: Path) -> None:
    before = tables(left)
    compact(left)
    assert files(left) == COMPACTED
    assert tables(left) == before
    assert before["loss"].num_rows == 9
    assert before["tasks"].num_rows == 4


def test_death_at_any_step_keeps_each_row_once(
    left: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # it would take a minute, and power does not fail here
    before = tables(left)
    steps = ("create", "replace", "unlink", "sync")
    died_at = []
    for moment in range(1000):
        path = tmp_path / f"trace-{moment}"
        shutil.copytree(left, path)
        done = 0
        with monkeypatch.context() as dying:
            for step in steps:
                real = getattr(Directory, step)

                def dies(self: Directory, *arguments: Any, real: Any = real, last: int = moment) -> Any:
                    nonlocal done
                    if done == last:
                        raise Died
                    done += 1
                    return real(self, *arguments)

                dying.setattr(Directory, step, dies)
            try:
                compact(path)
            except Died:
                died_at.append(moment)
            else:
                break
        assert tables(path) == before, f"after death at step {moment}"
        compact(path)
        assert files(path) == COMPACTED, f"after death at step {moment}"
        assert tables(path) == before
    assert len(died_at) > 20


def test_torn_tail_is_left_out(left: Path) -> None:
    before = Trace(left).table("loss")
    journal = left / layout.JOURNAL / "loss.3.arrows"
    os.truncate(journal, journal.stat().st_size - 100)
    kept = Trace(left).table("loss")
    assert before.num_rows > kept.num_rows
    compact(left)
    assert Trace(left).table("loss") == kept


def test_journal_without_a_byte_is_an_empty_table(left: Path) -> None:
    os.truncate(left / layout.JOURNAL / "oom.1.arrows", 0)
    compact(left)
    assert Trace(left).table("oom").num_rows == 0
    assert files(left) == COMPACTED


def test_journal_of_a_recorder_before_an_update_keeps_its_columns(left: Path) -> None:
    """A column that was added to the format later is null, and not a reason to keep the journal."""
    journal = left / layout.JOURNAL / "charge.1.arrows"
    old = pa.Table.from_batches(list(read_journal(pa.py_buffer(journal.read_bytes()), lambda _: None)))
    with pa.ipc.new_stream(journal, old.drop_columns(["limit_bytes"]).schema) as stream:
        stream.write_table(old.drop_columns(["limit_bytes"]))
    compact(left)
    assert files(left) == COMPACTED
    charges = Trace(left).table("charge")
    assert charges["limit_bytes"].to_pylist() == [None, None]
    assert charges.drop_columns(["limit_bytes"]) == old.drop_columns(["limit_bytes"]).unify_dictionaries()


def test_leftovers_of_an_attempt_go_and_other_files_stay(left: Path) -> None:
    journals = left / layout.JOURNAL
    (journals / "loss.000001.tmp").write_bytes(b"half")
    (journals / "unheard_of.1.arrows").touch()
    (journals / "notes").touch()
    compact(left)
    assert files(left) == COMPACTED | {"journal/unheard_of.1.arrows", "journal/notes"}


@pytest.mark.parametrize("planted", ["loss.1.arrows", "charge.1.arrows"])
def test_link_in_place_of_a_journal_is_not_followed(left: Path, tmp_path: Path, planted: str) -> None:
    precious = tmp_path / "precious"
    (left / layout.JOURNAL / planted).rename(precious)
    (left / layout.JOURNAL / planted).symlink_to(precious)
    with pytest.raises(OSError, match="symbolic links"):
        compact(left)
    assert precious.stat().st_size


def test_file_is_on_disk_before_its_journal_is_removed(left: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    real_fsync, real_unlink = os.fsync, StoredJournal.unlink

    def fsync(descriptor: int) -> None:
        done.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        real_fsync(descriptor)

    def unlink(self: StoredJournal) -> None:
        done.append(f"unlink {self.name}")
        real_unlink(self)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(StoredJournal, "unlink", unlink)
    compact(left)
    assert done.index("sync loss.000002.tmp") < done.index("unlink loss.2.arrows")
    assert done.index("sync charge.charge.tmp") < done.index("unlink charge.1.arrows")
    assert done[done.index("unlink charge.1.arrows") - 1] == "sync trace"
    assert done[done.index("unlink loss.2.arrows") - 1] == "sync loss"
