"""Indexes of the rows of a table, which are found by a binary search instead of a pass over the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import Int64s, Integers

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
        place = int(np.searchsorted(self.keys, key))
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

    def counts_at(self, time_ns: int) -> Int64s:
        """Return for each thing the number of its rows up to a moment (ns since the epoch), included."""
        rows = int(np.searchsorted(self.times, time_ns, side="right"))
        begins = np.arange(len(self.firsts)) * len(self.times)
        return np.searchsorted(self.places, begins + rows) - self.firsts

    def last_rows_at(self, time_ns: int) -> Int64s:
        """Return for each thing the position of its last row up to a moment, included; -1 without one."""
        counts = self.counts_at(time_ns)
        return np.where(counts > 0, np.append(self.order, -1)[self.firsts + counts - 1], -1)


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

    def sums_at(self, time_ns: int) -> Int64s:
        """Return for each thing the sum of its rows up to a moment, included."""
        firsts = self.rows.firsts
        return np.asarray(self.sums[firsts + self.rows.counts_at(time_ns)] - self.sums[firsts])
