"""The names of a cgroup, a process and a trigger in sentences."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from tracer.analysis.results.kill import LimitOwner
from tracer.analysis.results.quality import ThinnedInterval, resolution_s
from tracer.analysis.results.tasks import Trigger
from tracer.kernel.cgroups.containers import identify, short_id, standing
from tracer.units import coarse_duration


def owner_name(owner: LimitOwner) -> str:
    """Return `container web`, `pod web-1` (whose cgroup holds all its containers), or `the cgroup /a/b`.

    It is `the cgroup /system.slice/a.service in container web` for a limit inside a container.
    """
    if owner.container is None and owner.pod is None:
        return f"the cgroup {owner.cgroup}" if owner.cgroup is not None else "the cgroup"
    place = standing(owner.cgroup or "")
    name = f"pod {owner.pod}" if owner.container is None else f"container {owner.container}"
    inside = f"the cgroup {place.below} in {name}" if place.below else name
    return inside if place.around is None else f"{inside} in container {short_id(place.around)}"


def cgroup_name(path: str | None) -> str:
    """Return the name of a cgroup of which only the path is known, as `owner_name` has it, with short ids."""
    ref = None if path is None else identify(path)
    if ref is None or (ref.container_id is None and ref.pod_uid is None):
        return f"the cgroup {path}"
    container = None if ref.container_id is None else short_id(ref.container_id)
    return owner_name(LimitOwner(path, container, ref.pod_uid, None, None, None))


def process(comm: str | None, pid: int | None) -> str:
    """Return `python3 (pid 41)`, or as much of it as is known."""
    if pid is None:
        return comm or "a process"
    return f"{comm} (pid {pid})" if comm else f"pid {pid}"


def trigger_name(trigger: Trigger) -> str:
    """Return `nginx (pid 41)`, or `pool (thread 43 of pid 41)` for another thread than the first.

    It is `pool (thread 43)` where a kernel log does not show the process.
    """
    if trigger.tgid is None and trigger.pid is not None:
        return f"{trigger.comm or 'a task'} (thread {trigger.pid})"
    if trigger.tgid == trigger.pid:
        return process(trigger.comm, trigger.pid)
    return f"{trigger.comm or 'a task'} (thread {trigger.pid} of pid {trigger.tgid})"


def time_before(end: pd.Timestamp, moment: pd.Timestamp, thinned: Sequence[ThinnedInterval]) -> str:
    """Return the time from a moment to the end, no finer than the rows of that moment are."""
    return coarse_duration((end - moment).total_seconds(), resolution_s(thinned, moment))
