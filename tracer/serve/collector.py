"""The metric families of a moment, for a registry of prometheus_client."""

from __future__ import annotations

import resource
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from tracer.live.now import CgroupNow, Snapshots
from tracer.live.quantity_values import labels_of, series_of
from tracer.live.tally import Tally
from tracer.metric_families import FAMILIES, Family
from tracer.render.words.escape import visible
from tracer.serve.kill_counters import KillCounters

_MOST_OF_EXEMPLAR: Final = 100
"""The labels of an exemplar may have at most 128 characters in total."""


class CgroupCollector(Collector):
    """Collects the state of all cgroups. Any thread may call `collect`, but only one at a time.

    The cgroups have at most `most_series` series in total. If that is too little, containers come first, then
    cgroups with a limit of their own, then the largest.
    """

    def __init__(self, tally: Tally, kills: KillCounters, most_series: int) -> None:
        self._tally = tally
        self._snapshots = Snapshots(tally)
        self._kills = kills
        self._most_series = most_series

    def collect(self) -> Iterator[Metric]:
        """Yield every family, including families without a series."""
        metrics = {family.name: _metric(family) for family in FAMILIES}
        left_out = self._add_cgroups(metrics)
        metrics["cgroups_left_out"].add_metric([], left_out)
        self._add_kills(metrics)
        for stream, lost in sorted(self._tally.copy_losses().items()):
            metrics["lost_records"].add_metric([stream], lost)
        metrics["tracer_cpu_seconds"].add_metric([], _cpu_s())
        yield from metrics.values()

    def _add_cgroups(self, metrics: Mapping[str, GaugeMetricFamily | CounterMetricFamily]) -> int:
        """Add the series of cgroups, and return the number of cgroups that were left out."""
        cgroups = _by_importance(self._snapshots.take(self._tally.now_ns()))
        left = self._most_series
        for number, cgroup in enumerate(cgroups):
            series = [*series_of(cgroup)]
            left -= len(series)
            if left < 0:
                return len(cgroups) - number
            place = [visible(label) for label in labels_of(cgroup)]
            for name, labels, value in series:
                metrics[name].add_metric([*place, *labels], value)
        return 0

    def _add_kills(self, metrics: Mapping[str, GaugeMetricFamily | CounterMetricFamily]) -> None:
        explained = metrics["oom_kills"]
        assert isinstance(explained, CounterMetricFamily)
        for labels, kills in sorted(self._kills.seen().items()):
            metrics["oom_kills_seen"].add_metric([*map(visible, labels)], kills)
        for (labels, cause), one in sorted(self._kills.explained().items()):
            exemplar = None
            if one.trace is not None:
                name = one.trace.name[:_MOST_OF_EXEMPLAR]
                exemplar = Exemplar({"trace": name}, 1.0, one.time_s)
            explained.add_metric([*map(visible, labels), cause], one.kills, exemplar=exemplar)


def _metric(family: Family) -> GaugeMetricFamily | CounterMetricFamily:
    kind = GaugeMetricFamily if family.kind == "gauge" else CounterMetricFamily
    return kind(family.full_name, family.help, labels=family.labels, unit=family.unit)


def _by_importance(cgroups: Iterable[CgroupNow]) -> list[CgroupNow]:
    """Return the cgroup that was sampled last for each path, the most important first."""
    newest: dict[str, CgroupNow] = {}
    for cgroup in sorted(cgroups, key=lambda one: one.time_ns):
        newest[visible(cgroup.path)] = cgroup
    return sorted(newest.values(), key=_rank)


def _rank(cgroup: CgroupNow) -> tuple[bool, bool, int, str]:
    is_bare, is_unlimited = cgroup.container_id is None, cgroup.own_limit_bytes is None
    return is_bare, is_unlimited, -(cgroup.usage_bytes or 0), cgroup.path


def _cpu_s() -> float:
    """Return the CPU time of this process and of its children that have ended."""
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in spent)
