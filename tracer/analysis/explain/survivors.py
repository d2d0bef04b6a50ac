"""The cgroups that lived: how near each came to its limit, and what reclaim freed."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields, replace
from typing import Final

import numpy as np

from tracer.analysis.core import hierarchy, ledger, naming
from tracer.analysis.core.columns import integers, times_ns, utc_time
from tracer.analysis.core.subtree import Subtree, Subtrees
from tracer.analysis.core.tables import TraceTables, breaks_off, end_ns, page_size, start_ns
from tracer.analysis.explain import progress
from tracer.analysis.explain.measure import allocators, cushion
from tracer.analysis.explain.sizing.completeness import cut_off
from tracer.analysis.explain.sizing.margins import why_no_curve
from tracer.analysis.explain.sizing.survivor_range import survivor_range
from tracer.analysis.results.conclusions import Sizing
from tracer.analysis.results.quality import Quality
from tracer.analysis.results.survivor import Held
from tracer.analysis.views import miss_curve, reclaim, swapping
from tracer.analysis.views.lost_time import Spending
from tracer.analysis.views.thrash import psi_some_share
from tracer.schema import UNLIMITED_BYTES

_REASONS: Final[Mapping[str, str]] = {
    "container": "the cgroup is no known runtime's container",
    "limit_bytes": "the limit was never read",
    "peak_usage_bytes": "usage was never read",
    "peak_time": "usage was never read",
    "headroom_bytes": "usage or the limit was never read",
    "peak_anon_bytes": "the memory that the cgroup held when the trace began is not known",
    "cache_at_peak_bytes": "the memory that the cgroup held when the trace began, or its peak, is not known",
    "shmem_at_peak_bytes": "the memory that the cgroup held when the trace began, or its peak, is not known",
    "kernel_at_peak_bytes": "the memory that the cgroup held when the trace began, or its peak, is not known",
    "peak_swap_bytes": "the memory that the cgroup had in swap when the trace began is not known",
    "kernel_refaulted_bytes": "workingset_refault_file was not sampled twice",
    "high_bytes": "cgroup v1 has no memory.high, or it was never read",
    "high_events": "cgroup v1 has no memory.high, or its events were never read",
    "psi_some_share": "memory.pressure was not read twice (cgroup v1 has none)",
    "state": progress.NOT_KNOWN,
    "lost_share": progress.NOT_KNOWN,
    "lost": progress.NOT_KNOWN,
    "max_events": "it is not counted here (v1, where memory + swap have the same limit), or was never read",
}
_AT_PEAK: Final[Mapping[str, ledger.Weights]] = {
    "cache": ledger.CACHE,
    "shmem": {"shmem": 1},
    "kernel": {"kernel": 1, "sock": 1},
}


def held_cgroups(
    trace: TraceTables, cgroup: str | int | None = None, *, without: Collection[int] = ()
) -> list[Held]:
    """Return a `Held` for each cgroup that the trace has data of; the figures include all cgroups below it.

    The nearest to its limit comes first; those without a limit come last, by peak usage. With `cgroup` only
    the cgroups that it names are returned (`core.naming.select`); the ids of `without` are left out.
    """
    begin, end = start_ns(trace), end_ns(trace)
    quality = Quality(
        trace.losses.affecting_numbers(begin, end),
        "missing",
        dict(trace.meta["probes"]),
        summed=trace.summed_intervals.near(begin, end),
    )
    subtrees, spending = Subtrees(trace), Spending(trace)
    there = naming.with_data(trace)
    if cgroup is not None:
        there = [number for number in naming.select(trace, cgroup) if number in set(there)]
    there = [number for number in there if number not in without]
    members = hierarchy.descendants_of(trace.cgroups, there)
    found = (
        _held(subtrees.subtree_at(*one), spending, begin=begin, end=end, quality=quality)
        for one in members.items()
    )
    return sorted(found, key=_nearness)


def nearest_lives(trace: TraceTables, cgroups: Iterable[Held]) -> list[Held]:
    """Return for each name the life that came nearest to its limit; `cgroups` are in that order."""
    in_order = {one.cgroup_id: one for one in cgroups if one.cgroup_id is not None}
    lives_of_names = trace.places.lives.by_name(list(in_order))
    positions = {number: position for position, number in enumerate(in_order)}
    nearest = [min(positions[life.cgroup_id] for life in lives) for lives in lives_of_names]
    return [one for position, one in enumerate(in_order.values()) if position in set(nearest)]


def _held(subtree: Subtree, spending: Spending, *, begin: int, end: int, quality: Quality) -> Held:
    trace, cgroup_id = subtree.whole, subtree.cgroup_id
    usage = ledger.usage(subtree)
    peak = usage.peak()
    peak_ns = None if peak is None else int(usage.times[usage.values.argmax()])
    limit = ledger.counter(subtree, "limit_bytes").at(end)
    bounded = limit is not None and limit < UNLIMITED_BYTES
    anon = ledger.level(subtree, ledger.ANON)
    swap = ledger.level(subtree, {"swap": 1})
    at_peak = {
        name: None if steps is None or peak_ns is None else steps.at(peak_ns)
        for name, weights in _AT_PEAK.items()
        for steps in (ledger.level(subtree, weights),)
    }
    stuck_ns = _stuck_since(subtree)
    why_not_curved = why_no_curve(subtree, begin, end)
    refaulted, why_not_followed = cushion.refaulted_bytes(subtree, begin, end)
    going = progress.progress(subtree, spending)
    sized, why_unsized = survivor_range(subtree, peak, going.state)
    if stuck_ns is not None:
        sized, why_unsized = Sizing(None), "its tasks wait at the limit: the work did not go on"
    grew, further = allocators.between(subtree, begin, end if peak_ns is None else peak_ns)
    pressure = psi_some_share(subtree, begin, end)
    one = Held(
        cgroup=trace.places.label_of(cgroup_id),
        container=trace.places.container_of(cgroup_id)[0],
        limit_bytes=limit,
        peak_usage_bytes=peak,
        peak_time=None if peak_ns is None else utc_time(peak_ns),
        headroom_bytes=max(limit - peak, 0) if bounded and limit is not None and peak is not None else None,
        peak_anon_bytes=None if anon is None else anon.peak(),
        cache_at_peak_bytes=at_peak["cache"],
        evicted_bytes=subtree.evicted.pages_between(begin, end) * page_size(trace),
        refaulted_bytes=refaulted,
        kernel_refaulted_bytes=cushion.kernel_refaulted_bytes(subtree, begin, end),
        max_events=ledger.count(subtree, "max_events").at(end),
        reclaim=reclaim.attempts(subtree, begin, end),
        sizing=sized,
        miss_curve=None if why_not_curved is not None else miss_curve.points(subtree),
        quality=quality,
        recorded_until=utc_time(end) if breaks_off(trace) else None,
        recorder_cgroup=trace.meta.get("recorder_cgroup"),
        shmem_at_peak_bytes=at_peak["shmem"],
        kernel_at_peak_bytes=at_peak["kernel"],
        peak_swap_bytes=None if swap is None else swap.peak(),
        cgroup_id=cgroup_id,
        run=trace.places.lives.life_for(cgroup_id).run,
        runs=trace.places.lives.life_for(cgroup_id).runs,
        stuck_since=None if stuck_ns is None else utc_time(stuck_ns),
        cut_off=cut_off(trace.meta),
        allocators=grew,
        further_allocators=further,
        **{item.name: getattr(going, item.name) for item in fields(going)},
        high_bytes=ledger.reading(subtree, "high_bytes").at(end),
        high_events=ledger.count(subtree, "high_events").at(end),
        psi_some_share=None if math.isnan(pressure) else pressure,
    )
    why = {field: reason for field, reason in _REASONS.items() if getattr(one, field) is None}
    if one.state is not None:
        why |= {"lost_share": "its tasks did nothing"} if one.lost_share is None else {}
    if limit is not None and not bounded:
        why["headroom_bytes"] = "no limit is set"
    if why_not_followed is not None:
        why["refaulted_bytes"] = why_not_followed
    if one.reclaim.swap_writes is None:
        why |= swapping.NOT_KNOWN
    if why_not_curved is not None:
        why["miss_curve"] = why_not_curved
    if why_unsized is not None:
        why["sizing.min_limit_bytes"] = why_unsized
    return replace(one, quality=replace(quality, unknown=why))


def _stuck_since(subtree: Subtree) -> int | None:
    """Return the moment from which every reading found tasks waiting for memory with the OOM killer disabled.

    None: the last reading did not.
    """
    samples = subtree.samples
    samples = samples[integers(samples["cgroup_id"]) == subtree.cgroup_id]
    flags = [integers(samples[name], missing=0) for name in ("under_oom", "oom_kill_disable")]
    free = np.flatnonzero((flags[0] == 0) | (flags[1] == 0))
    first = int(free[-1]) + 1 if len(free) else 0
    return None if first == len(samples) else int(times_ns(samples)[first])


def _nearness(one: Held) -> tuple[bool, float, int, str]:
    peak = one.peak_usage_bytes or 0
    if one.headroom_bytes is None or not one.limit_bytes:
        return True, 0.0, -peak, one.cgroup
    return False, one.headroom_bytes / one.limit_bytes, -peak, one.cgroup
