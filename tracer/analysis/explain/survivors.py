"""The cgroups that lived: how near each came to its limit, and what reclaim freed."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal

from tracer.analysis.core import ledger, naming
from tracer.analysis.core.columns import Int64s, utc_time
from tracer.analysis.core.subtree import Subtree, Subtrees
from tracer.analysis.core.tables import TraceTables, breaks_off, end_ns, page_size, start_ns
from tracer.analysis.explain import kill_filter, runtimes, slowed
from tracer.analysis.explain.measure import allocators, last_looks, window
from tracer.analysis.explain.postmortem import PostMortems
from tracer.analysis.explain.sizing.kill_range import Range, Sized, cut_off, stuck_since, why_no_curve
from tracer.analysis.explain.sizing.replayed_run import Replay
from tracer.analysis.explain.sizing.survivor_range import survivor_range
from tracer.analysis.explain.sizing.unreclaimable import (
    growth_within,
    unreclaimable,
    unreclaimable_growth,
)
from tracer.analysis.explain.slowed import HighLimits, why_not_known
from tracer.analysis.explain.words import advice
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.memory import Grown
from tracer.analysis.results.quality import Quality
from tracer.analysis.results.survivor import Held, LoweredLimit, Progress
from tracer.analysis.views import miss_curve, reclaim
from tracer.analysis.views.code_samples import grown_within
from tracer.analysis.views.lost_time import Spending
from tracer.analysis.views.thrash import psi_some_share
from tracer.categories import CATEGORIES, PARTS
from tracer.schema import UNLIMITED_BYTES

_REASONS: Final[Mapping[str, str]] = {
    "container": "the cgroup is no known runtime's container",
    "limit_bytes": "the limit was never read",
    "peak_usage_bytes": "usage was never read",
    "peak_time": "usage was never read",
    "kernel_peak_bytes": "the kernel has no memory.peak, or it was never read",
    "headroom_bytes": "usage or the limit was never read",
    "peak_anon_bytes": "the memory that the cgroup held when the trace began is not known",
    "anon_at_peak_bytes": "the memory that the cgroup held when the trace began, or its peak, is not known",
    "cache_at_peak_bytes": "the memory that the cgroup held when the trace began, or its peak, is not known",
    "shmem_at_peak_bytes": "the memory that the cgroup held when the trace began, or its peak, is not known",
    "kernel_at_peak_bytes": "the memory that the cgroup held when the trace began, or its peak, is not known",
    "peak_swap_bytes": "the memory that the cgroup had in swap when the trace began is not known",
    "kernel_refaulted_bytes": "the kernel's count was not sampled twice",
    "high_bytes": "cgroup v1 has no memory.high, or it was never read",
    "high_events": "cgroup v1 has no memory.high, or its events were not read twice",
    "effective_high_bytes": "cgroup v1 has no memory.high, or an older version recorded the trace",
    "high_owner": "no memory.high is set on it or above it, or none was read",
    "psi_some_share": "memory.pressure was not read twice (cgroup v1 has none)",
    "max_events": "it is not counted here (v1 with the same limit of memory + swap), or was not read twice",
}
_NEAR_PEAK_PERCENT: Final = 99
_AT_PEAK: Final[Mapping[str, ledger.Weights]] = {
    "anon": ledger.ANON,
    "cache": ledger.CACHE,
    "shmem": {"shmem": 1},
    "kernel": {"kernel": 1, "sock": 1},
}
_KINDS: Final = {"anon": "anon", "shmem": "shmem", "file": "cache", "kernel": "kernel"}
"""The kinds of memory that stacks are sampled of -> their names in `_AT_PEAK`."""

_COUNTED: Final = {category.name for category in CATEGORIES}
_KERNEL_PARTS: Final = tuple(
    part.name for part in PARTS if part.layer == "kernel" and part.counter in _COUNTED
)
_AT_MOST: Final[Mapping[str, ledger.Weights]] = {"anon": ledger.ANON, "swap": {"swap": 1}}


_CUT_BY_A_KILL: Final[Sized] = Range(), "a kill cut its work off: the report of the kill has the range"


def held_cgroups(
    trace: TraceTables,
    cgroup: str | int | None = None,
    *,
    without: Collection[int] = (),
    reports: Sequence[OomReport] | None = None,
) -> list[Held]:
    """Return a `Held` for each cgroup that the trace has data of; the figures include all cgroups below it.

    The nearest to its limit comes first; those without a limit come last, by peak usage. One that a bug keeps
    from being measured is left out (`trace.defects`). With `cgroup` only
    the cgroups that it names are returned (`core.naming.select`); the ids of `without` are left out.
    `reports`: the kills that concern these cgroups; None: look for them.
    """
    begin, end = start_ns(trace), end_ns(trace)
    quality = Quality(
        trace.losses.affecting_sizes_near(begin, end),
        "missing",
        dict(trace.meta["probes"]),
        summed=trace.summed_intervals.near(begin, end),
        thinned=trace.fineness.thinned(begin, end),
    )
    subtrees, spending, highs = Subtrees(trace), Spending(trace), HighLimits(trace)
    there = naming.with_data(trace)
    if cgroup is not None:
        there = [number for number in naming.select(trace, cgroup) if number in set(there)]
    there = [number for number in there if number not in without]
    members = naming.descendants_of(trace.cgroups, there)
    kills = PostMortems(trace).outlines() if reports is None else reports
    killed = kill_filter.with_kills(trace, kills)

    def held(number: int, below: Int64s) -> Held | None:
        return trace.defects.attempt(
            f"the cgroup {trace.places.label_of(number)}",
            lambda: _held(
                subtrees.subtree_at(number, below),
                spending,
                highs,
                begin=begin,
                end=end,
                quality=quality,
                is_killed=not killed.isdisjoint(below.tolist()),
            ),
            lambda _: None,
        )

    found = (held(*one) for one in members.items())
    return sorted((one for one in found if one is not None), key=_nearness)


def nearest_lives(trace: TraceTables, cgroups: Iterable[Held]) -> list[Held]:
    """Return for each name the life that came nearest to its limit; `cgroups` are in that order."""
    in_order = {one.cgroup_id: one for one in cgroups if one.cgroup_id is not None}
    lives_of_names = trace.places.lives.by_name(list(in_order))
    positions = {number: position for position, number in enumerate(in_order)}
    nearest = [min(positions[life.cgroup_id] for life in lives) for lives in lives_of_names]
    return [one for position, one in enumerate(in_order.values()) if position in set(nearest)]


def _held(
    subtree: Subtree,
    spending: Spending,
    highs: HighLimits,
    *,
    begin: int,
    end: int,
    quality: Quality,
    is_killed: bool,
) -> Held:
    trace, life = subtree.whole, subtree.whole.places.lives.life_for(subtree.cgroup_id)
    going = _with_growth(slowed.progress(subtree, spending), subtree)
    peak, peak_ns = ledger.peak_usage(subtree), _peak_ns(subtree)
    stuck_ns = stuck_since(subtree)
    if is_killed:
        sized, why_unsized = _CUT_BY_A_KILL
    else:
        sized, why_unsized = survivor_range(Replay.of(subtree, (), going))
    refaulted, why_not_followed = window.refaulted_bytes(subtree, begin, end)
    why_not_curved = why_no_curve(subtree, begin, end)
    pressure = psi_some_share(subtree, begin, end)
    grew, further = allocators.between(subtree, begin, end if peak_ns is None else peak_ns)
    sizes = _sizes(subtree, peak, peak_ns, end)
    mappings = last_looks.largest_processes(subtree, begin, end)
    grown = _grown(subtree, sizes, going.state, (begin, peak_ns, end))
    evicted = subtree.evicted.pages_between(begin, end) * page_size(trace)
    asked, _ = reclaim.requested_pages(subtree, begin, end)
    one = Held(
        cgroup=trace.places.label_of(subtree.cgroup_id),
        container=trace.places.container_of(subtree.cgroup_id)[0],
        **sizes,
        evicted_bytes=evicted,
        evicted_on_request_bytes=min(asked * page_size(trace), evicted),
        refaulted_bytes=refaulted,
        kernel_refaulted_bytes=window.kernel_refaulted_bytes(subtree, begin, end),
        max_events=ledger.counted(subtree, "max_events", begin, end),
        reclaim=reclaim.attempts(subtree, begin, end),
        sizing=advice.sized(sized),
        miss_curve=None if why_not_curved is not None else miss_curve.points(subtree),
        quality=quality,
        recorded_until=utc_time(end) if breaks_off(trace) else None,
        recorder_cgroup=trace.meta.get("recorder_cgroup"),
        cgroup_id=subtree.cgroup_id,
        run=life.run,
        runs=life.runs,
        stuck_since=None if stuck_ns is None else utc_time(stuck_ns),
        cut_off=cut_off(trace.meta),
        allocators=grew,
        further_allocators=further,
        mappings=mappings,
        runtime=runtimes.of_processes(subtree, mappings),
        cached=last_looks.cached_files(subtree, begin, end),
        **grown.fields(),
        progress=going,
        high_bytes=ledger.reading(subtree, "high_bytes").at(end),
        high_events=ledger.counted(subtree, "high_events", begin, end),
        effective_high_bytes=highs.effective_bytes(subtree.cgroup_id),
        high_owner=highs.owner(subtree, is_throttled=bool(going.lost and going.lost.throttled_ms)),
        psi_some_share=None if math.isnan(pressure) else pressure,
        lowered=tuple(_lowered(subtree, end)),
    )
    why = _why_unknown(one) | {
        name: reason
        for name, reason in (
            ("refaulted_bytes", why_not_followed),
            ("miss_curve", why_not_curved),
            ("sizing.min_limit_bytes", why_unsized),
            *grown.unknown().items(),
        )
        if reason is not None
    }
    return replace(one, quality=replace(quality, unknown=why))


def _with_growth(going: Progress, subtree: Subtree) -> Progress:
    """Add to a stretch in which tasks crawled how unreclaimable memory grew in it, and the room that was
    left."""
    if going.crawl is None:
        return going
    begin_ns, end_ns = (moment.as_unit("ns").value for moment in (going.crawl.begin, going.crawl.end))
    kept, limit = unreclaimable(subtree), ledger.counter(subtree, "limit_bytes").at(end_ns)
    late_ns = end_ns - (end_ns - begin_ns) // 3
    most = None if kept is None else kept.within(late_ns, end_ns).peak()
    is_known = limit is not None and limit < UNLIMITED_BYTES and most is not None
    room = max((limit or 0) - (most or 0), 0) if is_known else None
    grown = growth_within(subtree, begin_ns, end_ns)
    return replace(going, crawl=replace(going.crawl, grown_bytes=grown, room_bytes=room))


def _peak_ns(subtree: Subtree) -> int | None:
    """Return the moment of the peak of usage in ns; None if usage was never read.

    While reclaim makes room at a limit, usage stays near its peak, and what it is made of changes. Of the
    moments at which usage was at least 99 % of the highest reading, this is the first one with the most
    memory that reclaim cannot free, or had to swap out.
    """
    usage = ledger.usage(subtree)
    peak = usage.peak()
    if peak is None:
        return None
    near = usage.times[usage.values * 100 >= peak * _NEAR_PEAK_PERCENT]
    return int(near[unreclaimable_growth(subtree, near).argmax()])


def _kernel_parts(subtree: Subtree, kernel_bytes: int | None, moment_ns: int | None) -> dict[str, int | None]:
    """Return the parts of kernel memory at a moment, by the names of their categories, in bytes.

    `zswap` is that of the last sample. `other` is the rest: objects without a counter of their own, and parts
    that are null. Empty if kernel memory or the moment is not known.
    """
    if kernel_bytes is None or moment_ns is None:
        return {}
    levels = {name: ledger.level(subtree, {name: 1}) for name in _KERNEL_PARTS}
    parts = {name: None if steps is None else steps.at(moment_ns) for name, steps in levels.items()}
    if (zswap := ledger.reading(subtree, "zswap_bytes").at(moment_ns)) is not None:
        parts["zswap"] = min(zswap, kernel_bytes)
    return parts | {"other": max(kernel_bytes - sum(part or 0 for part in parts.values()), 0)}


def _sizes(subtree: Subtree, peak: int | None, peak_ns: int | None, end: int) -> dict[str, Any]:
    """Return the fields of `Held` on its memory and its limit: at the end, at the peak, at most."""
    limit = ledger.counter(subtree, "limit_bytes").at(end)
    is_limited = limit is not None and limit < UNLIMITED_BYTES
    at_peak = {
        f"{name}_at_peak_bytes": None if steps is None or peak_ns is None else steps.at(peak_ns)
        for name, weights in _AT_PEAK.items()
        for steps in (ledger.level(subtree, weights),)
    }
    at_most = {
        f"peak_{name}_bytes": None if steps is None else steps.peak()
        for name, weights in _AT_MOST.items()
        for steps in (ledger.level(subtree, weights),)
    }
    if at_most["peak_anon_bytes"] is not None and peak is not None:
        # A charge and an uncharge reach the ledger up to 10 ms apart.
        at_most["peak_anon_bytes"] = min(at_most["peak_anon_bytes"], peak)
    return {
        "limit_bytes": limit,
        "peak_usage_bytes": peak,
        "peak_time": None if peak_ns is None else utc_time(peak_ns),
        "kernel_peak_bytes": ledger.reading(subtree, "peak_bytes").at(end),
        "headroom_bytes": _headroom(subtree, limit, peak, end) if is_limited else None,
        **at_peak,
        **at_most,
        "kernel_parts_at_peak_bytes": _kernel_parts(subtree, at_peak["kernel_at_peak_bytes"], peak_ns),
    }


def _grown(
    subtree: Subtree, sizes: Mapping[str, Any], state: str | None, moments: tuple[int, int | None, int]
) -> Grown:
    """Return the code that made the largest kind of memory grow until the peak; page cache if it is
    thrashing.

    `moments`: the begin, the peak (None: not known) and the end of the trace, in ns.
    """
    begin, peak_ns, end = moments
    at_peak = {kind: sizes[f"{name}_at_peak_bytes"] or 0 for kind, name in _KINDS.items()}
    zswap = sizes["kernel_parts_at_peak_bytes"].get("zswap", 0)
    at_peak |= {"kernel": at_peak["kernel"] - zswap, "anon": at_peak["anon"] + zswap}
    is_thrashing = state == "thrashing"
    kind = "file" if is_thrashing else max(at_peak, key=lambda kind: at_peak[kind])
    last = end if is_thrashing or peak_ns is None else peak_ns
    return grown_within(subtree, (kind,), begin, last)


def _headroom(subtree: Subtree, limit: int | None, peak: int | None, end: int) -> int | None:
    """Return by how much usage stayed below the limit at least, in bytes; if the limit was lowered, since
    then."""
    if limit is None or peak is None:
        return None
    lowered = ledger.last_lowering(subtree, limit, end)
    if lowered is not None:
        peak = ledger.usage(subtree).within(lowered.since_ns, end).peak() or 0
    return max(limit - peak, 0)


def _lowered(subtree: Subtree, end: int) -> Iterator[LoweredLimit]:
    """Yield the limits whose last change lowered them below usage."""
    usage = ledger.usage(subtree)
    read: tuple[tuple[Literal["memory.max", "memory.high"], str, ledger.Steps], ...] = (
        ("memory.max", "limit_bytes", ledger.counter(subtree, "limit_bytes")),
        ("memory.high", "high_bytes", ledger.reading(subtree, "high_bytes")),
    )
    for file, column, limits in read:
        limit = limits.at(end)
        step = None if limit is None else ledger.last_lowering(subtree, limit, end, column)
        if limit is None or step is None:
            continue
        asked_ns = reclaim.requested_since(subtree, step.since_ns)
        most = usage.within(min(step.seen_ns + 1, asked_ns), step.since_ns).peak() or 0
        if most > limit:
            yield LoweredLimit(file, step.limit_bytes, limit, most, utc_time(step.since_ns))


def _why_unknown(one: Held) -> dict[str, str]:
    """Return the reason for each value that is not known, without those that `_held` has."""
    why = {name: reason for name, reason in _REASONS.items() if getattr(one, name) is None}
    if one.progress.state is None:
        why |= dict.fromkeys(("state", "lost_share", "lost"), slowed.NOT_KNOWN)
    elif one.progress.lost_share is None:
        why["lost_share"] = "its tasks did nothing"
    if one.limit_bytes is not None and one.limit_bytes >= UNLIMITED_BYTES:
        why["headroom_bytes"] = "no limit is set"
    if one.high_owner is not None:
        why |= why_not_known(one.high_owner)
    return why | (reclaim.SWAP_NOT_KNOWN if one.reclaim.swap_writes is None else {})


def _nearness(one: Held) -> tuple[bool, float, int, str]:
    peak = one.peak_usage_bytes or 0
    if one.headroom_bytes is None or not one.limit_bytes:
        return True, 0.0, -peak, one.cgroup
    return False, one.headroom_bytes / one.limit_bytes, -peak, one.cgroup
