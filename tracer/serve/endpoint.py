"""The endpoint beside a recording: the tally of its rows, the counters of its kills, and their server."""

from __future__ import annotations

import ipaddress
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tracer.capture.observer import Progress, Sigkilled
from tracer.live.tally import Tally
from tracer.serve.exposition import Exposition
from tracer.serve.http_server import MetricsServer, Tls
from tracer.serve.kill_counters import KillCounters
from tracer.watch.finishing import Finished
from tracer.watch.first_verdicts import FirstVerdict
from tracer.watch.watching import Guest, Reporter

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
            self._tally.take,
            begun=self._begun,
            settled=self._kills.give_up,
            pod_event=self._kills.pod_event,
        )

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

    def count_sigkill(self, row: dict[str, Any]) -> None:
        """Count a SIGKILL that was not the OOM killer's, given as a row of `sigkills`."""
        self._kills.sigkill(row)

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
        self.notice = reporter.notice
        self.warn = reporter.warn

    def ready(self, progress: Progress) -> None:
        self._reporter.ready(progress)
        self._endpoint.begin(self._reporter)

    def killed(self, kill: dict[str, Any], place: str) -> None:
        self._endpoint.count_kill(kill)
        self._reporter.killed(kill, place)

    def sigkilled(self, kills: Sequence[Sigkilled]) -> None:
        for row, _ in kills:
            self._endpoint.count_sigkill(row)
        self._reporter.sigkilled(kills)

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
