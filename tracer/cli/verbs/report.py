"""`report`: the post-mortem as one HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from tracer.cli import trace_argument, value_completion
from tracer.cli.output import check_output, write_output


@click.command(
    epilog="""\b
Examples:
  memcg-tracer report traces/page-cache -o report.html
  memcg-tracer report traces/page-cache -f -o report.html
  memcg-tracer report traces/restarts -c web -o web.html"""
)
@trace_argument.argument
@click.option(
    "-o",
    "--output",
    "--out",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path),
    help="The page to write; - is standard output.",
)
@value_completion.cgroup_of_trace(
    ": only kills and pictures of matching cgroups, with all runs.",
)
@click.option("-f", "--force", is_flag=True, help="Replace FILE if it exists.")
def command(path: Path | None, output: Path, cgroup: str | None, force: bool) -> None:
    """Write an HTML page that explains the kills, with charts.

    The page is self-contained and makes no requests, so it can be sent by mail. Only you can read the
    file, because it contains names of processes, cgroups and containers.
    """
    from tracer.cli import page_contents
    from tracer.render.page import html

    check_output(output, force)
    found = trace_argument.open_trace(path)
    trace = found.trace

    def page() -> Iterator[str]:
        yield html.page(page_contents.subject(trace, found.name if cgroup is None else cgroup))

    write_output(output, page())
    trace.defects.raise_if_any()
