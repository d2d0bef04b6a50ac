"""What held: of each cgroup that lived, how near its limit came and what reclaim gave back."""

from __future__ import annotations

from tracer.analysis import cushion, ledger, names, reclaim
from tracer.analysis.oom import lost_records
from tracer.analysis.report import Held, Quality
from tracer.analysis.tables import TraceTables, end_ns, iso_time, page_size, start_ns
from tracer.schema import UNLIMITED_BYTES


def held(trace: TraceTables) -> list[Held]:
    """One for each cgroup that the trace has data of, the nearest to its limit first, those without a limit
    last, by peak usage. The figures include all below the cgroup."""
    found = [_held(trace, cgroup_id) for cgroup_id in names.with_data(trace)]
    return sorted(found, key=_nearness)


def _held(trace: TraceTables, cgroup_id: int) -> Held:
    begin, end = start_ns(trace), end_ns(trace)
    members = names.descendants(trace.cgroups, cgroup_id)
    unknown: dict[str, str] = {}
    usage = ledger.counter(trace, cgroup_id, "usage_bytes")
    peak, peak_ns = usage.peak(), None
    if peak is None:
        unknown |= dict.fromkeys(("peak_usage_bytes", "peak_time", "headroom_bytes"), "usage was never read")
    else:
        peak_ns = int(usage.times[usage.values.argmax()])
    limit = ledger.counter(trace, cgroup_id, "limit_bytes").at(end)
    if limit is None:
        unknown["limit_bytes"] = unknown["headroom_bytes"] = "the limit was never read"
    has_limit = limit is not None and limit < UNLIMITED_BYTES
    if limit is not None and not has_limit:
        unknown["headroom_bytes"] = "no limit is set"
    anon = ledger.level(trace, cgroup_id, members, ledger.ANON)
    cache = ledger.level(trace, cgroup_id, members, ledger.CACHE)
    if anon is None:
        unknown["peak_anon_bytes"] = "what the cgroup held when the trace began is not known"
    if cache is None or peak_ns is None:
        unknown["cache_at_peak_bytes"] = (
            "what the cgroup held when the trace began, or its peak, is not known"
        )
    refaulted = cushion.refaulted_bytes(trace, cgroup_id, begin, end)
    if refaulted is None:
        unknown["refaulted_bytes"] = "workingset_refault_file was not sampled twice"
    max_events = ledger.count(trace, cgroup_id, "max_events").at(end)
    if max_events is None:
        unknown["max_events"] = "the count of limit hits was never read"
    container, _ = names.container_of(trace.cgroups, cgroup_id)
    if container is None:
        unknown["container"] = "the cgroup is no known runtime's container"
    return Held(
        cgroup=names.label_of(trace.cgroups, cgroup_id),
        container=container,
        limit_bytes=limit,
        peak_usage_bytes=peak,
        peak_time=None if peak_ns is None else iso_time(peak_ns),
        headroom_bytes=limit - peak if limit is not None and has_limit and peak is not None else None,
        peak_anon_bytes=None if anon is None else anon.peak(),
        cache_at_peak_bytes=None if cache is None or peak_ns is None else cache.at(peak_ns),
        evicted_bytes=cushion.evicted_pages(trace, members, begin, end) * page_size(trace),
        refaulted_bytes=refaulted,
        max_events=max_events,
        reclaim=reclaim.attempts(trace, members, begin, end),
        quality=Quality(lost_records(trace, begin, end), "missing", dict(trace.meta["probes"]), unknown),
    )


def _nearness(one: Held) -> tuple[bool, float, int, str]:
    peak = one.peak_usage_bytes or 0
    if one.headroom_bytes is None or not one.limit_bytes:
        return True, 0.0, -peak, one.cgroup
    return False, one.headroom_bytes / one.limit_bytes, -peak, one.cgroup
