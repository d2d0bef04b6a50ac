"""Whether the work of a cgroup went on: lost time and memory.high.

The state is that of the worst stretch of the trace. A window of 10 s, or of a quarter of the time in which
the tasks of the cgroup did anything if that is less, moves over that time in steps of 1 s. Windows count in
which the lost share (`views.lost_time`) is at least a third, and a tenth of the time of one task was lost.

* "throttled": at least half of the lost time was spent above memory.high.
* "thrashing": at least a quarter of the evicted page cache was read again, or half of the lost time was spent
  reading from swap. Reclaim alone, as of a program that reads a large file once, is no thrash.
* "held": no window counts.

Windows that count and overlap are one stretch, and the stretch with the most lost time is taken, without the
seconds at its ends that had a lesser share.

A cgroup exceeded its memory.high in the trace if its count of these events (memory.events) grew, and its peak
of usage is above the value. The count alone is not enough: it includes the counts of the cgroups below.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from tracer.analysis.core import naming
from tracer.analysis.core.columns import (
    NO_ID,
    Bools,
    integers,
    is_one_of,
    kernel_numbers,
    known,
    optional,
    optional_text,
    times_ns,
    utc_time,
)
from tracer.analysis.core.ledger import made_in_trace
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import TraceTables, end_ns, page_size
from tracer.analysis.explain.measure.growth import LEAST_REREAD, LEAST_SHARE
from tracer.analysis.results.survivor import Crawl, Delayed, Held, HighOwner, LostTime, Progress, RereadFile
from tracer.analysis.views import reclaim
from tracer.analysis.views.lost_time import BIN_NS, Spending, Times
from tracer.schema import UNLIMITED_BYTES

LEAST_LOST: Final = 0.1
_MOST_SECONDS: Final = 10
_PARTS: Final = 4
_MOST_FILES: Final = 10
_MOST_NAMES: Final = 5
_SMALL: Final = 0.1

NOT_KNOWN: Final = "the trace has no CPU times of tasks and no waits for files: an older version recorded it"

_LOST_KINDS: Final = ("reclaim", *reclaim.THROTTLED, "swap_in", "high")


def progress(subtree: Subtree, spending: Spending) -> Progress:
    """Return the progress of a cgroup and those below it over the whole trace."""
    times = spending.of(subtree).trimmed()
    files = tuple(_files(subtree, spending))
    if not times.is_known:
        return Progress(files=files)
    lost = LostTime(**{item.name: times.total(item.name) for item in fields(LostTime)})
    stretch = _worst(subtree, times)
    if stretch is None:
        return Progress("held", times.lost_share(), lost, files=files)
    inside = times.between(*stretch)
    begin, end = (times.bin_begin_ns(bound) for bound in stretch)
    delayed = _delayed_ns(subtree, spending, begin, end)
    is_throttled = 2 * np.nansum(inside.throttled_ms) >= inside.lost_ms.sum()
    return Progress(
        state="throttled" if is_throttled else "thrashing",
        lost_share=times.lost_share(),
        lost=lost,
        crawl=_crawl(subtree, inside, begin, end, delayed),
        delayed=tuple(_by_name(subtree, delayed, begin, end)),
        files=files,
    )


def _worst(subtree: Subtree, times: Times) -> tuple[int, int] | None:
    """Return the first bin of the worst stretch and the first one after it; None: no window counts."""
    width = max(min(_MOST_SECONDS, -(-len(times) // _PARTS)), 1)
    if len(times) < width:
        return None
    lost, whole = _moving(times.lost_ms, width), _moving(times.all_ms, width)
    evicted = _moving(times.pages(subtree.evicted.time, subtree.evicted.pages), width)
    again = _moving(times.pages(subtree.refaulted.time, subtree.refaulted.pages), width)
    is_reread = (again > 0) & (again >= LEAST_REREAD * evicted)
    others = [_moving(np.nan_to_num(one), width) for one in (times.throttled_ms, times.swap_in_ms)]
    counts = (lost >= LEAST_SHARE * whole) & (lost >= LEAST_LOST * width * BIN_NS / 1e6)
    counts &= is_reread | np.logical_or.reduce([2 * one >= lost for one in others])
    if not counts.any():
        return None
    edges = np.flatnonzero(np.diff(np.concatenate([[0], _covered(counts, width).astype(np.int8), [0]])))
    stretches = [(int(first), int(end)) for first, end in edges.reshape(-1, 2)]
    worst = slice(*max(stretches, key=lambda one: float(times.lost_ms[slice(*one)].sum())))
    slow = worst.start + np.flatnonzero(times.lost_ms[worst] >= LEAST_SHARE * times.all_ms[worst])
    return int(slow[0]), int(slow[-1]) + 1


def _covered(counts: Bools, width: int) -> Bools:
    """Return a mask of the bins that are in any window of `width` bins that counts."""
    covered = np.zeros(len(counts) + width - 1, dtype=np.bool_)
    for offset in range(width):
        covered[offset : offset + len(counts)] |= counts
    return covered


def _moving(values: npt.NDArray[np.float64], width: int) -> npt.NDArray[np.float64]:
    """Return the sum of each `width` consecutive values."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray(sums[width:] - sums[:-width])


def _crawl(subtree: Subtree, inside: Times, begin: int, end: int, delayed: pd.Series[int]) -> Crawl:
    last = end_ns(subtree.whole)
    tasks = subtree.whole.tasks
    lives = is_one_of(tasks["tgid"], delayed.index.tolist()) & ~known(tasks["exited"])
    return Crawl(
        begin=utc_time(begin),
        end=utc_time(min(end, last)),
        lost_share=inside.lost_share() or 0.0,
        lasts=bool(lives.any()) and end >= last - BIN_NS,
    )


def _delayed_ns(subtree: Subtree, spending: Spending, begin: int, end: int) -> pd.Series[int]:
    """Return the delay of each process within an interval, by tgid, without those with little delay."""
    waits = subtree.waits[is_one_of(subtree.waits["kind"], _LOST_KINDS)]
    files = subtree.file_waits
    moments = np.append(times_ns(waits), times_ns(files))
    tgids = np.append(integers(waits["tgid"]), integers(files["tgid"]))
    took = np.append(integers(waits["duration_ns"]), spending.reread_ns(subtree))
    inside = (moments >= begin) & (moments < end)
    delayed: pd.Series[int] = pd.Series(took[inside]).groupby(tgids[inside]).sum()
    large: pd.Series[int] = delayed[delayed >= _SMALL * delayed.max()]
    return large


def _by_name(subtree: Subtree, delayed: pd.Series[int], begin: int, end: int) -> Iterator[Delayed]:
    comms = [subtree.whole.processes.comm_at(int(tgid), begin, end) for tgid in delayed.index]
    by_name = delayed.groupby(pd.Series(comms, index=delayed.index, dtype=object), dropna=False)
    sums = by_name.agg(["size", "sum"]).sort_values("sum", ascending=False).head(_MOST_NAMES)
    for comm, processes, delayed_ns in sums.itertuples():
        yield Delayed(optional_text(comm), int(processes), float(delayed_ns / 1e6))


def _files(subtree: Subtree, spending: Spending) -> Iterator[RereadFile]:
    """Yield the files of which most was read again."""
    trace = subtree.whole
    back = subtree.refaulted
    if not len(back):
        return
    pages = np.bincount(back.file, back.pages)
    order = np.argsort(-pages, kind="stable")[:_MOST_FILES]
    order = order[pages[order] > 0]
    inode_ids = integers(trace.cache_events.files["inode_id"].iloc[order])
    waited = np.unique(integers(subtree.file_waits["tgid"]))
    programs = trace.processes.programs(waited, subtree.members)
    for inode_id, refaulted_pages in zip(inode_ids.tolist(), pages[order].tolist(), strict=True):
        yield RereadFile(
            path=optional_text(spending.paths.get(inode_id)) if inode_id != NO_ID else None,
            refaulted_bytes=int(refaulted_pages) * page_size(trace),
            executable=None if programs is None else inode_id in programs,
        )


_SIZES: Final = ("high_bytes", "effective_high_bytes", "peak_bytes", "swap_high_bytes")
_COUNTS: Final = ("high_events", "swap_high_events")


@dataclass(frozen=True, slots=True)
class _Readings:
    """The last readings of a cgroup, and by how much its counts of events grew in the trace; None: not known.

    `has_grown`: whether that count grew; it did not if it was read once, as samples are of changes.
    """

    high_bytes: int | None
    effective_bytes: int | None
    peak_bytes: int | None
    swap_high_bytes: int | None
    events: int | None
    has_grown: bool | None
    swap_events: int | None
    has_swap_grown: bool | None

    @property
    def is_exceeded(self) -> bool:
        if not self.has_grown or self.high_bytes is None or self.high_bytes >= UNLIMITED_BYTES:
            return False
        return self.peak_bytes is None or self.peak_bytes > self.high_bytes

    @property
    def is_swap_exceeded(self) -> bool:
        return bool(self.has_swap_grown) and (self.swap_high_bytes or UNLIMITED_BYTES) < UNLIMITED_BYTES


class HighLimits:
    """memory.high and memory.swap.high of all cgroups that have samples."""

    def __init__(self, trace: TraceTables) -> None:
        self._trace = trace

    def effective_bytes(self, cgroup_id: int) -> int | None:
        """Return the least memory.high of the cgroup and those above it, traced or not, at its last sample.

        `UNLIMITED_BYTES` if none is set; None on v1, or if it was never read.
        """
        found = self._readings.get(cgroup_id)
        return None if found is None else found.effective_bytes

    def owner(self, subtree: Subtree, *, is_throttled: bool) -> HighOwner | None:
        """Return the memory.high that was exceeded, else the least one that is set on the cgroup or above it.

        The cgroup comes before those above it, the nearest first, and these before those below it. If tasks
        waited (`is_throttled`) and none of these was exceeded, it is the memory.swap.high that was: tasks
        wait for both in the same function (mem_cgroup_handle_over_high in mm/memcontrol.c). Else it is that
        of a cgroup above that was not traced. None: no memory.high is set, or none was read.
        """
        own, readings = subtree.cgroup_id, self._readings
        chain = self._up_from(own)
        members = [number for number in subtree.members.tolist() if number in readings]
        below = sorted(members, key=lambda number: -(readings[number].events or 0))
        for number in (*chain, *below):
            if readings[number].is_exceeded:
                return self._traced(own, number)
        for number in (*chain, *below) if is_throttled else ():
            if (read := readings[number]).is_swap_exceeded:
                high, events = read.swap_high_bytes, read.swap_events
                owner = self._traced(own, number)
                return replace(owner, high_bytes=high, high_events=events, file="memory.swap.high")
        set_bytes = [high for number in chain if (high := readings[number].high_bytes) is not None]
        least = min(set_bytes, default=UNLIMITED_BYTES)
        effective = self.effective_bytes(own)
        above = effective if effective is not None and effective < least else None
        is_elsewhere = chain and all(readings[number].has_grown is False for number in (*chain, *below))
        if above is not None or (is_throttled and is_elsewhere):
            return HighOwner(None, None, above, None, is_ancestor=True)
        if least >= UNLIMITED_BYTES:
            return None
        return self._traced(own, next(number for number in chain if readings[number].high_bytes == least))

    def _traced(self, own: int, number: int) -> HighOwner:
        read, places = self._readings[number], self._trace.places
        is_ancestor = number != own and number in self._up_from(own)
        container, _ = places.container_of(number)
        return HighOwner(places.label_of(number), container, read.high_bytes, read.events, is_ancestor)

    def _up_from(self, cgroup_id: int) -> list[int]:
        """Return the ids of the cgroup and of those above it that have samples, the nearest first."""
        return [self._ids[position] for position in self._above.get(cgroup_id, [])]

    @cached_property
    def _ids(self) -> list[int]:
        return list(self._readings)

    @cached_property
    def _above(self) -> dict[int, list[int]]:
        return naming.positions_above(self._trace.cgroups, self._ids)

    @cached_property
    def _readings(self) -> dict[int, _Readings]:
        samples = self._trace.samples
        names = (*_SIZES, *_COUNTS)
        columns = {name: kernel_numbers(samples, name).reset_index(drop=True) for name in names}
        by_cgroup = pd.DataFrame(columns).groupby(integers(samples["cgroup_id"]))
        last, counts = by_cgroup.last(), by_cgroup[list(_COUNTS)]
        first, most, reads = counts.first(), counts.max(), counts.count()
        made = made_in_trace(self._trace.cgroups, last.index.to_numpy())

        def events(number: int, name: str, is_made: bool) -> tuple[int | None, bool | None]:
            counted = optional(most.at[number, name])
            before = 0 if is_made else optional(first.at[number, name])
            grown = None if counted is None or before is None else counted - before
            is_count = is_made or (optional(reads.at[number, name]) or 0) > 1
            return grown if is_count else None, None if grown is None else grown > 0

        found = {}
        for number, is_made in zip(last.index.tolist(), made.tolist(), strict=True):
            high, effective, peak, swap_high = (optional(last.at[number, name]) for name in _SIZES)
            own, swap = (events(number, name, is_made) for name in _COUNTS)
            found[number] = _Readings(high, effective, peak, swap_high, *own, *swap)
        return found


def why_not_known(owner: HighOwner) -> dict[str, str]:
    """Return the fields of `Held.high_owner` that are not known, with the reason."""
    reasons = {
        "cgroup": "the cgroup above was not traced",
        "container": "the cgroup is no known runtime's container" if owner.cgroup else "it was not traced",
        "high_bytes": "it is not the least one, and the cgroup was not traced",
        "high_events": "the cgroup was not traced" if owner.cgroup is None else "they were not read twice",
    }
    return {f"high_owner.{name}": why for name, why in reasons.items() if getattr(owner, name) is None}


def foremost_first(cgroups: Iterable[Held]) -> list[Held]:
    """Return the cgroups: the one that the answer is about, then the others, nearest to their limit first."""
    by_room = sorted(cgroups, key=room_left)
    foremost = slowest(by_room)
    return sorted(by_room, key=lambda one: one is not foremost)


def slowest(cgroups: Iterable[Held]) -> Held | None:
    """Return the cgroup that the answer is about if any is throttled or thrashing, else None.

    It is the one that lost the greatest share; of several with about that share, the deepest one with a
    limit, because the figures of each cgroup include those below it.
    """
    found = [
        (one, one.progress.crawl)
        for one in cgroups
        if one.progress.crawl is not None and one.stuck_since is None
    ]
    return max(
        found,
        key=lambda it: (round(it[1].lost_share, 1), _is_bounded(it[0]), it[0].cgroup.count("/")),
        default=(None, None),
    )[0]


def room_left(one: Held) -> float:
    """Return the share of its limit that the cgroup never used, from 0 to 1; infinite without a limit."""
    if one.headroom_bytes is None or not one.limit_bytes:
        return math.inf
    return one.headroom_bytes / one.limit_bytes


def _is_bounded(one: Held) -> bool:
    limits = (one.limit_bytes, one.high_bytes)
    return any(limit is not None and limit < UNLIMITED_BYTES for limit in limits)
