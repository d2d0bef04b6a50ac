"""`fit -- CMD`: find the least limits of a command by running it."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click

from tracer.cli.typed_values import percent, size_bytes
from tracer.errors import TracerError, UsageError
from tracer.extras import from_extra
from tracer.fit.search import UNLIMITED_RUNS
from tracer.render.words.escape import visible

if TYPE_CHECKING:
    from tracer.fit.driver import Found
    from tracer.fit.folder import Folder
    from tracer.fit.search import Bounds, Interval, Run

_RUNS: Final = 30
_LEAST_RUNS: Final = UNLIMITED_RUNS + 1
_NOTICE_S: Final = 60.0


@click.command(
    epilog="""\b
Examples:
  sudo memcg-tracer fit -- make -j4
  sudo memcg-tracer fit --from 64M --to 512M --slowdown 20% -o fit/import -- ./import.py data.csv"""
)
@click.option(
    "--from", "from_bytes", metavar="SIZE", type=size_bytes,
    help="Lowest limit to try.  [default: as low as CMD succeeds]",
)  # fmt: skip
@click.option(
    "--to", "to_bytes", metavar="SIZE", type=size_bytes,
    help="Highest limit to try.  [default: CMD's highest usage without a limit]",
)  # fmt: skip
@click.option(
    "--slowdown", "slowdown_percent", metavar="PERCENT", type=percent, default="10%", show_default=True,
    help="Slowdown that is accepted at the comfortable limit.",
)  # fmt: skip
@click.option(
    "--runs", "most_runs", metavar="N", default=_RUNS, show_default=True,
    type=click.IntRange(min=_LEAST_RUNS),
    help="Most runs of CMD, including those of an earlier search in DIR.",
)  # fmt: skip
@click.option(
    "-o", "--output", "--out", "output", metavar="DIR", type=click.Path(path_type=Path),
    help="Folder of the traces. An interrupted search continues from its folder.  "
    "[default: traces/<UTC time>-fit]",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.argument("argv", metavar="-- CMD...", nargs=-1, required=True, type=click.UNPROCESSED)
def command(
    *,
    from_bytes: int | None,
    to_bytes: int | None,
    slowdown_percent: float,
    most_runs: int,
    output: Path | None,
    as_json: bool,
    argv: tuple[str, ...],
) -> None:
    """Find the least memory limits of a command, by running it at several.

    CMD must end, and must do the same work each time. It runs without a limit first, then at limits that
    close in on the answer, one run after the other, each in a fresh cgroup without swap and under `record`.
    The answers: the least limit at which CMD succeeds (exit status 0), and the least at which it is at most
    PERCENT slower than without a limit. Before each run, the page cache of CMD's files is dropped.
    """
    if from_bytes is not None and to_bytes is not None and from_bytes >= to_bytes:
        raise UsageError("--from must be less than --to")
    from tracer.kernel.privileges import require_linux

    require_linux("running a command at limits")
    from tracer.fit.driver import fit
    from tracer.fit.folder import Folder
    from tracer.fit.search import Bounds
    from tracer.render.fit.answer import fit_text
    from tracer.render.terminal.console import write

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up after SIGTERM as after Ctrl-C
    folder = Folder.open(output or Path("traces", f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-fit"), argv)
    bounds = Bounds(from_bytes, to_bytes, slowdown_percent / 100)
    progress = _Progress()
    try:
        found = fit(folder, bounds, most_runs, progress)
    except KeyboardInterrupt:
        progress.end_line()
        shown = visible(str(folder.path))
        click.echo(f"memcg-tracer: interrupted: the same command with -o {shown} goes on from here", err=True)
        raise
    finally:
        progress.end_line()
    picture = _curve(found, folder, bounds)
    if as_json:
        click.echo(json.dumps(asdict(_document(found, folder.runs, folder.path, picture)), indent=2))
    else:
        write(sys.stdout, fit_text(found, folder.runs, bounds, folder.path, picture))
    sys.exit(0 if found.is_complete else 1)


def _curve(found: Found, folder: Folder, bounds: Bounds) -> Path | None:
    """Write the picture of the runs. Without matplotlib, report that and return None: the answers suffice."""
    try:
        with from_extra("plot", "the curve"), _nowhere():
            from tracer.render.fit.curve import curve
    except TracerError as error:
        click.echo(f"memcg-tracer: {error}", err=True)
        return None
    return folder.write_curve(curve(found, folder.runs, bounds))


@contextmanager
def _nowhere() -> Iterator[None]:
    """Leave the working directory: `import matplotlib` reads settings there, which any user may have put."""
    before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.chdir("/")
    try:
        yield
    finally:
        os.fchdir(before)
        os.close(before)


@dataclass(frozen=True, slots=True)
class Document:
    """The document of `fit --json`. `complete`: the search has ended."""

    schema: Literal[1]
    least_limit_bytes: int | None
    comfortable_limit_bytes: int | None
    comfortable_by: Literal["wall_s", "lost_share"] | None
    least_between: Interval
    comfortable_between: Interval
    unlimited_wall_s: float
    unlimited_spread: float
    complete: bool
    folder: str
    curve: str | None
    runs: list[Run]


def _document(found: Found, runs: list[Run], path: Path, picture: Path | None) -> Document:
    return Document(
        schema=1,
        least_limit_bytes=found.least_limit_bytes,
        comfortable_limit_bytes=found.comfortable_limit_bytes,
        comfortable_by=None if found.by is None else found.by.name,
        least_between=found.least,
        comfortable_between=found.comfortable,
        unlimited_wall_s=found.unlimited_wall_s,
        unlimited_spread=found.unlimited_spread,
        complete=found.is_complete,
        folder=str(path),
        curve=None if picture is None else str(picture),
        runs=runs,
    )


class _Progress:
    """Reports each run and its end on stderr, on one line unless other output comes in between."""

    def __init__(self) -> None:
        self._run = ""
        self._line = ""

    def begins(self, number: int, limit_bytes: int | None) -> None:
        from tracer.units import size

        at = "without a limit" if limit_bytes is None else f"at {size(limit_bytes)}"
        self._run = self._line = f"memcg-tracer: run {number} {at}"
        print(self._line, end="", file=sys.stderr, flush=True)

    def goes_on(self, wall_s: float, most_s: float | None) -> None:
        if most_s is None and wall_s > _NOTICE_S and self._line:
            self.end_line()
            print(
                f"memcg-tracer: it has run for {_NOTICE_S:.0f} s: fit is for commands that end, and runs "
                "them many times; Ctrl-C ends it",
                file=sys.stderr,
            )

    def ended(self, run: Run) -> None:
        from tracer.render.fit.answer import ending
        from tracer.units import duration

        print(
            f"{'' if self._line else self._run}: {duration(run.wall_s)}, {ending(run)}",
            file=sys.stderr,
            flush=True,
        )
        self._line = ""

    def end_line(self) -> None:
        """Begin a new line if the current line shows a run."""
        if self._line:
            print(file=sys.stderr)
        self._line = ""
