"""`push`: finished traces to an object store or a file server."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tracer.cli.typed_values import duration_s
from tracer.errors import TracerError
from tracer.render.words.escape import visible

if TYPE_CHECKING:
    from tracer.fleet.pushing.passing import Outcome

_LEAST_EVERY_S: Final = 1.0
_REDRAWN_S: Final = 0.2
_ENDING: Final = (signal.SIGTERM, signal.SIGINT)


class _EndedError(BaseException):
    """SIGTERM or SIGINT came."""


@click.command(
    epilog="""\b
Examples:
  memcg-tracer push traces s3://oom/traces                      # what is not there yet
  memcg-tracer push traces/web-1 sftp://collector/srv/traces    # one trace
  memcg-tracer push --every 1m --remove /var/lib/memcg-tracer gs://oom/$(hostname)"""
)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("url", metavar="URL")
@click.option(
    "--every", "every_s", metavar="TIME", type=duration_s,
    help="Keep running until Ctrl-C or SIGTERM, and look for new traces every TIME, from 1s.",
)  # fmt: skip
@click.option(
    "--remove", "removes", is_flag=True,
    help="Remove each trace from DIR after it was read back from URL and compared.",
)  # fmt: skip
@click.option("-n", "--dry-run", "is_dry", is_flag=True, help="Only list what would be copied.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON line for each trace below DIR.")
def command(
    *, directory: Path, url: str, every_s: float | None, removes: bool, is_dry: bool, as_json: bool
) -> None:
    """Copy finished traces below DIR to a URL: s3://, gs://, abfs://, sftp://, file:// and others of fsspec.

    A trace keeps its path below DIR; DIR may also be one trace. Files that are at the URL already are
    not copied again, also after an interruption. meta.json is written last, so readers never see a part of a
    trace. A trace that is still being written is skipped. The URL of each copied trace is printed on stdout.
    """
    if every_s is not None and is_dry:
        raise click.UsageError("--every and --dry-run do not go together: leave out one of them")
    if every_s is not None and every_s < _LEAST_EVERY_S:
        raise click.UsageError(f"--every {every_s:g}s: give a time from 1s")
    from tracer.fleet.pushing.passing import Passes
    from tracer.fleet.pushing.target import Target

    lines = _Lines(directory, as_json=as_json)
    passes = Passes(
        directory,
        Target(url, wait=lines.wait),
        report=lines.report,
        warn=lines.warn,
        sent=lines.sent,
        removes=removes,
        is_dry=is_dry,
    )
    if every_s is None:
        try:
            passes.run()
        finally:
            lines.clear()
        lines.summary()
        if failed := lines.states["failed"]:
            raise TracerError(f"{failed} trace{'s' * (failed != 1)} could not be copied: see the lines above")
        return
    for number in _ENDING:
        signal.signal(number, _end)
    with suppress(_EndedError):
        _run_for_ever(passes.run, every_s, lines)
    lines.summary()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Block signals: after an exception in the middle of a flush, the line would be printed again."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(*_: Any) -> None:
    raise _EndedError


def _run_for_ever(run: Callable[[], None], every_s: float, lines: _Lines) -> None:
    """Make passes without end. The first successful pass is summed up: otherwise nothing would show success
    if all traces are at the target already. Repeated failures are reported once, and the next pass tries
    again."""
    failure = None
    is_first = True
    while True:
        try:
            run()
            failure = None
            if is_first:
                lines.summary(f"; looking for new ones each {every_s:g} s")
                is_first = False
        except TracerError as error:
            if error.exit_code == 2:
                raise
            if str(error) != failure:
                lines.warn(f"{error}; it is tried again each {every_s:g} s")
            failure = str(error)
        time.sleep(every_s)


class _Lines:
    """Prints a line on stdout for each trace that was copied, and everything else on stderr."""

    def __init__(self, directory: Path, *, as_json: bool) -> None:
        self._directory = directory
        self.states: Counter[str] = Counter()
        self._waiting: dict[Path, str] = {}  # traces that another pass may copy -> their state
        self._as_json = as_json
        self._terminal = sys.stderr.isatty()
        self._sent_bytes = 0
        self._drawn_s = 0.0

    def sent(self, size_bytes: int) -> None:
        from tracer.units import size

        self._sent_bytes += size_bytes
        if self._terminal and time.monotonic() - self._drawn_s > _REDRAWN_S:
            self._drawn_s = time.monotonic()
            self._write(f"\r\x1b[Kmemcg-tracer: {size(self._sent_bytes)} sent")

    def wait(self, wait_s: float) -> None:
        """Wait until the next attempt of an operation that failed."""
        if self._terminal:
            self._write(f"\r\x1b[Kmemcg-tracer: no answer; it is tried again in {wait_s:g} s")
        time.sleep(wait_s)

    def clear(self) -> None:
        """Remove the progress from the terminal."""
        if self._terminal:
            self._write("\r\x1b[K")

    def report(self, outcome: Outcome) -> None:
        with _undisturbed():
            self._report(outcome)

    def _report(self, outcome: Outcome) -> None:
        self.clear()
        if before := self._waiting.pop(outcome.trace, None):
            self.states[before] -= 1
        if outcome.state in ("later", "failed"):
            self._waiting[outcome.trace] = outcome.state
        self.states[outcome.state] += 1
        self.states["removed"] += outcome.is_removed
        if self._as_json:
            print(json.dumps(outcome.document()), flush=True)
        elif outcome.state in ("pushed", "missing"):
            print(visible(str(outcome.url)), flush=True)
        if outcome.state == "failed" or (outcome.why and outcome.state != "later"):
            self.warn(f"{outcome.trace}: {outcome.why}")

    def summary(self, end: str = "") -> None:
        """Print the number of traces in each state."""
        from tracer.units import size

        states = self.states
        parts = [
            f"copied {_traces(states['pushed'])} ({size(self._sent_bytes)})" * bool(states["pushed"]),
            f"{_traces(states['missing'])} would be copied" * bool(states["missing"]),
            f"{_traces(states['there'])} there already" * bool(states["there"]),
            f"{_traces(states['removed'])} removed here" * bool(states["removed"]),
            f"{_traces(states['later'])} left for later" * bool(states["later"]),
            f"{_traces(states['failed'])} failed" * bool(states["failed"]),
        ]
        with _undisturbed():
            found = ", ".join(filter(None, parts)) or f"no traces below {visible(str(self._directory))}"
            self._line(f"{found}{end}")

    def warn(self, message: str) -> None:
        self._line(f"warning: {visible(message)}")

    def _line(self, text: str) -> None:
        start = "\r\x1b[K" if self._terminal else ""
        self._write(f"{start}memcg-tracer: {text}\n")

    @staticmethod
    def _write(text: str) -> None:
        with suppress(OSError):  # copying goes on if nobody reads the progress
            print(text, end="", file=sys.stderr, flush=True)


def _traces(count: int) -> str:
    return f"{count} trace{'s' * (count != 1)}"
