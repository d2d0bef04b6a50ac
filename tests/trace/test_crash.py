"""Flushed rows survive the recorder's death at any moment, each row once."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from workloads.busy_writer import CHARGES, write

from tracer.errors import TraceError
from tracer.kernel.process.children import forked
from tracer.schema import TABLES
from tracer.trace.layout import parts
from tracer.trace.read.reader import Trace
from tracer.trace.write.writer import TraceWriter

RowsOf = Callable[[str, range], pa.RecordBatch]


@pytest.mark.parametrize("moment", range(0, 20, 2))
def test_killed_recorder_leaves_flushed_rows(moment: int, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    lines = random.randrange(1, 40 + 5 * moment)
    reader, writer = os.pipe()
    child = forked(lambda: write(path, os.fdopen(writer, "w")))
    os.close(writer)
    with os.fdopen(reader) as told:
        printed = [told.readline() for _ in range(lines)]
        os.kill(child, signal.SIGKILL)
        printed += told.read().splitlines()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    flushed = int(printed[-1])
    trace = Trace(path)
    assert trace.interrupted

    loss = trace.table("loss", ["lost"])["lost"].to_pylist()
    assert loss == list(range(len(loss)))
    assert len(loss) - 1 >= flushed

    charges = trace.table("charge", ["pages"])["pages"].to_pylist()
    assert charges == list(range(len(charges)))
    assert len(charges) >= (flushed + 1) * CHARGES
    assert len(charges) <= (flushed + 3) * CHARGES, "no row is there twice"

    tasks = trace.table("tasks").to_pydict()
    assert tasks["tgid"] == [number % 5 for number in tasks["ppid"]]
    assert sorted(tasks["tgid"]) == list(range(min(5, len(tasks["tgid"]))))
    assert max(tasks["ppid"]) >= flushed
    assert tasks["comm"] == [str(number) for number in tasks["ppid"]]


class Died(BaseException):
    """A stand-in for SIGKILL, which no code of the tracer catches."""


def recorded(writer: TraceWriter, rows_of: RowsOf) -> None:
    """Record three parts of loss, one of charge, and tasks of which two were updated."""
    writer.append("charge", rows_of("charge", range(2)))
    for start in range(0, 9, 3):
        writer.append("loss", rows_of("loss", range(start, start + 3)))
        writer.flush()
    writer.append("tasks", rows_of("tasks", range(4)))
    writer.append("tasks", rows_of("tasks", range(1, 3)))
    writer.flush()


def assert_complete(path: Path) -> None:
    trace = Trace(path)
    assert trace.table("loss", ["lost"])["lost"].to_pylist() == list(range(9))
    assert trace.table("charge", ["pages"])["pages"].to_pylist() == [0, 1]
    assert trace.table("tasks", ["tgid"])["tgid"].to_pylist() == [0, 3, 1, 2]
    assert [trace.rows(table) for table in ("loss", "charge", "tasks", "oom")] == [9, 2, 4, 0]


def test_death_at_any_step_of_compaction_keeps_each_row_once(
    open_writer: Callable[..., TraceWriter], rows_of: RowsOf
) -> None:
    steps = 0
    died = True
    while died:
        writer = open_writer(str(steps), part_rows=3)
        with pytest.MonkeyPatch.context() as patch:
            log = die_after(steps, patch)
            recorded(writer, rows_of)
            died = False
            try:
                writer.close("done")
            except Died:
                died = True
        assert_complete(writer.path)
        assert Trace(writer.path).interrupted != any("replace meta.json" in step for step in log), log
        steps += 1
    assert steps > 20
    assert [path.name for path in parts(writer.path, "loss")] == [f"{n:06}.parquet" for n in (1, 2, 3)]
    assert not (writer.path / "journal").exists()


def die_after(steps: int, patch: pytest.MonkeyPatch) -> list[str]:
    """Let the process die after a number of renames and removals; return those that happened."""
    log: list[str] = []

    def mortal(call: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            if len(log) >= steps:
                raise Died
            log.append(f"{call.__name__} {arguments[0]}")
            return call(*arguments, **options)

        return step

    for name in ("replace", "unlink", "rmdir"):
        patch.setattr(os, name, mortal(getattr(os, name)))
    return log


def test_failed_compaction_is_repeated_at_close(
    open_writer: Callable[..., TraceWriter], rows_of: RowsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = open_writer(part_rows=3)
    replace, failures = os.replace, iter([OSError(5, "Input/output error")])

    def flaky(*names: Any, **folders: Any) -> None:
        for failure in failures:
            raise failure
        replace(*names, **folders)

    monkeypatch.setattr(os, "replace", flaky)
    recorded(writer, rows_of)
    writer.close("done")
    assert next(failures, None) is None
    assert_complete(writer.path)
    assert len(parts(writer.path, "loss")) == 3
    assert not (writer.path / "journal").exists()


def test_journal_with_lost_rows_is_kept(open_writer: Callable[..., TraceWriter], rows_of: RowsOf) -> None:
    writer = open_writer()
    journal = writer.path / "journal" / "loss.1.arrows"
    writer.append("charge", rows_of("charge", range(2)))
    writer.append("loss", rows_of("loss", range(3)))
    writer.flush()
    size_bytes = journal.stat().st_size
    writer.append("loss", rows_of("loss", range(3, 6)))
    writer.flush()
    os.truncate(journal, size_bytes)
    with pytest.raises(TraceError, match=r"loss\.1\.arrows holds 3 rows of 6"):
        writer.close("done")
    trace = Trace(writer.path)
    assert journal.exists()
    assert not trace.interrupted
    assert trace.meta["rows"] == dict.fromkeys(TABLES, 0) | {"loss": 3, "charge": 2}
    assert trace.rows("loss") == 3
    assert trace.table("charge").num_rows == 2
