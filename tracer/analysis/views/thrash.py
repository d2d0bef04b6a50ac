"""Cache that was read again soon: the intervals in which much of the evicted page cache was needed again.

This counts memory, and `explain.slowed.progress` counts time: only the latter finds that tasks are thrashing.
The time of the trace is cut into bins of 1 s. A bin of a cgroup counts if at least 1 MiB of its page cache
was evicted in it and at least a quarter of that was read again within 10 s of its eviction. Consecutive bins
are one interval.

Cache that is read again later is not counted: its working set does not fit either, but it is used slowly. A
page that is evicted in the last 10 s of the trace had less time to be read again. So an interval that lasts
until the end of the trace may end a little early.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import Int64s, Unsigned, distinct, integers, utc_times
from tracer.analysis.core.evicted import is_evicted
from tracer.analysis.core.page_cache import Links
from tracer.analysis.core.subtree import Subtree, Subtrees
from tracer.analysis.core.tables import TraceTables, end_ns, page_size, start_ns
from tracer.analysis.views.refaults import half_back_ns

BIN_NS: Final = 1_000_000_000
SOON_NS: Final = 10 * BIN_NS
LEAST_EVICTED_BYTES: Final = 1 << 20
LEAST_SHARE: Final = 0.25

_FAR: Final = np.iinfo(np.int64).max

_COLUMNS: Final = (
    *("cgroup_id", "begin", "end", "evicted_bytes", "refaulted_bytes", "median_away_ms"),
    "psi_some_share",
)


def thrash(trace: TraceTables) -> pd.DataFrame:
    """Return the intervals in which page cache of a cgroup was read again soon, by cgroup and time.

    `cgroup_id` is the cgroup that was charged for the evicted cache (NA: none); cgroups above it have no rows
    for it. `begin` and `end` (UTC) are the first and the last eviction. `refaulted_bytes` is the part of
    `evicted_bytes` that the same cgroup read again within 10 s; half of it was back after `median_away_ms`.
    What another cgroup reads is no sign that this one needed it. `psi_some_share` is the share of time in
    which some task of the cgroup, or of one below it, waited for memory (memory.pressure), over the interval
    or between the samples around it (`ledger.read_around`); NaN if it was not sampled.
    """
    seconds = _Seconds.from_trace(trace)
    inside = _thrashing(trace, seconds)
    if inside.empty:
        return _empty()
    intervals = inside.groupby("interval").agg(
        {"cgroup_id": "first", "begin": "min", "end": "max", "evicted_bytes": "sum", "refaulted_bytes": "sum"}
    )
    subtrees = Subtrees(trace)
    owners = {number: subtrees.subtree_at(number) for number in set(intervals["cgroup_id"].tolist())}
    bounds = (intervals[name].tolist() for name in ("cgroup_id", "begin", "end"))
    found = intervals.assign(
        begin=utc_times(integers(intervals["begin"])),
        end=utc_times(integers(intervals["end"])),
        median_away_ms=_median_away_ns(trace, seconds, inside["interval"]) / 1e6,
        psi_some_share=[
            psi_some_share(owners[number], begin, end) for number, begin, end in zip(*bounds, strict=True)
        ],
    )
    found["cgroup_id"] = found["cgroup_id"].astype("Int64").where(found["cgroup_id"] >= 0)
    return found[list(_COLUMNS)].reset_index(drop=True)


def thrash_below(trace: TraceTables, cgroup_id: int) -> pd.DataFrame:
    """Return the rows of `thrash` of the cgroup and of those below it, by time."""
    found = thrash(trace)
    members = trace.places.descendants(cgroup_id)
    return found[np.isin(integers(found["cgroup_id"]), members)].sort_values("begin", kind="stable")


def _empty() -> pd.DataFrame:
    kinds = ("Int64", *["datetime64[ns, UTC]"] * 2, *["int64"] * 2, *["float64"] * 2)
    columns = zip(_COLUMNS, kinds, strict=True)
    return pd.DataFrame({name: pd.Series([], dtype=kind) for name, kind in columns})


@dataclass(frozen=True, slots=True)
class _Seconds:
    """The bins of each owner, numbered: the bins of one owner one after the other, and a gap before the next.

    `owners` are the owners' ids in order, and `owner` has for each kind of event its position there.
    """

    owners: Int64s
    owner: Int64s
    start: int
    bins: int

    @classmethod
    def from_trace(cls, trace: TraceTables) -> _Seconds:
        owners, owner = np.unique(integers(trace.cache_events.kinds["cgroup_id"]), return_inverse=True)
        return cls(owners, owner, start_ns(trace), (end_ns(trace) - start_ns(trace)) // BIN_NS + 2)

    def number(self, kind: Unsigned, time: Int64s) -> Int64s:
        """Return the bins in which events began; all pages of an event count there."""
        return np.asarray(self.owner[kind] * self.bins + (time - self.start) // BIN_NS)

    def places(self, links: Links, numbers: Int64s) -> Int64s:
        """Return for each refault the position in `numbers` (ascending) of the bin of its eviction.

        -1: it is not there, or the pages came back later than 10 s, or to another owner.
        """
        number = self.number(links.evicted_kind, links.evicted_ns)
        place = np.searchsorted(numbers, number)
        is_there = np.append(numbers, -1)[place] == number
        is_own = self.owner[links.evicted_kind] == self.owner[links.added_kind]
        return np.where(is_there & is_own & (links.away_ns <= SOON_NS), place, -1)


def _thrashing(trace: TraceTables, seconds: _Seconds) -> pd.DataFrame:
    """Return a row for each bin in which cache of its owner was read again soon, by the bin's number.

    The columns are `interval` (a number), `cgroup_id`, `begin` and `end` (of the evictions, in ns since the
    epoch), `evicted_bytes` and `refaulted_bytes`.
    """
    taken = is_evicted(trace.cache_events.kinds)
    parts = [np.zeros((4, 0), dtype=np.int64)]
    for part in trace.cache_events.batches():
        events = part[np.flatnonzero(taken[part.kind])]
        number = seconds.number(events.kind, events.time)
        code, firsts = distinct(number - number.min(initial=_FAR))
        begin, end = events.time[firsts], events.time[firsts]
        np.minimum.at(begin, code, events.time)
        np.maximum.at(end, code, events.time + events.duration)
        pages = np.bincount(code, events.pages, len(firsts)).astype(np.int64)
        parts.append(np.stack([number[firsts], begin, end, pages]))
    columns = zip(("number", "begin", "end", "evicted_bytes"), np.concatenate(parts, axis=1), strict=True)
    sums = {"begin": "min", "end": "max", "evicted_bytes": "sum"}
    found = pd.DataFrame(dict(columns)).groupby("number").agg(sums)
    numbers, back = integers(found.index.to_series()), np.zeros(len(found) + 1, dtype=np.int64)
    for links in trace.page_moves.links.batches():
        back += np.bincount(seconds.places(links, numbers) + 1, links.pages, len(back)).astype(np.int64)
    found["refaulted_bytes"] = back[1:] * page_size(trace)
    found["evicted_bytes"] *= page_size(trace)
    is_busy = found["evicted_bytes"] >= LEAST_EVICTED_BYTES
    found = found[is_busy & (found["refaulted_bytes"] >= LEAST_SHARE * found["evicted_bytes"])]
    found["cgroup_id"] = seconds.owners[found.index // seconds.bins]
    found["interval"] = (np.diff(found.index, prepend=-2) != 1).cumsum() - 1
    return found


def _median_away_ns(trace: TraceTables, seconds: _Seconds, interval: pd.Series[int]) -> Int64s:
    """Return for each interval the time after which half of what was read again within 10 s was back.

    `interval` is that of each bin, by the bin's number.
    """
    numbers, of_place = integers(interval.index.to_series()), np.append(integers(interval), -1)
    intervals = int(interval.iloc[-1]) + 1
    return half_back_ns(
        trace.page_moves.links, intervals, lambda links: of_place[seconds.places(links, numbers)]
    )


def psi_some_share(subtree: Subtree, begin_ns: int, end_ns: int) -> float:
    """Return the share of time in which some task was stalled, between the readings around the interval.

    NaN: memory.pressure was not read twice.
    """
    read = ledger.read_around(subtree, ledger.count(subtree, "psi_some_total_us"), begin_ns, end_ns)
    if len(read.times) < 2:
        return float("nan")
    stalled_us, time_ns = np.diff(read.values)[0], np.diff(read.times)[0]
    return min(float(stalled_us / (time_ns / 1000)), 1.0)
