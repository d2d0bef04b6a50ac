"""Lost time: the time that tasks spend on getting back the memory that the limit of their cgroup takes away.

Lost is the time in reclaim, in reading file contents again that were evicted from the cgroup, in reading from
swap, and throttled above memory.high. Work is CPU time outside of reclaim. Reading file contents for the
first time belongs to the work, but uses no CPU. The lost share is lost / (lost + work + first reads). Other
waits, such as for a network or for another process, are in none of the three.

A wait for file contents does not show whether the page had been evicted. So a share of the wait for a file
counts as reading again: the pages that came back in the same second, divided by all pages of the file that
were added in it, both for the cgroup and those below it. Contents that were evicted before the trace count as
first reads.

Waits for a CPU are in none of the three either: the time in reclaim is its CPU time (`reclaim.cpu_ns`) and
the throttled waits inside it. Older traces do not have the CPU time of an attempt. There, the whole duration
of the attempt counts, and `work` is a lower bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from tracer.analysis.core import naming
from tracer.analysis.core.bins import Grid
from tracer.analysis.core.columns import (
    NO_ID,
    Int64s,
    Integers,
    column_times_ns,
    distinct,
    integers,
    is_one_of,
    known,
    positions,
    times_ns,
    utc_times,
)
from tracer.analysis.core.rows import OwnedRows
from tracer.analysis.core.subtree import Subtree, Subtrees
from tracer.analysis.core.tables import TraceTables, end_ns, start_ns
from tracer.analysis.views.reclaim import KINDS, THROTTLED, are_stalls_known, is_waited_for

BIN_NS: Final = 1_000_000_000

Floats = npt.NDArray[np.float64]

_LOST: Final = ("reclaim_ms", "reread_ms", "swap_in_ms", "throttled_ms")
TIMES: Final = (*_LOST, "first_read_ms", "work_ms", "cpu_ms")


def lost_time(trace: TraceTables, cgroup: str | int | None = None) -> pd.DataFrame:
    """Return the lost time of cgroups, each with all cgroups below it, in bins of 1 s.

    The index, `time` (UTC), is the beginning of the bin. `cgroup` is the path, `cgroup_id` its id. Times are
    summed over the tasks, in ms: `reclaim_ms`, `reread_ms`, `swap_in_ms` and `throttled_ms` (memory.high) are
    lost, `cpu_ms` is all CPU time, `work_ms` that outside of reclaim, `first_read_ms` the wait for file
    contents that had not been evicted. `lost_share` is from 0 to 1. NaN: the trace does not have it, or, for
    the share, nothing was done in the bin. Bins before the first and after the last of these are left out.

    `cgroup` is any pattern of `naming.resolve`; without it, all cgroups with data in the trace are shown.
    """
    shown = naming.with_data(trace) if cgroup is None else naming.select(trace, cgroup)
    spending, subtrees = Spending(trace), Subtrees(trace)
    frames = [_empty()]
    for number in shown:
        frame = spending.of(subtrees.subtree_at(number)).trimmed().frame()
        named = frame.assign(cgroup=trace.places.label_of(number), cgroup_id=number)
        frames.append(named[list(frames[0].columns)])
    return pd.concat([frame for frame in frames if len(frame)] or frames)


def total_lost_share(trace: TraceTables, cgroup_id: int) -> float | None:
    """Return the lost share of a cgroup, with all cgroups below it, over the whole trace.

    None: it is not known, or its tasks did nothing.
    """
    return Spending(trace).of(Subtrees(trace).subtree_at(cgroup_id)).lost_share()


def _empty() -> pd.DataFrame:
    columns = {"cgroup": pd.Series([], dtype=object), "cgroup_id": np.zeros(0, dtype=np.int64)}
    columns |= dict.fromkeys((*TIMES, "lost_share"), np.zeros(0))
    return pd.DataFrame(columns, index=utc_times(np.zeros(0, dtype=np.int64)).rename("time"))


@dataclass(frozen=True, slots=True)
class Times:
    """The time of the tasks of a cgroup in each bin, in ms.

    The first bin begins at `begin_ns`, in ns since the epoch. `is_known`: the trace has the CPU time of tasks
    and their waits for files. An array of NaN is not known.
    """

    begin_ns: int
    is_known: bool
    reclaim_ms: Floats
    reread_ms: Floats
    swap_in_ms: Floats
    throttled_ms: Floats
    first_read_ms: Floats
    work_ms: Floats
    cpu_ms: Floats

    def __len__(self) -> int:
        return len(self.cpu_ms)

    @property
    def lost_ms(self) -> Floats:
        """Return the lost time; waits that the trace does not have count as 0."""
        return np.asarray(np.nansum([getattr(self, name) for name in _LOST], axis=0))

    @property
    def all_ms(self) -> Floats:
        """Return the sum of lost time, work and first reads, of which lost time is a share; NaN if the work
        is not known."""
        return self.lost_ms + self.work_ms + self.first_read_ms

    def bin_begin_ns(self, position: int) -> int:
        """Return the beginning of a bin, counted from the first one, in ns since the epoch."""
        return self.begin_ns + position * BIN_NS

    def pages(self, time_ns: Int64s, pages: Integers) -> Floats:
        """Return the sum of the pages in each bin; those outside of all bins are left out."""
        position = (time_ns - self.begin_ns) // BIN_NS
        inside = (position >= 0) & (position < len(self))
        return np.bincount(position[inside], pages[inside], len(self)).astype(np.float64)

    def between(self, first: int, end: int) -> Times:
        """Return the bins from `first` to `end`, which is excluded; both count from the first one."""
        arrays = {name: getattr(self, name)[first:end] for name in TIMES}
        return Times(self.bin_begin_ns(first), self.is_known, **arrays)

    def trimmed(self) -> Times:
        """Return the bins from the first to the last in which something was done."""
        busy = np.flatnonzero(np.nansum([getattr(self, name) for name in TIMES], axis=0) > 0)
        return self.between(int(busy[0]), int(busy[-1]) + 1) if len(busy) else self.between(0, 0)

    def total(self, name: str) -> float | None:
        """Return the sum of one of the arrays; None if it is not known."""
        total = float(getattr(self, name).sum())
        return None if np.isnan(total) else total

    def lost_share(self) -> float | None:
        """Return the lost share of all bins; None if it is not known, or if nothing was done."""
        whole = float(self.all_ms.sum())
        return float(self.lost_ms.sum()) / whole if self.is_known and whole > 0 else None

    def frame(self) -> pd.DataFrame:
        """Return a row for each bin."""
        begins = self.begin_ns + np.arange(len(self), dtype=np.int64) * BIN_NS
        columns = {name: getattr(self, name) for name in TIMES}
        columns["lost_share"] = self.lost_ms / np.where(self.all_ms > 0, self.all_ms, np.nan)
        return pd.DataFrame(columns, index=utc_times(begins).rename("time"))


class Spending:
    """The time of the tasks of a trace. Data that all cgroups share is computed once."""

    def __init__(self, trace: TraceTables) -> None:
        self.start_ns = start_ns(trace)
        self._bins = int((end_ns(trace) - self.start_ns) // BIN_NS) + 1
        inode_id = trace.cache_events.files["inode_id"]
        self._files = np.flatnonzero(known(inode_id))
        self._inode_ids = integers(inode_id)[self._files]
        self.paths = trace.inodes.drop_duplicates("inode_id", keep="last").set_index("inode_id")["path"]
        self.is_recorded = len(trace.task_time) > 0
        self._known_waits = {kind for kind in KINDS if are_stalls_known(trace, kind)}
        self._added = _Added.from_events(trace, self.start_ns)
        self._attempts = _Attempts.from_reclaim(trace.reclaim)

    def of(self, subtree: Subtree) -> Times:
        """Return the times of the tasks of a cgroup and of those below it."""
        rows = subtree.file_waits
        again_ns, wait_ns = self.reread_ns(subtree), integers(rows["wait_ns"])
        first_ns = np.where(known(rows["inode_id"]), wait_ns - again_ns, 0)
        cpu_ms, running_ms = self._cpu_ms(subtree), self._running_in_reclaim_ms(subtree)
        return Times(
            begin_ns=self.start_ns,
            is_known=self.is_recorded,
            reclaim_ms=running_ms + np.nan_to_num(self._waits_ms(subtree, THROTTLED)),
            reread_ms=self._file_waits_ms(rows, again_ns),
            swap_in_ms=self._waits_ms(subtree, ("swap_in",)),
            throttled_ms=self._waits_ms(subtree, ("high",)),
            cpu_ms=cpu_ms,
            work_ms=np.maximum(cpu_ms - running_ms, 0),
            first_read_ms=self._file_waits_ms(rows, first_ns),
        )

    def reread_ns(self, subtree: Subtree) -> Int64s:
        """Return for each row of `file_waits` of the subtree the part of its wait for pages that had been
        evicted from the subtree.

        If no page of the file was added in the second of a row, the share of the whole trace is used.
        """
        rows = subtree.file_waits
        if rows.empty:
            return np.zeros(0, dtype=np.int64)
        back, added = subtree.refaulted, self._added.of_cgroups(subtree.members)
        file = np.append(self._files, -1)[positions(self._inode_ids, integers(rows["inode_id"]))]
        second = (times_ns(rows) - self.start_ns) // BIN_NS
        back_second = (back.time - self.start_ns) // BIN_NS
        came = self._pages(added.file, added.time, added.pages, file, second)
        again = self._pages(back.file, back_second, back.pages, file, second)
        at_any_time = np.zeros_like(second)
        came_ever = self._pages(added.file, np.zeros_like(added.time), added.pages, file, at_any_time)
        again_ever = self._pages(back.file, np.zeros_like(back.time), back.pages, file, at_any_time)
        share = np.where(came > 0, again, again_ever) / np.maximum(np.where(came > 0, came, came_ever), 1)
        return np.asarray((integers(rows["wait_ns"]) * np.minimum(share, 1)).astype(np.int64))

    def _pages(
        self, files: Integers, seconds: Int64s, pages: Integers, file: Int64s, second: Int64s
    ) -> Int64s:
        """Return the sum of `pages` over the rows of `files` and `seconds` that have each given pair."""
        keys, code = np.unique(files.astype(np.int64) * self._bins + seconds, return_inverse=True)
        sums = np.append(np.bincount(code, pages, len(keys)), 0).astype(np.int64)
        wanted = file * self._bins + second
        place = np.searchsorted(keys, wanted)
        is_there = (np.append(keys, -1)[place] == wanted) & (file >= 0)
        is_there &= (second >= 0) & (second < self._bins)  # else the key is that of another file
        return np.where(is_there, sums[place], 0)

    def _waits_ms(self, subtree: Subtree, kinds: tuple[str, ...]) -> Floats:
        """Return the waits of these kinds; NaN if the trace does not record them."""
        if self._known_waits.isdisjoint(kinds):
            return np.full(self._bins, np.nan)
        waits = subtree.waits[is_one_of(subtree.waits["kind"], kinds)]
        begins, took = times_ns(waits), integers(waits["duration_ns"])
        return self._spread(begins, begins + took, took) / 1e6

    def _running_in_reclaim_ms(self, subtree: Subtree) -> Floats:
        """Return the CPU time of tasks in reclaim.

        In older traces, it is their whole time in reclaim without the throttled waits.
        """
        if self._attempts is None:
            return self._waits_ms(subtree, ("reclaim",))
        attempts = self._attempts.of_cgroups(subtree.members)
        return self._spread(attempts.time, attempts.end_ns, attempts.cpu_ns) / 1e6

    def _cpu_ms(self, subtree: Subtree) -> Floats:
        if not self.is_recorded:
            return np.full(self._bins, np.nan)
        rows = subtree.task_time
        return self._spread(column_times_ns(rows["begin"]), times_ns(rows), integers(rows["cpu_ns"])) / 1e6

    def _file_waits_ms(self, rows: pd.DataFrame, amounts_ns: Int64s) -> Floats:
        """Return waits for files; each row counts in the bin in which it began."""
        if not self.is_recorded:
            return np.full(self._bins, np.nan)
        second = (times_ns(rows) - self.start_ns) // BIN_NS
        inside = (second >= 0) & (second < self._bins)
        return np.bincount(second[inside], amounts_ns[inside], self._bins) / 1e6

    def _spread(self, begins: Int64s, ends: Int64s, amounts: Int64s) -> Floats:
        """Return the part of each amount that is in each bin, if it is spread evenly from begin to end."""
        if not len(begins):
            return np.zeros(self._bins)
        begins, ends = begins - self.start_ns, ends - self.start_ns
        begins = np.minimum(begins, ends - 1)
        rates = amounts / (ends - begins)
        moments, steps = np.append(begins, ends), np.append(rates, -rates)
        order = np.argsort(moments, kind="stable")
        moments = moments[order].astype(np.float64)
        sums = np.append(0, np.cumsum(np.cumsum(steps[order])[:-1] * np.diff(moments)))
        return np.diff(np.interp(np.arange(self._bins + 1) * float(BIN_NS), moments, sums))


def reread_ms(trace: TraceTables, grid: Grid) -> Floats:
    """Return the waits for contents that had been evicted from the cgroups of a grid, as a column of a
    timeline.

    A wait that takes several slots is in all of them.
    """
    spending, subtrees, waited = Spending(trace), Subtrees(trace), grid.zeros(1)[0]
    waiting = np.unique(integers(trace.file_waits["cgroup_id"])).tolist()
    for shown in sorted({place for number in waiting for place in grid.shown_for(number)}):
        subtree = subtrees.subtree_at(grid.ids[shown])
        begin = times_ns(subtree.file_waits)
        end = begin + integers(subtree.file_waits["duration_ns"])
        waited[shown] = grid.bins.spread(begin, end, spending.reread_ns(subtree))
    return np.asarray(grid.shown(waited) / (1e6 if spending.is_recorded else np.nan))


@dataclass(frozen=True)
class _Attempts(OwnedRows):
    """Reclaim attempts for which tasks waited. `cgroup_id` is the cgroup of the task, not of the target."""

    end_ns: Int64s
    cpu_ns: Int64s

    @classmethod
    def from_reclaim(cls, reclaim: pd.DataFrame) -> Self | None:
        """Return the attempts; None if their CPU time is not known."""
        rows = reclaim[is_waited_for(reclaim)]
        if not known(rows["cpu_ns"]).all():
            return None
        time = times_ns(rows)
        return cls(
            time=time,
            cgroup_id=integers(rows["task_cgroup_id"]),
            end_ns=time + integers(rows["duration_ns"]),
            cpu_ns=integers(rows["cpu_ns"]),
        )


@dataclass(frozen=True)
class _Added(OwnedRows):
    """The pages of files that were added to the cache of each cgroup; `time` is the number of a second.

    `file` is a position in `CacheEvents.files`. Only files for which tasks waited are included.
    """

    file: Integers
    pages: Integers

    @classmethod
    def from_events(cls, trace: TraceTables, start_ns: int) -> Self:
        events = trace.cache_events
        kinds = events.kinds
        is_added, owner = is_one_of(kinds["op"], ["add"]), integers(kinds["cgroup_id"])
        inode_id = integers(events.files["inode_id"])
        is_waited_for = (inode_id != NO_ID) & np.isin(inode_id, integers(trace.file_waits["inode_id"]))
        batches = []
        for part in events.batches():
            some = part[np.flatnonzero(is_added[part.kind] & is_waited_for[part.file])]
            second = (some.time - start_ns) // BIN_NS
            of_kind = np.asarray(pd.factorize(owner)[0], dtype=np.int64)[some.kind]
            code, firsts = distinct(second, of_kind, some.file)
            batches.append(
                {
                    "time": second[firsts],
                    "cgroup_id": owner[some.kind[firsts]],
                    "file": some.file[firsts],
                    "pages": np.bincount(code, some.pages, len(firsts)).astype(np.int64),
                }
            )
        return cls.from_batches(batches)
