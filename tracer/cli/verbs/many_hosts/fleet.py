"""`fleet`: many traces of many hosts: kills by cause and workload, limits, and who evicts whom."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Final

import click

from tracer.cli import GARBAGE_OF_MANY_TRACES, standard_streams
from tracer.cli.output import check_output, write_output
from tracer.cli.typed_values import moment_ns, some_bytes
from tracer.errors import DefectError, UsageError
from tracer.render.words.escape import visible

_MOST_NAMED: Final = 3


@click.command(
    epilog="""\b
Examples:
  memcg-tracer fleet /srv/traces
  memcg-tracer fleet s3://traces/2026-11 --scheduler tcp://10.0.0.7:8786 --json > fleet.json
  memcg-tracer fleet dataset --since 7d -o fleet.html
  memcg-tracer fleet dataset --limit 400M --limit 512M
  memcg-tracer fleet dataset --since 2026-11-16 --until 2026-11-23"""
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "--since",
    "since_ns",
    metavar="WHEN",
    callback=moment_ns,
    help="Only what happened since then: 7d or 12h ago, a date (2026-11-16) or a time in ISO 8601, in UTC.",
)
@click.option(
    "--until", "until_ns", metavar="WHEN", callback=moment_ns, help="Only what happened before that moment."
)
@click.option(
    "--limit",
    "limits",
    metavar="SIZE",
    type=some_bytes,
    multiple=True,
    help="Also show how many runs of each workload would have died at this limit. May be repeated.",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Use a Dask cluster, such as tcp://host:8786, instead of processes on this machine.",
)
@click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(min=1),
    help="Use N processes on this machine.  [default: one per CPU]",
)
@click.option(
    "-o",
    "--output",
    "--out",
    "--report",
    "report",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write an HTML page instead; - is standard output.",
)
@click.option("-f", "--force", is_flag=True, help="Replace FILE if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, sizes in bytes.")
def command(
    paths: tuple[str, ...],
    *,
    since_ns: int | None,
    until_ns: int | None,
    limits: tuple[int, ...],
    scheduler: str | None,
    workers: int | None,
    report: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Show what was killed on many hosts and why, which limits are wrong, and who evicts whom.

    A PATH is a trace, a dataset (export --to dataset), a folder in which traces and datasets lie at any
    depth, or a URL of these, such as s3://bucket/traces. A trace that cannot be read is left out and listed.
    A kill or a container that several traces recorded counts once.
    """
    from tracer.fleet.reduction.fleet_run import fleet
    from tracer.fleet.summary.time_window import TimeWindow

    if since_ns is not None and until_ns is not None and since_ns >= until_ns:
        raise UsageError("--since must be before --until")
    if as_json and report is not None:
        raise UsageError("--json and --report are two forms of the output: choose one")
    if scheduler is not None and workers is not None:
        raise UsageError("--workers is for this machine: the cluster has its own")
    if report is not None:
        check_output(report, force)
    gc.set_threshold(*GARBAGE_OF_MANY_TRACES)
    with standard_streams.progress_of(
        "looking for traces" if scheduler is None else f"waiting for {scheduler}"
    ) as now:
        window = TimeWindow(since_ns, until_ns)
        found = fleet(
            paths, scheduler=scheduler, workers=workers, window=window, limits=limits, progress=now.counts
        )
    if report is not None:
        from tracer.render.fleet import fleet_page

        write_output(report, [fleet_page.page(found)])
    elif as_json:
        click.echo(json.dumps(found.to_dict(), indent=2))
    else:
        from tracer.render.fleet import fleet_text
        from tracer.render.terminal import console

        console.write(sys.stdout, fleet_text.lines(found, console.columns_for(sys.stdout)))
    if bugs := [one for one in found.broken if one.debug]:
        missing = "; ".join(f"{visible(one.path)}: {visible(one.why)}" for one in bugs[:_MOST_NAMED])
        raise DefectError(missing, dict.fromkeys(shown for one in bugs for shown in one.debug))
