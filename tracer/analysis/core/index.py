"""Indexes of the rows of a table, which are found by a binary search instead of a pass over the table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tracer.analysis.core.columns import Int64s


@dataclass(frozen=True, slots=True)
class RowIndex:
    """The positions of a table's rows by key.

    `keys` ascend, and `order` has the position of the row of each key; rows of one key keep the table's
    order.
    """

    keys: Int64s
    order: Int64s

    @classmethod
    def from_keys(cls, keys: Int64s) -> RowIndex:
        """Index a table by the key of each of its rows."""
        order = np.argsort(keys, kind="stable")
        return cls(keys[order], order)

    def rows_for(self, key: int) -> Int64s:
        """Return the positions of the rows with this key."""
        first, end = (int(np.searchsorted(self.keys, key, side)) for side in ("left", "right"))
        return self.order[first:end]

    def rows_for_any(self, keys: Int64s) -> Int64s:
        """Return the positions of the rows with any of these (distinct) keys, in the table's order."""
        firsts, ends = (np.searchsorted(self.keys, keys, side) for side in ("left", "right"))
        slices = [self.order[first:end] for first, end in zip(firsts, ends, strict=True) if end > first]
        return np.sort(np.concatenate([*slices, self.order[:0]]))


@dataclass(frozen=True, slots=True)
class Histories:
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
    def from_rows(cls, times: Int64s, things: Int64s, count: int) -> Histories:
        """Index rows by `things`, which are from 0 to `count` - 1; `times` ascend."""
        index = RowIndex.from_keys(things)
        firsts = np.searchsorted(index.keys, np.arange(count))
        return cls(times, index.order, firsts, index.keys * len(times) + index.order)

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

    histories: Histories
    sums: Int64s

    @classmethod
    def from_rows(cls, times: Int64s, things: Int64s, amounts: Int64s, count: int) -> RunningSums:
        """Sum up rows with one amount each; the other arguments are those of `Histories.from_rows`."""
        histories = Histories.from_rows(times, things, count)
        return cls(histories, np.append(0, np.cumsum(amounts[histories.order])))

    def sums_at(self, time_ns: int) -> Int64s:
        """Return for each thing the sum of its rows up to a moment, included."""
        firsts = self.histories.firsts
        return np.asarray(self.sums[firsts + self.histories.counts_at(time_ns)] - self.sums[firsts])
