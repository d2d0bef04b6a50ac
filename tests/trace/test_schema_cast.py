from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest

from tracer.errors import TraceError
from tracer.schema import TABLES
from tracer.trace.arrow_columns import conform

RowsOf = Callable[[str, range], pa.RecordBatch]


def replaced(batch: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
    columns = [column if own == name else batch.column(own) for own in batch.schema.names]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


@pytest.mark.parametrize("table", TABLES)
def test_conform_fitting_batch_is_not_copied(table: str, rows_of: RowsOf) -> None:
    given = rows_of(table, range(5))
    (batch,) = conform(table, given)
    assert batch.schema.equals(TABLES[table])
    for field in TABLES[table]:
        if given.column(field.name).type == field.type:
            ours, theirs = batch.column(field.name).buffers(), given.column(field.name).buffers()
            assert [b and b.address for b in ours] == [b and b.address for b in theirs]


def test_conform_other_order_and_chunks_are_cast(rows_of: RowsOf) -> None:
    pieces = [rows_of("loss", range(3)), rows_of("loss", range(0)), rows_of("loss", range(3, 4))]
    table = pa.Table.from_batches(pieces).select(["lost", "stream", "begin", "time"])
    assert [batch.column("lost").to_pylist() for batch in conform("loss", table)] == [[0, 1, 2], [3]]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["b", "a", "b"]),
        pa.array(["b", "a", "b"], pa.large_string()),
        pa.DictionaryArray.from_arrays(pa.array([1, 0, 1], pa.uint8()), pa.array(["a", "b"])),
        pa.DictionaryArray.from_arrays(pa.array([1, 0, 1]), pa.array(["a", "b"], pa.large_string())),
        pa.DictionaryArray.from_arrays(pa.array([2, 0, 1], pa.int32()), pa.array(["a", "b", "b"])),
        pa.DictionaryArray.from_arrays(pa.array([2, 0, 2], pa.int32()), pa.array(["a", None, "b"])),
    ],
)
def test_conform_strings_become_dictionary(column: pa.Array, rows_of: RowsOf) -> None:
    (batch,) = conform("loss", replaced(rows_of("loss", range(3)), "stream", column))
    assert batch.column("stream").to_pylist() == ["b", "a", "b"]
    values = batch.column("stream").dictionary.to_pylist()
    assert None not in values
    assert len(set(values)) == len(values)


@pytest.mark.parametrize(
    ("name", "column", "says"),
    [
        ("lost", pa.array([1, None]), "NULL in column lost"),
        ("lost", pa.array([1, 2**63], pa.uint64()), "column lost"),
        ("lost", pa.array([1.5, 2.0]), "column lost"),
        ("lost", pa.array(["1", "x"]), "column lost"),
        ("stream", pa.array(["a", None]), "NULL in column stream"),
        (
            "stream",
            pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["a", None])),
            "NULL in column stream",
        ),
        ("time", pa.array(["x", "y"]), "column time"),
    ],
)
def test_conform_unfitting_value_raises(name: str, column: pa.Array, says: str, rows_of: RowsOf) -> None:
    with pytest.raises(TraceError, match=says) as raised:
        conform("loss", replaced(rows_of("loss", range(2)), name, column))
    assert "table loss" in str(raised.value)


def test_conform_missing_or_unknown_column_raises(rows_of: RowsOf) -> None:
    batch = rows_of("loss", range(2))
    with pytest.raises(TraceError, match="lost"):
        conform("loss", batch.select(["time", "begin", "stream"]))
    with pytest.raises(TraceError, match="extra"):
        conform("loss", pa.Table.from_batches([batch]).append_column("extra", pa.array([1, 2])))
