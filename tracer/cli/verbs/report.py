"""`report`: the post-mortem as one HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

import tracer
from tracer.cli import value_completion
from tracer.cli.output_file import check_output, write_output

if TYPE_CHECKING:
    from tracer.analysis.results.kill import OomReport
    from tracer.analysis.trace import AnalysedTrace
    from tracer.render.page import html

_ROWS_IN_PICTURE: Final = 400


@click.command(
    epilog="""\b
Examples:
  memcg-tracer report traces/page-cache -o report.html
  memcg-tracer report traces/page-cache -f -o report.html
  memcg-tracer report traces/restarts -c web -o web.html"""
)
@click.argument("path", metavar="TRACE", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path),
    help="The page to write; - is standard output.",
)
@click.option(
    "-c",
    "--cgroup",
    metavar="CGROUP",
    shell_complete=value_completion.cgroups_in_trace,
    help="Path, container name or id, or glob: only kills and pictures of matching cgroups, with all runs.",
)
@click.option("-f", "--force", is_flag=True, help="Replace FILE if it exists.")
def command(path: Path, output: Path, cgroup: str | None, force: bool) -> None:
    """Write one HTML page with pictures that explains the kills.

    The page is self-contained, without requests and scripts, so it can be sent by mail. Only you can read the
    file, because it contains names of processes, cgroups and containers.
    """
    from tracer.render.page import html

    check_output(output, force)
    trace = tracer.open(path)
    write_output(output, [html.page(subject(trace, cgroup))])


def subject(trace: AnalysedTrace, cgroup: str | None) -> html.Subject:
    """Return the contents of the page for a trace, or for the matching cgroups in it."""
    from tracer.render.page import html

    reports = trace.explain(cgroup)
    return html.Subject(
        trace=str(trace.path),
        meta=dict(trace.meta),
        interrupted=trace.interrupted,
        lost=int(trace.loss["lost"].sum()),
        pictures=list(_pictures(trace, reports, cgroup)),
        reports=reports,
        held=trace.spared_cgroups(reports, cgroup),
    )


def _pictures(trace: AnalysedTrace, reports: list[OomReport], cgroup: str | None) -> Iterator[html.Picture]:
    import pandas as pd

    from tracer.analysis.core import naming
    from tracer.analysis.core.tables import start_ns
    from tracer.analysis.explain import kill_filter
    from tracer.analysis.views import focus, thrash
    from tracer.render.page import html, plots
    from tracer.render.picture import markers

    ids = (
        focus.to_show(trace)[0]
        if cgroup is None
        else focus.lives_to_show(trace, naming.select(trace, cgroup))
    )
    for number in ids:
        timeline = focus.timeline_of_life(trace, number, _ROWS_IN_PICTURE)
        if len(timeline) < 2:
            continue
        label, life = trace.places.label_of(number), trace.places.lives.life_for(number)
        concerned = kill_filter.concerning(trace, reports, [number])
        svg = plots.memory_over_time(
            timeline,
            pd.Timestamp(start_ns(trace), tz="UTC"),
            [
                *markers.kill_markers(concerned, label, timeline),
                *markers.read_again_markers(thrash.thrash_below(trace, number), timeline),
            ],
            page_size=trace.meta["page_size"],
            salt=str(number),
        )
        yield html.Picture(label, trace.places.container_of(number)[0], svg, life.run, life.runs)
