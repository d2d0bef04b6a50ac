"""Rows by what they have in common, found by a search instead of by a pass over their table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tracer.analysis.core.columns import Int64s


@dataclass(frozen=True, slots=True)
class Grouped:
    """The positions of a table's rows, those of one key side by side, each in the table's order: `order`.
    `keys` are the keys there, which ascend."""

    keys: Int64s
    order: Int64s

    @classmethod
    def by(cls, keys: Int64s) -> Grouped:
        order = np.argsort(keys, kind="stable")
        return cls(keys[order], order)

    def of(self, key: int) -> Int64s:
        """The positions of the rows with this key."""
        first, end = (int(np.searchsorted(self.keys, key, side)) for side in ("left", "right"))
        return self.order[first:end]

    def of_any(self, keys: Int64s) -> Int64s:
        """Those with any of these (distinct) keys, in the table's order."""
        firsts, ends = (np.searchsorted(self.keys, keys, side) for side in ("left", "right"))
        slices = [self.order[first:end] for first, end in zip(firsts, ends, strict=True) if end > first]
        return np.sort(np.concatenate([*slices, self.order[:0]]))


@dataclass(frozen=True, slots=True)
class Histories:
    """Rows in the order of time that tell each of one thing out of `count`: asked what was last told of every
    thing up to a moment. `times` are theirs, `order` is as in `Grouped`; `firsts` is where each thing's begin
    in it, and `places` orders a row by its thing and then by its position."""

    times: Int64s
    order: Int64s
    firsts: Int64s
    places: Int64s

    @classmethod
    def of(cls, times: Int64s, things: Int64s, count: int) -> Histories:
        """`things` are from 0 to less than `count`, of each row; `times` ascend."""
        grouped = Grouped.by(things)
        firsts = np.searchsorted(grouped.keys, np.arange(count))
        return cls(times, grouped.order, firsts, grouped.keys * len(times) + grouped.order)

    def told(self, time_ns: int) -> Int64s:
        """For each thing, how many of its rows are not later."""
        rows = int(np.searchsorted(self.times, time_ns, side="right"))
        begins = np.arange(len(self.firsts)) * len(self.times)
        return np.searchsorted(self.places, begins + rows) - self.firsts

    def last(self, time_ns: int) -> Int64s:
        """For each thing, the position of its last row that is not later; -1 where there is none."""
        told = self.told(time_ns)
        return np.where(told > 0, np.append(self.order, -1)[self.firsts + told - 1], -1)


@dataclass(frozen=True, slots=True)
class RunningSums:
    """The sum of the amounts told of each thing up to any moment."""

    histories: Histories
    sums: Int64s

    @classmethod
    def of(cls, times: Int64s, things: Int64s, amounts: Int64s, count: int) -> RunningSums:
        histories = Histories.of(times, things, count)
        return cls(histories, np.append(0, np.cumsum(amounts[histories.order])))

    def at(self, time_ns: int) -> Int64s:
        firsts = self.histories.firsts
        return np.asarray(self.sums[firsts + self.histories.told(time_ns)] - self.sums[firsts])
