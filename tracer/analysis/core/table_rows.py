"""Rows of a table that are read as arrays: a column is converted once, for all cgroups that ask for it.

To take the rows of one cgroup out of a DataFrame costs as much as to convert all of its columns. A trace can
have ten thousand cgroups with a few rows each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import (
    NO_ID,
    Bools,
    ColumnArrays,
    Int64s,
    integers,
    is_one_of,
    kernel_numbers,
    known,
    times_ns,
)
from tracer.analysis.core.rows import RowIndex


class Table:
    """A table with a column `cgroup_id`, whose other columns are converted when they are first read."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame
        self._numbers: dict[str, tuple[Int64s, Bools]] = {}
        self._codes: dict[str, Int64s] = {}
        self._masks: dict[tuple[str, tuple[str, ...]], Bools] = {}
        self._columns: dict[tuple[str, ...], ColumnArrays] = {}

    @cached_property
    def times(self) -> Int64s:
        """Return the time of each row in ns since the epoch."""
        return times_ns(self.frame)

    @cached_property
    def cgroup_ids(self) -> Int64s:
        """Return the cgroup of each row; `NO_ID` for a null."""
        return integers(self.frame["cgroup_id"])

    def numbers(self, name: str) -> tuple[Int64s, Bools]:
        """Return (the integers of a column, a mask of the known ones); a limit that is not set is
        `UNLIMITED_BYTES`, as in the kernel."""
        if name not in self._numbers:
            column = kernel_numbers(self.frame, name)
            self._numbers[name] = integers(column), known(column)
        return self._numbers[name]

    def codes(self, name: str) -> Int64s:
        """Return the position of each word of a column among its categories; -1 for a null."""
        if name not in self._codes:
            self._codes[name] = integers(self.frame[name].cat.codes)
        return self._codes[name]

    def are(self, name: str, words: Sequence[str]) -> Bools:
        """Return a mask of the rows with one of these words in a column."""
        key = name, tuple(words)
        if key not in self._masks:
            self._masks[key] = is_one_of(self.frame[name], words)
        return self._masks[key]

    def columns(self, names: tuple[str, ...]) -> ColumnArrays:
        """Return columns of which rows are read as dictionaries."""
        if names not in self._columns:
            self._columns[names] = ColumnArrays.from_frame(self.frame, names)
        return self._columns[names]

    def rows_for(self, cgroup_ids: Int64s) -> TableRows:
        """Return the rows of these (distinct) cgroups, in the table's order."""
        return TableRows(self, self._by_cgroup.rows_for_any(cgroup_ids))

    @cached_property
    def _by_cgroup(self) -> RowIndex:
        return RowIndex.from_keys(self.cgroup_ids)


@dataclass(frozen=True)
class TableRows:
    """Some rows of a table, by their positions in it, which ascend."""

    table: Table
    positions: Int64s

    @classmethod
    def whole(cls, frame: pd.DataFrame) -> TableRows:
        """Return all rows of a table."""
        return cls(Table(frame), np.arange(len(frame)))

    @property
    def times(self) -> Int64s:
        """Return the time of each row in ns since the epoch."""
        return self.table.times[self.positions]

    @property
    def cgroup_ids(self) -> Int64s:
        """Return the cgroup of each row; `NO_ID` for a null."""
        return self.table.cgroup_ids[self.positions]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Return the rows as a DataFrame, which takes time for each column of the table."""
        whole = self.table.frame
        return whole if len(self.positions) == len(whole) else whole.iloc[self.positions]

    def numbers(self, name: str, missing: int = NO_ID) -> Int64s:
        """Return the integers of a column, with `missing` in place of nulls (`Table.numbers`)."""
        values, is_known = self.table.numbers(name)
        values = values[self.positions]
        return values if missing == NO_ID else np.where(is_known[self.positions], values, missing)

    def codes(self, name: str) -> Int64s:
        """Return the positions of a column's words among its categories; -1 for a null."""
        return self.table.codes(name)[self.positions]

    def where(self, chosen: Bools) -> TableRows:
        """Return the rows of a mask with an element for each row."""
        return TableRows(self.table, np.asarray(self.positions[chosen], np.int64))

    def records(self, names: tuple[str, ...], some: slice | Int64s) -> list[dict[str, Any]]:
        """Return some of the rows as dictionaries of these columns, with objects of Python or NA."""
        return self.table.columns(names).records(self.positions[some])

    def known(self, name: str) -> TableRows:
        """Return the rows in which a column is not null."""
        return self.where(self.table.numbers(name)[1][self.positions])

    def are(self, name: str, words: Sequence[str]) -> Bools:
        """Return a mask of the rows with one of these words in a column."""
        return np.asarray(self.table.are(name, words)[self.positions], np.bool_)
