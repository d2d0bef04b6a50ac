"""The growth of running counts between the samples of a cgroup, in the bins of a timeline."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from tracer.analysis.core.bins import Grid, Readings
from tracer.analysis.core.columns import Bools, Int64s, positions
from tracer.analysis.core.ledger import made_in_trace
from tracer.analysis.core.tables import TraceTables

_PSI_UPDATE_NS: Final = 2_000_000_000
"""memory.pressure counts stalls at least this often (PSI_FREQ, kernel/sched/psi.c)."""


@dataclass(frozen=True, slots=True)
class _Grown:
    """The readings of a count, one cgroup after the other, each in the order of time.

    `row` is the position of the cgroup among those shown, `steps` the growth since the reading before.
    """

    row: Int64s
    time_ns: Int64s
    steps: Int64s
    was_read: Bools

    @classmethod
    def from_samples(cls, trace: TraceTables, grid: Grid, column: str) -> _Grown:
        """Return the readings of the cgroups shown.

        The first reading of a cgroup that was made during the trace counts from zero. The first reading of
        any other cgroup is the number to count from.
        """
        readings, ids = Readings.from_samples(trace.samples, column), np.array(grid.ids, dtype=np.int64)
        row = positions(ids, readings.cgroup_id)
        order = np.argsort(row, kind="stable")
        order = order[row[order] >= 0]
        row = row[order]
        counts = pd.Series(readings.value[order]).groupby(row).cummax().to_numpy(np.int64)
        is_first = np.diff(row, prepend=-1) != 0
        before = np.where(made_in_trace(trace.cgroups, ids)[row], 0, counts)
        steps = counts - np.where(is_first, before, np.roll(counts, 1))
        return cls(row, readings.time_ns[order], steps, np.isin(ids, readings.cgroup_id))

    def column(self, grid: Grid, grown: Int64s) -> pd.arrays.IntegerArray:
        """Return a matrix of (cgroup shown, slot) as a column; NA for a cgroup whose count was never read."""
        return grid.shown_or_na(grown, np.broadcast_to(self.was_read.reshape(-1, 1), grown.shape))


def sampled_flow(trace: TraceTables, grid: Grid, column: str, scale: int) -> pd.arrays.IntegerArray:
    """Return the growth of a count times `scale`, in the bin of the sample that first has it."""
    found = _Grown.from_samples(trace, grid, column)
    slot = grid.bins.slot(found.time_ns)
    grown = np.zeros((len(grid.ids), grid.bins.slots), dtype=np.int64)
    inside = slot < grid.bins.slots
    np.add.at(grown, (found.row[inside], slot[inside]), found.steps[inside] * scale)
    return found.column(grid, grown)


def stalled_us(trace: TraceTables, grid: Grid, column: str) -> pd.arrays.IntegerArray:
    """Return the growth of a total of memory.pressure (microseconds), each part in the bin of its time.

    The kernel updates a total every 2 s, or when somebody reads it. So the growth of a reading is from the
    time since the growth before, but from no more than the last 2 s unless it is longer than that. It is
    taken to be even over that time.
    """
    found = _Grown.from_samples(trace, grid, column)
    grown = np.zeros((len(grid.ids), grid.bins.slots), dtype=np.int64)
    edges = np.arange(grid.bins.slots, dtype=np.int64) * grid.bins.width_ns
    has_grown = (found.steps > 0) | (np.diff(found.row, prepend=-1) != 0)
    row, time_ns, steps = (part[has_grown] for part in (found.row, found.time_ns, found.steps))
    bounds = np.searchsorted(row, np.arange(len(grid.ids) + 1))
    for shown, (first, last) in enumerate(itertools.pairwise(bounds.tolist())):
        if first == last:
            continue
        least_ns, total_us = steps[first:last] * 1000, steps[first:last].cumsum()
        end_ns = _at_most_all_the_time(time_ns[first:last] - grid.bins.begin_ns, total_us * 1000)
        since_ns = np.diff(end_ns, prepend=end_ns[0] - _PSI_UPDATE_NS)
        took_ns = np.maximum(np.minimum(since_ns, _PSI_UPDATE_NS), least_ns)
        moments = np.stack([end_ns - took_ns, end_ns], axis=1).ravel()
        totals = np.stack([total_us - steps[first:last], total_us], axis=1).ravel()
        grown[shown, 1:] = np.diff(np.rint(np.interp(edges, moments, totals)).astype(np.int64))
    return found.column(grid, grown)


def _at_most_all_the_time(time_ns: Int64s, total_ns: Int64s) -> Int64s:
    """Return the moments of readings, some of them later, so that a total never grows faster than time.

    A total is read a little after the moment that its sample has.
    """
    return np.maximum.accumulate(time_ns - total_ns) + total_ns
