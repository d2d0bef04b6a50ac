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
from tracer.analysis.explain.sizing.demand import MOST_KILLS, Demand
from tracer.analysis.explain.sizing.read_again import Rereads
from tracer.analysis.explain.sizing.replayed_run import Replay
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.outcome import AtLimit, PodLimit, WhatIf
from tracer.analysis.views import focus
from tracer.analysis.views.lost_time import Spending
from tracer.analysis.whatif.pod_resize import command, pod_limit
from tracer.errors import TracerError
from tracer.schema import UNLIMITED_BYTES

_ROUND_BYTES: Final = 1 << 20


def what_if(
    trace: TraceTables,
    limits: Sequence[int] = (),
    cgroup: str | int | None = None,
    swap_bytes: int | None = None,
    *,
    evenly: int = 0,
) -> WhatIf:
    """Return the outcome of the recorded run of a cgroup, with all below it, at each of the limits, in bytes.

    Without limits, some around the demand of the run are taken. `cgroup` is a pattern (`core.naming.select`).
    Of several cgroups, the one with a kill is taken, or the limited one with the highest peak of usage.
    `swap_bytes`: the swap beside each limit; None: as in the recording. `evenly`: add so many limits at equal
    distances below the highest one, for a picture. Raises TracerError if the trace has
    no data of such a cgroup.
    """
    number = _chosen(trace, cgroup)
    subtree = Subtrees(trace).subtree_at(number)
    replay = Replay.of(subtree, _kills(trace, number), slowed.progress(subtree, Spending(trace)), swap_bytes)
    needs, rereads = replay.needs, replay.rereads
    life = trace.places.lives.life_for(number)
    asked = sorted(set(limits)) or _curve(subtree, needs, rereads)
    if evenly and asked:
        asked = sorted({*asked, *(asked[-1] * step // evenly for step in range(1, evenly))})
    answers = map(replay.at, asked)
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
    return [found.sized(one.kill_id) for one in outlines[:MOST_KILLS]]


def _curve(subtree: Subtree, needs: Demand, rereads: Rereads) -> list[int]:
    """Return limits at which something changes: around the demand, at the recorded limit and at the peak of
    usage, and at the steps of the miss curve."""
    recorded = ledger.counter(subtree, "limit_bytes").at(end_ns(subtree.whole))
    found = [needs.killed_below_bytes, needs.survives_from_bytes, rereads.peak_usage_bytes]
    found.append(rereads.none_from()[0])
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
