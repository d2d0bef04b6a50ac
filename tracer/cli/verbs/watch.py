"""`watch`: a flight recorder, which writes a trace of the minutes before each OOM kill."""

from __future__ import annotations

import json
import os
import shlex
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tracer.cli import value_completion
from tracer.cli.endpoint_options import address, check_tls, endpoint_options, open_endpoint
from tracer.cli.kill_lines import KillLines
from tracer.cli.tuning import hooks, ring_pages
from tracer.cli.typed_values import (
    PathOrUrl,
    check_in_child,
    duration_s,
    percent,
    size_bytes,
    some_bytes,
    stacks_option,
)
from tracer.errors import TracerError
from tracer.render.words.escape import visible
from tracer.watch.pod_account import pod_account
from tracer.watch.service import STATE_FOLDER

if TYPE_CHECKING:
    from tracer.capture.observer import Progress
    from tracer.kernel.cgroups.cgroupfs import Hierarchy
    from tracer.watch.finishing import Finished
    from tracer.watch.first_verdicts import FirstVerdict
    from tracer.watch.watching import WatchOptions

_LEAST_S: Final = 10.0
_LONGEST_S: Final = 86400.0
SPOOL: Final = Path(STATE_FOLDER)
OF_MACHINE: Final = Path("/proc/pressure/memory")
"""The pressure of the machine. The file cannot be read where the kernel does not count pressure."""


@click.command(
    epilog="""\b
Examples:
  sudo memcg-tracer watch                           # each OOM kill of this machine leaves a trace
  sudo memcg-tracer watch -c /kubepods --on soon    # pods only; a trace before the kill as well
  sudo memcg-tracer watch --exec /usr/local/bin/page-me
  sudo memcg-tracer watch -o s3://oom/traces        # copies of all traces at this URL
  sudo memcg-tracer watch --serve 127.0.0.1:9755    # and metrics for Prometheus
  kill -USR1 PID                                    # a trace of the last minutes, now
  kill -USR2 PID                                    # what it costs, on stderr""",
)
@click.option(
    "-o", "--output", "--out", "directory", metavar="DIR", type=PathOrUrl(), default=SPOOL, show_default=True,
    help="Where traces are written. A URL (s3://bucket/traces): in the default directory, and copied to the "
    "URL, as `memcg-tracer push` does.",
)  # fmt: skip
@value_completion.cgroups_to(
    "Watch",
    ". A cgroup that "
    "gets such a name later is watched from its first charge. May be repeated.  [default: every cgroup]",
)
@click.option(
    "--keep", "keep_s", metavar="TIME", type=duration_s, default="5m", show_default=True,
    help="Time before a kill that its trace covers, from 10s to 24h. Rows older than 30 s have less detail.",
)  # fmt: skip
@click.option(
    "--max-memory", "most_memory_bytes", metavar="SIZE", type=size_bytes, default="100M", show_default=True,
    help="Memory that the recorder may take in total. If it is not enough for --keep, older rows lose "
    "detail earlier, and then the oldest are dropped.",
)  # fmt: skip
@click.option(
    "--on", "on", type=click.Choice(["kill", "limit", "soon", "sigkill"]), multiple=True,
    help="Also write a trace earlier. limit: when a cgroup hits its limit. soon: when the room below a "
    "limit would be used up within 10 s at the present rate. sigkill: when another sender than the OOM "
    "killer ends a process by SIGKILL. Kills always give a trace. May be repeated.",
)  # fmt: skip
@click.option(
    "--psi", "psi_percent", metavar="PERCENT", type=percent,
    help="Also write a trace when all tasks of a cgroup waited for memory at the same time for this share "
    "of the last 10 s. Needs cgroup v2.",
)  # fmt: skip
@click.option(
    "--keep-traces", "keep_traces", metavar="N", type=click.IntRange(min=1), default=100, show_default=True,
    help="Traces to keep: the oldest are removed.",
)  # fmt: skip
@click.option(
    "--max-disk", "most_disk_bytes", metavar="SIZE", type=some_bytes, default="1G", show_default=True,
    help="Space that all traces may take: the oldest are removed.",
)  # fmt: skip
@stacks_option
@click.option(
    "--exec", "command_line", metavar="CMD",
    help="Run this command (no shell) with the path of each explained trace as its last argument and the "
    "line of --json on its standard input, one at a time, for at most 60 s.",
)  # fmt: skip
@click.option(
    "--events", is_flag=True,
    help="In a pod of Kubernetes: give each pod that has a kill an event with the verdict and the path of "
    "the trace. Needs a service account that may create and patch events.",
)  # fmt: skip
@click.option(
    "--serve", "host_and_port", metavar="ADDRESS", type=address,
    help="Also serve metrics to Prometheus at this HOST:PORT, as `memcg-tracer serve` does.",
)  # fmt: skip
@endpoint_options
@click.option(
    "--ready-file", metavar="PATH", type=click.Path(path_type=Path),
    help="Create this file when all probes are attached.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print a JSON line for each kill and each trace.")
def command(
    *,
    cgroups: tuple[str, ...],
    directory: Path | str,
    keep_s: float,
    most_memory_bytes: int,
    on: tuple[str, ...],
    psi_percent: float | None,
    keep_traces: int,
    most_disk_bytes: int,
    stacks_bytes: int | None,
    command_line: str | None,
    events: bool,
    host_and_port: tuple[str, int] | None,
    ready_file: Path | None,
    as_json: bool,
    **of_endpoint: Any,
) -> None:
    """Record all the time, and write a trace of the minutes before each OOM kill.

    The last minutes are kept in memory. Within 2 s after an OOM kill, they are a trace in DIR, named for the
    time, the reason and the container or cgroup. The trace grows until nothing has happened for 5 s. Then it
    is explained, and a line on stdout has the verdict and the path of the trace.

    SIGUSR1 writes a trace now, SIGUSR2 reports the cost, and Ctrl-C or SIGTERM ends the recorder.
    `memcg-tracer unit` prints a systemd unit that runs it on every boot.
    """
    from tracer.kernel.privileges import require_linux

    require_linux("recording")
    words = check(
        keep_s=keep_s,
        command_line=command_line,
        events=events,
        host_and_port=host_and_port,
        psi_percent=psi_percent,
        directory=directory,
        **of_endpoint,
    )
    url = directory if isinstance(directory, str) else None
    if url is not None:
        directory = Path(os.environ.get("STATE_DIRECTORY", "").partition(":")[0] or SPOOL)
    from tracer.capture.session import save_memory
    from tracer.kernel.process.children import keep_pages_small

    save_memory()
    keep_pages_small()
    from tracer.watch.watching import WatchOptions, watch

    options = WatchOptions(
        directory=Path(directory),
        cgroups=cgroups,
        keep_s=keep_s,
        most_memory_bytes=most_memory_bytes,
        on=frozenset(on) - {"kill"},
        psi_percent=psi_percent,
        keep_traces=keep_traces,
        most_disk_bytes=most_disk_bytes,
        command=words,
        ready_file=ready_file,
        ring_pages=ring_pages(),
        hooks=hooks(),
        url=url,
        stacks_bytes=stacks_bytes,
        pod_account=pod_account() if events else None,
    )
    lines = _Lines(options, as_json=as_json)
    try:
        if host_and_port is None:
            watch(options, lines)
            return
        with closing(open_endpoint(*host_and_port, keeps_traces=True, **of_endpoint)) as endpoint:
            watch(options, endpoint.reporter(lines), endpoint.guest())
    finally:
        _let_go_of_output()


def check(
    *,
    keep_s: float,
    command_line: str | None,
    events: bool,
    host_and_port: tuple[str, int] | None,
    psi_percent: float | None,
    directory: Path | str,
    certificate: str | None,
    key: str | None,
    client_authorities: str | None,
    **_others: object,
) -> tuple[str, ...]:
    """Check the arguments as far as possible before anything is set up; return the words of --exec.

    Raises UsageError if arguments do not fit together or do not fit this machine, and TracerError if the URL
    of --out cannot be used. A server that cannot be reached is not an error.
    """
    if not _LEAST_S <= keep_s <= _LONGEST_S:
        raise click.UsageError(f"--keep {keep_s:g}s: give a time from 10s to 24h")
    words = _words(command_line)
    if host_and_port is None and (certificate or key or client_authorities):
        raise click.UsageError(
            "--tls-cert, --tls-key and --tls-client-ca are for --serve: give an address to serve at"
        )
    check_tls(certificate, key, client_authorities)
    if events:
        pod_account()
    if psi_percent is not None:
        from tracer.kernel.cgroups.cgroupfs import memory_hierarchy

        _require_pressure(memory_hierarchy())
    if isinstance(directory, str):
        from tracer.fleet.pushing.target import Target

        check_in_child(partial(Target, directory))
    return words


def _require_pressure(hierarchy: Hierarchy) -> None:
    """Raise UsageError if this machine does not count the memory pressure of cgroups."""
    if hierarchy.version == 1:
        raise click.UsageError(
            "--psi needs cgroup v2: v1 has no pressure of a cgroup. Leave it out, or boot with "
            "systemd.unified_cgroup_hierarchy=1"
        )
    try:
        OF_MACHINE.read_bytes()
    except OSError as error:
        raise click.UsageError(
            f"--psi needs pressure stall information, which is off ({OF_MACHINE}: {error.strerror}): leave "
            "it out, or boot with psi=1"
        ) from error


def _words(command_line: str | None) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(command_line or ""))
    except ValueError as error:
        raise click.UsageError(f"--exec {command_line!r}: {error}: close the quotation") from error
    if command_line is not None and not words:
        raise click.UsageError("--exec is empty: give a command, or leave it out")
    return words


def _let_go_of_output() -> None:
    """Discard lines that could not be printed: their traces are written."""
    from tracer.cli.standard_streams import abandon_output

    try:
        sys.stdout.flush()
    except TracerError:
        abandon_output()


class _Lines(KillLines):
    """Prints a line on stdout for each trace, and everything else on stderr."""

    def __init__(self, options: WatchOptions, *, as_json: bool) -> None:
        self._options = options
        self._as_json = as_json
        self._is_silenced = False

    def ready(self, progress: Progress) -> None:
        from tracer.urls import shown_url

        url = self._options.url
        self.notice(
            f"watching (ready in {progress.startup_s:.2f} s); traces go to {self._options.directory}"
            + (f", and copies to {shown_url(url)}" if url else "")
            + ("; pods with a kill get an event" if self._options.pod_account else "")
        )

    def alarmed(self, sentence: str, cgroup: str | None) -> None:
        self.notice(f"{visible(cgroup or 'a cgroup that is gone')}: {sentence}")

    def judged(self, verdict: FirstVerdict) -> None:
        if not self._as_json:
            super().judged(verdict)
            return
        self._print(json.dumps({"kill": verdict.document()}), "kills are in traces")

    def finished(self, story: Finished) -> None:
        if self._as_json:
            line = json.dumps(story.document())
        else:
            told = story.sentence or story.error or story.reason
            if story.cause is not None and (story.kills or 0) > 1:
                told = f"the last of {story.kills:,} kills: {told}"
            whose = story.container or story.cgroup
            line = f"{f'{visible(whose)}: ' if whose else ''}{visible(told)} {visible(str(story.trace))}"
        self._print(line, "traces are written")

    def _print(self, line: str, all_the_same: str) -> None:
        try:
            print(line, flush=True)
            self._is_silenced = False
        except TracerError as error:  # a full disk, or no reader any more
            if not self._is_silenced:
                self.warn(f"{error}: {all_the_same}, but their lines are not")
            self._is_silenced = True
