"""What the endpoint answers: all metric families of a moment, as text."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.samples import Exemplar

from tracer.live.now import Snapshots
from tracer.live.tally import Tally
from tracer.metric_families import FAMILY_BY_NAME
from tracer.render.export.openmetrics_text import MOST_OF_EXEMPLAR, empty_metric
from tracer.render.words.escape import visible
from tracer.serve.cgroup_lines import CgroupLines
from tracer.serve.kill_counters import KillCounters
from tracer.serve.line_templates import Encoder, LineTemplates

_MOST_FORMATS: Final = 4


class Exposition:
    """Writes the state of all cgroups and the kills as text. Any thread may call `texts`, but only one at a
    time. The cgroups have at most `most_series` series in total.
    """

    def __init__(self, tally: Tally, kills: KillCounters, most_series: int) -> None:
        self._tally = tally
        self._snapshots = Snapshots(tally)
        self._cgroups = CgroupLines(most_series)
        self._others = _Others(tally, kills)
        self._templates: dict[str, LineTemplates] = {}

    def texts(self, encoder: Encoder, content_type: str) -> Iterator[str]:
        """Yield the text of all families, including families without a series, in parts. `encoder` is the
        writer of prometheus_client for this content type."""
        if content_type not in self._templates:
            if len(self._templates) >= _MOST_FORMATS:  # a client can ask for any number of versions
                self._templates.clear()
            self._templates[content_type] = LineTemplates(encoder)
        moment = self._snapshots.moment(self._tally.now_ns())
        families, self._others.left_out = self._cgroups.families(moment, self._templates[content_type])
        yield from families
        yield encoder(self._others).decode()


class _Others:
    """Collects the families that are about no cgroup that exists, as a registry for a writer."""

    def __init__(self, tally: Tally, kills: KillCounters) -> None:
        self._tally = tally
        self._kills = kills
        self.left_out = 0

    def collect(self) -> Iterator[Metric]:
        yield from self._kills_seen_and_explained()
        sigkills = empty_metric(FAMILY_BY_NAME["sigkills"])
        for (labels, sender), processes in sorted(self._kills.sigkills().items()):
            sigkills.add_metric([*map(visible, (*labels, sender))], processes)
        yield sigkills
        pod_events = empty_metric(FAMILY_BY_NAME["pod_events"])
        for result, events in sorted(self._kills.events_of_pods().items()):
            pod_events.add_metric([result], events)
        yield pod_events
        left_out, lost, cpu_s = (
            empty_metric(FAMILY_BY_NAME[name])
            for name in ("cgroups_left_out", "lost_records", "tracer_cpu_seconds")
        )
        left_out.add_metric([], self.left_out)
        for stream, records in sorted(self._tally.copy_losses().items()):
            lost.add_metric([stream], records)
        cpu_s.add_metric([], _cpu_s())
        yield from (left_out, lost, cpu_s)

    def _kills_seen_and_explained(self) -> Iterator[Metric]:
        seen, explained = (empty_metric(FAMILY_BY_NAME[name]) for name in ("oom_kills_seen", "oom_kills"))
        assert isinstance(explained, CounterMetricFamily)
        for labels, kills in sorted(self._kills.seen().items()):
            seen.add_metric([*map(visible, labels)], kills)
        for (labels, cause), one in sorted(self._kills.explained().items()):
            exemplar = None
            if one.trace is not None:
                exemplar = Exemplar({"trace": one.trace.name[:MOST_OF_EXEMPLAR]}, 1.0, one.time_s)
            explained.add_metric([*map(visible, labels), cause], one.kills, exemplar=exemplar)
        yield from (seen, explained)


def _cpu_s() -> float:
    """Return the CPU time of this process and of its children that have ended."""
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in spent)
