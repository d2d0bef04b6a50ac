"""Thrash: page cache is evicted and read again soon, so that IO takes the place of work.

The time of the trace is cut into bins of 1 s. A cgroup thrashes in a bin if at least 1 MiB of its page cache
was evicted in it and at least a quarter of that was read again within 10 s of its eviction. Consecutive bins
are one interval.

Cache that is read again later is not counted: its working set does not fit either, but it is used slowly. A
page that is evicted in the last 10 s of the trace had less time to be read again. So the interval of a cgroup
that thrashes until the end may end a little early.
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
    """Return the intervals in which the page cache of a cgroup thrashed, by cgroup and time.

    `cgroup_id` is the cgroup that was charged for the evicted cache (NA: none); cgroups above it have no rows
    for it. `begin` and `end` (UTC) are the first and the last eviction. `refaulted_bytes` is the part of
    `evicted_bytes` that was read again within 10 s, whichever cgroup is charged for it now; half of it was
    back after `median_away_ms`. `psi_some_share` is the share of time in which some task of the cgroup, or
    of one below it, waited for memory (memory.pressure), between the samples around the interval; NaN if it
    was not sampled.
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
    """Return the rows of `thrash` of the cgroup and of those below it, by time."""
    found = thrash(trace)
    members = trace.places.descendants(cgroup_id)
    return found[np.isin(integers(found["cgroup_id"]), members)].sort_values("begin", kind="stable")


def _empty() -> pd.DataFrame:
    kinds = ("Int64", *["datetime64[ns, UTC]"] * 2, *["int64"] * 2, *["float64"] * 2)
    columns = zip(_COLUMNS, kinds, strict=True)
    return pd.DataFrame({name: pd.Series([], dtype=kind) for name, kind in columns})


def _evictions_in_runs(trace: TraceTables) -> tuple[pd.Series[int], pd.DataFrame]:
    """Return (row of `pagecache` -> interval that the eviction is in; the intervals by their number)."""
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
    """Return for each row of `pagecache` the bytes that it evicted and that were read again within 10 s."""
    back = trace.refaults
    soon = back[integers(back["away_ns"]) <= SOON_NS]
    returned = np.zeros(rows, dtype=np.int64)
    np.add.at(returned, integers(soon["evicted_row"]), integers(soon["bytes"]))
    return returned


def _came_back(trace: TraceTables, run_of_eviction: pd.Series[int]) -> pd.Series[int]:
    """Return interval -> the time in ns after which half of what was read again within 10 s was back."""
    back = trace.refaults[["evicted_row", "away_ns", "bytes"]]
    back = back[integers(back["away_ns"]) <= SOON_NS].join(run_of_eviction.rename("run"), on="evicted_row")
    back = back.dropna(subset="run").sort_values(["run", "away_ns"])
    by_run = back.groupby("run")["bytes"]
    past_half = back[2 * by_run.cumsum() >= by_run.transform("sum")]
    return past_half.groupby("run")["away_ns"].first()


def _psi_some_share(subtree: Subtree, begin_ns: int, end_ns: int) -> float:
    """Return the share of time between the samples around the interval in which some task was stalled.

    If there is no sample before or after it, the first or the last one within it is taken.
    """
    stalled = ledger.count(subtree, "psi_some_total_us")
    if len(stalled.times) < 2:
        return float("nan")
    first = max(int(np.searchsorted(stalled.times, begin_ns, side="right")) - 1, 0)
    last = min(int(np.searchsorted(stalled.times, end_ns)), len(stalled.times) - 1)
    if first >= last:
        return float("nan")
    time_us = int(stalled.times[last] - stalled.times[first]) / 1000
    return min((int(stalled.values[last]) - int(stalled.values[first])) / time_us, 1.0)
