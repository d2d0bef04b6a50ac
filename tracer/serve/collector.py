"""The metric families of a moment, for a registry of prometheus_client."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from tracer.live.now import Moment, Snapshots
from tracer.live.quantity_values import labels_of, series_of
from tracer.live.tally import Tally
from tracer.metric_families import FAMILIES, Family
from tracer.quantities import METRICS
from tracer.render.words.escape import visible
from tracer.serve.kill_counters import KillCounters

_USAGE: Final = next(metric.name for quantity, metric in METRICS if quantity.source == "usage_bytes")
_MOST_OF_EXEMPLAR: Final = 100
"""The labels of an exemplar may have at most 128 characters in total."""


class CgroupCollector(Collector):
    """Collects the state of all cgroups. Any thread may call `collect`, but only one at a time.

    The cgroups have at most `most_series` series in total. If that is too little, containers come first, then
    cgroups with a limit of their own, then the largest. The others have their usage alone: three fifths of
    `most_series` is kept for usage.
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
        """Add the series of cgroups, and return the number of cgroups without series, or with usage alone.

        Only cgroups that get all their series are computed, so that the others cost little.
        """
        moment = self._snapshots.moment(self._tally.now_ns())
        cgroups = _by_importance(moment)
        of_usage = min(len(cgroups), self._most_series * 3 // 5)
        left = self._most_series - of_usage
        for whole, (_, number) in enumerate(cgroups):
            cgroup = moment.cgroup(number)
            series = [*series_of(cgroup)]
            left -= len(series) - (whole < of_usage)
            if left < 0:
                break
            place = [visible(label) for label in labels_of(cgroup)]
            for name, labels, value in series:
                metrics[name].add_metric([*place, *labels], value)
        else:
            return 0
        for usage_bytes, number in cgroups[whole:of_usage]:
            if usage_bytes is not None:
                place = [visible(label) for label in labels_of(moment.names(number))]
                metrics[_USAGE].add_metric(place, usage_bytes)
        return len(cgroups) - whole

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


def _by_importance(moment: Moment) -> list[tuple[int | None, int]]:
    """Return (usage, id) of the cgroup that was sampled last for each path, the most important first."""
    newest: dict[str, tuple[int, tuple[bool, bool, int, str], int | None, int]] = {}
    levels = zip(moment.ids, moment.times_ns(), moment.usages_bytes(), moment.own_limits_bytes(), strict=True)
    for number, time_ns, usage_bytes, own_limit_bytes in levels:
        names = moment.names(number)
        is_bare, is_unlimited = names.container_id is None, own_limit_bytes is None
        rank = is_bare, is_unlimited, -(usage_bytes or 0), names.path
        path = visible(names.path)
        if path not in newest or newest[path][0] <= time_ns:
            newest[path] = time_ns, rank, usage_bytes, number
    return [(usage_bytes, number) for _, _, usage_bytes, number in sorted(newest.values(), key=itemgetter(1))]


def _cpu_s() -> float:
    """Return the CPU time of this process and of its children that have ended."""
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in spent)
