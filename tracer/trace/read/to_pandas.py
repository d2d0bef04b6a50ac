"""Conversion of tables to pandas DataFrames, with the same result on pandas 2.2 and 3."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa

from tracer.schema import LIMITS, UNLIMITED_BYTES

_NULLABLE: Final = frozenset({pa.int64(), pa.int32(), pa.uint64(), pa.bool_()})
_LARGE_BYTES: Final = 1 << 24


def to_frame(data: pa.Table) -> pd.DataFrame:
    """Return the table as a DataFrame, indexed by `time` (UTC) if it has one; rows of one time keep their
    order.

    Integers that may be null by the schema are Int64/Int32/UInt64, and such booleans are boolean (NA is "not
    known"); other numbers are NumPy's. Dictionaries are categoricals, and lists are lists. A limit that is
    not set is also NA; the column beside it (`schema.LIMITS`) distinguishes the two.
    """
    if not data.num_rows:
        return _empty(data.schema).copy(deep=False)
    schema, columns = data.schema, data.columns
    del data  # else no column is freed before the end
    return _converted(schema, columns)


@cache
def _empty(schema: pa.Schema) -> pd.DataFrame:
    """Return a frame without rows. Half of a trace's tables are empty, and each column takes its time."""
    return _converted(schema, schema.empty_table().columns)


def _converted(schema: pa.Schema, stored: list[pa.ChunkedArray]) -> pd.DataFrame:
    """Convert the columns of a table; empties the list."""
    columns: dict[str, Any] = {}
    for field in schema:
        column = stored.pop(0)  # each is freed once it is converted
        if field.name in LIMITS:
            columns |= with_flag(field.name, _nullable(column))
        else:
            columns[field.name] = _values(column, field)
        is_large = column.nbytes > _LARGE_BYTES
        del column
        if is_large:
            pa.default_memory_pool().release_unused()
    if "time" not in columns:
        return pd.DataFrame(columns, copy=False)
    index = pd.DatetimeIndex(columns.pop("time"), name="time")
    frame = pd.DataFrame(columns, index=index, copy=False)
    return frame if index.is_monotonic_increasing else frame.sort_index(kind="stable")


def with_flag(name: str, limits: pd.arrays.IntegerArray) -> dict[str, Any]:
    """Return a column of limits as DataFrames have it, and the column that tells which are set."""
    values = limits.to_numpy(np.int64, na_value=UNLIMITED_BYTES)
    is_limited = values < UNLIMITED_BYTES
    return {
        name: pd.arrays.IntegerArray(values, ~is_limited),
        LIMITS[name]: pd.arrays.BooleanArray(is_limited, limits.isna()),
    }


def _values(column: pa.ChunkedArray, field: pa.Field) -> Any:
    if pa.types.is_list(field.type):
        cells = np.empty(len(column), dtype=object)
        cells[:] = column.to_pylist()
        return cells
    if field.nullable and field.type in _NULLABLE:
        return _nullable(column)
    return column.to_pandas().array


def _nullable(column: pa.ChunkedArray) -> Any:
    """Return integers or booleans as an array of pandas with NA.

    `to_pandas` returns the same array, but takes far longer, and there are many columns with few rows.
    """
    is_boolean = pa.types.is_boolean(column.type)
    found = np.empty(len(column), column.type.to_pandas_dtype())
    is_missing, end = np.zeros(len(column), dtype=np.bool_), 0
    for chunk in column.chunks:
        begin, end = end, end + len(chunk)
        is_missing[begin:end] = chunk.is_null().to_numpy(zero_copy_only=False)
        found[begin:end] = chunk.fill_null(False if is_boolean else 0).to_numpy(zero_copy_only=False)
    kind = pd.arrays.BooleanArray if is_boolean else pd.arrays.IntegerArray
    return kind(found, is_missing)
