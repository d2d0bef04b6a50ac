"""Conversion of tables to pandas DataFrames, with the same result on pandas 2.2 and 3."""

from __future__ import annotations

from typing import Any, Final, cast

import pandas as pd
import pyarrow as pa

from tracer.schema import LIMITS, UNLIMITED_BYTES

_NULLABLE: Final = {
    pa.int64(): pd.Int64Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}


def to_frame(data: pa.Table) -> pd.DataFrame:
    """Return the table as a DataFrame, indexed by `time` (UTC) if it has one; rows of one time keep their
    order.

    Integers that may be null by the schema are Int64/Int32/UInt64, and such booleans are boolean (NA is "not
    known"); other numbers are plain. Dictionaries are categoricals, and lists are lists. A limit that is not
    set is also NA; the column beside it (`schema.LIMITS`) tells the two apart.
    """
    columns: dict[str, Any] = {}
    for field in data.schema:
        if field.name in LIMITS:
            columns |= with_flag(field.name, data.column(field.name).to_pandas(types_mapper=_NULLABLE.get))
        else:
            columns[field.name] = _series(data.column(field.name), field)
    frame = pd.DataFrame(columns, copy=False)
    if "time" not in columns:
        return frame
    return frame.set_index("time").sort_index(kind="stable")


def with_flag(name: str, limits: pd.Series[Any]) -> dict[str, pd.Series[Any]]:
    """Return a column of limits as DataFrames have it, and its flag; `UNLIMITED_BYTES` is a limit that is not
    set."""
    is_limited = limits.lt(UNLIMITED_BYTES)
    return {name: limits.mask(is_limited.eq(False).fillna(False)), LIMITS[name]: is_limited}


def _series(column: pa.ChunkedArray, field: pa.Field) -> pd.Series[Any]:
    if pa.types.is_list(field.type):
        return pd.Series(column.to_pylist(), dtype=object)
    if field.nullable and field.type in _NULLABLE:
        return cast("pd.Series[Any]", column.to_pandas(types_mapper=_NULLABLE.get))
    return cast("pd.Series[Any]", column.to_pandas())
