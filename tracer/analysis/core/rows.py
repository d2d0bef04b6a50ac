"""Passes over the large tables of a trace in batches: the way from Arrow columns to NumPy arrays.

A trace can have more rows than fit into memory as a DataFrame. So an analysis that needs every row of
`charge` or `pagecache` reads its columns batch by batch, and keeps sums. Rows come in recorded order, which
is not quite the order of time: CPUs hand over their records one after the other.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Final, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from tracer.analysis.core.columns import NO_ID, Bools, Int64s, Integers, joined, reorder
from tracer.analysis.core.index import RowIndex

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


def encoded(column: pa.Array) -> tuple[pa.DictionaryArray, npt.NDArray[np.int32]]:
    """Return a column as a dictionary that has each value once, and the position of each row's value."""
    if not pa.types.is_dictionary(column.type):
        if _is_constant(column):
            same = np.zeros(len(column), dtype=np.int32)
            return pa.DictionaryArray.from_arrays(same, column.slice(0, 1)), same
        column = column.dictionary_encode("encode")
    return column, np.asarray(column.indices)


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
        if np.isin(self.cgroups, cgroup_ids).all():
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
