"""Reclaim for a cgroup: its attempts, its reads and writes of swap, and the times in which threads waited.

A request counts for the cgroup of its pages, at the time at which it was queued. Its duration is known if its
end was seen (docs/trace-format.md, `swap_io`).

Waits can be nested: a page fault on a swapped-out page charges a page, the charge has to reclaim, and reclaim
waits for writeback. Each moment of a thread is counted once, for the innermost wait. So times of any kinds,
of a process or of a cgroup, can be added up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd

from tracer.analysis.core import naming
from tracer.analysis.core.columns import (
    NO_ID,
    Bools,
    Int64s,
    integers,
    is_one_of,
    limit_of,
    optional,
    optional_text,
    times_ns,
    utc_time,
    utc_times,
)
from tracer.analysis.core.ledger import Steps
from tracer.analysis.core.rows import Charges, TableRows
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import TraceTables, page_size
from tracer.analysis.results.memory import Reclaim, ReclaimAttempt, SwapIo, Waiter
from tracer.categories import RECLAIM_COUNTS
from tracer.enumerations import STALL_KIND
from tracer.schema import LIMITS

SWAP_NOT_KNOWN: Final = dict.fromkeys(
    ("reclaim.swap_writes", "reclaim.swap_reads"),
    "the trace has nothing written to swap or read from it, though there was swapping",
)
"""Entries of `quality.unknown` of a report."""

_NOT_SEEN_TO_END: Final = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class _Requests:
    """The requests of one direction, in order of time; `duration_ns` is `_NOT_SEEN_TO_END` if unknown."""

    times: Int64s
    nr_pages: Int64s
    duration_ns: Int64s

    @classmethod
    def from_rows(cls, swap_io: TableRows, op: str) -> _Requests:
        rows = swap_io.where(swap_io.are("op", (op,)))
        durations = rows.numbers("duration_ns", missing=_NOT_SEEN_TO_END)
        return cls(rows.times, rows.numbers("nr_pages"), durations)


def is_swap_known(trace: TraceTables, charges: Charges) -> bool:
    """Return whether swap IO was recorded, so that its absence means that there was none.

    Also True if nothing was swapped, so that `charges` has no rows of swap.
    """
    probe = trace.meta["probes"].get("swap IO")
    was_taken = isinstance(probe, dict) and bool(probe.get("hook"))
    return was_taken or not bool(charges.is_of("swap").any())


def swapped(subtree: Subtree, op: str, begin_ns: int, end_ns: int) -> SwapIo | None:
    """Return the writes to swap or the reads from it (`op` is "write" or "read") of pages of these cgroups.

    IO that was queued within the interval is counted, both ends included; with `Subtrees.machine`, the IO of
    all cgroups. None: not known.
    """
    if not subtree.once("swapping.is_known", lambda: is_swap_known(subtree.whole, subtree.charges)):
        return None
    requests = subtree.once(
        ("swapping.swapped", op), lambda: _Requests.from_rows(subtree.rows("swap_io"), op)
    )
    first, last = np.searchsorted(requests.times, [begin_ns, end_ns + 1])
    duration_ns = requests.duration_ns[first:last]
    took_ms = duration_ns[duration_ns != _NOT_SEEN_TO_END] / 1e6
    return SwapIo(
        count=int(last - first),
        size_bytes=int(requests.nr_pages[first:last].sum()) * page_size(subtree.whole),
        took_ms={"median": float(np.median(took_ms)), "longest": float(took_ms.max())}
        if len(took_ms)
        else {},
    )


_TRANSCRIPT: Final = 12
_OF_AN_ATTEMPT: Final = (
    *("duration_ns", "kind", "cgroup_id", "pid", "tgid", "priority", "nr_dirty", "nr_writeback"),
    *("scanned", "scanned_anon", "scanned_file", "reclaimed", "reclaimed_anon", "reclaimed_file"),
    *("usage_bytes", "limit_bytes", LIMITS["limit_bytes"]),
    *(f"{count}_{lru}" for lru in ("anon", "file") for count in RECLAIM_COUNTS),
)


_NOT_WAITED_FOR: Final = ("kswapd",)
ON_REQUEST: Final = ("proactive",)
"""The kind of the attempts that were requested: no limit was in the way (docs/trace-format.md)."""
_REQUEST_PAUSE_NS: Final = 100_000_000
REQUESTED: Final = "on request (memory.reclaim, memory.force_empty of v1, or a limit set below usage)"
"""Such attempts in words."""


def is_waited_for(reclaim: pd.DataFrame) -> Bools:
    """Return a mask of the attempts for which a task waited: all but those of the kswapd threads
    (mm/vmscan.c)."""
    return ~is_one_of(reclaim["kind"], _NOT_WAITED_FOR)


def attempts(subtree: Subtree, begin_ns: int, end_ns: int) -> Reclaim:
    """Return the attempts for these cgroups that began within an interval (both ends included), and the tasks
    that waited.

    With `Subtrees.machine`, these are the attempts for the whole machine; any process may have waited for
    them.
    """
    known = _attempts(subtree)
    first, last = known.places(begin_ns, end_ns)
    shown = slice(max(first, last - _TRANSCRIPT), last)
    return replace(
        counted(subtree, begin_ns, end_ns),
        transcript=_transcript(
            subtree.whole, known.time[shown].tolist(), known.rows.records(_OF_AN_ATTEMPT, shown)
        ),
        waiters=longest(subtree, begin_ns, end_ns),
        swap_writes=swapped(subtree, "write", begin_ns, end_ns),
        swap_reads=swapped(subtree, "read", begin_ns, end_ns),
    )


def counted(subtree: Subtree, begin_ns: int, end_ns: int) -> Reclaim:
    """Return the numbers and sums of `attempts`, without anything on a single attempt, task or page."""
    known = _attempts(subtree)
    first, last = known.places(begin_ns, end_ns)
    scanned, reclaimed, waited_ns, requested = (known.sums[last] - known.sums[first]).tolist()
    return Reclaim(
        attempts=last - first,
        scanned_pages=scanned,
        reclaimed_pages=reclaimed,
        stall_ms=waited_ns / 1e6,
        requested_cache_pages=requested,
    )


def _attempts(subtree: Subtree) -> _Attempts:
    return subtree.once("reclaim.attempts", lambda: _Attempts.from_rows(subtree.rows("reclaim")))


@dataclass(frozen=True, slots=True)
class _Attempts:
    """The attempts for the cgroups of a subtree.

    `sums[n]` has the scanned and the reclaimed pages of the first n attempts, the time for which tasks waited
    in them, in ns, and the pages of page cache that those on request (memory.reclaim) reclaimed.
    """

    time: Int64s
    sums: Int64s
    rows: TableRows

    @classmethod
    def from_rows(cls, reclaim: TableRows) -> _Attempts:
        scanned, reclaimed, took = map(reclaim.numbers, ("scanned", "reclaimed", "duration_ns"))
        waited = np.where(reclaim.are("kind", _NOT_WAITED_FOR), 0, took)
        requested = np.where(reclaim.are("kind", ON_REQUEST), reclaim.numbers("reclaimed_file", missing=0), 0)
        each = np.stack([scanned, reclaimed, waited, requested], axis=1)
        sums = np.concatenate([np.zeros((1, 4), np.int64), np.cumsum(each, axis=0)])
        return cls(reclaim.times, sums, reclaim)

    def places(self, begin_ns: int, end_ns: int) -> tuple[int, int]:
        """Return the first of the attempts that began within an interval, and the one after the last."""
        first, last = np.searchsorted(self.time, [begin_ns, end_ns + 1]).tolist()
        return first, last


def begins_at_limits(subtree: Subtree) -> Int64s:
    """Return when the attempts for these cgroups began, without those on request."""

    def find() -> Int64s:
        rows = subtree.rows("reclaim")
        return rows.times[~rows.are("kind", ON_REQUEST)]

    return subtree.once("reclaim.begins_at_limits", find)


def requested_pages(subtree: Subtree, begin_ns: int, end_ns: int) -> tuple[int, int]:
    """Return the pages of page cache and of anonymous memory that attempts on request took in an interval."""

    def find() -> tuple[Steps, Steps]:
        rows = subtree.rows("reclaim")
        asked = rows.where(rows.are("kind", ON_REQUEST))
        file, anon = (asked.numbers(f"reclaimed_{lru}", missing=0) for lru in ("file", "anon"))
        return Steps(asked.times, np.cumsum(file), 0), Steps(asked.times, np.cumsum(anon), 0)

    file, anon = (
        (taken.at(end_ns) or 0) - (taken.at(begin_ns - 1) or 0)
        for taken in subtree.once("reclaim.requested", find)
    )
    return file, anon


def requested_since(subtree: Subtree, time_ns: int) -> int:
    """Return when the attempts on request began that follow each other up to a moment; that moment, if there
    are none. v1 reclaims before it lowers the limit (mem_cgroup_resize_max in mm/memcontrol-v1.c)."""
    rows = subtree.own_rows("reclaim")
    rows = rows.where(rows.are("kind", ON_REQUEST) & (rows.times <= time_ns))
    ends = np.append(rows.times + rows.numbers("duration_ns"), time_ns)
    pauses = np.flatnonzero(np.append(rows.times, time_ns)[1:] - ends[:-1] > _REQUEST_PAUSE_NS)
    return int(np.append(rows.times, time_ns)[pauses[-1] + 1 if len(pauses) else 0])


def reclaimed_anon_pages(subtree: Subtree, begin_ns: int, end_ns: int) -> int:
    """Return the number of pages that these attempts took from anonymous lists, which went to swap."""

    def find() -> Steps:
        reclaim = subtree.rows("reclaim")
        return Steps(reclaim.times, np.cumsum(reclaim.numbers("reclaimed_anon")), 0)

    taken = subtree.once("reclaim.reclaimed_anon_pages", find)
    return (taken.at(end_ns) or 0) - (taken.at(begin_ns - 1) or 0)


def _transcript(
    trace: TraceTables, moments: Sequence[int], rows: Sequence[Mapping[str, Any]]
) -> tuple[ReclaimAttempt, ...]:
    return tuple(
        ReclaimAttempt(
            time=utc_time(moment),
            duration_ms=row["duration_ns"] / 1e6,
            kind=str(row["kind"]),
            cgroup=trace.places.path_of(optional(row["cgroup_id"])),
            pid=int(row["pid"]),
            comm=trace.processes.comm_at(int(row["tgid"]), moment, moment),
            scanned_pages=int(row["scanned"]),
            reclaimed_pages=int(row["reclaimed"]),
            priority=optional(row["priority"]),
            scanned_anon_pages=int(row["scanned_anon"]),
            scanned_file_pages=int(row["scanned_file"]),
            reclaimed_anon_pages=int(row["reclaimed_anon"]),
            reclaimed_file_pages=int(row["reclaimed_file"]),
            nr_dirty=int(row["nr_dirty"]),
            nr_writeback=int(row["nr_writeback"]),
            usage_bytes=optional(row["usage_bytes"]),
            limit_bytes=limit_of(row),
            kept_anon=_kept(row, "anon"),
            kept_file=_kept(row, "file"),
        )
        for moment, row in zip(moments, rows, strict=True)
    )


def _kept(row: Mapping[str, Any], lru: str) -> dict[str, int] | None:
    """Return reason -> pages of this list that the attempt could not free; None if not all are known."""
    counts = {count: optional(row[f"{count}_{lru}"]) for count in RECLAIM_COUNTS}
    known_counts = {name: count for name, count in counts.items() if count is not None}
    return known_counts if len(known_counts) == len(counts) else None


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


def are_stalls_known(trace: TraceTables, kind: str) -> bool:
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
    unknown = [f"{kind}_ms" for kind in KINDS if not are_stalls_known(trace, kind)]
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


def waited_ns(subtree: Subtree, kind: str, begin_ns: int, end_ns: int) -> int:
    """Return how long tasks of these cgroups waited for a reason, in waits that began within an interval."""

    def find() -> Steps:
        waits = subtree.rows("waits")
        chosen = waits.where(waits.are("kind", (kind,)))
        return Steps(chosen.times, np.cumsum(chosen.numbers("duration_ns")), 0)

    waited = subtree.once(("reclaim.waited", kind), find)
    return (waited.at(end_ns) or 0) - (waited.at(begin_ns - 1) or 0)


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
