"""Bins of equal length, and sums in each bin for cgroups with all cgroups below them."""

from __future__ import annotations

import contextlib
import itertools
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from tracer import units
from tracer.analysis.core import naming
from tracer.analysis.core.columns import (
    Bools,
    Int64s,
    Integers,
    integers,
    kernel_numbers,
    known,
    positions,
    times_ns,
)
from tracer.analysis.core.ledger import made_in_trace, usage
from tracer.analysis.core.subtree import Subtrees
from tracer.analysis.core.tables import TraceTables, end_ns, page_size, start_ns
from tracer.errors import UsageError
from tracer.schema import LATEST_NS

_MOST_ROWS: Final = 2_000_000  # of all cgroups together; more would take gigabytes
_LONGEST_SECONDS: Final = 1e9
_PSI_UPDATE_NS: Final = 2_000_000_000
"""memory.pressure counts stalls at least this often (PSI_FREQ, kernel/sched/psi.c)."""


def interval_ns(trace: TraceTables, begin: str | float | None, end: str | float | None) -> tuple[int, int]:
    """Return the first and the last moment from `begin` to `end`, in nanoseconds since the epoch."""
    start = start_ns(trace)
    first = start if begin is None else _moment_ns(begin, start)
    return first, end_ns(trace) if end is None else _moment_ns(end, start) - 1


@dataclass(frozen=True, slots=True)
class Bins:
    """`count` bins of `width_ns` from `begin_ns`, which are slots 1 to `count`; slot 0 is all time before."""

    begin_ns: int
    width_ns: int
    count: int

    @classmethod
    def cover(
        cls, trace: TraceTables, every: str, begin: str | float | None, end: str | float | None
    ) -> Bins:
        """Return bins of `every` from `begin` to `end`, by default those of the trace.

        Raises UsageError for a length or a range that makes no sense.
        """
        width = _nanoseconds(every, "every")
        if width <= 0:
            raise UsageError(f"every: {every!r} is not a positive duration; give one such as 100ms")
        first, last = interval_ns(trace, begin, end)
        if first == 0 or last < first:
            if begin is None and end is None:
                return cls(first, width, 0)
            lasts = units.duration((end_ns(trace) - start_ns(trace)) / 1e9)
            raise UsageError(
                "the time range is empty; begin must lie before end, both within the trace, which "
                f"lasts {lasts}"
            )
        return cls(first, width, (last - first) // width + 1)

    @property
    def slots(self) -> int:
        """Return the number of slots up to the end of the last bin."""
        return self.count + 1

    @property
    def end_ns(self) -> int:
        """Return the end of the last bin, the first moment that is in no slot."""
        return self.begin_ns + self.count * self.width_ns

    def begins(self) -> npt.NDArray[np.datetime64]:
        """Return the beginning of each bin, UTC."""
        edges = self.begin_ns + self.width_ns * np.arange(self.count, dtype=np.int64)
        return edges.view("datetime64[ns]")

    def slot(self, time_ns: Int64s) -> Int64s:
        """Return the slot of each moment: 0 before the first bin, from `slots` on after the last bin."""
        return np.maximum((time_ns - self.begin_ns) // self.width_ns + 1, 0)

    def spread(self, begin_ns: Int64s, end_ns: Int64s, amounts: Int64s) -> Int64s:
        """Return the sum of the amounts in each slot, each amount spread evenly over its interval."""
        first, last = self.slot(begin_ns), np.minimum(self.slot(end_ns), self.slots - 1)
        crossed = np.maximum(last - first + 1, 0)
        row = np.repeat(np.arange(len(first)), crossed)
        slot = first[row] + np.arange(len(row)) - np.repeat(np.cumsum(crossed) - crossed, crossed)
        slot_end_ns = self.begin_ns + slot * self.width_ns
        begin, end = (
            np.maximum(begin_ns[row], slot_end_ns - self.width_ns),
            np.minimum(end_ns[row], slot_end_ns),
        )
        length = (end_ns - begin_ns)[row]
        share = np.where(length > 0, (end - begin) / np.maximum(length, 1), 1.0)
        return np.rint(np.bincount(slot, amounts[row] * share, self.slots)).astype(np.int64)


def require_bounded(bins: Bins, every: str, cgroups: int) -> None:
    """Raise UsageError for more rows than fit in memory; the message names lengths and ranges that fit."""
    if bins.count * cgroups <= _MOST_ROWS:
        return
    most = max(_MOST_ROWS // cgroups, 1)
    width_us = -(-(bins.count * bins.width_ns) // (most * 1000))
    enough = f"{-(-width_us // 1000)}ms" if width_us >= 1000 else f"{width_us}us"
    each = f" for each of {cgroups} cgroups" if cgroups > 1 else ""
    one_would_do = cgroups > 1 and bins.count <= _MOST_ROWS
    other = "one of them" if one_would_do else "a shorter range (begin, end)"
    raise UsageError(f"{bins.count} rows of {every}{each} are too many: use every {enough}, or {other}")


@dataclass(frozen=True, slots=True)
class Grid:
    """A matrix with a row for each cgroup to show (`ids`) and a column for each slot of `bins`.

    `local_ids` (ascending) are these cgroups and all below them. A charge to a local cgroup counts for each
    shown cgroup at or above it: `counts_for[n, k]` is the position in `ids` of the n-th cgroup for which a
    charge to `local_ids[k]` counts, -1 if there are fewer.
    """

    ids: list[int]
    local_ids: Int64s
    counts_for: Int64s
    bins: Bins

    @classmethod
    def from_cgroups(cls, trace: TraceTables, ids: list[int], bins: Bins) -> Grid:
        """Return the grid of the cgroups `ids`."""
        above = naming.positions_above(trace.cgroups, ids)
        local_ids = np.array(sorted(above), dtype=np.int64)
        levels = max(map(len, above.values()), default=0)
        counts_for = np.full((levels, len(local_ids)), -1, dtype=np.int64)
        for column, number in enumerate(local_ids.tolist()):
            counts_for[: len(above[number]), column] = above[number]
        return cls(ids, local_ids, counts_for, bins)

    def add(
        self, totals: Int64s, kind: Integers, owner: Integers, time_ns: Int64s, amounts: Integers
    ) -> None:
        """Add the amount of each row to a matrix of (kind, cgroup shown, slot).

        A row counts for all cgroups shown at or above its owner. A row of kind -1 counts nowhere.
        """
        local = self._local(owner)
        rows = np.flatnonzero((time_ns < self.bins.end_ns) & (local >= 0) & (kind >= 0))
        slot = self.bins.slot(time_ns[rows])
        kind, local, amounts = kind[rows].astype(np.int64), local[rows], amounts[rows]
        cells = totals.reshape(-1)
        for counts_for in self.counts_for:
            shown = counts_for[local]
            place = (kind * len(self.ids) + shown) * self.bins.slots + slot
            if (shown < 0).any():
                place, of_place = place[shown >= 0], amounts[shown >= 0]
            else:
                of_place = amounts
            np.add.at(cells, place, of_place)

    def zeros(self, kinds: int) -> Int64s:
        """Return a matrix for `add`."""
        return np.zeros((kinds, len(self.ids), self.bins.slots), dtype=np.int64)

    def sums(self, owner: Int64s, time_ns: Int64s, amounts: Int64s, rows: Bools) -> Int64s:
        """Return the sum of `amounts` over the picked rows as a matrix of (cgroup shown, slot)."""
        totals = self.zeros(1)
        self.add(totals, np.where(rows, 0, -1), owner, time_ns, amounts)
        found: Int64s = totals[0]
        return found

    def _local(self, owner: Integers) -> Int64s:
        """Return the position of each owner in `local_ids`; -1 if it is not there."""
        if not len(self.local_ids):
            return np.full(len(owner), -1)
        position = np.minimum(np.searchsorted(self.local_ids, owner), len(self.local_ids) - 1)
        return np.where(self.local_ids[position] == owner, position, -1)

    def time_within(self, owner: Int64s, begin_ns: Int64s, end_ns: Int64s, rows: Bools) -> Int64s:
        """Return the time of the picked spans in each slot, in ns, as a matrix of (cgroup shown, slot)."""

        def time_since(moment_ns: Int64s) -> Int64s:
            """Return the same matrix for spans without an end."""
            to_slot_end = self.bins.begin_ns + self.bins.slot(moment_ns) * self.bins.width_ns - moment_ns
            in_first_slot = self.sums(owner, moment_ns, to_slot_end, rows)
            begun = self.sums(owner, moment_ns, np.ones_like(moment_ns), rows)
            return in_first_slot + (begun.cumsum(axis=1) - begun) * self.bins.width_ns

        return time_since(begin_ns) - time_since(end_ns)

    def shown_for(self, cgroup_id: int) -> list[int]:
        """Return the positions in `ids` of the cgroups for which a charge to this cgroup counts."""
        (local,) = self._local(np.array([cgroup_id], dtype=np.int64))
        return [] if local < 0 else [shown for shown in self.counts_for[:, local].tolist() if shown >= 0]

    def shown(self, slots: Int64s) -> Int64s:
        """Return a matrix as a column without slot 0: the bins of the first cgroup, then those of the
        next."""
        return np.asarray(slots[:, 1:].ravel())

    def shown_or_na(self, slots: Int64s, valid: Bools) -> pd.arrays.IntegerArray:
        """Return a matrix as a column, as `shown` does, with NA where it is not valid."""
        return pd.arrays.IntegerArray(slots[:, 1:].ravel().copy(), ~valid[:, 1:].ravel())

    def latest(self, readings: Readings) -> pd.arrays.IntegerArray:
        """Return the last reading of each cgroup shown up to the end of each bin, as a column."""
        rows = positions(np.array(self.ids, dtype=np.int64), readings.cgroup_id)
        picked = np.flatnonzero((rows >= 0) & (readings.time_ns < self.bins.end_ns))
        picked = picked[np.argsort(readings.time_ns[picked], kind="stable")]
        row, slot = rows[picked], self.bins.slot(readings.time_ns[picked])
        values = np.zeros((len(self.ids), self.bins.slots), dtype=np.int64)
        valid = np.zeros(values.shape, dtype=bool)
        # NumPy assigns repeated positions in order, so the latest reading of a slot stays.
        values[row, slot] = readings.value[picked]
        valid[row, slot] = True
        source = np.maximum.accumulate(np.where(valid, np.arange(self.bins.slots), 0), axis=1)
        return self.shown_or_na(
            np.take_along_axis(values, source, axis=1), np.logical_or.accumulate(valid, axis=1)
        )


@dataclass(frozen=True, slots=True)
class Readings:
    """The values of a quantity of cgroups, and the time of each reading (ns since the epoch)."""

    cgroup_id: Int64s
    time_ns: Int64s
    value: Int64s

    @classmethod
    def from_samples(cls, samples: pd.DataFrame, column: str) -> Readings:
        """Return the values of a column of `samples`, without nulls."""
        numbers = kernel_numbers(samples, column)
        rows = known(numbers)
        return cls(integers(samples["cgroup_id"])[rows], times_ns(samples)[rows], integers(numbers)[rows])

    @classmethod
    def from_counter(cls, trace: TraceTables, column: str) -> Readings:
        """Return `usage_bytes` or `limit_bytes` as charges and samples read it."""
        charges, sampled = trace.charges, cls.from_samples(trace.samples, column)
        rows = charges.is_read(column)
        return cls(
            np.append(charges.cgroup_id[rows], sampled.cgroup_id),
            np.append(charges.time[rows], sampled.time_ns),
            np.append(charges.values_of(column)[rows], sampled.value),
        )

    def last(self) -> pd.Series[int]:
        """Return the last value of each cgroup, by its id."""
        order = np.argsort(self.time_ns, kind="stable")
        codes, ids = pd.factorize(self.cgroup_id[order])
        values = np.zeros(len(ids), dtype=np.int64)
        values[codes] = self.value[order]  # NumPy assigns repeated positions in order
        return pd.Series(values, index=ids)

    @classmethod
    def from_usage(cls, trace: TraceTables, ids: list[int]) -> Readings:
        """Return `ledger.usage` of each of these cgroups."""
        subtrees, members = Subtrees(trace), naming.descendants_of(trace.cgroups, ids)
        found = [(number, usage(subtrees.subtree_at(number, members[number]))) for number in ids]
        none = np.array([], dtype=np.int64)
        return cls(
            np.concatenate([none, *(np.full(len(steps.times), number) for number, steps in found)]),
            np.concatenate([none, *(steps.times for _, steps in found)]),
            np.concatenate([none, *(steps.values for _, steps in found)]),
        )


def _nanoseconds(duration: str | float, argument: str) -> int:
    """Return a duration in ns, given with a unit or in seconds."""
    try:
        nanoseconds = float(duration) * 1e9
    except ValueError:
        try:
            nanoseconds = pd.Timedelta(duration) / pd.Timedelta(1, "ns")  # total_seconds() may round to µs
        except ValueError:
            nanoseconds = math.nan
    if not abs(nanoseconds) < _LONGEST_SECONDS * 1e9:
        raise UsageError(f"{argument}: {duration!r} is not a duration; give one such as 100ms or 1.5s")
    return round(nanoseconds)


def _moment_ns(moment: str | float, start: int) -> int:
    """Return a moment in ns since the epoch, given as seconds from the start of the trace or in ISO 8601."""
    with contextlib.suppress(UsageError):
        return start + _nanoseconds(moment, "begin, end")
    try:
        time = pd.Timestamp(moment)
        utc = time.tz_localize("UTC") if time.tzinfo is None else time.tz_convert("UTC")
        time_ns = int(utc.as_unit("ns").value)
    except (ValueError, OverflowError, TypeError):  # OutOfBoundsDatetime is a ValueError
        time_ns = -1
    if not 0 <= time_ns <= LATEST_NS:  # NaT is the least int64
        raise UsageError(
            f"{moment!r} is neither seconds from the start (1.5s) nor an ISO 8601 time from 1970 to 2199; "
            "give one of them"
        )
    return time_ns


@dataclass(frozen=True, slots=True)
class _Grown:
    """The readings of a count, cgroup by cgroup, each cgroup's in the order of time.

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


def refaulted_bytes(trace: TraceTables, grid: Grid) -> pd.arrays.IntegerArray:
    """Return the kernel's count of refaults of files, in the bin of the sample that first has each."""
    found = _Grown.from_samples(trace, grid, "workingset_refault_file")
    slot = grid.bins.slot(found.time_ns)
    grown = np.zeros((len(grid.ids), grid.bins.slots), dtype=np.int64)
    inside = slot < grid.bins.slots
    np.add.at(grown, (found.row[inside], slot[inside]), found.steps[inside] * page_size(trace))
    return found.column(grid, grown)


def stalled_us(trace: TraceTables, grid: Grid, column: str) -> pd.arrays.IntegerArray:
    """Return the growth of a total of memory.pressure (microseconds), each part in the bin of its time.

    The kernel updates a total every 2 s, or when somebody reads it. So the growth at a reading happened since
    the growth before, and within the last 2 s unless it is longer than that. It is spread evenly over that
    time.
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
    """Return the times of readings, some of them moved later, so that a total never grows faster than time.

    A total is read a little after the time in its sample.
    """
    return np.maximum.accumulate(time_ns - total_ns) + total_ns
