"""Thrash: page cache is evicted and needed again at once, so that memory is busy and work is not done.

The time of the trace is cut into bins of 1 s. A cgroup thrashes in a bin if at least 1 MiB of its page cache
was evicted in it and at least a quarter of that was read again within 10 s of its eviction. Bins that follow
each other are one interval.

What comes back later than that is a working set that does not fit, too, but a slow one; and a page that is
evicted within 10 s of the end of the trace had less time to return, so thrash that goes on at the end may be
seen to end a little early.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import Int64s, integers, times_ns, utc_times
from tracer.analysis.core.subtree import Subtree, Subtrees
from tracer.analysis.core.tables import TraceTables, is_evicted, page_size, start_ns

BIN_NS: Final = 1_000_000_000
SOON_NS: Final = 10 * BIN_NS
LEAST_EVICTED_BYTES: Final = 1 << 20
LEAST_SHARE: Final = 0.25

_COLUMNS: Final = (
    *("cgroup_id", "begin", "end", "evicted_bytes", "refaulted_bytes", "median_away_ms"),
    "psi_some_share",
)


def thrash(trace: TraceTables) -> pd.DataFrame:
    """The intervals in which the page cache of a cgroup thrashed, by cgroup and time; the module says when.

    `cgroup_id` is who was charged for what was evicted (NA: nobody), not those above it. `begin` and `end`
    (UTC) are the first and last eviction. `refaulted_bytes` is what came back within 10 s of
    `evicted_bytes`, whoever is charged for it now, and `median_away_ms` the time after which half of that was
    back. `psi_some_share` is the part of the time in which some task of the cgroup and below it waited for
    memory (memory.pressure), between the samples around the interval; NaN where it was not sampled.
    """
    evicted, runs = _evictions_in_runs(trace)
    if runs.empty:
        return _empty()
    came_back = _came_back(trace, evicted)
    subtrees = Subtrees(trace)
    owners = {number: subtrees.subtree_at(number) for number in set(runs["cgroup_id"].tolist())}
    found = runs.assign(
        begin=utc_times(integers(runs["begin"])),
        end=utc_times(integers(runs["end"])),
        median_away_ms=came_back.reindex(runs.index).to_numpy() / 1e6,
        psi_some_share=[
            _psi_some_share(owners[number], begin, end)
            for number, begin, end in zip(
                *(runs[name].tolist() for name in ("cgroup_id", "begin", "end")), strict=True
            )
        ],
    )
    found["cgroup_id"] = found["cgroup_id"].astype("Int64").where(found["cgroup_id"] >= 0)
    return found[list(_COLUMNS)].reset_index(drop=True)


def thrash_below(trace: TraceTables, cgroup_id: int) -> pd.DataFrame:
    """The rows of `thrash` of the cgroup and of those below it, by time."""
    found = thrash(trace)
    members = trace.places.descendants(cgroup_id)
    return found[np.isin(integers(found["cgroup_id"]), members)].sort_values("begin", kind="stable")


def _empty() -> pd.DataFrame:
    kinds = ("Int64", *["datetime64[ns, UTC]"] * 2, *["int64"] * 2, *["float64"] * 2)
    columns = zip(_COLUMNS, kinds, strict=True)
    return pd.DataFrame({name: pd.Series([], dtype=kind) for name, kind in columns})


def _evictions_in_runs(trace: TraceTables) -> tuple[pd.Series[int], pd.DataFrame]:
    """(row of `pagecache` -> interval, for evictions within one; the intervals, numbered by their index)."""
    pagecache = trace.pagecache
    rows = np.flatnonzero(is_evicted(pagecache))
    taken = pagecache.iloc[rows]
    time = times_ns(taken)
    evictions = pd.DataFrame(
        {
            "cgroup_id": integers(taken["cgroup_id"]),
            "bin": (time - start_ns(trace)) // BIN_NS,
            "time": time,
            "evicted_bytes": integers(taken["nr_pages"]) * page_size(trace),
            "refaulted_bytes": _soon_back(trace, len(pagecache))[rows],
        },
        index=rows,
    )
    sums = evictions.groupby(["cgroup_id", "bin"])[["evicted_bytes", "refaulted_bytes"]].sum()
    busy = sums["evicted_bytes"] >= LEAST_EVICTED_BYTES
    bins = sums[busy & (sums["refaulted_bytes"] >= LEAST_SHARE * sums["evicted_bytes"])].index.to_frame()
    follows = (bins["cgroup_id"].diff() == 0) & (bins["bin"].diff() == 1)
    bins["run"] = (~follows).cumsum()
    inside = evictions.merge(bins["run"], left_on=["cgroup_id", "bin"], right_index=True)
    runs = inside.groupby("run").agg(
        cgroup_id=("cgroup_id", "first"),
        begin=("time", "min"),
        end=("time", "max"),
        evicted_bytes=("evicted_bytes", "sum"),
        refaulted_bytes=("refaulted_bytes", "sum"),
    )
    return inside["run"], runs


def _soon_back(trace: TraceTables, rows: int) -> Int64s:
    """Of each row of `pagecache`, the bytes that came back soon after it had evicted them."""
    back = trace.refaults
    soon = back[integers(back["away_ns"]) <= SOON_NS]
    returned = np.zeros(rows, dtype=np.int64)
    np.add.at(returned, integers(soon["evicted_row"]), integers(soon["bytes"]))
    return returned


def _came_back(trace: TraceTables, run_of_eviction: pd.Series[int]) -> pd.Series[int]:
    """Interval -> the time in ns after which half of what came back soon was back."""
    back = trace.refaults[["evicted_row", "away_ns", "bytes"]]
    back = back[integers(back["away_ns"]) <= SOON_NS].join(run_of_eviction.rename("run"), on="evicted_row")
    back = back.dropna(subset="run").sort_values(["run", "away_ns"])
    by_run = back.groupby("run")["bytes"]
    past_half = back[2 * by_run.cumsum() >= by_run.transform("sum")]
    return past_half.groupby("run")["away_ns"].first()


def _psi_some_share(subtree: Subtree, begin_ns: int, end_ns: int) -> float:
    """From the last sample before the interval, or the first in it, to the first after it, or the last."""
    stalled = ledger.count(subtree, "psi_some_total_us")
    if len(stalled.times) < 2:
        return float("nan")
    first = max(int(np.searchsorted(stalled.times, begin_ns, side="right")) - 1, 0)
    last = min(int(np.searchsorted(stalled.times, end_ns)), len(stalled.times) - 1)
    if first >= last:
        return float("nan")
    time_us = int(stalled.times[last] - stalled.times[first]) / 1000
    return min((int(stalled.values[last]) - int(stalled.values[first])) / time_us, 1.0)
