"""The outcome of a recorded run at other limits, from its demand and from what it would read again; and the
kubectl command that gives a running pod another limit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

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
from tracer.errors import TracerError
from tracer.kernel.cgroups.containers import identify, qos_class, standing
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
    there = set(naming.with_data(trace))
    if cgroup is not None:
        there &= set(naming.select(trace, cgroup))
    if not there:
        raise TracerError("the trace has no data of a cgroup" + ("" if cgroup is None else " of that name"))
    if len(there) == 1:
        return there.pop()
    found: list[int] = [*focus.to_show(trace)[0], *focus.ranked(trace).index.tolist()]
    return next(number for number in found if number in there)


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
    found = [needs.killed_below_bytes, needs.survives_from_bytes, needs.grown_fits_from_bytes]
    found += [rereads.peak_usage_bytes, rereads.none_from()[0]]
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


_LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN: Final = re.compile(r"[a-z0-9](?:[-.a-z0-9]{0,251}[a-z0-9])?")
_UID_OF_STATIC: Final = re.compile(r"[0-9a-f]{32}")
"""The kubelet gives a static pod a hash as its uid (pkg/kubelet/config/common.go, `applyDefaults`). The API
server refuses to resize its mirror pod."""
_UNITS: Final = ((1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki"), (1, ""))


def pod_limit(trace: TraceTables, cgroup_id: int) -> PodLimit | None:
    """Return the pod or container of Kubernetes whose own limit a cgroup has.

    None for any other cgroup, for one that a container made inside itself, and for a static pod. None also if
    a name is not known or is one that Kubernetes does not accept (RFC 1123): a trace may have any names.
    """
    path, names = trace.places.label_of(cgroup_id), trace.places.named_container_of(cgroup_id)
    ref = identify(path)
    if ref is None or ref.pod_uid is None or names is None or standing(path).below:
        return None
    if _UID_OF_STATIC.fullmatch(ref.pod_uid):
        return None
    container = None if ref.container_id is None else names.name or ""
    is_valid = (
        _LABEL.fullmatch(names.namespace or "")
        and _SUBDOMAIN.fullmatch(names.pod or "")
        and (container is None or _LABEL.fullmatch(container))
    )
    if not is_valid:
        return None
    return PodLimit(names.namespace or "", names.pod or "", container, qos_class(path))


def command(pod: PodLimit, limit_bytes: int) -> tuple[str, ...] | None:
    """Return the arguments of the command that sets the limit; None if a resize cannot set one.

    A resize must keep the QoS class: a request equals its limit in a Guaranteed pod, and a BestEffort pod
    has neither (apis/core/validation: ValidatePodResize).
    """
    if pod.qos_class == "BestEffort":
        return None
    spec: dict[str, Any] = {"resources": resources(pod, limit_bytes)}
    if pod.container is not None:
        spec = {"containers": [{"name": pod.container, **spec}]}
    patch = json.dumps({"spec": spec}, separators=(",", ":"))
    where = ("kubectl", "patch", "pod", pod.pod, "-n", pod.namespace)
    return *where, "--subresource", "resize", "--patch", patch


def resources(pod: PodLimit, limit_bytes: int) -> dict[str, dict[str, str]]:
    """Return the `resources` of a container or pod with this limit, which keep its QoS class."""
    kinds = ("requests", "limits") if pod.qos_class == "Guaranteed" else ("limits",)
    return {kind: {"memory": quantity(limit_bytes)} for kind in kinds}


def quantity(size_bytes: int) -> str:
    """Return a size as Kubernetes writes it, exactly: `300Mi`, or `314572801` if no unit divides it."""
    return next(f"{size_bytes // unit}{name}" for unit, name in _UNITS if size_bytes % unit == 0)
