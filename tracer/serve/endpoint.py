"""The endpoint beside a recording: the tally of its rows, the counters of its kills, their server, and all
metric families of a moment as text.
"""

from __future__ import annotations

import ipaddress
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.samples import Exemplar

from tracer.capture.observer import Progress
from tracer.live.now import Snapshots
from tracer.live.tally import Tally
from tracer.metric_families import FAMILY_BY_NAME
from tracer.render.export.openmetrics_text import MOST_OF_EXEMPLAR, empty_metric
from tracer.render.words.escape import visible
from tracer.serve.cgroup_lines import CgroupLines, Encoder, LineTemplates
from tracer.serve.http_server import MetricsServer, Tls
from tracer.serve.kill_counters import KillCounters
from tracer.watch.finishing import Finished
from tracer.watch.first_verdicts import FirstVerdict
from tracer.watch.watching import Guest, Reporter

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


_KILLED_DIVISOR: Final = 10
"""Kills are counted under at most `most_series` / `_KILLED_DIVISOR` sets of labels."""


class Endpoint:
    """Listens from the start, and answers once the recording is ready.

    `watch` takes the results of `guest` and `reporter`. With `keeps_traces`, exemplars name the traces of
    kills. Without it, a trace is removed once its kills are counted. Raises the errors of `MetricsServer`.
    """

    def __init__(
        self, host: str, port: int, *, most_series: int, keeps_traces: bool, tls: Tls | None = None
    ) -> None:
        self._tally = Tally()
        self._kills = KillCounters(self._tally.names_of, max(most_series // _KILLED_DIVISOR, 1))
        self._keeps_traces = keeps_traces
        self._growing: Path | None = None
        self._is_open_to_all = not (_is_loopback(host) or (tls and tls.client_authorities))
        exposition = Exposition(self._tally, self._kills, most_series)
        self._server = MetricsServer(host, port, exposition.texts, tls)

    def guest(self) -> Guest:
        """Return the part of the endpoint that `watch` calls in its loop."""
        return Guest(
            self._follow,
            begun=self._begun,
            settled=self._kills.give_up,
            pod_event=self._kills.pod_event,
        )

    def _follow(self, table: str, rows: pa.RecordBatch) -> None:
        """Take rows as they come. The lines on SIGKILLs come later, many in one, so they count none."""
        self._tally.take(table, rows)
        if table == "sigkills":
            self._kills.sigkill(rows)

    def reporter(self, reporter: Reporter) -> Reporter:
        """Return a reporter that also counts, and passes everything on to `reporter`."""
        return _Counting(self, reporter)

    def close(self) -> None:
        """Free the address."""
        self._server.close()

    def begin(self, reporter: Reporter) -> None:
        """Begin to answer, and report the URL."""
        self._server.start()
        reporter.notice(f"metrics at {self._server.url}")
        if self._is_open_to_all:
            reporter.warn(
                "everyone who can reach this address can read the names of all cgroups and containers: "
                "listen on 127.0.0.1, or ask clients for a certificate (--tls-client-ca)"
            )

    def count_kill(self, kill: dict[str, Any]) -> None:
        """Count a kill whose cause is not known yet, given as a row of `oom`."""
        self._kills.kill(kill)

    def count_cause(self, verdict: FirstVerdict) -> None:
        """Count a kill by the cause of its first verdict, whatever the explanation of its trace says later:
        counters do not fall."""
        trace = self._growing if self._keeps_traces else None
        self._kills.explain([(verdict.kill["kill_id"], verdict.cause)], trace)

    def _begun(self, trace: Path) -> None:
        self._growing = trace

    def count_causes(self, story: Finished) -> None:
        """Count the kills of an explained trace by cause."""
        if story.kills is not None:  # else an earlier recording wrote the trace: its kills have the same ids
            self._kills.explain(story.causes, story.trace if self._keeps_traces else None)
        if not self._keeps_traces:
            shutil.rmtree(story.trace, ignore_errors=True)


class _Counting:
    """A `Reporter` for an endpoint and another reporter."""

    def __init__(self, endpoint: Endpoint, reporter: Reporter) -> None:
        self._endpoint = endpoint
        self._reporter = reporter
        self.alarmed = reporter.alarmed
        self.sigkilled = reporter.sigkilled
        self.notice = reporter.notice
        self.warn = reporter.warn

    def ready(self, progress: Progress) -> None:
        self._reporter.ready(progress)
        self._endpoint.begin(self._reporter)

    def killed(self, kill: dict[str, Any], place: str) -> None:
        self._endpoint.count_kill(kill)
        self._reporter.killed(kill, place)

    def judged(self, verdict: FirstVerdict) -> None:
        self._endpoint.count_cause(verdict)
        self._reporter.judged(verdict)

    def finished(self, story: Finished) -> None:
        self._endpoint.count_causes(story)
        self._reporter.finished(story)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
