"""`doctor`: the abilities of this machine that the tracer needs, and what is missing."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from tracer.capture.trial import SignalEntry
    from tracer.kernel.features import Check


@click.command(
    epilog="""\b
Examples:
  memcg-tracer doctor
  memcg-tracer doctor --json | jq '.checks[] | select(.state != "ok")'
  memcg-tracer doctor --json | jq -r '.signals[] | [.name, .meaning, .hook, .event_ns] | @tsv'
  memcg-tracer doctor --quiet && memcg-tracer record -d 10"""
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option(
    "-q", "--quiet", is_flag=True, help="Print only the reason why `record` cannot work; nothing if it can."
)
@click.pass_context
def command(context: click.Context, as_json: bool, quiet: bool) -> None:
    """Show what this kernel offers, what is missing, and the effect.

    As root, doctor loads and attaches the programs and measures the cost of an event. The exit status is 1 if
    `record` cannot work here.
    """
    from tracer.capture.trial import examine as examine_tracer
    from tracer.kernel.features import examine as examine_kernel
    from tracer.render.terminal import console, doctor_text

    checks = examine_kernel()
    may_load = not any(check.prevents_recording for check in checks)
    examined = examine_tracer(may_load=may_load, measure=not quiet)
    checks += examined.checks
    obstacles = [check for check in checks if check.prevents_recording]
    if as_json:
        signals = [finding.document() for finding in examined.signals]
        document = Document(schema=1, can_record=not obstacles, checks=checks, signals=signals)
        click.echo(json.dumps(asdict(document), indent=2))
    elif quiet:
        for check in obstacles[:1]:
            click.echo(doctor_text.sentence(check))
    else:
        columns = console.columns_for(sys.stdout)
        console.write(sys.stdout, doctor_text.report(checks, examined.signals, columns=columns))
    if obstacles:
        context.exit(1)


@dataclass(frozen=True, slots=True)
class Document:
    """The document of `doctor --json`."""

    schema: Literal[1]
    can_record: bool
    checks: list[Check]
    signals: list[SignalEntry]
