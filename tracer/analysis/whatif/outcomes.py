"""The outcome of a recorded run at other limits, from its demand and from what it would read again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from tracer.analysis.core import ledger, naming
from tracer.analysis.core.subtree import Subtree, Subtrees
from tracer.analysis.core.tables import TraceTables, end_ns
from tracer.analysis.explain import kill_filter, slowed
from tracer.analysis.explain.postmortem import PostMortems
from tracer.analysis.explain.sizing.survivor_range import swap_room_bytes
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.outcome import AtLimit, BytesRange, Outcome, PodLimit, WhatIf
from tracer.analysis.views import focus
from tracer.analysis.views.lost_time import Spending
from tracer.analysis.whatif import demand
from tracer.analysis.whatif.demand import MOST_KILLS, Demand
from tracer.analysis.whatif.pod_resize import command, pod_limit
from tracer.analysis.whatif.read_again import Rereads
from tracer.errors import TracerError
from tracer.schema import UNLIMITED_BYTES

_ROUND_BYTES: Final = 1 << 20
_WITH_LESS_SWAP: Final = "what was in swap needs room as well, with less swap"


def what_if(
    trace: TraceTables,
    limits: Sequence[int] = (),
    cgroup: str | int | None = None,
    swap_bytes: int | None = None,
) -> WhatIf:
    """Return the outcome of the recorded run of a cgroup, with all below it, at each of the limits, in bytes.

    Without limits, some around the demand of the run are taken. `cgroup` is a pattern (`core.naming.select`).
    Of several cgroups, the one with a kill is taken, or the limited one with the highest peak of usage.
    `swap_bytes`: the swap beside each limit; None: as in the recording. Raises TracerError if the trace has
    no data of such a cgroup.
    """
    number = _chosen(trace, cgroup)
    subtree = Subtrees(trace).subtree_at(number)
    recorded_bytes = swap_room_bytes(subtree)
    room_bytes = recorded_bytes if swap_bytes is None else swap_bytes
    kills = _kills(trace, number)
    going = slowed.progress(subtree, Spending(trace))
    if not kills:
        needs = demand.of_life(subtree, room_bytes, going.state)
    elif swap_bytes is not None and swap_bytes > (recorded_bytes or 0):
        needs = demand.unknown("how much of its memory would go to more swap than it had is not known")
    else:
        is_less = swap_bytes is not None and swap_bytes != recorded_bytes
        needs = demand.of_kills(subtree, kills, _WITH_LESS_SWAP if is_less else None)
    rereads = Rereads.of(subtree, going)
    is_followed = not kills and room_bytes == recorded_bytes
    life = trace.places.lives.life_for(number)
    asked = sorted(set(limits)) or _curve(subtree, needs, rereads)
    answers = [_at(limit, room_bytes, needs, rereads, is_followed=is_followed) for limit in asked]
    pod = pod_limit(trace, number)
    return WhatIf(
        cgroup=trace.places.label_of(number),
        container=trace.places.container_of(number)[0],
        run=life.run,
        runs=life.runs,
        recorded_limit_bytes=ledger.counter(subtree, "limit_bytes").at(end_ns(trace)),
        killed_below_bytes=needs.killed_below_bytes,
        survives_from_bytes=needs.survives_from_bytes,
        limits=tuple(_with_resize(one, pod) for one in answers),
        peak_usage_bytes=rereads.peak_usage_bytes,
        pod_limit=pod,
    )


def _with_resize(one: AtLimit, pod: PodLimit | None) -> AtLimit:
    if pod is None or one.outcome == "killed":
        return one
    return replace(one, resize=command(pod, one.limit_bytes))


def _chosen(trace: TraceTables, cgroup: str | int | None) -> int:
    """Return the cgroup that a pattern means; of the lives of one name, the last one with a kill."""
    there = [int(number) for number in focus.ranked(trace).index]
    if cgroup is not None:
        selected = set(naming.select(trace, cgroup))
        there = [number for number in there if number in selected]
    if not there:
        raise TracerError("the trace has no data of a cgroup" + ("" if cgroup is None else " of that name"))
    killed = [number for number in focus.to_show(trace)[0] if number in there]
    return killed[0] if killed else there[0]


def _kills(trace: TraceTables, cgroup_id: int) -> list[OomReport]:
    """Return the first kills that concern a cgroup, by time: each takes a while to explain, and a cgroup with
    many is known by a few."""
    found = PostMortems(trace)
    outlines = kill_filter.concerning(trace, found.outlines(), [cgroup_id])
    return [found.one(one.kill_id) for one in outlines[:MOST_KILLS]]


def _at(
    limit_bytes: int, swap_bytes: int | None, needs: Demand, rereads: Rereads, *, is_followed: bool
) -> AtLimit:
    """Return the outcome at a limit. `is_followed`: the whole run is in the trace, with the same swap."""
    outcome, why = needs.at(limit_bytes)
    if outcome == "killed" or not is_followed:
        return AtLimit(limit_bytes, swap_bytes, outcome, why)
    again = rereads.at(limit_bytes)
    if outcome == "survives":
        outcome, why = _speed(limit_bytes, rereads, again, why)
    return AtLimit(limit_bytes, swap_bytes, outcome, why, again, rereads.lost_share_at(limit_bytes, again))


def _speed(limit_bytes: int, rereads: Rereads, again: BytesRange, fits: str) -> tuple[Outcome, str]:
    """Return the outcome at a limit at which nothing is killed, and its reason."""
    if rereads.going.state == "throttled":
        if rereads.is_as_recorded(limit_bytes):
            return "survives", f"{fits}, and memory.high slows it as in the trace"
        return (
            "unknown",
            f"{fits}, but memory.high slowed its tasks, and nothing shows how far they would get",
        )
    thrashes = rereads.is_thrashing_at(limit_bytes, again)
    if thrashes:
        return "thrashes", f"{fits}, but a third of its time or more is lost to what it reads again"
    if thrashes is None:
        return "unknown", f"{fits}, but its tasks were thrashing, and may still be"
    if again[1] is None:
        return "survives", f"{fits}, but not all of its page cache: it may be slower"
    return "survives", fits


def _curve(subtree: Subtree, needs: Demand, rereads: Rereads) -> list[int]:
    """Return limits at which something changes: around the demand, at the recorded limit and at the peak of
    usage, and at the steps of the miss curve."""
    recorded = ledger.counter(subtree, "limit_bytes").at(end_ns(subtree.whole))
    found = [needs.killed_below_bytes, needs.survives_from_bytes, rereads.peak_usage_bytes]
    marks = [mark for mark in found if mark]
    if needs.killed_below_bytes:
        marks += [needs.killed_below_bytes * 3 // 4]
    if recorded is not None and recorded < UNLIMITED_BYTES:
        marks.append(recorded)
        extras = rereads.reuse.extra_pages
        if len(extras):
            steps = np.quantile(extras, (0.25, 0.5, 0.75, 1.0)) * rereads.page_size * 9 / 8
            marks += [recorded + int(step) + rereads.unseen_bytes for step in steps]
    return sorted({-(-mark // _ROUND_BYTES) * _ROUND_BYTES for mark in marks})
