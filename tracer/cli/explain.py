"""`explain`: why the OOM killer came."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import tracer
from tracer.cli import values
from tracer.errors import UsageError

if TYPE_CHECKING:
    from tracer.analysis.report import OomReport
    from tracer.analysis.trace import AnalysedTrace


@click.command(
    epilog="""\b
Examples:
  memcg-tracer explain traces/page-cache
  memcg-tracer explain traces/page-cache --kill 1 -v
  memcg-tracer explain traces/page-cache --json | jq '.kills[].verdict'
  journalctl -k | memcg-tracer explain --kmsg -"""
)
@click.argument("path", metavar="[TRACE]", type=click.Path(path_type=Path), required=False)
@click.option(
    "--kmsg",
    metavar="FILE",
    help="Explain the kills in a kernel log instead (dmesg, journalctl -k, kern.log; gzip); - is stdin.",
)
@click.option(
    "--kill",
    "kill_id",
    metavar="N",
    type=int,
    shell_complete=values.kills_in_trace,
    help="Explain kill number N. Default: the first.",
)
@click.option("-v", "--verbose", is_flag=True, help="Show everything: evidence, reclaim, stacks, all tables.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: all kills, or kill N.")
def command(
    path: Path | None, *, kmsg: str | None, kill_id: int | None, verbose: bool, as_json: bool
) -> None:
    """Explain an OOM kill: why it came, and why then.

    Without a kill in the trace it says what held instead: how near each cgroup came to its limit and what
    reclaim gave back. From a kernel log alone it says what the log tells, and what it cannot.
    """
    if (path is None) == (kmsg is None):
        raise UsageError("give either a TRACE or --kmsg FILE; see memcg-tracer explain -h")
    from tracer.analysis import from_log
    from tracer.kernel.kmsg import files
    from tracer.render import explain_text, text

    trace = None if path is None else tracer.open(path)
    reports = trace.explain() if trace is not None else list(from_log.explain(files.read(str(kmsg))))
    place = "this trace" if kmsg is None else "this log"
    chosen = reports if kill_id is None else [_of_number(reports, kill_id, place)]
    if as_json:
        shown = document(trace, chosen) if trace is not None else log_document(str(kmsg), chosen)
        click.echo(json.dumps(shown, indent=2))
    elif chosen:
        others = [report for report in reports if report is not chosen[0]]
        page_size = _page_size(trace, chosen[0])
        written = explain_text.post_mortem(chosen[0], others, page_size=page_size, verbose=verbose)
        text.write(sys.stdout, written)
    elif trace is not None:
        text.write(sys.stdout, explain_text.held(trace.held(), verbose=verbose))
    else:
        click.echo(
            "No report of the OOM killer is in this log: the kernel killed nothing, or said so elsewhere."
        )


def document(trace: AnalysedTrace, reports: list[OomReport]) -> dict[str, Any]:
    """The object of `explain --json`; `held` says what lived where nothing was killed."""
    kills = [report.to_dict() for report in reports]
    held = {} if kills else {"held": [one.to_dict() for one in trace.held()]}
    return {"schema": 1, "trace": str(trace.path), "kills": kills, **held}


def log_document(log: str, reports: list[OomReport]) -> dict[str, Any]:
    """The same of a kernel log."""
    return {"schema": 1, "trace": None, "kmsg": log, "kills": [report.to_dict() for report in reports]}


def _page_size(trace: AnalysedTrace | None, report: OomReport) -> int:
    from tracer.analysis.log_memory import DEFAULT_PAGE_SIZE

    if trace is not None:
        return int(trace.meta["page_size"])
    place = report.kernel_log
    return (place.page_size if place is not None else None) or DEFAULT_PAGE_SIZE


def _of_number(reports: list[OomReport], kill_id: int, place: str) -> OomReport:
    from tracer.analysis.oom import no_such_kill

    for report in reports:
        if report.kill_id == kill_id:
            return report
    raise no_such_kill(kill_id, [report.kill_id for report in reports], place)
