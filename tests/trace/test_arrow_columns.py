"""Rows with all times moved."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.schema import TABLES, TIME
from tracer.trace.arrow_columns import shifted

RowsOf = Callable[[str, range], pa.RecordBatch]
NS = st.one_of(st.none(), st.integers(0, 1 << 60))


@pytest.mark.parametrize("table", sorted(TABLES))
def test_all_times_are_moved_and_nothing_else(table: str, rows_of: RowsOf) -> None:
    batch = rows_of(table, range(1, 20)).cast(TABLES[table]).slice(3, 9)
    moved = shifted(batch, 1000)
    moved.validate(full=True)
    assert moved.schema == TABLES[table]
    for before, after, field in zip(batch.columns, moved.columns, TABLES[table], strict=True):
        if field.type == TIME:
            numbers = [before.cast(pa.int64()).to_pylist(), after.cast(pa.int64()).to_pylist()]
            assert numbers[1] == [value + 1000 for value in numbers[0]]
        else:
            assert after.equals(before)


@given(
    values=st.lists(NS, min_size=1, max_size=40),
    by_ns=st.integers(-(1 << 60), 1 << 60),
    offset=st.integers(0, 39),
)
def test_nulls_stay_null_and_the_batch_is_not_changed(
    values: list[int | None], by_ns: int, offset: int
) -> None:
    schema = pa.schema([("removed", TIME)])
    batch = pa.RecordBatch.from_arrays([pa.array(values, TIME)], schema=schema).slice(offset)
    moved = shifted(batch, by_ns)
    moved.validate(full=True)
    expected = [None if value is None else value + by_ns for value in values[offset:]]
    assert moved.column(0).cast(pa.int64()).to_pylist() == expected
    assert batch.column(0).cast(pa.int64()).to_pylist() == values[offset:]


def test_batch_without_rows_has_none_afterwards() -> None:
    batch = pa.RecordBatch.from_pylist([], schema=TABLES["cgroups"])
    assert shifted(batch, 5).num_rows == 0
