"""The way from the pandas columns of a table to NumPy arrays and Python values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NO_ID: Final = -1
"""The value of a null id in int64 arrays; ids of the kernel and hashes of inodes are positive."""


def times_ns(frame: pd.DataFrame) -> Int64s:
    """Return the `time` index of a table in nanoseconds since the epoch."""
    return _index_ns(frame.index)


def column_times_ns(column: pd.Series) -> Int64s:
    """Return a column of times in nanoseconds since the epoch; a null is the least int64, as in NumPy."""
    return _index_ns(pd.Index(column))


def _index_ns(index: pd.Index) -> Int64s:
    times = pd.DatetimeIndex(index)
    if times.unit != "ns":  # as_unit() copies even a column that is in ns
        times = times.as_unit("ns")
    return np.asarray(times.asi8, dtype=np.int64)


def utc_times(time_ns: Int64s) -> pd.DatetimeIndex:
    """Return nanoseconds since the epoch as an index of UTC times."""
    return pd.DatetimeIndex(time_ns.view("datetime64[ns]")).tz_localize("UTC")


def utc_time(time_ns: int) -> pd.Timestamp:
    """Return nanoseconds since the epoch as a UTC time."""
    return pd.Timestamp(time_ns, tz="UTC")


def integers(column: pd.Series, missing: int = NO_ID) -> Int64s:
    """Return a column as int64, with `missing` in place of nulls."""
    return np.asarray(column.to_numpy(np.int64, na_value=missing), dtype=np.int64)


def known(column: pd.Series) -> Bools:
    """Return a mask of the rows of a column that are not null."""
    return np.asarray(column.notna().to_numpy(), dtype=np.bool_)


def is_one_of(column: pd.Series, values: Iterable[str | int]) -> Bools:
    """Return a mask of the rows of a column that have one of these values."""
    return np.asarray(column.isin(list(values)).to_numpy(), dtype=np.bool_)


def positions(ids: Int64s, wanted: Int64s) -> Int64s:
    """Return the position of each wanted id in `ids` (distinct), -1 where it is missing."""
    return np.asarray(pd.Index(ids).get_indexer(pd.Index(wanted)), dtype=np.int64)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as dictionaries of Python objects.

    Each column is converted at once, which is faster than `DataFrame.to_dict`: that converts cell by cell.
    """
    cells = {str(name): frame[name].tolist() for name in frame.columns}
    return [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]


def optional(value: Any) -> int | None:
    """Return a cell of a nullable integer column; None for NA."""
    return None if pd.isna(value) else int(value)


def optional_text(value: Any) -> str | None:
    """Return a cell of a nullable string column; None for NA."""
    return None if pd.isna(value) else str(value)
