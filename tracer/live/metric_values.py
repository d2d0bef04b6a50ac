"""The values of the metric families of a cgroup (`tracer.metric_families`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from tracer.live.now import CgroupNow
from tracer.metric_families import place_labels

Value = tuple[tuple[str, ...], float | None]
"""The labels of a series besides its cgroup's labels, and its value; None: there is no such series."""


def _one(read: Callable[[CgroupNow], float | None]) -> Callable[[CgroupNow], Iterable[Value]]:
    return lambda cgroup: [((), read(cgroup))]


def _many(read: Callable[[CgroupNow], Mapping[str, int | None]]) -> Callable[[CgroupNow], Iterable[Value]]:
    return lambda cgroup: [((name,), value) for name, value in read(cgroup).items()]


def _pressure(cgroup: CgroupNow) -> Iterable[Value]:
    totals = {"some": cgroup.psi_some_us, "full": cgroup.psi_full_us}
    return [((kind,), None if total is None else total / 1e6) for kind, total in totals.items()]


OF_CGROUP: Final[Mapping[str, Callable[[CgroupNow], Iterable[Value]]]] = {
    "usage_bytes": _one(lambda cgroup: cgroup.usage_bytes),
    "limit_bytes": _one(lambda cgroup: cgroup.limit_bytes),
    "memory_bytes": _many(lambda cgroup: cgroup.parts),
    "cushion_bytes": _one(lambda cgroup: cgroup.cushion_bytes),
    "seconds_to_kill": _one(lambda cgroup: cgroup.seconds_to_kill),
    "working_set_bytes": _one(lambda cgroup: cgroup.working_set_bytes),
    "swap_bytes": _one(lambda cgroup: cgroup.swap_bytes),
    "pagecache_added_bytes": _many(lambda cgroup: cgroup.added_bytes),
    "pagecache_evicted_bytes": _many(lambda cgroup: cgroup.evicted_bytes),
    "refaulted_bytes": _one(lambda cgroup: cgroup.refaulted_bytes),
    "reclaim_attempts": _many(lambda cgroup: cgroup.attempts),
    "reclaim_stall_seconds": _one(lambda cgroup: cgroup.reclaim_ns / 1e9),
    "pressure_seconds": _pressure,
}
"""Family -> the values of a cgroup."""


def values_of(cgroup: CgroupNow) -> Iterator[tuple[str, tuple[str, ...], float]]:
    """Yield (family, the labels besides the cgroup's labels, value) of each series that a cgroup has."""
    for name, read in OF_CGROUP.items():
        for labels, value in read(cgroup):
            if value is not None:
                yield name, labels, value


def labels_of(cgroup: CgroupNow) -> tuple[str, ...]:
    """Return the values of `PLACE_LABELS`. They may be any text."""
    return place_labels(
        path=cgroup.path,
        container_id=cgroup.container_id,
        container=cgroup.container,
        pod=cgroup.pod,
        namespace=cgroup.namespace,
    )
