"""The summary tables of one trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from tracer.analysis.core.columns import NO_ID, Integers, distinct, integers
from tracer.analysis.core.evicted import is_evicted
from tracer.analysis.core.page_cache import CacheEvents
from tracer.analysis.core.tables import ShmemFiles, page_size
from tracer.analysis.results.forms import limit_columns
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.memory import Composition
from tracer.analysis.results.sigkill import Sigkill
from tracer.analysis.trace import AnalysedTrace
from tracer.errors import Defects
from tracer.fleet.summary.life_rows import life_rows
from tracer.fleet.summary.origin import Origin
from tracer.fleet.summary.summaries import BIN_NS, SUMMARIES
from tracer.fleet.summary.time_window import time_ns
from tracer.fleet.summary.workload import NamedCgroups

Starts = Mapping[tuple[int, int | None], int]
"""(kill_id, pid) -> when the process of this victim started, in ns by CLOCK_BOOTTIME."""


def victim_starts(trace: AnalysedTrace) -> Starts:
    """Return the starts that the trace has: none if it is older than the column."""
    known = trace.oom[trace.oom["start_ns"].notna()]
    kill_ids, pids, starts = (integers(known[name]).tolist() for name in ("kill_id", "pid", "start_ns"))
    return dict(zip(zip(kill_ids, pids, strict=True), starts, strict=True))


def kill_rows(
    reports: Sequence[OomReport], origin: Origin, names: NamedCgroups, starts: Starts
) -> list[dict[str, Any]]:
    """Return a row of `kills` for each report that has a time."""
    return [_row(report, origin, names, starts) for report in reports if report.time is not None]


def sigkill_rows(
    sigkills: Sequence[Sigkill], origin: Origin, names: NamedCgroups
) -> Iterator[dict[str, Any]]:
    """Yield a row of `sigkills` for each SIGKILL that was not the OOM killer's."""
    for kill in sigkills:
        assert kill.time is not None
        time, sender = kill.time.as_unit("ns").value, kill.sender
        yield {
            **origin.row(time),
            "ktime_ns": origin.ktime_ns(time),
            **names.row(kill.target.cgroup_id),
            "comm": kill.target.comm,
            "pid": kill.target.pid,
            "start_ns": kill.start_ns,
            "way": kill.way,
            "sender_comm": sender and sender.comm,
            "sender_pid": sender and sender.pid,
            **{"sender_workload": None, "sender_cgroup": None, "sender_cgroup_id": None},
            **(_who("sender", names, sender.cgroup_id) if sender is not None else {}),
            "parent_comm": kill.parents[0].comm if kill.parents else None,
            "since_sigterm_s": kill.since_sigterm_s,
            "limit_bytes": kill.limit_bytes,
            "is_limited": None if kill.usage_bytes is None else kill.limit_bytes is not None,
            "usage_bytes": kill.usage_bytes,
            "psi_some_share": kill.pressure_share,
        }


def unreclaimable_bytes(made_of: Composition) -> int | None:
    """Return the part of usage that reclaim cannot free, in bytes: all but page cache and reclaimable slab.
    None: not known."""
    if None in (made_of.total, made_of.file_clean, made_of.slab_reclaimable):
        return None
    reclaimable = (made_of.file_clean, made_of.file_dirty, made_of.writeback, made_of.slab_reclaimable)
    return max((made_of.total or 0) - sum(part or 0 for part in reclaimable), 0)


def _row(report: OomReport, origin: Origin, names: NamedCgroups, starts: Starts) -> dict[str, Any]:
    assert report.time is not None
    owner, verdict, cushion = report.limit_owner, report.verdict, report.cushion
    victim = report.victims[0] if report.victims else None
    of_victim = names.row(victim.cgroup_id if victim else None)
    place = names.row(owner.cgroup_id) if owner.cgroup_id is not None else of_victim
    low, high = report.sizing.min_limit_bytes or (None, None)
    return {
        **origin.row(report.time.as_unit("ns").value),
        "ktime_ns": report.ktime_ns,
        "kill_id": report.kill_id,
        "cause": verdict.cause,
        "confidence": verdict.confidence,
        "summary": verdict.summary,
        "constraint": report.constraint,
        **place,
        "cgroup": owner.cgroup,
        "cgroup_id": owner.cgroup_id,
        **limit_columns(owner.limit_bytes),
        "usage_bytes": owner.usage_bytes,
        "unreclaimable_bytes": unreclaimable_bytes(report.composition),
        "working_set_bytes": report.working_set_bytes,
        "victims": len(report.victims),
        "victim_comm": victim and victim.comm,
        "victim_pid": victim and victim.pid,
        "victim_start_ns": victim and starts.get((report.kill_id, victim.pid)),
        "victim_anon_rss_bytes": victim and victim.anon_rss_bytes,
        "victim_cgroup": victim and victim.cgroup,
        "victim_workload": of_victim["workload"],
        "victim_cgroup_id": victim and victim.cgroup_id,
        "trigger_comm": report.trigger.comm,
        "evicted_bytes": cushion.evicted_bytes,
        "refaulted_bytes": cushion.refaulted_bytes,
        "reclaim_attempts": report.reclaim.attempts,
        "stall_ms": report.reclaim.stall_ms,
        "min_limit_low_bytes": low,
        "min_limit_high_bytes": high,
        **{f"{part}_bytes": amount for part, amount in report.composition.parts()},
        "lost_records": report.quality.lost_records,
        "kmsg": report.quality.kmsg,
        **_grown(report),
    }


def _grown(report: OomReport) -> dict[str, Any]:
    """Return the function of the program with the largest share of the growth before the kill; nothing if
    there is none, or it has no name: the same address is another function on another machine."""
    if not report.code or not report.code[0].frames:
        return {}
    frame = report.code[0].frames[0]
    if frame.is_nameless:
        return {}
    place = {f"grown_{name}": getattr(frame, name) for name in ("function", "file", "line", "module")}
    return {**place, "grown_share": report.code[0].share}


def evictor_rows(trace: AnalysedTrace, origin: Origin, names: NamedCgroups) -> list[dict[str, Any]]:
    """Return the rows of `evictors`.

    `refaulted_bytes` is the part of `evicted_bytes` that was read again later in the trace. Summed over
    minutes and causes, both columns equal `evicted_bytes` and `returned_bytes` of `t.evictions(by="cgroup")`.
    """
    events = trace.cache_events
    pairs = [*_evicted(trace, events, origin), *_returned(trace, events, origin)]
    if not pairs:
        return []
    keys = ["bin", "cgroup_id", "task_cgroup_id", "cause"]
    frame = pd.concat(pairs).join(events.kinds[keys[1:]], on="kind")
    sums = frame.groupby(keys, observed=True)[["evicted", "returned"]].sum()
    start, end = trace.span_ns
    size = page_size(trace)
    return [
        {
            **origin.bin_row(
                max(number * BIN_NS + origin.clock_offset_ns, start),
                min((number + 1) * BIN_NS + origin.clock_offset_ns, end),
            ),
            **_who("owner", names, None if owner == NO_ID else owner),
            **_who("evictor", names, evictor),
            "cause": cause,
            "evicted_bytes": evicted * size,
            "refaulted_bytes": returned * size,
        }
        for (number, owner, evictor, cause), evicted, returned in zip(
            sums.index.tolist(), sums["evicted"].tolist(), sums["returned"].tolist(), strict=True
        )
    ]


def _who(role: str, names: NamedCgroups, cgroup_id: int | None) -> dict[str, Any]:
    row = names.row(cgroup_id)
    return {f"{role}_{name}": row[name] for name in ("workload", "cgroup", "cgroup_id")}


def _evicted(trace: AnalysedTrace, events: CacheEvents, origin: Origin) -> Iterator[pd.DataFrame]:
    """Yield sums of evicted pages by kind of event and minute, without shmem, which is not page cache."""
    is_taken = is_evicted(events.kinds)
    shmem = ShmemFiles.from_inodes(trace.inodes)
    is_file = ~shmem.hold(*(integers(events.files[name]) for name in ("inode_id", "dev")))
    for batch in events.batches():
        taken = np.flatnonzero(is_taken[batch.kind] & is_file[batch.file])
        yield _sums("evicted", batch.kind[taken], batch.time[taken], batch.pages[taken], origin)


def _returned(trace: AnalysedTrace, events: CacheEvents, origin: Origin) -> Iterator[pd.DataFrame]:
    """Yield sums of the pages that came back, by the kind and the minute of their eviction."""
    is_taken = is_evicted(events.kinds)
    for links in trace.page_moves.links.batches():
        chosen = np.flatnonzero(is_taken[links.evicted_kind])
        yield _sums(
            "returned",
            links.evicted_kind[chosen],
            links.evicted_ns[chosen],
            links.pages[chosen],
            origin,
        )


def _sums(column: str, kind: Integers, time_ns: Integers, pages: Integers, origin: Origin) -> pd.DataFrame:
    minute = (time_ns - origin.clock_offset_ns) // BIN_NS
    code, firsts = distinct(kind, minute - minute.min(initial=np.iinfo(np.int64).max))
    amounts = np.bincount(code, pages, len(firsts)).astype(np.int64)
    found = pd.DataFrame(
        {"bin": minute[firsts], "kind": kind[firsts].astype(np.int64), "evicted": 0, "returned": 0}
    )
    found[column] = amounts
    return found


@dataclass(frozen=True, slots=True)
class Summary:
    """The summary of a trace: `tables` has an Arrow table for each of `SUMMARIES`, `defects` the bugs that
    cost a part of them."""

    origin: Origin
    tables: Mapping[str, pa.Table]
    defects: Defects


def summarize(trace: AnalysedTrace) -> Summary:
    """Return the summary of a trace. Raises TraceError for a damaged one."""
    origin, names = Origin.from_trace(trace), NamedCgroups(trace)
    reports = trace.summarized()
    kills = kill_rows(reports, origin, names, victim_starts(trace))
    lives = life_rows(trace, origin, names, kills, reports)
    sigkills = [*sigkill_rows(trace.sigkilled(), origin, names)]
    rows = {
        "sources": [_source_row(trace, origin, len(kills), len(sigkills))],
        "kills": kills,
        "sigkills": sigkills,
        "lives": lives.lives,
        "evictors": trace.defects.attempt(
            "the evicted page cache", lambda: evictor_rows(trace, origin, names), lambda _: []
        ),
        "timeline": lives.timeline,
    }
    tables = {table: pa.Table.from_pylist(rows[table], schema) for table, schema in SUMMARIES.items()}
    return Summary(origin, tables, trace.defects)


def _source_row(trace: AnalysedTrace, origin: Origin, kills: int, sigkills: int) -> dict[str, Any]:
    meta, last_ns = trace.meta, trace.span_ns[1]
    ended = meta["ended"]
    return {
        **origin.row(time_ns(meta["started"])),
        "end": (last_ns or None) if ended is None else time_ns(ended),
        "kernel_release": meta["kernel_release"],
        "cgroup_version": meta["cgroup_version"],
        "tool_version": meta["tool_version"],
        "end_reason": meta.get("end_reason"),
        "lost_records": None if meta["lost"] is None else trace.losses.affecting_sizes,
        "kills": kills,
        "bytes_on_disk": trace.size_bytes,
        "sigkills": sigkills if trace.has_table("sigkills") else None,
    }
