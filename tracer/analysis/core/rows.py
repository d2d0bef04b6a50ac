"""Rows of large tables: indexes by key, passes in batches from Arrow to NumPy, and columns as arrays.

A trace can have more rows than fit into memory as a DataFrame. So an analysis that needs every row of
`charge` or `pagecache` reads its columns batch by batch, and keeps sums. Rows come in recorded order, which
is not quite the order of time: CPUs hand over their records one after the other.

A column becomes an array once, for all cgroups that ask for it. To take the rows of one cgroup out of a
DataFrame costs as much as to convert all of its columns, and a trace can have ten thousand cgroups with a few
rows each.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cache, cached_property
from typing import Any, Final, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from tracer.analysis.core.columns import (
    NO_ID,
    Bools,
    ColumnArrays,
    Int64s,
    Integers,
    integers,
    is_one_of,
    joined,
    kernel_numbers,
    known,
    reorder,
    times_ns,
)
from tracer.enumerations import CATEGORY

_MOST_SORTED_BY_DIGIT: Final = 1 << 15


@dataclass(frozen=True, slots=True)
class RowIndex:
    """The positions of a table's rows by key.

    `keys` are the distinct keys, ascending. `order` has the positions of the rows of the first key, then
    those of the next, each in the table's order; those of key n begin at `firsts[n]` and end at
    `firsts[n + 1]`.
    """

    keys: Int64s
    firsts: Int64s
    order: Integers

    @classmethod
    def from_keys(cls, keys: Integers) -> RowIndex:
        """Index a table by the key of each of its rows."""
        codes, distinct = pd.factorize(keys)
        ascending = np.argsort(distinct)
        rank = np.empty(len(distinct), np.int16 if len(distinct) < _MOST_SORTED_BY_DIGIT else np.int64)
        rank[ascending] = np.arange(len(distinct))
        ranks = rank[codes]
        order = np.argsort(ranks, kind="stable")  # of 16 bits: a radix sort
        firsts = np.append(0, np.cumsum(np.bincount(ranks, minlength=len(distinct))))
        small = np.min_scalar_type(len(order))
        return cls(np.asarray(distinct[ascending], np.int64), firsts, order.astype(small))

    def ordered_keys(self) -> Int64s:
        """Return the key of each row, in the order of `order`."""
        return np.repeat(self.keys, np.diff(self.firsts))

    def rows_for(self, key: int) -> Int64s:
        """Return the positions of the rows with this key."""
        place = int(self.keys.searchsorted(key))
        if place == len(self.keys) or self.keys[place] != key:
            return np.zeros(0, dtype=np.int64)
        return self.order[self.firsts[place] : self.firsts[place + 1]].astype(np.int64)

    def rows_for_any(self, keys: Int64s | Sequence[int]) -> Int64s:
        """Return the positions of the rows with any of these (distinct) keys, in the table's order."""
        asked = np.asarray(keys, dtype=np.int64)
        places = np.searchsorted(self.keys, asked)
        is_inside = places < len(self.keys)
        places, asked = places[is_inside], asked[is_inside]
        places = places[self.keys[places] == asked]
        slices = [self.order[self.firsts[place] : self.firsts[place + 1]] for place in places.tolist()]
        found = np.concatenate([*slices, self.order[:0]])
        if len(slices) > 1:
            found.sort(kind="stable")
        return found.astype(np.int64)


@dataclass(frozen=True, slots=True)
class RowsByThing:
    """The rows of a table in order of time; each row is about one of `count` things.

    `times` has the time of each row in ns since the epoch. `order` has the positions of the rows, sorted by
    thing and then by time, and `firsts` the index in `order` at which the rows of each thing begin. `places`
    ascends: it has for each entry of `order` the thing and the position as one number.
    """

    times: Int64s
    order: Int64s
    firsts: Int64s
    places: Int64s

    @classmethod
    def from_rows(cls, times: Int64s, things: Int64s, count: int) -> RowsByThing:
        """Index rows by `things`, which are from 0 to `count` - 1; `times` ascend."""
        order = np.argsort(things, kind="stable")
        things = things[order]
        firsts = np.searchsorted(things, np.arange(count))
        return cls(times, order, firsts, things * len(times) + order)

    def counts_at(self, time_ns: int, things: Int64s | None = None) -> Int64s:
        """Return for each of these things the number of its rows up to a moment (ns since the epoch),
        included; None: for all things."""
        rows = int(self.times.searchsorted(time_ns, side="right"))
        things = np.arange(len(self.firsts)) if things is None else things
        ends = self.places.searchsorted(things * len(self.times) + rows)
        return np.asarray(ends - self.firsts[things], dtype=np.int64)

    def last_row_at(self, thing: int, time_ns: int) -> int:
        """Return what `last_rows_at` has for one thing."""
        rows = int(self.times.searchsorted(time_ns, side="right"))
        end = int(self.places.searchsorted(thing * len(self.times) + rows))
        return int(self.order[end - 1]) if end > self.firsts[thing] else -1

    def last_rows_at(self, time_ns: int) -> Int64s:
        """Return for each thing the position of its last row up to a moment, included; -1 without one."""
        counts = self.counts_at(time_ns)
        found, is_any = np.full(len(counts), -1), counts > 0
        found[is_any] = self.order[(self.firsts + counts - 1)[is_any]]
        return found


@dataclass(frozen=True, slots=True)
class RunningSums:
    """The sum of the amounts of each thing up to any moment."""

    rows: RowsByThing
    sums: Int64s

    @classmethod
    def from_rows(cls, times: Int64s, things: Int64s, amounts: Int64s, count: int) -> RunningSums:
        """Sum up rows with one amount each; the other arguments are those of `RowsByThing.from_rows`."""
        rows = RowsByThing.from_rows(times, things, count)
        return cls(rows, np.append(0, np.cumsum(amounts[rows.order])))

    def sums_at(self, time_ns: int, things: Int64s | None = None) -> Int64s:
        """Return for each of these things the sum of its rows up to a moment, included; None: for all
        things."""
        firsts = self.rows.firsts if things is None else self.rows.firsts[things]
        return np.asarray(self.sums[firsts + self.rows.counts_at(time_ns, things)] - self.sums[firsts])


T = TypeVar("T")
R = TypeVar("R")

_THREADS: Final = min(os.cpu_count() or 1, 4)
"""Each thread takes some 20 MiB for the arrays that it works on."""


class Batched(Protocol):
    """A trace that gives its tables in batches: `trace.read.reader.Trace.batches`."""

    def batches(self, name: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]: ...
    def rows(self, name: str) -> int: ...


def rows_of(trace: Batched, table: str, columns: Sequence[str]) -> Iterator[Rows]:
    """Yield the rows of a table of events, with these columns of `schema.TABLES`, a batch at a time."""
    return map(Rows, ahead(trace.batches(table, columns)))


def ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield items that are not None. A thread makes the next one meanwhile.

    Most of the work on large arrays is done without Python's lock, so this uses a second CPU.
    """
    with ThreadPoolExecutor(1, "ahead") as thread:
        following = thread.submit(next, items, None)
        while (item := following.result()) is not None:
            following = thread.submit(next, items, None)
            yield item


def each(find: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield `find(item)` for each item, in their order. Meanwhile, threads compute the results for the next
    items.

    `find` depends only on its item. So this uses all CPUs, whereas `ahead` uses two.
    """
    with ThreadPoolExecutor(_THREADS, "each") as threads:
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(threads.submit(find, item))
            if len(waiting) > _THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a table, whose columns are read as arrays with one element for each row."""

    batch: pa.RecordBatch

    def __len__(self) -> int:
        return int(self.batch.num_rows)

    def integers(self, column: str, missing: int = NO_ID) -> Int64s:
        """Return a column of integers, with `missing` in place of nulls; times are in ns since the epoch."""
        values = self.batch.column(column)
        if pa.types.is_timestamp(values.type):
            values = values.view(pa.int64())
        if values.null_count:
            values = values.fill_null(pa.scalar(missing, values.type))
        return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.int64)

    def known(self, column: str) -> Bools:
        """Return a mask of the rows in which the column is not null."""
        values = self.batch.column(column)
        if not values.null_count:
            return np.ones(len(values), dtype=np.bool_)
        return np.asarray(values.is_valid().to_numpy(zero_copy_only=False), dtype=np.bool_)

    def codes(self, column: str, words: Sequence[str]) -> Int64s:
        """Return the position in `words` of each word of a column; -1: it is null, or not there."""
        values, position = self.batch.column(column), {word: code for code, word in enumerate(words)}
        of_words = [position.get(word, -1) for word in values.dictionary.to_pylist()]
        indices = values.indices.fill_null(pa.scalar(-1, values.indices.type))
        return np.asarray(np.array([*of_words, -1])[indices.to_numpy(zero_copy_only=False)], dtype=np.int64)


def encoded(column: pa.Array) -> tuple[pa.Array, npt.NDArray[np.int32]]:
    """Return (the distinct values of a column, the position of each row's value among them)."""
    if not pa.types.is_dictionary(column.type):
        if _is_constant(column):
            return column.slice(0, 1), np.broadcast_to(np.int32(0), len(column))
        column = column.dictionary_encode("encode")
    return column.dictionary, np.asarray(column.indices)


def _is_constant(column: pa.Array) -> bool:
    """Return whether all values of a column are equal and not null."""
    if column.null_count or not len(column):
        return False
    values = column.to_numpy()
    return bool((values == values[0]).all())


@dataclass(frozen=True)
class OwnedRows:
    """Rows about the memory of cgroups, in the order of time. Each field is an array with an element for each
    row; `time` is in ns since the epoch."""

    time: Int64s
    cgroup_id: Integers

    def __len__(self) -> int:
        return len(self.time)

    @classmethod
    def from_batches(cls, batches: Sequence[dict[str, Integers]]) -> Self:
        """Join batches of rows, each given as its columns, and sort them by time; empties the batches.

        The rows come in recorded order. That is almost the order of time, which makes a merge sort fast.
        """
        columns: dict[str, Any] = {}
        for field in fields(cls):
            parts = [batch.pop(field.name) for batch in batches] or [np.zeros(0, np.int64)]
            columns[field.name] = joined(parts)
        if (columns["time"][1:] < columns["time"][:-1]).any():
            order = np.argsort(columns["time"], kind="stable")
            for column in columns.values():
                reorder(column, order)
        return cls(**columns)

    def of_cgroups(self, cgroup_ids: Int64s | Sequence[int]) -> Self:
        """Return the rows of these (distinct) cgroups."""
        # A few ids cannot be all of many: with as many subtrees as cgroups, a comparison would be quadratic.
        if len(self.cgroups) <= len(cgroup_ids) and np.isin(self.cgroups, cgroup_ids).all():
            return self
        return self.chosen(self._by_cgroup.rows_for_any(cgroup_ids))

    def chosen(self, rows: Int64s) -> Self:
        """Return the rows at these positions, which are distinct and ascending."""
        if len(rows) == len(self):
            return self
        return type(self)(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    @cached_property
    def cgroups(self) -> Integers:
        """Return the ids of the cgroups that have rows."""
        return np.asarray(pd.unique(self.cgroup_id))

    @cached_property
    def _by_cgroup(self) -> RowIndex:
        return RowIndex.from_keys(self.cgroup_id)


NOT_READ: Final = np.iinfo(np.int64).min
"""The value of a reading of the page counter that is null."""

_WIDE: Final = ("time", "usage_bytes", "limit_bytes")
_SMALL: Final = ("cgroup_id", "tgid", "category", "bytes")


@cache
def _factors(weights: tuple[tuple[str, int], ...]) -> tuple[Bools, Int64s]:
    """Return (whether each category has a weight, its weight), by the number of the category; the last
    element is for a row without a category."""
    of_name = dict(weights)
    counts = np.array([*(name in of_name for name in CATEGORY.names), False])
    return counts, np.array([*(of_name.get(name, 0) for name in CATEGORY.names), 0])


@dataclass(frozen=True)
class Charges(OwnedRows):
    """Rows of `charge`.

    `category` is a position in `CATEGORY.names`; any other word is -1. A null `tgid` is `columns.NO_ID`, a
    null reading of the page counter `NOT_READ`. A limit that is not set is `UNLIMITED_BYTES`, as in the
    kernel. All columns but times and readings have the smallest type that holds their values.
    """

    tgid: Integers
    category: Integers
    bytes: Integers
    usage_bytes: Int64s
    limit_bytes: Int64s

    @classmethod
    def from_trace(cls, trace: Batched) -> Charges:
        """Read the ledger of a trace."""
        return cls.from_batches([*map(_columns, rows_of(trace, "charge", [*_WIDE, *_SMALL]))])

    def weighted(self, weights: Mapping[str, int]) -> tuple[Bools, Int64s]:
        """Return (mask of the rows of these categories, the weighted change of each row in bytes)."""
        counts, factor = _factors(tuple(weights.items()))
        return counts[self.category], self.bytes * factor[self.category]

    def is_of(self, category: str) -> Bools:
        """Return a mask of the rows of a category."""
        return np.asarray(self.category == CATEGORY.number(category))

    def values_of(self, reading: str) -> Int64s:
        """Return `usage_bytes` or `limit_bytes`."""
        return {"usage_bytes": self.usage_bytes, "limit_bytes": self.limit_bytes}[reading]

    def is_read(self, reading: str) -> Bools:
        """Return a mask of the rows in which `usage_bytes` or `limit_bytes` is not null."""
        return np.asarray(self.values_of(reading) != NOT_READ)


_SIGNED: Final = tuple(np.iinfo(kind) for kind in ("int8", "int16", "int32", "int64"))


def _columns(rows: Rows) -> dict[str, Integers]:
    small = {name: rows.integers(name) for name in _SMALL if name != "category"}
    small["category"] = rows.codes("category", CATEGORY.names)
    wide = {name: rows.integers(name, missing=NOT_READ) for name in _WIDE}
    return {**wide, **{name: _smallest(column) for name, column in small.items()}}


def _smallest(values: Int64s) -> Integers:
    """Return numbers in the smallest signed type that holds them."""
    least, most = int(values.min(initial=0)), int(values.max(initial=0))
    return values.astype(next(kind.dtype for kind in _SIGNED if kind.min <= least and most <= kind.max))


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

    @cached_property
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
