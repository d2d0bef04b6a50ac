"""The answer of `fit` for a terminal: both limits, and a row with a bar for each run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.bar import Bar
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from tracer.fit.search import Bounds, Interval, Run, by_limit
from tracer.render.words.escape import visible
from tracer.units import UNKNOWN, duration, size

if TYPE_CHECKING:
    from tracer.fit.driver import Found


def ending(run: Run) -> str:
    """Return the end of a run in words: `succeeded`, `status 137, 2 OOM kills`, `ended: it took too long`."""
    killed = f", {run.kills} OOM kill{'s' * (run.kills != 1)}" if run.kills else ""
    if run.status is None:
        return f"ended: it took too long{killed}"
    return f"succeeded{killed}" if run.status == 0 else f"status {run.status}{killed}"


def read_again(run: Run) -> str:
    """Return the size of the page cache that a run read again; empty for 0."""
    return "" if run.refaulted_bytes == 0 else size(run.refaulted_bytes)


def lost(run: Run) -> str:
    """Return the share of its time that a run lost in reclaim and in reading again; empty for 0."""
    if run.lost_share is None:
        return UNKNOWN
    return "" if run.lost_share == 0 else f"{run.lost_share * 100:.1f} %"


_BAR_CELLS: Final = 30


def fit_text(
    found: Found, runs: Sequence[Run], bounds: Bounds, folder: Path, curve: Path | None
) -> Iterator[RenderableType]:
    """Yield the two answers, the table of the runs, and the paths of the traces and the picture (if any)."""
    yield _answer("It succeeds from", found.least_limit_bytes, found.least)
    yield from _comfortable(found, bounds)
    for limit_bytes, at_limit in by_limit(runs).items():
        succeeded = sum(run.status == 0 for run in at_limit)
        if 0 < succeeded < len(at_limit):
            share = f"{succeeded} of {len(at_limit)} runs succeeded"
            yield Text(f"At {size(limit_bytes)}, {share}: what it needs varies from run to run.")
    yield Text()
    yield _table(runs, found, bounds)
    yield Text()
    yield Text(f"Without a limit it takes {duration(found.unlimited_wall_s)} under record, without swap.")
    if not found.is_complete:
        yield Text("The search is not complete: run it again with this folder as -o, and with more --runs.")
    drawn = "" if curve is None else f"; curve: {visible(str(curve))}"
    yield Text(f"Traces: {visible(str(folder))}{drawn}")


def _comfortable(found: Found, bounds: Bounds) -> Iterator[Text]:
    """Yield the second answer, and its basis if that is not the time of the command."""
    slower = f"It is at most {bounds.slowdown * 100:g} % slower"
    differ = f"its times without a limit differ by {found.unlimited_spread * 100:.0f} % from run to run"
    if found.by is None:
        advice = "Use a quiet machine or --slowdown."
        yield Text.assemble((f"{slower} from: not known", "bold"), f", {differ}. {advice}")
    elif found.by.name == "wall_s":
        yield _answer(f"{slower} from", found.comfortable_limit_bytes, found.comfortable)
    else:
        yield _answer(f"{slower}, by its lost time, from", found.comfortable_limit_bytes, found.comfortable)
        yield Text(
            f"{differ.capitalize()}. So the time that its tasks lost in reclaim and in reading again was "
            "compared with their other time."
        )


def _answer(what: str, limit_bytes: int | None, between: Interval) -> Text:
    if limit_bytes is not None:
        failed = between.failed_bytes
        below = "no lower limit was tried" if failed is None else f"not at {size(failed)}"
        return Text.assemble((f"{what} {size(limit_bytes)}", "bold"), f" ({below}).")
    if between.passed_bytes is None:
        return Text.assemble((f"{what}: not found", "bold"), f", not even at {size(between.failed_bytes)}.")
    low = "" if between.failed_bytes is None else f"more than {size(between.failed_bytes)} and "
    return Text.assemble((f"{what}: not found yet", "bold"), f", {low}at most {size(between.passed_bytes)}.")


def _table(runs: Sequence[Run], found: Found, bounds: Bounds) -> Table:
    """Return the runs by limit. A bar is the time of a run: yellow for a slow run, red for a failed run."""
    longest_s = max(run.wall_s for run in runs)
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(max_width=_BAR_CELLS)
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_column()
    table.add_row("limit", "time", "", "read again", "lost", "end", style="dim")
    for run in sorted(runs, key=lambda run: (run.limit_bytes is None, run.limit_bytes or 0)):
        is_slow = found.by is not None and found.by.is_slow([run], bounds)
        colour = "red" if run.status != 0 else "yellow" if is_slow else "green"
        table.add_row(
            "none" if run.limit_bytes is None else size(run.limit_bytes),
            duration(run.wall_s),
            Bar(longest_s, 0, run.wall_s, color=colour),
            read_again(run),
            lost(run),
            ending(run),
        )
    return table
