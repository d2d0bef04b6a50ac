"""`lab [NAME]`: an experiment whose answer is known, recorded here and explained."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from tracer.lab.experiments import EXPERIMENTS, Experiment
from tracer.lab.run import Outcome, run
from tracer.render.escape import visible
from tracer.render.text import write


@click.command(
    epilog="""\b
Examples:
  memcg-tracer lab --list
  memcg-tracer lab page-cache -o traces/mine
  memcg-tracer lab anon --json"""
)
@click.argument("name", metavar="[NAME]", required=False, type=click.Choice(list(EXPERIMENTS)))
@click.option("--list", "list_", is_flag=True, help="Show the experiments and run none.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the trace goes.  [default: traces/<UTC time>-lab-NAME]",
)
@click.option("-f", "--force", is_flag=True, help="Replace the trace that is at DIR.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def command(
    context: click.Context, *, name: str | None, list_: bool, output: Path | None, force: bool, as_json: bool
) -> None:
    """Provoke one thing in a cgroup, trace it, and check the explanation against what was done.

    NAME is one of the experiments of --list, which is also what is shown without a NAME. The exit status is 1
    when a check fails.
    """
    if list_ or name is None:
        _show_experiments(as_json)
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that SIGTERM, too, leaves nothing behind
    outcome = run(EXPERIMENTS[name], output, force)
    if as_json:
        click.echo(json.dumps(_document(outcome), indent=2))
    else:
        _show_outcome(outcome)
    context.exit(0 if outcome.passed else 1)


def _show_experiments(as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([_description(experiment) for experiment in EXPERIMENTS.values()], indent=2))
        return
    for experiment in EXPERIMENTS.values():
        click.echo(f"{experiment.name:<12}  {experiment.cause:<11}  {experiment.summary}")


def _show_outcome(outcome: Outcome) -> None:
    table = Table.grid(padding=(0, 2, 0, 0))
    for check in outcome.checks:
        mark = Text("PASS", "green") if check.passed else Text("FAIL", "bold red")
        table.add_row(mark, Text(f"{check.name}: {visible(check.detail)}"))
    failed = sum(not check.passed for check in outcome.checks)
    verdict = "all checks passed" if not failed else f"{failed} of {len(outcome.checks)} checks failed"
    summary = Text(f"{outcome.experiment}: {verdict}; trace: {visible(str(outcome.trace))}")
    write(sys.stdout, [table, summary])


def _description(experiment: Experiment) -> dict[str, object]:
    return {
        "name": experiment.name,
        "cause": experiment.cause,
        "limit_bytes": experiment.limit_bytes,
        "needs_v2": experiment.needs_v2,
        "summary": experiment.summary,
    }


def _document(outcome: Outcome) -> dict[str, object]:
    return {
        "experiment": outcome.experiment,
        "cause": outcome.cause,
        "trace": str(outcome.trace),
        "passed": outcome.passed,
        "checks": [asdict(check) for check in outcome.checks],
    }
