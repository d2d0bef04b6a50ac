from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from synthetic.unset import unset_row

from tracer.schema import LIMITS, TABLES, UNLIMITED_BYTES
from tracer.trace.read import to_pandas
from tracer.trace.read.to_pandas import to_frame


def test_limit_unset_and_unknown_are_na_with_flags() -> None:
    limits = [100 << 20, UNLIMITED_BYTES, (1 << 63) - 1, None]
    rows = [unset_row("samples") | {"time": 0} | dict.fromkeys(LIMITS, limit) for limit in limits]
    frame = to_frame(pa.Table.from_pylist(rows, schema=TABLES["samples"]))
    for column, flag in LIMITS.items():
        assert frame[column].tolist() == [100 << 20, pd.NA, pd.NA, pd.NA]
        assert frame[flag].tolist() == [True, False, False, pd.NA]
        assert (str(frame[column].dtype), str(frame[flag].dtype)) == ("Int64", "boolean")
        assert list(frame.columns).index(flag) == list(frame.columns).index(column) + 1


def test_limits_all_have_flags() -> None:
    found = {name for schema in TABLES.values() for name in schema.names if name.endswith(tuple(LIMITS))}
    assert found == {*LIMITS}


def test_columns_of_several_chunks_keep_their_values_and_nulls() -> None:
    schema = pa.schema([("number", pa.int64()), ("is_set", pa.bool_())])
    parts = [{"number": [1, None], "is_set": [None, True]}, {"number": [None, 4], "is_set": [False, None]}]
    frame = to_frame(pa.concat_tables([pa.table(part, schema=schema) for part in parts]))
    assert frame["number"].tolist() == [1, pd.NA, pd.NA, 4]
    assert frame["is_set"].tolist() == [pd.NA, True, False, pd.NA]
    assert frame.dtypes.astype(str).to_dict() == {"number": "Int64", "is_set": "boolean"}


def test_tables_without_rows_have_frames_of_their_own() -> None:
    one, other = (to_frame(TABLES["samples"].empty_table()) for _ in range(2))
    one["added"] = 1
    assert "added" not in other.columns
    assert "added" not in to_frame(TABLES["samples"].empty_table()).columns
    full = to_frame(pa.Table.from_pylist([unset_row("samples") | {"time": 0}], schema=TABLES["samples"]))
    assert list(other.columns) == list(full.columns)
    assert (other.dtypes == full.dtypes)[~other.dtypes.astype(str).eq("category")].all()
    assert str(other.index.dtype) == str(full.index.dtype)


def test_each_column_is_freed_before_the_next_one_is_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    names, held, convert = ("first", "second", "third"), list[int](), to_pandas._nullable

    def watched(column: pa.ChunkedArray) -> object:
        held.append(watched_pool.bytes_allocated())
        return convert(column)

    def table() -> pa.Table:
        columns = [pa.array(np.arange(1 << 16), memory_pool=watched_pool).cast("int64") for _ in names]
        copies = [pa.concat_arrays([column, column], memory_pool=watched_pool) for column in columns]
        return pa.table(copies, schema=pa.schema([(name, pa.int64()) for name in names]))

    watched_pool = pa.proxy_memory_pool(pa.system_memory_pool())
    monkeypatch.setattr(to_pandas, "_nullable", watched)
    to_frame(table())
    assert [round(size / held[0], 1) for size in held] == [1.0, 0.7, 0.3]
