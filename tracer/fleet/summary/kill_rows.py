"""A row for each kill of a trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracer.analysis.results.json_values import limit_columns
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.memory import Composition
from tracer.fleet.summary.named_cgroups import NamedCgroups
from tracer.fleet.summary.origin import Origin


def kill_rows(reports: Sequence[OomReport], origin: Origin, names: NamedCgroups) -> list[dict[str, Any]]:
    """Return a row of `kills` for each report that has a time."""
    return [_row(report, origin, names) for report in reports if report.time is not None]


def unreclaimable_bytes(made_of: Composition) -> int | None:
    """Return the part of usage that reclaim cannot free, in bytes: all but page cache and reclaimable slab.
    None: not known."""
    if None in (made_of.total, made_of.file_clean, made_of.slab_reclaimable):
        return None
    reclaimable = (made_of.file_clean, made_of.file_dirty, made_of.writeback, made_of.slab_reclaimable)
    return max((made_of.total or 0) - sum(part or 0 for part in reclaimable), 0)


def _row(report: OomReport, origin: Origin, names: NamedCgroups) -> dict[str, Any]:
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
    }
