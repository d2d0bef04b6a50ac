"""A trace as OpenMetrics with timestamps: the metrics that Prometheus would have scraped from `serve`.

Names, labels and values equal the ones of `serve` (`tracer.metric_families`). Counts of events begin at zero
with the trace. Counts that the kernel keeps begin with the cgroup.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.samples import Exemplar

from tracer.live.now import CgroupNow
from tracer.live.quantity_values import labels_of, series_of
from tracer.metric_families import FAMILIES, Family
from tracer.render.words.escape import visible

END: Final = "# EOF\n"
MOST_OF_EXEMPLAR: Final = 100
"""The labels of an exemplar may have at most 128 characters in total."""

_MILLISECOND_NS: Final = 1_000_000  # the resolution of timestamps in Prometheus
NEED_CUSHIONS: Final = frozenset({"cushion_bytes", "seconds_to_kill"})
"""The families that are computed from cushions."""

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """An event at which a counter rises by `amount`. The time is in ns since the epoch.

    `labels` are the values of all labels of the family. `exemplar` is the name of a trace that shows the
    event in detail.
    """

    time_ns: int
    family: str
    labels: Labels
    amount: float = 1
    exemplar: str | None = None


@dataclass(slots=True)
class _Series:
    """The points of a series by time in milliseconds. The last point that is added for a time counts."""

    points: dict[int, float] = field(default_factory=dict)
    exemplars: dict[int, str] = field(default_factory=dict)


def families(
    moments: Iterable[tuple[int, Sequence[CgroupNow]]],
    events: Sequence[Event],
    *,
    cpu_s: float | None,
    left_out: frozenset[str],
) -> Iterator[str]:
    """Yield the text of each family, and the mark of the end.

    `moments` are (ns since the epoch, the cgroups at that time). `events` are counted from zero, with a point
    at each moment. `cpu_s` is the CPU time of the recorder, which is known only for the end of the recording;
    None: not known. `left_out` are families to leave out.
    """
    found: dict[str, dict[Labels, _Series]] = {family.name: {} for family in FAMILIES}
    times_ms = []
    for moment_ns, cgroups in moments:
        time_ms = moment_ns // _MILLISECOND_NS
        times_ms.append(time_ms)
        for cgroup in sorted(cgroups, key=attrgetter("time_ns")):  # the newest cgroup of a path comes last
            place = tuple(map(visible, labels_of(cgroup)))
            for name, labels, value in series_of(cgroup):
                found[name].setdefault((*place, *labels), _Series()).points[time_ms] = value
    if times_ms:
        _count(events, times_ms, found)
    if times_ms and cpu_s is not None:
        found["tracer_cpu_seconds"][()] = _Series({times_ms[-1]: cpu_s})
    for family in FAMILIES:
        if found[family.name] and family.name not in left_out:
            yield _text(family, found[family.name]).removesuffix(END)
    yield END


def _count(
    events: Iterable[Event], times_ms: Sequence[int], found: Mapping[str, dict[Labels, _Series]]
) -> None:
    """Add the counters of events. Events after the last moment count at the last moment."""
    steps: dict[tuple[str, Labels], dict[int, float]] = {}
    for event in events:
        at_ms = times_ms[min(bisect_left(times_ms, event.time_ns / _MILLISECOND_NS), len(times_ms) - 1)]
        labels = tuple(map(visible, event.labels))
        of_series = steps.setdefault((event.family, labels), {})
        of_series[at_ms] = of_series.get(at_ms, 0) + event.amount
        series = found[event.family].setdefault(labels, _Series())
        if event.exemplar is not None:
            series.exemplars[at_ms] = event.exemplar
    for (name, labels), of_series in steps.items():
        sums = itertools.accumulate(of_series.get(time_ms, 0) for time_ms in times_ms)
        found[name][labels].points |= dict(zip(times_ms, sums, strict=True))


def _text(family: Family, found: Mapping[Labels, _Series]) -> str:
    return str(generate_latest(OneMetric(_metric(family, found))), "utf-8")  # type: ignore[no-untyped-call]


class OneMetric:
    """Passes one family to the library's writer: all that the writer needs of a registry."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterator[Metric]:
        yield self._metric


def empty_metric(family: Family) -> GaugeMetricFamily | CounterMetricFamily:
    """Return a family without samples."""
    kind = GaugeMetricFamily if family.kind == "gauge" else CounterMetricFamily
    return kind(family.full_name, family.help, labels=family.labels, unit=family.unit)


def _metric(family: Family, found: Mapping[Labels, _Series]) -> Metric:
    metric = empty_metric(family)
    for labels, series in sorted(found.items()):
        named = dict(zip(family.labels, labels, strict=True))
        for time_ms, value in sorted(series.points.items()):
            seconds = time_ms / 1000
            trace = series.exemplars.get(time_ms)
            exemplar = None if trace is None else Exemplar({"trace": trace[:MOST_OF_EXEMPLAR]}, 1.0, seconds)
            metric.add_sample(family.sample_name, named, value, seconds, exemplar)
    return metric
