"""`explain`: why the OOM killer came."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

import tracer
from tracer.analysis.report import OomReport
from tracer.analysis.trace import AnalysedTrace
from tracer.errors import UsageError
from tracer.render import explain_text, text


@click.command(
    epilog="""\b
Examples:
  memcg-tracer explain traces/page-cache
  memcg-tracer explain traces/page-cache --kill 1 -v
  memcg-tracer explain traces/page-cache --json | jq '.kills[].verdict'"""
)
@click.argument("path", metavar="TRACE", type=click.Path(path_type=Path))
@click.option("--kill", "kill_id", metavar="N", type=int, help="Explain kill number N. Default: the first.")
@click.option("-v", "--verbose", is_flag=True, help="Show whole stacks, all rows of the tables, the probes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: all kills, or kill N.")
def command(path: Path, *, kill_id: int | None, verbose: bool, as_json: bool) -> None:
    """Explain an OOM kill: why it came, and why then.

    Without a kill in the trace it says what held instead: how near each cgroup came to its limit and what
    reclaim gave back.
    """
    trace = tracer.open(path)
    reports = trace.explain()
    chosen = reports if kill_id is None else [_of_number(reports, kill_id)]
    if as_json:
        click.echo(json.dumps(document(trace, chosen), indent=2))
    elif not chosen:
        text.write(sys.stdout, explain_text.held(trace.held()))
    else:
        others = [report for report in reports if report is not chosen[0]]
        page_size = trace.meta["page_size"]
        lines = explain_text.post_mortem(chosen[0], others, page_size=page_size, verbose=verbose)
        text.write(sys.stdout, lines)


def document(trace: AnalysedTrace, reports: list[OomReport]) -> dict[str, Any]:
    """The object of `explain --json`; `held` says what lived where nothing was killed."""
    kills = [report.to_dict() for report in reports]
    held = {} if kills else {"held": [one.to_dict() for one in trace.held()]}
    return {"schema": 1, "trace": str(trace.path), "kills": kills, **held}


def _of_number(reports: list[OomReport], kill_id: int) -> OomReport:
    for report in reports:
        if report.kill_id == kill_id:
            return report
    there = ", ".join(f"kill {report.kill_id}" for report in reports)
    raise UsageError(f"there is no kill {kill_id} in this trace: it holds {there or 'no kill at all'}")
