"""`doctor`: what this machine offers the tracer, and what is missing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Final

import click
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tracer.capture.doctor import examine as examine_tracer
from tracer.kernel.doctor import Check, State
from tracer.kernel.doctor import examine as examine_kernel
from tracer.render.escape import visible
from tracer.render.text import write

_STYLES: Final = {State.OK: "green", State.DEGRADED: "yellow", State.MISSING: "red", State.UNKNOWN: "yellow"}
_AREAS: Final = ("machine", "tracer")


@click.command(
    epilog="""\b
Examples:
  memcg-tracer doctor
  memcg-tracer doctor --json | jq '.checks[] | select(.state != "ok")'
  memcg-tracer doctor --quiet && memcg-tracer record -d 10"""
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("-q", "--quiet", is_flag=True, help="Print only why `record` cannot work; nothing if it can.")
@click.pass_context
def command(context: click.Context, as_json: bool, quiet: bool) -> None:
    """Show what this kernel offers, what is missing and what that costs.

    Exit status 1 if `record` could not work here.
    """
    checks = examine_kernel()
    checks += examine_tracer(may_load=not any(check.prevents_recording for check in checks))
    obstacles = [check for check in checks if check.prevents_recording]
    if as_json:
        document = {"schema": 1, "can_record": not obstacles, "checks": [asdict(check) for check in checks]}
        click.echo(json.dumps(document, indent=2))
    elif quiet:
        for check in obstacles[:1]:
            click.echo(sentence(check))
    else:
        write(sys.stdout, report(checks, obstacles))
    if obstacles:
        context.exit(1)


def sentence(check: Check) -> str:
    """A failed check in one line: what it is, and what to do."""
    remedy = f"; {check.remedy}" if check.remedy else ""
    return visible(f"{check.name}: {check.detail}{remedy}")


def report(checks: list[Check], obstacles: list[Check]) -> Iterator[RenderableType]:
    """The checks by area, what is not ok with its cost and remedy below it, and the conclusion."""
    for area in sorted({check.area: None for check in checks}, key=lambda area: area not in _AREAS):
        yield Text(area if area in _AREAS else f"stream {area}", style="bold")
        yield Padding(_table([check for check in checks if check.area == area]), (0, 0, 1, 2))
    if obstacles:
        names = ", ".join(check.name for check in obstacles)
        yield Text(f"`record` cannot work here, because of: {names}.", style="bold")
    else:
        yield Text("`record` can work here.", style="bold")


def _table(checks: list[Check]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, width=max(map(len, State)))
    table.add_column(no_wrap=True)
    table.add_column()
    for check in checks:
        detail = Text(visible(check.detail))
        if check.cost:
            detail.append(f"\ncosts: {visible(check.cost)}", style="dim")
        if check.remedy:
            detail.append(f"\nremedy: {visible(check.remedy)}", style="dim")
        table.add_row(Text(check.state, style=_STYLES[check.state]), Text(check.name), detail)
    return table
