"""`export`: a trace, or a part of it, as a file for other tools."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

import tracer
from tracer.cli import value_completion
from tracer.cli.output_file import check_output, write_output

if TYPE_CHECKING:
    from tracer.analysis.trace import AnalysedTrace


def _folded(trace: AnalysedTrace, cgroup: str | None, kill_id: int | None) -> Iterator[str]:
    from tracer.render.export import folded

    return folded.lines(trace.charged_stacks(cgroup, kill_id))


FORMATS: Final[dict[str, Callable[[AnalysedTrace, str | None, int | None], Iterator[str]]]] = {
    "folded": _folded
}


@click.command(
    epilog="""\b
Examples:
  memcg-tracer export traces/mine --to folded -o mine.folded    # for flamegraph.pl, speedscope, ...
  memcg-tracer export traces/mine --to folded --kill 1 -o - | sort -t' ' -k2 -n"""
)
@click.argument("path", metavar="TRACE", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "form",
    type=click.Choice(list(FORMATS)),
    required=True,
    help="folded: the memory that each stack allocated, for flame graphs (of record --stacks).",
)
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    required=True,
    type=click.Path(path_type=Path),
    help="The file to write; - is standard output.",
)
@click.option(
    "-c",
    "--cgroup",
    metavar="CGROUP",
    shell_complete=value_completion.cgroups_in_trace,
    help="Path, container name or id, or glob: only memory charged to a matching cgroup or its descendants.",
)
@click.option(
    "--kill",
    "kill_id",
    metavar="N",
    type=int,
    shell_complete=value_completion.kills_in_trace,
    help="Only the allocations that led to kill number N of explain.",
)
@click.option("-f", "--force", is_flag=True, help="Replace the file if it exists.")
def command(
    path: Path, *, form: str, output: Path, cgroup: str | None, kill_id: int | None, force: bool
) -> None:
    """Write a trace in a format that other tools read.

    Only you can read the file, because it contains names of processes, cgroups and functions.
    """
    check_output(output, force)
    write_output(output, FORMATS[form](tracer.open(path), cgroup, kill_id))
