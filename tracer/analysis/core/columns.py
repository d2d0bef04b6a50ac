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
"""Stands for a null id in the int64 arrays of this package; kernel ids and inode hashes are positive."""


def times_ns(frame: pd.DataFrame) -> Int64s:
    """The `time` index of a table as nanoseconds since the epoch."""
    return _index_ns(frame.index)


def column_times_ns(column: pd.Series) -> Int64s:
    """A column of times as nanoseconds since the epoch; nulls are the least int64, as in NumPy."""
    return _index_ns(pd.Index(column))


def _index_ns(index: pd.Index) -> Int64s:
    times = pd.DatetimeIndex(index)
    if times.unit != "ns":  # as_unit() would copy what is in ns already
        times = times.as_unit("ns")
    return np.asarray(times.asi8, dtype=np.int64)


def utc_times(time_ns: Int64s) -> pd.DatetimeIndex:
    """Nanoseconds since the epoch as pandas has them in the tables."""
    return pd.DatetimeIndex(time_ns.view("datetime64[ns]")).tz_localize("UTC")


def integers(column: pd.Series, missing: int = NO_ID) -> Int64s:
    """A column as int64, with `missing` in the place of nulls."""
    return np.asarray(column.to_numpy(np.int64, na_value=missing), dtype=np.int64)


def known(column: pd.Series) -> Bools:
    return np.asarray(column.notna().to_numpy(), dtype=np.bool_)


def is_one_of(column: pd.Series, values: Iterable[str | int]) -> Bools:
    return np.asarray(column.isin(list(values)).to_numpy(), dtype=np.bool_)


def positions(ids: Int64s, wanted: Int64s) -> Int64s:
    """Return the position of each wanted id in `ids`, -1 where it is not there."""
    return np.asarray(pd.Index(ids).get_indexer(pd.Index(wanted)), dtype=np.int64)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dictionaries; each column becomes Python's objects at once: `to_dict` goes by cells."""
    cells = {str(name): frame[name].tolist() for name in frame.columns}
    return [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]


def optional(value: Any) -> int | None:
    """A cell of a nullable integer column."""
    return None if pd.isna(value) else int(value)


def optional_text(value: Any) -> str | None:
    """A cell of a nullable string column."""
    return None if pd.isna(value) else str(value)


def utc_time(time_ns: int) -> pd.Timestamp:
    """An instant, from nanoseconds since the epoch."""
    return pd.Timestamp(time_ns, tz="UTC")
