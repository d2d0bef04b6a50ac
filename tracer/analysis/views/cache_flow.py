"""The page cache of a trace in a few numbers: added, evicted, refaulted, by which causes and processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import pandas as pd

from tracer.analysis.core import ledger, naming
from tracer.analysis.core.columns import (
    NO_ID,
    Int64s,
    integers,
    is_one_of,
    known,
    optional,
    optional_text,
    utc_time,
)
from tracer.analysis.core.subtree import Subtree, Subtrees
from tracer.analysis.core.tables import TraceTables, end_ns, page_size, start_ns
from tracer.analysis.results.forms import as_object
from tracer.analysis.results.quality import SummedInterval
from tracer.analysis.views import thrash
from tracer.analysis.views.evictions import AMOUNTS, Moves, summed
from tracer.analysis.views.reclaim import ON_REQUEST
from tracer.analysis.views.refaults import half_back_ns

_NOT_COUNTED: Final = "the kernel's count was not sampled twice"


@dataclass(frozen=True, slots=True)
class Evictor:
    """The process that evicted most; `comm` and `cgroup` are spelt as the kernel spells them."""

    tgid: int
    comm: str | None
    cgroup: str | None
    evicted_bytes: int


@dataclass(frozen=True, slots=True)
class KernelCount:
    """The refaults of a cgroup and all below it over an interval: linked here, and counted by the kernel.

    The kernel's count is workingset_refault_file of memory.stat. The two differ. A trace has no evictions
    from before it began, and no lost records. The kernel forgets what was evicted long ago, and counts a
    large folio as a whole if it had evicted a part of it. With the multi-generational LRU, it does not count
    folios that another cgroup is charged for now (mm/workingset.c: workingset_refault, lru_gen_refault).
    """

    cgroup: str
    run: int
    begin: pd.Timestamp
    end: pd.Timestamp
    refaulted_bytes: int
    kernel_bytes: int


@dataclass(frozen=True, slots=True)
class Refaults:
    """The cache that was read again after its eviction, and is charged to the cgroup now.

    Half of it was read again within `median_away_ms`.
    """

    bytes: int
    median_away_ms: float | None
    same_cgroup_bytes: int  # of it, evicted from the cgroup that is charged now
    other_cgroup_bytes: int
    kernel: tuple[KernelCount, ...]


@dataclass(frozen=True, slots=True)
class FirstLook:
    """The page cache that the first look at each cgroup found, without shmem; `time`: of the latest of these
    looks."""

    time: pd.Timestamp
    bytes: int


@dataclass(frozen=True, slots=True)
class Thrash:
    """One row of `analysis.views.thrash`."""

    cgroup: str | None
    run: int | None
    begin: pd.Timestamp
    end: pd.Timestamp
    evicted_bytes: int
    refaulted_bytes: int
    median_away_ms: float
    psi_some_share: float | None


@dataclass(frozen=True, slots=True)
class Quality:
    """The quality of these numbers; `unknown`: dotted name of a field that is None or empty -> the reason.

    In the intervals of `summed`, events were summed: added, evicted and dropped cache is exact. Returned and
    left cache and refaults are then lower bounds, and rows of `thrash` may be missing.
    """

    lost_records: int  # of the page cache's stream
    unknown: Mapping[str, str] = field(default_factory=dict)
    summed: tuple[SummedInterval, ...] = ()


@dataclass(frozen=True, slots=True)
class CacheFlow:
    """The page cache of `cgroup` (None: the whole trace) and all below it, summed over its `runs` lives."""

    cgroup: str | None
    runs: int | None
    added_bytes: int
    evicted_bytes: int
    dropped_bytes: int
    returned_bytes: int  # evicted, and read again by any cgroup
    returned_elsewhere_bytes: int  # of it, charged to a cgroup that is not among these now
    left_bytes: int  # added, and still there at the end
    first_look: FirstLook | None
    added_by_cause: Mapping[str, int]
    evicted_by_cause: Mapping[str, int]
    dropped_by_cause: Mapping[str, int]
    evicted_on_request_bytes: int  # by writes to memory.reclaim, to force_empty of v1, or of a limit
    evicted_from_others_bytes: int  # by a task of another cgroup than the one charged
    evicted_from_removed_bytes: int  # charged to a cgroup that had been removed by then
    evicted_from_nobody_bytes: int
    shared_files: int  # files with cache charged to more than one cgroup
    evictor: Evictor | None
    refaults: Refaults
    thrash: tuple[Thrash, ...]
    quality: Quality

    def to_dict(self) -> dict[str, Any]:
        """Return the head of `evictions --json`."""
        return as_object(self)


def cache_flow(trace: TraceTables, sums: Moves, cgroup: str | int | None = None) -> CacheFlow:
    """Return the flow from the result of `evictions.moves` for the same `cgroup`."""
    shown = None if cgroup is None else naming.select(trace, cgroup)
    members = None if shown is None else naming.members_of(trace, shown)
    by_cause = summed(trace, sums, "cause")
    by_owner = summed(trace, sums, "cgroup")
    charged_to = by_owner.groupby("charged_to", observed=False)["evicted_bytes"].sum()
    total = {name: int(amount) for name, amount in sums.kinds[list(AMOUNTS)].sum().items()}
    kernel = _kernel_counts(trace, shown)
    lost = integers(trace.loss["lost"])
    return CacheFlow(
        cgroup=None if shown is None else _name_of(trace, str(cgroup), shown),
        runs=None if shown is None else len(shown),
        added_bytes=total["added_bytes"],
        evicted_bytes=total["evicted_bytes"],
        dropped_bytes=total["dropped_bytes"],
        returned_bytes=total["returned_bytes"],
        returned_elsewhere_bytes=_returned_elsewhere_bytes(trace, members),
        left_bytes=total["left_bytes"],
        first_look=_first_look(sums),
        added_by_cause=_causes(by_cause, "added_bytes"),
        evicted_by_cause=_causes(by_cause, "evicted_bytes"),
        dropped_by_cause=_causes(by_cause, "dropped_bytes"),
        evicted_on_request_bytes=min(_on_request_bytes(trace, members), total["evicted_bytes"]),
        evicted_from_others_bytes=total["evicted_from_others_bytes"],
        evicted_from_removed_bytes=int(charged_to.get("removed", 0)),
        evicted_from_nobody_bytes=int(charged_to.get("nobody", 0)),
        shared_files=_shared_files(trace, sums),
        evictor=_evictor(trace, sums),
        refaults=_refaults(trace, members, kernel),
        thrash=_thrash(trace, members),
        quality=Quality(
            lost_records=int(lost[is_one_of(trace.loss["stream"], ["pagecache"])].sum()),
            unknown=({} if kernel else {"refaults.kernel": _NOT_COUNTED})
            | ({} if sums.first_looks.last_ns is not None else {"first_look": _why_no_look(trace)}),
            summed=trace.summed_intervals.near(start_ns(trace), end_ns(trace)),
        ),
    )


def _on_request_bytes(trace: TraceTables, members: Int64s | None) -> int:
    rows = trace.reclaim
    is_asked = is_one_of(rows["kind"], ON_REQUEST)
    if members is not None:
        is_asked &= np.isin(integers(rows["cgroup_id"]), members)
    return int(integers(rows["reclaimed_file"], missing=0)[is_asked].sum(dtype=np.int64)) * page_size(trace)


def _why_no_look(trace: TraceTables) -> str:
    """Return the reason why the trace has no look at cache from before it began."""
    if "contents_left_out" not in trace.meta:
        return "an older version recorded the trace, or it has no end"
    return (
        trace.meta["contents_left_out"]
        or "no cgroup was looked at: none with a limit held page cache at the begin or near it"
    )


def _first_look(sums: Moves) -> FirstLook | None:
    found = sums.first_looks
    return None if found.last_ns is None else FirstLook(utc_time(found.last_ns), found.bytes)


def _name_of(trace: TraceTables, pattern: str, shown: Sequence[int]) -> str:
    """Return the path of a single cgroup, the name of several lives, and `pattern` for several names."""
    if len(shown) == 1:
        return trace.places.label_of(shown[0])
    names = trace.places.lives.by_name(shown)
    return names[0][0].name if len(names) == 1 else pattern


def _causes(by_cause: pd.DataFrame, amount: str) -> dict[str, int]:
    """Return cause -> bytes, largest first, without causes of 0 bytes."""
    sums = by_cause.groupby("cause", observed=True)[amount].sum().sort_values(ascending=False, kind="stable")
    return {str(cause): int(total) for cause, total in sums.items() if total}


def _shared_files(trace: TraceTables, sums: Moves) -> int:
    is_file = known(trace.cache_events.files["inode_id"])
    owned = sums.files[(sums.files["cgroup_id"] != NO_ID) & is_file[sums.files["file"]]]
    return int((owned.groupby("file").size() > 1).sum())


def _evictor(trace: TraceTables, sums: Moves) -> Evictor | None:
    kinds = sums.kinds[(sums.kinds["evicted_bytes"] > 0) & (sums.kinds["tgid"] != NO_ID)]
    processes = summed(trace, replace(sums, kinds=kinds), "process")
    if processes.empty:
        return None
    most = processes.iloc[0]
    comm, cgroup = optional_text(most["comm"]), optional_text(most["task_cgroup"])
    return Evictor(int(most["tgid"]), comm, cgroup, int(most["evicted_bytes"]))


def _refaults(trace: TraceTables, members: Int64s | None, kernel: tuple[KernelCount, ...]) -> Refaults:
    links, owner = trace.page_moves.links, integers(trace.cache_events.kinds["cgroup_id"])
    counts = np.ones(len(owner), dtype=np.bool_) if members is None else np.isin(owner, members)
    pages, at_home = 0, 0
    for batch in links.batches():
        of_batch = np.where(counts[batch.added_kind], batch.pages, 0)
        pages += int(of_batch.sum(dtype=np.int64))
        is_same = owner[batch.added_kind] == owner[batch.evicted_kind]
        at_home += int(of_batch[is_same].sum(dtype=np.int64))
    away_ms = None
    if pages:
        (half_ns,) = half_back_ns(links, 1, lambda batch: counts[batch.added_kind].astype(np.int64) - 1)
        away_ms = float(half_ns / 1e6)
    size = page_size(trace)
    return Refaults(pages * size, away_ms, at_home * size, (pages - at_home) * size, kernel)


def _returned_elsewhere_bytes(trace: TraceTables, members: Int64s | None) -> int:
    if members is None:
        return 0
    links, owner = trace.page_moves.links, integers(trace.cache_events.kinds["cgroup_id"])
    is_member, pages = np.isin(owner, members), 0
    for batch in links.batches():
        has_left = is_member[batch.evicted_kind] & ~is_member[batch.added_kind]
        pages += int(batch.pages[has_left].sum(dtype=np.int64))
    return pages * page_size(trace)


def _kernel_counts(trace: TraceTables, shown: Sequence[int] | None) -> tuple[KernelCount, ...]:
    """Return the counts of the cgroups shown, or else of each sampled cgroup that is below no other one."""
    if shown is not None:
        tops = list(shown)
    else:
        sampled = np.unique(integers(trace.samples["cgroup_id"])).tolist()
        above = naming.positions_above(trace.cgroups, sampled)
        tops = [number for number in sampled if len(above[number]) == 1]
    members, subtrees = naming.descendants_of(trace.cgroups, tops), Subtrees(trace)
    counts = (_kernel_count(trace, subtrees.subtree_at(number, members[number])) for number in tops)
    return tuple(count for count in counts if count is not None)


def _kernel_count(trace: TraceTables, subtree: Subtree) -> KernelCount | None:
    count = ledger.count(subtree, "workingset_refault_file")
    if not len(count.times):
        return None
    begin, first = int(count.times[0]), int(count.values[0])
    if count.before is not None:
        begin, first = start_ns(trace), count.before
    end = int(count.times[-1])
    if begin == end and ledger.held(subtree, count, end_ns(trace)):
        end = end_ns(trace)
    if begin >= end:
        return None
    links, kinds = trace.page_moves.links, trace.cache_events.kinds
    counts, pages = np.isin(integers(kinds["cgroup_id"]), subtree.members), 0
    for batch in links.batches():
        counted = counts[batch.added_kind] & (batch.back_ns >= begin) & (batch.back_ns <= end)
        pages += int(batch.pages[counted].sum(dtype=np.int64))
    return KernelCount(
        trace.places.label_of(subtree.cgroup_id),
        trace.places.lives.life_for(subtree.cgroup_id).run,
        utc_time(begin),
        utc_time(end),
        pages * page_size(trace),
        (int(count.values[-1]) - first) * page_size(trace),
    )


def _thrash(trace: TraceTables, members: Int64s | None) -> tuple[Thrash, ...]:
    found = thrash.thrash(trace)
    if members is not None:
        found = found[np.isin(integers(found["cgroup_id"]), members)]
    found = found.assign(known=known(found["psi_some_share"])).sort_values("begin", kind="stable")
    labels = {number: trace.places.label_of(number) for number in set(integers(found["cgroup_id"]))}
    runs = {number: trace.places.lives.life_for(number).run for number in labels}
    return tuple(
        Thrash(
            cgroup=None if optional(row["cgroup_id"]) is None else labels[row["cgroup_id"]],
            run=None if optional(row["cgroup_id"]) is None else runs[row["cgroup_id"]],
            begin=row["begin"],
            end=row["end"],
            evicted_bytes=row["evicted_bytes"],
            refaulted_bytes=row["refaulted_bytes"],
            median_away_ms=row["median_away_ms"],
            psi_some_share=row["psi_some_share"] if row["known"] else None,
        )
        for row in found.to_dict("records")
    )
