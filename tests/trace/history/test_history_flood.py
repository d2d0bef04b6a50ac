"""The memory of a history into which more rows come than it may keep."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pytest

from tracer.schema import TABLES
from tracer.trace import arrow_columns
from tracer.trace.history.history import History
from tracer.trace.meta import Meta

S: Final = 1_000_000_000
MS: Final = 1_000_000
MIB: Final = 1 << 20


@pytest.mark.parametrize("name", ["charge", "pagecache"])
def test_memory_is_bounded_while_a_flood_of_rows_comes(meta: Meta, name: str) -> None:
    """The rows are noise, which cannot be compressed much, and 25 times as long as what may be kept."""
    history = History(meta, keep_ns=300 * S, most_bytes=4 * MIB)
    random = np.random.default_rng(1)
    most_bytes = came_bytes = 0
    for step in range(160):
        batch = noise(name, random, step * 200 * MS, 12_000)
        came_bytes += batch.nbytes
        history.append(name, batch)
        if step % 10 == 9:
            history.age((step + 1) * 200 * MS)
            assert history.size_bytes <= history.most_bytes
        most_bytes = max(most_bytes, history.size_bytes)
    assert came_bytes > 25 * history.most_bytes
    assert most_bytes < 1.25 * history.most_bytes + 3 * MIB, "with rows that are not compressed yet"
    assert history.size_bytes > history.most_bytes // 4, "what may be kept is kept"


def noise(name: str, random: np.random.Generator, begin_ns: int, count: int) -> pa.RecordBatch:
    """Return rows of random numbers over 200 ms."""
    columns = {}
    for column in TABLES[name]:
        if pa.types.is_dictionary(column.type):
            columns[column.name] = arrow_columns.names(random.integers(0, 3, count), ("anon", "file", "sock"))
        elif column.name == "time":
            times = begin_ns + np.sort(random.integers(0, 200 * MS, count))
            columns[column.name] = arrow_columns.numbers(times, column.type)
        else:
            width = np.dtype(column.type.to_pandas_dtype())
            most = 50 if column.name == "cgroup_id" else 1 << 30
            numbers = random.integers(0, most, count).astype(width)
            columns[column.name] = arrow_columns.numbers(numbers, column.type)
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=TABLES[name])
