"""A stretch of the history: rows as they were, in less memory."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest

from tracer.schema import TABLES
from tracer.trace.history.segment import Part, Segment

RowsOf = Callable[[str, range], pa.RecordBatch]


def conforming(table: str, batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.cast(TABLES[table])


@pytest.mark.parametrize("table", sorted(TABLES))
def test_part_has_the_rows_of_all_batches(table: str, rows_of: RowsOf) -> None:
    """Each batch has a vocabulary of its own; the second one is a slice."""
    batches = [
        conforming(table, rows_of(table, range(1, 4))),
        conforming(table, rows_of(table, range(9, 20))).slice(3, 5),
    ]
    part = Part.of(table, batches)
    data = part.read()
    assert data.to_pylist() == pa.Table.from_batches(batches).to_pylist()
    assert data.schema == TABLES[table]
    assert part.rows == 8
    assert part.raw_bytes == data.nbytes


def test_part_without_rows_is_empty() -> None:
    part = Part.of("inodes", [])
    assert (part.rows, part.read().num_rows) == (0, 0)
    assert part.read().schema == TABLES["inodes"]


def test_repetitive_rows_take_less_memory(rows_of: RowsOf) -> None:
    part = Part.of("charge", [conforming("charge", rows_of("charge", range(10_000)))])
    assert len(part.content) < part.raw_bytes // 4


def test_segment_is_from_its_first_to_its_last_row(rows_of: RowsOf) -> None:
    rows = {table: [conforming(table, rows_of(table, numbers))] for table, numbers in
            (("charge", range(7, 9)), ("samples", range(5, 8)))}  # fmt: skip
    segment = Segment.of(3, rows, 100)
    assert (segment.number, segment.begin_ns, segment.end_ns, segment.fineness_ns) == (3, 5, 8, 100)
    assert [batch.num_rows for batch in segment.read("samples")] == [3]
    assert segment.read("oom") == []
    assert segment.size_bytes == sum(len(part.content) for part in segment.parts.values())
    assert segment.raw_bytes == sum(part.raw_bytes for part in segment.parts.values())
