"""The times in which threads waited for memory, and the kinds of their waits.

Waits can be nested: a page fault on a swapped-out page charges a page, the charge has to reclaim, and reclaim
waits for writeback. Each moment of a thread is counted once, for the innermost wait. So times of any kinds,
of a process or of a cgroup, can be added up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from tracer.analysis.core import naming
from tracer.analysis.core.columns import (
    NO_ID,
    Int64s,
    integers,
    is_one_of,
    optional_text,
    times_ns,
    utc_times,
)
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.table_rows import TableRows
from tracer.analysis.core.tables import TraceTables
from tracer.analysis.results.memory import Waiter
from tracer.enumerations import STALL_KIND

THROTTLED: Final = ("writeback", "isolated", "noprogress", "congested", "other")
"""The kinds of waits inside of reclaim (reclaim_throttle, mm/vmscan.c)."""

KINDS: Final = ("reclaim", *THROTTLED, *(kind for kind in STALL_KIND.names if kind not in THROTTLED))

STALLED: Final[Mapping[str, tuple[str, ...]]] = {
    "stalled_reclaim_ms": ("reclaim", *THROTTLED),
    "stalled_throttled_ms": THROTTLED,
    "stalled_dirty_ms": ("dirty",),
    "stalled_swap_in_ms": ("swap_in",),
    "stalled_high_ms": ("high",),
}
"""Column of a timeline -> the kinds that it sums up; stalled_throttled_ms is part of stalled_reclaim_ms."""

_SIGNALS: Final = {
    **dict.fromkeys(THROTTLED, "reclaim waits"),
    "dirty": "writer waits",
    "swap_in": "swap-in",
    "high": "memory.high",
}
"""Kind -> the signal that records it (kernel/probes.py). Reclaim is recorded in every trace."""

_MOST_WAITERS: Final = 10
_KSWAPD: Final = len(KINDS)  # the kind of background reclaim, which no task waits for
_RECLAIM_DEPTH: Final = 1


def waits(trace: TraceTables) -> pd.DataFrame:
    """Return the times in which a thread waited for memory, a row each; those of one thread never overlap.

    The index, `time` (UTC), is the start. Columns: `duration_ns`; `kind`, which is "reclaim" (an attempt to
    free memory, without the waits inside it and without those of kswapd) or as in `stalls`; `cgroup_id` (the
    task's), `tgid`, `pid`. A wait that contains others is split into the parts outside of them.
    """
    spans = _Spans.from_tables(trace.stalls, trace.reclaim)
    begins, ends, span = _innermost(spans)
    order = np.argsort(begins, kind="stable")
    begins, ends, span = begins[order], ends[order], span[order]
    columns = {
        "duration_ns": ends - begins,
        "kind": pd.Categorical.from_codes(spans.kind[span], categories=pd.Index(KINDS)),
        "cgroup_id": spans.cgroup_id[span],
        "tgid": spans.tgid[span],
        "pid": spans.pid[span],
    }
    return pd.DataFrame(columns, index=utc_times(begins).rename("time"))


def nested(trace: TraceTables) -> pd.DataFrame:
    """Return reclaim and waits as spans that nest, a row each, ordered by `pid` and time.

    Of two spans of a thread, one contains the other, or they have no moment in common; none is empty. The
    index, `time` (UTC), is the start. Columns: `duration_ns`; `kind`, of `KINDS` or "kswapd" (background
    reclaim, which no task waits for); `depth`, which is less than that of the spans inside it; `cgroup_id`
    (the task's), `tgid`, `pid`; `attempt`, the position of the attempt in `reclaim`, -1 for other waits.

    The kernel gives some durations only in timer ticks. A span that would reach beyond the one around it, or
    into the next one, is cut there.
    """
    spans = _Spans.from_tables(trace.stalls, trace.reclaim)
    order = np.lexsort((spans.depth, spans.begin_ns, spans.pid))
    ends = _nested_ends(spans, order)
    order, ends = order[ends > spans.begin_ns[order]], ends[ends > spans.begin_ns[order]]
    columns = {
        "duration_ns": ends - spans.begin_ns[order],
        "kind": pd.Categorical.from_codes(spans.kind[order], categories=pd.Index([*KINDS, "kswapd"])),
        "depth": spans.depth[order],
        "cgroup_id": spans.cgroup_id[order],
        "tgid": spans.tgid[order],
        "pid": spans.pid[order],
        "attempt": np.maximum(order - len(trace.stalls), -1),
    }
    return pd.DataFrame(columns, index=utc_times(spans.begin_ns[order]).rename("time"))


def _nested_ends(spans: _Spans, order: Int64s) -> Int64s:
    """Return the ends of the spans in this order: by thread, then begin, then depth; cut so that they
    nest."""
    begin, end, depth, pid = (part[order] for part in (spans.begin_ns, spans.end_ns, spans.depth, spans.pid))
    end = end.copy()
    for level in range(_RECLAIM_DEPTH + 2):
        own = np.flatnonzero(depth == level)
        rows, following = _neighbours(own, np.flatnonzero(depth <= level), pid, step=1)
        end[rows] = np.minimum(end[rows], begin[following])
        for lesser in range(level):
            rows, around = _neighbours(own, np.flatnonzero(depth == lesser), pid, step=-1)
            is_inside = end[around] > begin[rows]
            rows, around = rows[is_inside], around[is_inside]
            end[rows] = np.minimum(end[rows], end[around])
    return end


def _neighbours(own: Int64s, others: Int64s, pid: Int64s, *, step: int) -> tuple[Int64s, Int64s]:
    """Return (rows of `own`, the next row of the same thread among `others` for each); with a `step` of -1,
    the row before. Rows of `own` without such a row are left out. Both arrays ascend."""
    place = np.searchsorted(others, own, "right") if step > 0 else np.searchsorted(others, own) - 1
    is_there = (place >= 0) & (place < len(others))
    own, other = own[is_there], others[place[is_there]]
    is_of_thread = pid[own] == pid[other]
    return own[is_of_thread], other[is_of_thread]


@dataclass(frozen=True, slots=True)
class _Spans:
    """Waits as they were recorded, possibly nested.

    `kind` is a position in `KINDS`. A wait lies inside waits of a lesser `depth`: reclaim inside a page
    fault, throttling inside reclaim.
    """

    begin_ns: Int64s
    end_ns: Int64s
    kind: Int64s
    depth: Int64s
    cgroup_id: Int64s
    tgid: Int64s
    pid: Int64s

    @classmethod
    def from_tables(cls, stalls: pd.DataFrame, reclaim: pd.DataFrame) -> _Spans:
        is_throttled = is_one_of(stalls["kind"], THROTTLED)
        stall_begins = np.where(is_throttled, _within_attempts(stalls, reclaim), times_ns(stalls))
        begins = np.concatenate([stall_begins, times_ns(reclaim)])
        ends = np.concatenate([_ends_ns(stalls), _ends_ns(reclaim)])
        is_kswapd = is_one_of(reclaim["kind"], ["kswapd"])

        def both(stalls_column: str, reclaim_column: str) -> Int64s:
            return np.concatenate([integers(stalls[stalls_column]), integers(reclaim[reclaim_column])])

        return cls(
            begin_ns=begins,
            end_ns=ends,
            kind=np.concatenate(
                [
                    np.asarray(pd.Index(KINDS).get_indexer(pd.Index(stalls["kind"])), dtype=np.int64),
                    np.where(is_kswapd, _KSWAPD, KINDS.index("reclaim")),
                ]
            ),
            depth=np.concatenate(
                [np.where(is_throttled, _RECLAIM_DEPTH + 1, 0), np.full(len(reclaim), _RECLAIM_DEPTH)]
            ),
            cgroup_id=both("cgroup_id", "task_cgroup_id"),
            tgid=both("tgid", "tgid"),
            pid=both("pid", "pid"),
        )


def _ends_ns(rows: pd.DataFrame) -> Int64s:
    return times_ns(rows) + integers(rows["duration_ns"])


def _within_attempts(stalls: pd.DataFrame, reclaim: pd.DataFrame) -> Int64s:
    """Return the beginnings of `stalls`, none earlier than the beginning of the attempt in which the stall
    ended.

    The kernel gives the length of a wait inside reclaim in whole timer ticks (jiffies_to_usecs in
    reclaim_throttle, mm/vmscan.c), so the start that is computed from it may be too early.
    """
    ends = _ends_ns(stalls)
    waited = pd.DataFrame({"time": ends, "pid": integers(stalls["pid"]), "row": np.arange(len(stalls))})
    attempts = pd.DataFrame(
        {"time": times_ns(reclaim), "pid": integers(reclaim["pid"]), "attempt": np.arange(len(reclaim))}
    )
    joined = pd.merge_asof(waited.sort_values("time"), attempts, on="time", by="pid").sort_values("row")
    attempt = joined["attempt"].fillna(NO_ID).to_numpy(np.int64)
    begin, end = (np.append(moments, 0)[attempt] for moments in (times_ns(reclaim), _ends_ns(reclaim)))
    return np.where(end >= ends, np.maximum(times_ns(stalls), begin), times_ns(stalls))


def _innermost(spans: _Spans) -> tuple[Int64s, Int64s, Int64s]:
    """Return (begin, end, span) of each interval in which that span is the deepest of its thread.

    Between two consecutive begins or ends of a thread's spans nothing changes, so one pass over them is
    enough.
    """
    count = len(spans.pid)
    span = np.tile(np.arange(count), 2)
    time = np.concatenate([spans.begin_ns, spans.end_ns])
    order = np.lexsort((time, spans.pid[span]))
    span, time = span[order], time[order]
    is_begin = order < count
    deepest = np.full(2 * count, -1, dtype=np.int64)
    for depth in range(_RECLAIM_DEPTH + 2):
        is_of_depth = spans.depth[span] == depth
        running = np.cumsum(np.where(is_of_depth, np.where(is_begin, 1, -1), 0))
        last_begun = np.maximum.accumulate(np.where(is_of_depth & is_begin, np.arange(2 * count), 0))
        within = running > 0
        deepest[within] = span[last_begun][within]
        if depth == _RECLAIM_DEPTH:
            by_kswapd = within & (spans.kind[deepest] == _KSWAPD)
    deepest[by_kswapd] = -1
    has_next = spans.pid[span[:-1]] == spans.pid[span[1:]]
    picked = np.flatnonzero(has_next & (time[1:] > time[:-1]) & (deepest[:-1] >= 0))
    return time[picked], time[picked + 1], deepest[picked]


def is_known(trace: TraceTables, kind: str) -> bool:
    """Return whether waits of this kind were recorded, so that their absence means that there were none."""
    probe = trace.meta["probes"].get(_SIGNALS.get(kind))
    was_taken = isinstance(probe, dict) and bool(probe.get("hook"))
    return kind == "reclaim" or was_taken or bool(is_one_of(trace.waits["kind"], [kind]).any())


def by_process(trace: TraceTables, cgroup: str | int | None = None) -> pd.DataFrame:
    """Return how long each process waited for memory, summed over its threads, the longest first.

    Columns: `tgid`, `comm` (at its last wait; null: not known), `cgroup_id`, `cgroup`; `stalled_ms`, and its
    part for each of `KINDS`, such as `dirty_ms`, which is NaN if the trace did not record that kind. A
    process that waited in two cgroups has two rows.

    `cgroup` is any pattern of `naming.resolve`: only waits in cgroups that fit it, and in cgroups below
    these, are counted.

    Raises TracerError for a cgroup that is not in the trace.
    """
    rows = trace.waits
    if cgroup is not None:
        members = naming.members_of(trace, naming.select(trace, cgroup))
        rows = rows[np.isin(integers(rows["cgroup_id"]), members)]
    keys = ["tgid", "cgroup_id"]
    sums = _sums_ms(rows, keys)
    last = rows.reset_index().groupby(keys, as_index=False)["time"].max()
    named = naming.with_names(trace, sums[keys].merge(last, on=keys).set_index("time")[["tgid"]])
    sums.insert(1, "comm", pd.Series(map(optional_text, named["comm"]), dtype=object))
    sums.insert(3, "cgroup", naming.labels_of(trace.cgroups, sums["cgroup_id"].tolist()))
    unknown = [f"{kind}_ms" for kind in KINDS if not is_known(trace, kind)]
    return sums.assign(**dict.fromkeys(unknown, np.nan))


def longest(subtree: Subtree, begin_ns: int, end_ns: int) -> tuple[Waiter, ...]:
    """Return the processes of these cgroups that waited longest for memory within an interval.

    With `Subtrees.machine`, these are the processes of the whole machine.
    """
    waits = subtree.once("stalls.longest", lambda: _Waits.from_rows(subtree.rows("waits")))
    first, last = np.searchsorted(waits.ended, begin_ns, "right"), np.searchsorted(waits.begins, end_ns)
    begins, ends = (np.clip(times[first:last], begin_ns, end_ns) for times in (waits.begins, waits.ends))
    rows = np.flatnonzero(ends > begins)
    tgid, kind = waits.tgid[first:last][rows], waits.kind[first:last][rows]
    tgids, of_kind = _sums_ns(tgid, kind, (ends - begins)[rows])
    return tuple(
        Waiter(
            tgid=number,
            comm=subtree.whole.processes.comm_at(number, begin_ns, end_ns),
            stalled_ms=sum(sums) / 1e6,
            kinds_ms={name: ns / 1e6 for name, ns in zip(KINDS, sums, strict=False) if ns},
        )
        for number, sums in zip(tgids[:_MOST_WAITERS].tolist(), of_kind[:_MOST_WAITERS].tolist(), strict=True)
    )


@dataclass(frozen=True, slots=True)
class _Waits:
    """The columns of `waits`, in order of time; `ended` is the latest end up to each row."""

    begins: Int64s
    ends: Int64s
    ended: Int64s
    tgid: Int64s
    kind: Int64s

    @classmethod
    def from_rows(cls, waits: TableRows) -> _Waits:
        begins, ends = waits.times, waits.times + waits.numbers("duration_ns")
        return cls(begins, ends, np.maximum.accumulate(ends), waits.numbers("tgid"), waits.codes("kind"))


def _sums_ms(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return the waits summed up by these keys, in total and of each kind, the longest first."""
    columns = np.column_stack([integers(rows[key]) for key in keys])
    kinds = integers(rows["kind"].cat.codes)
    groups, of_kind = _sums_ns(columns, kinds, integers(rows["duration_ns"]))
    amounts = {"stalled_ms": of_kind.sum(axis=1) / 1e6}
    amounts |= {f"{name}_ms": of_kind[:, code] / 1e6 for code, name in enumerate(KINDS)}
    return pd.DataFrame(dict(zip(keys, groups.T, strict=True)) | amounts)


def _sums_ns(keys: Int64s, kinds: Int64s, durations: Int64s) -> tuple[Int64s, Int64s]:
    """Return (the distinct rows of `keys`, or its distinct numbers; the durations of each summed up by kind),
    the longest first."""
    groups, group = np.unique(keys, axis=0 if keys.ndim > 1 else None, return_inverse=True)
    of_kind = np.zeros((len(groups), len(KINDS) + 1), dtype=np.int64)  # the last is for a kind not listed
    np.add.at(of_kind, (group.ravel(), kinds), durations)
    order = np.argsort(-of_kind.sum(axis=1), kind="stable")
    return groups[order], of_kind[order]
