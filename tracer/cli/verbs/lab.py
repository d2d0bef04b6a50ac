"""`lab [NAME]`: record and explain an experiment with a known answer."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tracer.errors import TracerError, UsageError
from tracer.lab.experiments import EXPERIMENTS, Experiment

if TYPE_CHECKING:
    from tracer.analysis.results.kill import Cause
    from tracer.lab.checks import Check
    from tracer.lab.run import Outcome

_REPEAT: Final = 5


@click.command(
    epilog="""\b
Examples:
  memcg-tracer lab --list
  memcg-tracer lab page-cache -o traces/mine
  memcg-tracer lab anon --resize --json
  memcg-tracer lab thrash --whatif
  memcg-tracer lab --all"""
)
@click.argument("name", metavar="[NAME]", required=False, type=click.Choice(list(EXPERIMENTS)))
@click.option("--list", "list_", is_flag=True, help="Show the experiments and run none.")
@click.option(
    "--all", "all_", is_flag=True, help="Run all experiments that this machine can run, one after the other."
)
@click.option(
    "-o",
    "--output",
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Directory of the trace; with --all, of a folder for each experiment.  "
    "[default: traces/<UTC time>-lab-NAME]",
)
@click.option("-f", "--force", is_flag=True, help="Replace DIR if it exists.")
@click.option(
    "--resize",
    is_flag=True,
    help="Then run the work of NAME again to check the range of the minimum limit: at the upper end, it must "
    "survive and take at most 1.2 times as long as without a limit; at 80 % of the lower end, it must not.",
)
@click.option(
    "--repeat",
    metavar="N",
    type=click.IntRange(min=1),
    help="Number of runs at each end, with --resize.  [default: 5]",
)
@click.option(
    "--whatif",
    is_flag=True,
    help="Then record the work of NAME with room for it as well, and run it at six limits, to check what "
    "whatif says about them from both traces.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def command(
    context: click.Context,
    *,
    name: str | None,
    list_: bool,
    all_: bool,
    output: Path | None,
    force: bool,
    resize: bool,
    repeat: int | None,
    whatif: bool,
    as_json: bool,
) -> None:
    """Provoke one situation in a cgroup, trace it, and check the explanation.

    NAME is one of the experiments of --list. Without NAME, lab lists the experiments. The exit status is 1
    if a check fails.
    """
    if all_ and name is not None:
        raise UsageError("--all runs every experiment: leave NAME out")
    if repeat is not None and not resize:
        raise UsageError("--repeat is the number of runs of --resize: add --resize")
    if resize and name is None:
        raise UsageError("--resize checks one experiment: give its NAME")
    if whatif and name is None:
        raise UsageError("--whatif checks one experiment: give its NAME")
    if list_ or (name is None and not all_):
        _show_experiments(as_json)
        return
    from tracer.kernel.privileges import require_linux

    require_linux("an experiment")
    from tracer.lab import other_limits
    from tracer.lab import resize as other_runs
    from tracer.lab.run import run

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up after SIGTERM as after Ctrl-C
    if name is None:
        context.exit(_run_all(output, force, as_json))
    outcome = run(EXPERIMENTS[name], output, force)
    if resize or whatif:
        click.echo("memcg-tracer: running the work again at other limits, which takes its time", err=True)
    if resize:
        outcome = other_runs.verified(EXPERIMENTS[name], outcome, repeat or _REPEAT)
    if whatif:
        outcome = other_limits.verified(EXPERIMENTS[name], outcome)
    if as_json:
        click.echo(json.dumps(_document(outcome), indent=2))
    else:
        _show_outcome(outcome)
    context.exit(0 if outcome.passed else 1)


def _run_all(output: Path | None, force: bool, as_json: bool) -> int:
    """Run all experiments, and return the exit status.

    An experiment that this machine cannot run is reported as skipped, not as a failure. The others go on
    after an error.
    """
    from rich.text import Text

    from tracer.lab.run import run, what_lacks
    from tracer.render.terminal.console import write

    passed: list[str] = []
    failed: list[str] = []
    skipped: list[str] = []
    for name, experiment in EXPERIMENTS.items():
        lacking = what_lacks(experiment)
        if lacking is not None:
            skipped.append(lacking)
            continue
        try:
            outcome = run(experiment, None if output is None else output / name, force)
        except TracerError as error:
            click.echo(f"memcg-tracer: {name}: {error}", err=True)
            failed.append(name)
            continue
        (passed if outcome.passed else failed).append(name)
        if as_json:
            click.echo(json.dumps(_document(outcome)))
        else:
            _show_outcome(outcome)
    lines = [f"{len(passed)} of {len(passed) + len(failed)} experiments passed"]
    lines += [f"failed: {', '.join(failed)}"] if failed else []
    lines += [f"skipped: {lacking}" for lacking in skipped]
    write(sys.stderr if as_json else sys.stdout, [Text(line) for line in lines])
    return 1 if failed else 0


def _show_experiments(as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([_description(experiment) for experiment in EXPERIMENTS.values()], indent=2))
        return
    from tracer.render.terminal.console import Rows, write

    table = Rows(("name", "<"), ("expected", "<"), ("what happens", "<"))
    for experiment in EXPERIMENTS.values():
        expected = experiment.cause or experiment.state or "no kill"
        table.add_row(experiment.name, expected, experiment.summary)
    write(sys.stdout, [table])


def _show_outcome(outcome: Outcome) -> None:
    from rich.table import Table
    from rich.text import Text

    from tracer.render.terminal.console import write
    from tracer.render.words.escape import visible

    table = Table.grid(padding=(0, 2, 0, 0))
    for check in outcome.checks:
        mark = Text("PASS", "green") if check.passed else Text("FAIL", "bold red")
        table.add_row(mark, Text(f"{check.name}: {visible(check.detail)}"))
    failed = sum(not check.passed for check in outcome.checks)
    verdict = "all checks passed" if not failed else f"{failed} of {len(outcome.checks)} checks failed"
    summary = Text(f"{outcome.experiment}: {verdict}; trace: {visible(str(outcome.trace))}")
    write(sys.stdout, [table, summary])


@dataclass(frozen=True, slots=True)
class Description:
    """An experiment in the list of `lab --list --json`."""

    name: str
    cause: Cause | None
    state: str | None
    limit_bytes: int
    needs_v2: str | None
    summary: str


@dataclass(frozen=True, slots=True)
class Document:
    """The document of `lab NAME --json`, and a line of `lab --all --json`."""

    experiment: str
    cause: Cause | None
    state: str | None
    trace: str
    passed: bool
    checks: tuple[Check, ...]


def _description(experiment: Experiment) -> dict[str, Any]:
    return {item.name: getattr(experiment, item.name) for item in fields(Description)}


def _document(outcome: Outcome) -> dict[str, Any]:
    found = Document(
        outcome.experiment, outcome.cause, outcome.state, str(outcome.trace), outcome.passed, outcome.checks
    )
    return asdict(found)
