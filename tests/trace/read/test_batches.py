from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest

from tracer.errors import TraceError
from tracer.schema import TABLES
from tracer.trace import layout
from tracer.trace.read.reader import Trace
from tracer.trace.write.writer import TraceWriter

RowsOf = Callable[[str, range], pa.RecordBatch]
OpenWriter = Callable[..., TraceWriter]


def test_batches_of_a_table_compacted_meanwhile_have_each_row_once(
    open_writer: OpenWriter, rows_of: RowsOf
) -> None:
    writer = open_writer(part_rows=2)
    for rows in (range(2), range(2, 4), range(4, 5)):
        writer.append("loss", rows_of("loss", rows))
        writer.flush()
    whole = Trace(writer.path).table("loss")
    batches = Trace(writer.path).batches("loss", ["lost"])
    found = [next(batches)]
    journal = layout.parts(writer.path, "loss")[-1]
    writer.close("done")
    assert not journal.exists()
    found += batches
    assert found[0].num_rows == 2
    assert pa.Table.from_batches(found) == whole.select(["lost"])


@pytest.mark.parametrize("table", ["charge", "pagecache", "reclaim", "samples"])
@pytest.mark.parametrize("ended", [False, True])
def test_batches_have_the_rows_of_the_table(
    table: str, ended: bool, open_writer: OpenWriter, rows_of: RowsOf
) -> None:
    writer = open_writer(part_rows=4)
    for first in range(0, 12, 3):
        writer.append(table, rows_of(table, range(first, first + 3)))
        writer.flush()
    if ended:
        writer.close("done")
    trace, columns = Trace(writer.path), TABLES[table].names[3::-1]
    found = list(trace.batches(table, columns))
    assert len(found) > 1
    assert pa.Table.from_batches(found).to_pylist() == trace.table(table, columns).to_pylist()
    assert found[0].schema == trace.table(table, columns).schema


def test_batches_of_table_never_written_are_none(open_writer: OpenWriter) -> None:
    writer = open_writer()
    writer.close("done")
    assert not list(Trace(writer.path).batches("charge", ["time"]))


def test_batches_of_vanished_journal_go_on_after_rows_that_were_read(
    open_writer: OpenWriter, rows_of: RowsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = open_writer(part_rows=3)
    for first in (0, 3, 6):
        writer.append("reclaim", rows_of("reclaim", range(first, first + 3)))
        writer.flush()
    parts = layout.parts(writer.path, "reclaim")
    gone = parts[1].with_name("gone")
    now = layout.parts
    answers = iter([[parts[0], gone, parts[2]]])
    monkeypatch.setattr(layout, "parts", lambda *names: next(answers, None) or now(*names))
    found = Trace(writer.path).batches("reclaim", ["pid"])
    assert [pid for batch in found for pid in batch["pid"].to_pylist()] == list(range(9))

    monkeypatch.setattr(layout, "parts", lambda *names: [gone])
    with pytest.raises(TraceError, match="gone vanished"):
        list(Trace(writer.path).batches("reclaim", ["pid"]))
