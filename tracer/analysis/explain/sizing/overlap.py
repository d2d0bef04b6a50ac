"""How the memory of processes and threads may overlap in another run of the same work.

In one run, each process was at its largest at some moment of its own. In another run, a process does the
same a little earlier or later, by the load of the machine. So the peak of the sum in one run is neither the
most that the work may need (`Overlap.more_bytes`) nor the least (`Overlap.less`). Threads that hand work to
one another hold more or less of it from run to run (`Overlap.by_threads_bytes`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import pandas as pd

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import NO_ID, Int64s, integers, is_one_of, known, times_ns
from tracer.analysis.core.ledger import Steps
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import end_ns

_LEAST_BYTES: Final = 1 << 20
"""A process that holds less does not count as one of several."""
_OWN_IF_FREED: Final = ("shmem", "kernel", "sock")
"""Shared memory that a process maps for itself, and its pipes, page tables and socket buffers go with it."""
_SHIFTED_NS: Final = 50_000_000
_SHIFTED_DIVISOR: Final = 4
"""A process may come to each step of its work this much, and this part of its age, earlier or later, as seen
from the first process. So between two others, that is half of their age or more."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """How memory may overlap in another way.

    `more_bytes`: how much more it would have been if the peaks of processes had fallen together: as many of
    the largest as there were at once, each at its own peak. `by_threads_bytes`: what the threads of as many
    processes may hold more or less. `less`: the change of memory over time, in bytes and at most 0, if each
    process held no more than it holds whenever it comes to its steps (`_SHIFTED_NS`).
    """

    more_bytes: int
    by_threads_bytes: int
    less: Steps

    @property
    def apart_bytes(self) -> int:
        """Return how much more memory there may be if peaks of processes and threads fall together."""
        return self.more_bytes + self.by_threads_bytes

    @classmethod
    def of(cls, subtree: Subtree) -> Self:
        """Return the overlap of the processes of a cgroup, with all below it.

        Memory of a process is its anonymous memory, and other kinds if it freed all that it charged
        (`_OWN_IF_FREED`). Memory that was there when the trace began does not count.
        """
        found = [one for one in _processes(subtree) if one.peak_bytes >= _LEAST_BYTES]
        levels = [one.level for one in found]
        others, threads = _by_other_threads(subtree), _threads(subtree)
        by_threads = sorted(
            max(round(one.peak_bytes * others.get(one.tgid, 0.0)), _more_bytes(threads.get(one.tgid, ())))
            for one in found
        )
        later = sorted(levels, key=lambda one: int(one.times[0]))[1:]
        less = _sum([*map(_surely, later), *(one.negative() for one in later)])
        return cls(_more_bytes(levels), sum(by_threads[-max(_at_once(levels), 1) :]), less)


@dataclass(frozen=True, slots=True)
class _Process:
    """A process, and its memory over time in bytes: 0 from its end on, if that is in the trace."""

    tgid: int
    level: Steps
    peak_bytes: int


def _processes(subtree: Subtree) -> Iterator[_Process]:
    charges = subtree.charges
    is_own = charges.is_of("anon") & (charges.tgid != NO_ID)
    for category in _OWN_IF_FREED:
        is_there = charges.is_of(category) & (charges.tgid != NO_ID)
        owners, number = np.unique(charges.tgid[is_there], return_inverse=True)
        left = np.bincount(number, charges.bytes[is_there], len(owners))
        is_own |= is_there & ~np.isin(charges.tgid, owners[left >= _LEAST_BYTES])
    rows = np.flatnonzero(is_own)
    order = rows[np.argsort(charges.tgid[rows], kind="stable")]
    if not len(order):
        return
    tgids, firsts = np.unique(charges.tgid[order], return_index=True)
    changes = (np.split(values[order], firsts[1:]) for values in (charges.time, charges.bytes))
    for tgid, times, amounts in zip(tgids.tolist(), *changes, strict=True):
        level = Steps(times, np.maximum(np.cumsum(amounts), 0), 0)
        peak_bytes = level.peak() or 0
        ended_ns = subtree.whole.processes.exited_at(tgid, subtree.start_ns, end_ns(subtree.whole))
        if ended_ns is not None:
            level.values[times >= ended_ns] = 0
            at_end = max(ended_ns, int(times[-1]))
            level = Steps(np.append(times, at_end), np.append(level.values, 0), 0)
        yield _Process(tgid, level, peak_bytes)


def _by_other_threads(subtree: Subtree) -> dict[int, float]:
    """Return for each process the share of its anonymous growth, by samples, that was not of the thread that
    grew most. A process whose growth was not sampled is left out."""
    samples = _samples(subtree)
    by_thread = samples[~known(samples["sampled"])].groupby(["tgid", "tid"])["bytes"].sum()
    of_process = by_thread.groupby("tgid")
    shares = 1 - of_process.max() / of_process.sum()
    return dict(zip(shares.index.tolist(), shares.tolist(), strict=True))


def _threads(subtree: Subtree) -> Mapping[int, list[Steps]]:
    """Return the anonymous memory of the threads of each process over time, as far as it was sampled."""
    samples = _samples(subtree)
    tgids, tids = integers(samples["tgid"]), integers(samples["tid"])
    found: dict[int, list[Steps]] = defaultdict(list)
    order = np.lexsort((tids, tgids))
    is_next = (np.diff(tgids[order]) != 0) | (np.diff(tids[order]) != 0)
    times, bytes_ = times_ns(samples), integers(samples["bytes"])
    for rows in np.split(order, np.flatnonzero(is_next) + 1) if len(order) else ():
        found[int(tgids[rows[0]])].append(Steps(times[rows], np.cumsum(bytes_[rows]), 0))
    return found


def _samples(subtree: Subtree) -> pd.DataFrame:
    samples = subtree.code_samples
    anon: pd.DataFrame = samples[is_one_of(samples["category"], ["anon"])]
    return anon


def _more_bytes(levels: Sequence[Steps]) -> int:
    """Return how much more the sum of levels would have been if their peaks had fallen together: as many of
    the largest as there were at once."""
    if (at_once := _at_once(levels)) < 2:
        return 0
    peaks = sorted(one.peak() or 0 for one in levels)
    return max(sum(peaks[-at_once:]) - (_sum(levels).peak() or 0), 0)


def _at_once(levels: Sequence[Steps]) -> int:
    """Return how many of the levels were notable at a time."""
    are_there = [Steps(one.times, (one.values >= _LEAST_BYTES).astype(np.int64), 0) for one in levels]
    return _sum(are_there).peak() or 0


def _sum(levels: Sequence[Steps]) -> Steps:
    """Return the sum of many levels that are 0 at first. `ledger.total` would look at each of them at all
    moments."""
    times = np.concatenate([np.empty(0, np.int64), *(one.times for one in levels)])
    steps = np.concatenate([np.empty(0, np.int64), *(np.diff(one.values, prepend=0) for one in levels)])
    order = np.argsort(times, kind="stable")
    times = times[order]
    is_last = np.diff(times, append=-1) != 0
    return Steps(times[is_last], np.cumsum(steps[order])[is_last], 0)


def _surely(level: Steps) -> Steps:
    """Return what a process holds at each moment, at least, if each change may come earlier or later."""
    ages = level.times - level.times[0]
    shifts = _SHIFTED_NS + ages // _SHIFTED_DIVISOR
    early, late = level.times - shifts, level.times + shifts
    times = ledger.merged_times(early, late)
    firsts, lasts = late.searchsorted(times, side="right"), early.searchsorted(times, side="right")
    return Steps(times, _least_of_each(np.append(0, level.values), firsts, lasts), 0)


def _least_of_each(values: Int64s, firsts: Int64s, lasts: Int64s) -> Int64s:
    """Return the least value from each of `firsts` to the one of `lasts`, both included."""
    found = np.empty(len(firsts), dtype=np.int64)
    doublings = np.frexp(lasts - firsts + 1)[1] - 1
    least = values
    for doubling in range(int(doublings.max()) + 1):
        picked, width = doublings == doubling, 1 << doubling
        found[picked] = np.minimum(least[firsts[picked]], least[lasts[picked] + 1 - width])
        least = np.minimum(least[:-width], least[width:])
    return found
