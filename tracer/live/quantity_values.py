"""The values of quantities (`tracer.quantities`) of a cgroup: at one moment, and over an interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tracer.live.now import CgroupNow
from tracer.live.tally import Names
from tracer.metric_families import place_labels
from tracer.quantities import METRICS, TOP_COLUMNS, Quantity, TopColumn


def series_of(cgroup: CgroupNow) -> Iterator[tuple[str, tuple[str, ...], float]]:
    """Yield (family, the labels besides the cgroup's labels, value) of each series that a cgroup has."""
    for quantity, metric in METRICS:
        for part, value in _parts(cgroup, quantity).items():
            if value is not None:
                scaled = value if quantity.per_unit == 1 else value / quantity.per_unit
                yield metric.name, (part,) if metric.label else (), scaled


def numbers_of(now: CgroupNow, before: CgroupNow | None, elapsed_s: float) -> dict[str, float | None]:
    """Return key -> number for each of `TOP_COLUMNS`; flows are rates since `before`, `elapsed_s` earlier."""
    return {column.key: _number(quantity, column, now, before, elapsed_s) for quantity, column in TOP_COLUMNS}


def _number(
    quantity: Quantity, column: TopColumn, now: CgroupNow, before: CgroupNow | None, elapsed_s: float
) -> float | None:
    value = _total(now, quantity, column.part)
    if quantity.kind == "level":
        return value
    earlier = None if before is None else _total(before, quantity, column.part)
    if value is None or earlier is None or elapsed_s <= 0:
        return None
    rate = (value - earlier) / quantity.per_unit / elapsed_s
    return min(100 * rate, column.most_percent) if quantity.unit == "seconds" else rate


def _total(cgroup: CgroupNow, quantity: Quantity, part: str) -> float | None:
    parts = _parts(cgroup, quantity)
    known = [value for value in ([parts[part]] if part else parts.values()) if value is not None]
    return sum(known) if known else None


def _parts(cgroup: CgroupNow, quantity: Quantity) -> Mapping[str, float | None]:
    """Return part -> value in the unit of the source; a quantity without parts has one, ""."""
    value: Mapping[str, float | None] | float | None = getattr(cgroup, quantity.source)
    return value if isinstance(value, Mapping) else {"": value}


def labels_of(cgroup: CgroupNow | Names) -> tuple[str, ...]:
    """Return the values of `PLACE_LABELS`. They may be any text."""
    return place_labels(
        path=cgroup.path,
        container_id=cgroup.container_id,
        container=cgroup.container,
        pod=cgroup.pod,
        namespace=cgroup.namespace,
    )
