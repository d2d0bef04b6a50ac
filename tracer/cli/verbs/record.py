"""`record`: trace cgroups, or a command in its own cgroup."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click

from tracer.cli import typed_values, value_completion
from tracer.cli.kill_lines import KillLines
from tracer.cli.output import append_output, check_appended
from tracer.cli.tuning import hooks, ring_pages
from tracer.cli.typed_values import PathOrUrl, check_in_child, percent, size_bytes, stacks_option
from tracer.errors import TraceError, TracerError, UsageError
from tracer.kernel.process.spawn import CommandError
from tracer.render.words.escape import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracer.capture.observer import Progress
    from tracer.capture.options import Options
    from tracer.capture.session import Recording
    from tracer.kernel.process.priority import HeadStart


_LONGEST_S: Final = 1e9
_OF_THE_USER: Final = (UsageError, TraceError, CommandError)
"""Errors about what was asked for, which counting would not avoid."""
_NO_OOM_KILL: Final = {
    -signal.SIGKILL: "the command was ended by SIGKILL, but not by the OOM killer",
    # As a shell ends after a child that SIGKILL ended, and as a program may end that no signal ended.
    128 + signal.SIGKILL: "the command ended with status 137, but the OOM killer killed nothing",
}
"""What is said of a command that ended so in a recording without an OOM kill, by `Popen.returncode`."""


class _Command(click.Command):
    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Raise UsageError for a `--` without a command: `-- $command` must not trace every cgroup."""
        if args[-1:] == ["--"] and args.count("--") == 1 and not context.resilient_parsing:
            raise click.UsageError("-- needs a command: give one, or leave -- out", context)
        return super().parse_args(context, args)


@click.command(
    cls=_Command,
    epilog="""\b
Examples:
  sudo memcg-tracer record --limit 100M -- ./my-program --its-options
  sudo memcg-tracer record -c my-container -d 60
  sudo memcg-tracer record -c /docker -o traces/all-of-docker
  sudo memcg-tracer record -o s3://oom/runs/42 -- ./my-program
  sudo memcg-tracer record --summary "$GITHUB_STEP_SUMMARY" -- make test""",
)
@click.option(
    "-o", "--output", "--out", "output", metavar="DIR", type=PathOrUrl(),
    help="Where to write the trace: a directory, or a URL (s3://bucket/traces/web) to which it is moved at "
    "the end.  [default: traces/<UTC time>-<name>]",
)  # fmt: skip
@value_completion.cgroups_to(
    "Trace",
    ". A cgroup that "
    "gets such a name later is traced from its first charge. May be repeated. Default: every cgroup, or only "
    "CMD's.",
)
@click.option(
    "-d",
    "duration_s",
    metavar="TIME",
    type=typed_values.duration_s,
    help="Stop after this time, such as 90s, 5m or 1.5h; a number alone is seconds.",
)
@click.option(
    "--limit",
    "limit_bytes",
    metavar="SIZE",
    type=size_bytes,
    help="Memory limit of CMD's cgroup, such as 100M or 1.5G; units are powers of 1024.",
)
@click.option(
    "--swap",
    "swap_bytes",
    metavar="SIZE",
    type=size_bytes,
    help="Swap that CMD's cgroup may use in addition; 0 = none.",
)
@click.option(
    "--name",
    metavar="NAME",
    help="Name of the trace and of CMD's cgroup.  [default: name of CMD, or of -c]",
)
@stacks_option
@click.option(
    "--max-overhead", "most_overhead_percent", metavar="PERCENT", type=percent,
    help="Sum page-cache events in the kernel while tracing costs more than this share of the CPU time of "
    "the traced tasks, such as 2%: totals stay exact.  [default: only when events come too fast]",
)  # fmt: skip
@click.option("-f", "--force", is_flag=True, help="Replace DIR if it exists.")
@click.option(
    "--ready-file", metavar="PATH", type=click.Path(path_type=Path),
    help="Create this file when all probes are attached and the cgroups of -c are traced or awaited.",
)  # fmt: skip
@click.option(
    "--summary", "summary", metavar="FILE", type=click.Path(path_type=Path),
    help="Append a summary of CMD's memory to this file, as Markdown for the page of a CI job. Where no BPF "
    "program can be loaded, CMD runs all the same, and is counted by the files of its cgroup.",
)  # fmt: skip
@click.argument("argv", metavar="[-- CMD...]", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def command(
    head_start: HeadStart | None,
    *,
    output: Path | str | None,
    cgroups: tuple[str, ...],
    duration_s: float | None,
    limit_bytes: int | None,
    swap_bytes: int | None,
    name: str | None,
    stacks_bytes: int | None,
    most_overhead_percent: float | None,
    force: bool,
    ready_file: Path | None,
    summary: Path | None,
    argv: tuple[str, ...],
) -> None:
    """Trace memory cgroups until Ctrl-C, for the time of -d, or until CMD ends.

    CMD runs in a fresh cgroup, which is removed afterwards. It starts when all probes are attached. The exit
    status is CMD's, or 128+N if signal N ended it. At the end, the path of the trace is printed on
    stdout, and on a terminal the next command on stderr.
    """
    from tracer.kernel.privileges import require_linux

    require_linux("recording")
    if not argv and (limit_bytes is not None or swap_bytes is not None):
        raise click.UsageError("--limit and --swap apply to the cgroup of CMD: add -- CMD")
    if summary is not None:
        if not argv:
            raise click.UsageError("--summary is about CMD: add -- CMD")
        check_appended(summary)
    if duration_s is not None and not duration_s <= _LONGEST_S:
        raise click.UsageError(
            f"-d {duration_s:g} is not a time: give a number of seconds up to {_LONGEST_S:g}"
        )
    name = name or Path((argv or cgroups or ["trace"])[0]).name
    url = output if isinstance(output, str) else None
    if url is not None:
        output = _spool(url, force)
    elif output is None:
        output = Path("traces", f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{_file_name(name)}")
    from tracer.capture.options import Options
    from tracer.capture.session import record

    options = Options(
        output=Path(output),
        cgroups=cgroups,
        duration_s=duration_s,
        limit_bytes=limit_bytes,
        swap_bytes=swap_bytes,
        name=name,
        force=force,
        command=argv,
        ready_file=ready_file,
        ring_pages=ring_pages(),
        stacks_bytes=stacks_bytes,
        most_overhead_percent=most_overhead_percent,
        hooks=hooks(),
    )
    what = "" if argv or cgroups else " all cgroups of this machine (one: -c NAME)"
    progress = _Progress(what, until=_until(argv, duration_s))
    try:
        recording = record(options, progress, head_start)
    except TracerError as error:
        if summary is None or progress.is_ready or isinstance(error, _OF_THE_USER):
            raise
        _count(options, summary, str(error), progress)
    progress.done(recording.returncode)
    if summary is not None:
        from tracer.cli.run_summary import of_trace

        with progress.warns_without_summary():
            append_output(summary, of_trace(options, recording, str(url or recording.path)))
    if url is not None:
        _move(recording, url, progress, force=force)
    click.echo(os.fsencode(recording.path))
    progress.name_next_step(recording.path)
    sys.exit(recording.status)


def _count(options: Options, summary: Path, why: str, progress: _Progress) -> NoReturn:
    """Run the command without recording it, append what was counted, and exit with the command's status."""
    from tracer.capture.counted_run import count
    from tracer.cli.run_summary import of_counts

    progress.warn(f"not recorded, only counted: {why}")
    run = count(options)
    with progress.warns_without_summary():
        append_output(summary, of_counts(options, run, why))
    sys.exit(run.status)


def _spool(url: str, force: bool) -> Path:
    """Return the directory in which to record for a URL. Raises TracerError if no trace can go to the URL."""
    from tracer.fleet.pushing.passing import require_absent_trace, split_url

    _, name = split_url(url)
    check_in_child(lambda: require_absent_trace(url, force=force))
    return Path("traces", f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{_file_name(name)}", name)


def _move(recording: Recording, url: str, progress: _Progress, *, force: bool) -> NoReturn:
    """Move a trace to its URL, print its place, and exit with the status of the recording, or with 1."""
    from tracer.fleet.pushing.passing import move, split_url
    from tracer.urls import shown_url

    trace, status = recording.path, recording.status
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        where: str | Path = move(trace, url, force=force, warn=progress.warn)
    except (TracerError, OSError, KeyboardInterrupt) as error:
        why = "interrupted" if isinstance(error, KeyboardInterrupt) else error
        place = shown_url(split_url(url)[0])
        progress.warn(
            f"the trace is not at its URL ({why}): it stays in {trace}; to copy it: memcg-tracer "
            f"push {shlex.quote(str(trace))} {place}"
        )
        where, status = trace, status or 1
    else:
        with suppress(OSError):
            trace.parent.rmdir()
    click.echo(os.fsencode(where))
    sys.exit(status)


def _until(argv: tuple[str, ...], duration_s: float | None) -> str:
    ends = ["the command ends"] if argv else []
    if duration_s is not None:
        ends.append(f"{duration_s:g} s have passed")
    return " or ".join(ends or ["Ctrl-C"])


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")[:60] or "trace"


def _lost(progress: Progress) -> dict[str, int]:
    """Return stream -> records lost, without what no recorder can have."""
    from tracer.wire.streams import UNREPORTED

    return {stream: count for stream, count in progress.lost.items() if count and stream != UNREPORTED}


class _Progress(KillLines):
    """Reports progress on stderr: on a terminal, a line that is redrawn; otherwise, important events only."""

    def __init__(self, what: str, until: str) -> None:
        self._terminal = sys.stderr.isatty()
        self._what = what
        self._until = until
        self._progress: Progress | None = None
        self._began = time.monotonic()

    @property
    def is_ready(self) -> bool:
        """Return whether the command was started."""
        return self._progress is not None

    @contextmanager
    def warns_without_summary(self) -> Iterator[None]:
        """Turn an error into a warning: the command's status must not depend on its summary."""
        try:
            yield
        except (TracerError, OSError) as error:
            self.warn(f"the summary is missing: {error}")

    def ready(self, progress: Progress) -> None:
        self._progress = progress
        self._line(f"tracing (ready in {progress.startup_s:.2f} s){self._what}; until {self._until}")

    def tick(self, progress: Progress) -> None:
        if self._terminal:
            self._write(f"\r\x1b[K{self._summary(progress)}")

    def notice(self, message: str) -> None:
        self._line(visible(message))

    def done(self, returncode: int) -> None:
        if self._progress is None:
            return
        self._line(self._summary(self._progress))
        if not self._progress.kills and returncode in _NO_OOM_KILL:
            self._line(_NO_OOM_KILL[returncode])
        if lost := _lost(self._progress):
            listed = ", ".join(f"{count:,} of {stream}" for stream, count in lost.items())
            totals = "no longer exact" if "residue" in lost else "still exact"
            self.warn(
                f"records were lost ({listed}): totals of the ledger are {totals}, see memcg-tracer info"
            )

    def name_next_step(self, trace: Path) -> None:
        """Name the command that reads the trace, on a terminal, where it can be pasted."""
        command = (
            f"{'sudo ' if 'SUDO_USER' in os.environ else ''}memcg-tracer explain {shlex.quote(str(trace))}"
        )
        if self._terminal and visible(command) == command:
            self._line(f"next: {command}")

    def _summary(self, progress: Progress) -> str:
        rows, lost = progress.rows, sum(_lost(progress).values())
        return (
            f"{time.monotonic() - self._began:.1f} s, {rows['charge']:,} charges, "
            f"{rows['pagecache']:,} page-cache runs, {rows['reclaim']:,} reclaims, {lost:,} lost, "
            f"{progress.kills} OOM kill{'s' * (progress.kills != 1)}"
        )

    def _line(self, text: str) -> None:
        start = "\r\x1b[K" if self._terminal else ""
        self._write(f"{start}memcg-tracer: {text}\n")

    @staticmethod
    def _write(text: str) -> None:
        with suppress(OSError):  # recording goes on if nobody reads the progress
            print(text, end="", file=sys.stderr, flush=True)
