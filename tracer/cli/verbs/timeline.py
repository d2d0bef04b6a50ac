"""`timeline`: the composition of a cgroup's memory over time."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tracer.cli import standard_streams, trace_argument, value_completion
from tracer.errors import TracerError, UsageError

if TYPE_CHECKING:
    import pandas as pd

    from tracer.analysis.results.kill import OomReport
    from tracer.analysis.results.quality import ThinnedInterval
    from tracer.analysis.trace import AnalysedTrace
    from tracer.analysis.views.focus import Moment
    from tracer.render.picture import Marker
    from tracer.render.terminal.timeline_text import Heading

_ROWS_EVERY: Final = "100ms"
_ROWS_ON_SCREEN: Final = 40
_ROWS_OF_INSET: Final = 12
_MOST_NAMED: Final = 5
_ROWS_AT_ONCE: Final = 50_000
_ISO: Final = "%Y-%m-%dT%H:%M:%S.%fZ"


@click.command(
    epilog="""\b
Examples:
  memcg-tracer timeline traces/page-cache
  memcg-tracer timeline traces/page-cache --every 20ms --begin 1.5s --end 2s
  memcg-tracer timeline traces/page-cache -c '*page-cache' --csv > rows.csv
  memcg-tracer timeline traces/restarts -c web --run 3"""
)
@trace_argument.argument
@value_completion.cgroup_of_trace(
    " of the cgroups to show, including descendants. "
    "Default: the most important cgroups in a picture, all cgroups as rows.",
)
@click.option(
    "--run",
    metavar="N",
    type=click.IntRange(min=1),
    shell_complete=value_completion.runs_in_trace,
    help="Show only the Nth run of the name in -c, or of the only name with several runs: each start of a "
    "container is a run. Default: the last runs in a picture, all runs as rows.",
)
@click.option(
    "--every",
    metavar="TIME",
    help="Length of a row, such as 100ms or 2s (a number alone: seconds). Default: fits the screen for a "
    "picture; 100ms as rows.",
)
@click.option(
    "--begin", metavar="TIME", help="Start of the picture: seconds into the trace (1.5s) or ISO 8601."
)
@click.option("--end", metavar="TIME", help="End of the picture: seconds into the trace (1.5s) or ISO 8601.")
@click.option(
    "--clock",
    is_flag=True,
    help="Label rows with the time of day (UTC), as logs have it, instead of seconds from the start of the "
    "trace.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document: a list of rows, sizes in bytes."
)
@click.option("--csv", "as_csv", is_flag=True, help="Print rows as CSV, sizes in bytes.")
def command(
    path: Path | None,
    *,
    cgroup: str | None,
    run: int | None,
    every: str | None,
    begin: str | None,
    end: str | None,
    clock: bool,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Draw a cgroup's memory against its limit over time.

    Each row shows the composition of usage at its end, and the page cache that was added, evicted and freed
    by reclaim within it. A container that restarts has a cgroup for each run: -c shows them one after the
    other.
    """
    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other: give one of them")
    found = trace_argument.open_trace(path)
    trace, cgroup = found.trace, found.name if cgroup is None else cgroup
    if as_json or as_csv:
        from tracer.analysis.views.timeline import timeline

        with standard_streams.progress_of(f"adding up the rows of {trace.path}"):
            frame = timeline(trace, cgroup, every or _ROWS_EVERY, begin, end, run=run)
        for piece in _json(frame) if as_json else _csv(frame):
            click.echo(piece, nl=False)
        _note_coarse(trace, frame)
        trace.defects.raise_if_any()
        return
    from rich.text import Text

    from tracer.analysis.core import naming
    from tracer.analysis.views import focus
    from tracer.render.terminal import console

    if cgroup is None and run is not None:
        shown, left_out = [naming.select_run(trace, run)], ""
    elif cgroup is None:
        shown, others = focus.to_show(trace)
        left_out = _other_cgroups(others)
    else:
        ids = naming.select(trace, cgroup, run)
        shown = focus.lives_to_show(trace, ids, begin=begin, end=end)
        left_out = _other_runs(trace, sorted(set(ids) - set(shown), key=ids.index))
    if not shown:
        raise TracerError(
            f"{trace.path} has no measurement of a cgroup in that time: see memcg-tracer info {trace.path}"
        )
    _draw(trace, shown, _Range(every, begin, end, clock))
    if left_out:
        console.write(sys.stdout, [Text(), Text(left_out, style="dim")])
    trace.defects.raise_if_any()


def _thinned(trace: AnalysedTrace, frame: pd.DataFrame) -> tuple[ThinnedInterval, ...]:
    """Return the times within the rows of a timeline in which the trace is thinned."""
    if frame.empty or not trace.fineness.is_thinned:
        return ()
    from tracer.analysis.core.columns import times_ns
    from tracer.analysis.views.timeline import row_length

    ends = times_ns(frame)
    first_ns, last_ns = int(ends.min()), int(ends.max())
    return trace.fineness.thinned(first_ns, last_ns + row_length(frame).value)


def _note_coarse(trace: AnalysedTrace, frame: pd.DataFrame) -> None:
    """Report on stderr if the trace is too coarse for rows of this length."""
    found = _thinned(trace, frame)
    if found:
        from tracer.analysis.views.timeline import row_length
        from tracer.render.words import quality_facts

        if coarse := quality_facts.coarser(found, row_length(frame)):
            click.echo(f"memcg-tracer: {quality_facts.thinned(coarse)}", err=True)


@dataclass(frozen=True, slots=True)
class _Range:
    """The values of the options --every, --begin, --end and --clock."""

    every: str | None
    begin: str | None
    end: str | None
    has_clock: bool


def _draw(trace: AnalysedTrace, shown: Sequence[int], options: _Range) -> None:
    import pandas as pd
    from rich.text import Text

    from tracer.analysis.core.tables import start_ns
    from tracer.analysis.explain import kill_filter
    from tracer.analysis.explain.postmortem import PostMortems
    from tracer.analysis.views import focus, thrash
    from tracer.render import picture
    from tracer.render.terminal import console, timeline_text
    from tracer.schema import LATEST_NS

    @cache
    def reports() -> Sequence[OomReport]:
        with standard_streams.progress_of(f"reading {trace.path}"):
            return PostMortems(trace).measured()

    columns = console.columns_for(sys.stdout)
    pictures: list[timeline_text.Picture] = []

    def draw(number: int) -> None:
        with standard_streams.progress_of(f"adding up the rows of {trace.path}"):
            frame = focus.timeline_of_life(
                trace, number, _ROWS_ON_SCREEN, every=options.every, begin=options.begin, end=options.end
            )
        life = trace.places.lives.life_for(number)
        heading = timeline_text.Heading(
            cgroup=trace.places.label_of(number),
            container=trace.places.container_of(number)[0],
            run=life.run,
            runs=life.runs,
            kernel=trace.meta["kernel_release"],
            origin=pd.Timestamp(start_ns(trace), tz="UTC"),
            lost_records=trace.losses.affecting_sizes,
            interrupted=trace.interrupted,
            summed=trace.summed_intervals.near(0, LATEST_NS),
            thinned=_thinned(trace, frame),
            has_clock=options.has_clock,
        )
        read_again = picture.read_again_markers(thrash.thrash_below(trace, number), frame)
        # Kills take the longest, and come after the rows: a range or length that is wrong is refused by then.
        concerned = kill_filter.concerning(trace, reports(), [number])
        found = [*_events(trace, number, concerned, frame), *read_again]
        drawn = timeline_text.picture(frame, heading, found, columns=columns)
        pictures.append(drawn)
        console.write(sys.stdout, [*([] if number == shown[0] else [Text()]), *drawn.lines])
        if number == shown[-1]:
            console.write(sys.stdout, timeline_text.legend(pictures))
        if options.every is None:
            looks = focus.to_look_at(frame, [marker.time for marker in found if marker.is_kill])
            _look_closer(trace, number, heading, concerned, looks)

    for number in shown:
        trace.defects.attempt(
            f"the cgroup {trace.places.label_of(number)}", partial(draw, number), lambda _: None
        )


def _events(
    trace: AnalysedTrace, cgroup_id: int, reports: Sequence[OomReport], frame: pd.DataFrame
) -> list[Marker]:
    """Return the markers of the kills, and of the moment at which usage reached the limit."""
    from tracer.analysis.core.columns import utc_time
    from tracer.analysis.core.subtree import Subtrees
    from tracer.analysis.explain.measure.window import limit_reached_ns
    from tracer.render import picture

    moments_ns = limit_reached_ns(Subtrees(trace).subtree_at(cgroup_id))
    reached = [utc_time(moment_ns) for moment_ns in moments_ns.tolist()]
    label = trace.places.label_of(cgroup_id)
    return [
        *picture.limit_markers(reports, label, reached, frame),
        *picture.kill_markers(reports, label, frame),
    ]


def _look_closer(
    trace: AnalysedTrace,
    cgroup_id: int,
    heading: Heading,
    reports: Sequence[OomReport],
    looks: Sequence[Moment],
) -> None:
    """Write the first of `looks` in shorter rows, and the commands that show all of them."""
    from rich.text import Text

    from tracer.analysis.views import focus
    from tracer.render.terminal import console, timeline_text

    if not looks:
        return
    first, columns = looks[0], console.columns_for(sys.stdout)
    begin, end = first.begin.isoformat(), first.end.isoformat()
    frame = focus.timeline_of_life(trace, cgroup_id, _ROWS_OF_INSET, begin=begin, end=end)
    found = _events(trace, cgroup_id, reports, frame)
    drawn = timeline_text.inset(first.what, frame, heading, found, columns=columns)
    title = Text("Commands that show more, in shorter rows:", style="bold")
    written = [*drawn, Text(), title]
    path = next(name for name in (str(trace.path), "TRACE") if timeline_text.may_be_pasted(name, columns))
    names = (heading.container or heading.cgroup, heading.cgroup, str(cgroup_id))
    name = next(name for name in names if timeline_text.may_be_pasted(name, columns))
    which = [
        "-c",
        name,
        *(["--run", str(heading.run)] if heading.runs > 1 and name != str(cgroup_id) else []),
    ]
    for look in looks:
        from_s = math.floor((look.begin - heading.origin).total_seconds() * 10) / 10
        to_s = math.ceil((look.end - heading.origin).total_seconds() * 10) / 10
        range_ = ["--begin", f"{max(from_s, 0):g}s", "--end", f"{to_s:g}s"]
        range_ += ["--clock"] if heading.has_clock else []
        parts = [["memcg-tracer", "timeline", path], which, range_]
        written += [Text(f"{look.what}:", style="dim"), *timeline_text.command_lines(parts, columns)]
    console.write(sys.stdout, written)


def _other_cgroups(left_out: int) -> str:
    if not left_out:
        return ""
    more = "1 more cgroup was" if left_out == 1 else f"{left_out} more cgroups were"
    return f"{more} traced: -c CGROUP shows one, memcg-tracer info lists them."


def _other_runs(trace: AnalysedTrace, left_out: Sequence[int]) -> str:
    """Return a sentence that lists the runs that are not drawn, by name; empty if all are drawn."""
    from tracer.render.words import places
    from tracer.render.words.escape import visible

    of_name = []
    for lives in trace.places.lives.by_name(left_out):
        which = f" {places.listed(life.run for life in lives)}" if lives[0].runs > 1 else ""
        of_name.append(visible(lives[0].name) + which)
    more = f", and {len(of_name) - _MOST_NAMED} more cgroups" if len(of_name) > _MOST_NAMED else ""
    shows = "-c NAME --run N shows one, --json and --csv contain all."
    return f"Not drawn: {', '.join(of_name[:_MOST_NAMED])}{more}. {shows}" if of_name else ""


def _with_plain_times(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with ISO 8601 times in a column instead of the index, and with escaped names."""
    import numpy as np
    import pandas as pd

    from tracer.render.words.escape import visible

    plain = frame.reset_index()
    plain["time"] = pd.DatetimeIndex(plain["time"]).strftime(_ISO)
    for column in ("cgroup", "container"):
        shown = [visible(str(name)) for name in plain[column].cat.categories]
        plain[column] = np.array([*shown, None], dtype=object)[plain[column].cat.codes]
    return plain


def _json(frame: pd.DataFrame) -> Iterator[str]:
    """Yield the document in pieces, because the whole text takes more memory than the rows."""
    before = "["
    for part in _parts(frame):
        yield before + str(part.to_json(orient="records"))[1:-1]
        before = ","
    yield "]\n"


def _csv(frame: pd.DataFrame) -> Iterator[str]:
    for number, part in enumerate(_parts(frame)):
        yield str(part.to_csv(index=False, header=number == 0, lineterminator="\n"))


def _parts(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Yield the rows in parts; there is at least one part, which may be empty."""
    for first in range(0, max(len(frame), 1), _ROWS_AT_ONCE):
        yield _with_plain_times(frame.iloc[first : first + _ROWS_AT_ONCE])
