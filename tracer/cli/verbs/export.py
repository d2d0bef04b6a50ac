"""`export`: a trace, or a part of it, as a file for other tools."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

import tracer
from tracer.cli import value_completion
from tracer.cli.output_file import STDOUT, check_output, write_output
from tracer.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from tracer.analysis.trace import AnalysedTrace
    from tracer.render.export.tracks import Tracks

_MOST_ROWS: Final = 500_000  # of the timeline of all cgroups: some 200 MiB


def _folded(trace: AnalysedTrace, cgroup: str | None, kill_id: int | None) -> Iterator[str]:
    from tracer.render.export import folded

    return folded.lines(trace.charged_stacks(cgroup, kill_id))


def _perfetto(trace: AnalysedTrace, cgroup: str | None, _kill_id: int | None) -> Iterator[bytes]:
    from tracer.render.export import perfetto_trace

    return perfetto_trace.packets(_tracks(trace, cgroup), trace.meta["clock"])


@dataclass(frozen=True, slots=True)
class Format:
    """A format: the pieces of its file, and what its users are told."""

    pieces: Callable[[AnalysedTrace, str | None, int | None], Iterator[str] | Iterator[bytes]]
    help: str
    takes_kill: bool = False
    is_binary: bool = False


FORMATS: Final[dict[str, Format]] = {
    "folded": Format(
        _folded,
        "the memory that each stack allocated, for flame graphs (of record --stacks)",
        takes_kill=True,
    ),
    "perfetto": Format(
        _perfetto, "memory of cgroups, reclaim, waits and kills, for ui.perfetto.dev", is_binary=True
    ),
}


@click.command(
    epilog="""\b
Examples:
  memcg-tracer export traces/page-cache --to perfetto -o page-cache.pftrace
  memcg-tracer export traces/mine --to folded -o mine.folded    # for flamegraph.pl, speedscope, ...
  memcg-tracer export traces/mine --to folded --kill 1 -o - | sort -t' ' -k2 -n"""
)
@click.argument("path", metavar="TRACE", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "form",
    type=click.Choice(list(FORMATS)),
    required=True,
    help="; ".join(f"{name}: {form.help}" for name, form in FORMATS.items()) + ".",
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
    help="Path, container name or id, or glob: only matching cgroups and their descendants.",
)
@click.option(
    "--kill",
    "kill_id",
    metavar="N",
    type=int,
    shell_complete=value_completion.kills_in_trace,
    help="With --to folded: only the allocations that led to kill number N of explain.",
)
@click.option("-f", "--force", is_flag=True, help="Replace the output if it exists.")
def command(
    path: Path, *, form: str, output: Path, cgroup: str | None, kill_id: int | None, force: bool
) -> None:
    """Write a trace in a format that other tools read.

    Only you can read the output, because it contains names of processes, cgroups and functions.
    """
    chosen = FORMATS[form]
    if kill_id is not None and not chosen.takes_kill:
        raise UsageError(f"--kill is for --to folded: leave it out, or restrict --to {form} with -c")
    if output == STDOUT and chosen.is_binary and sys.stdout.isatty():
        raise UsageError(f"--to {form} writes no text for a terminal: name a file, or redirect the output")
    check_output(output, force)
    write_output(output, chosen.pieces(tracer.open(path), cgroup, kill_id))


def _tracks(trace: AnalysedTrace, cgroup: str | None) -> Tracks:
    """Return what viewers of timelines show: of the matching cgroups, of the tasks in them and in cgroups
    below, and of the kills that concern them."""
    from tracer.analysis.core import hierarchy, naming
    from tracer.analysis.views import stalls
    from tracer.render.export import tracks

    nested = stalls.nested(trace)
    if cgroup is not None:
        members = hierarchy.members_of(trace, naming.select(trace, cgroup))
        nested = nested[nested["cgroup_id"].isin(members)]
    return tracks.from_analyses(
        timeline=_timeline(trace, cgroup),
        nested=nested,
        reclaim=trace.reclaim,
        processes=trace.processes,
        paths=hierarchy.paths_by_id(trace.cgroups),
        kills=trace.explain(cgroup, is_sized=False),
    )


def _timeline(trace: AnalysedTrace, cgroup: str | None) -> pd.DataFrame:
    """Return the timeline in rows of 100 ms; in longer ones if it would be too large for memory, and then say
    so."""
    from tracer.analysis.core import naming
    from tracer.analysis.views import focus

    shown = naming.with_data(trace) if cgroup is None else naming.select(trace, cgroup)
    every = focus.row_width_of_all(trace, len(shown), _MOST_ROWS)
    if every != "100ms":
        click.echo(
            f"memcg-tracer: the trace is long: counters have a value each {every} instead of 100ms",
            err=True,
        )
    return trace.timeline(cgroup, every)
