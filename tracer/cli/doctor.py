"""`doctor`: what this machine offers the tracer, and what is missing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from typing import Final

import click
from rich.console import JustifyMethod, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tracer.capture.doctor import Finding
from tracer.capture.doctor import examine as examine_tracer
from tracer.kernel.doctor import Check, State
from tracer.kernel.doctor import examine as examine_kernel
from tracer.render.escape import visible
from tracer.render.text import write

_STYLES: Final = {
    State.OK: "green",
    State.DEGRADED: "yellow",
    State.MISSING: "red",
    State.UNKNOWN: "yellow",
    "exact": "green",
    "approximate": "yellow",
    "absent": "red",
}
_AREAS: Final = ("machine", "tracer")
_INDENT: Final = 2
_GAP: Final = 2
_CELLS: Final = (11, 18, 14, 39, 7)
"""Widths of meaning, signal, kind of hook, place and cost: with what is between them a line of plain text."""

_HEADINGS: Final = ("hook", "at", "ns")
_LEGEND: Final = (
    "ns: what our programs took for one event just now, begin and end together, in a short work of ours and "
    "whatever else ran; -: none happened. What the kernel takes to get to them comes on top."
)
_UNMEASURED: Final = "These hooks are those that would be attached; nothing was measured."


@click.command(
    epilog="""\b
Examples:
  memcg-tracer doctor
  memcg-tracer doctor --json | jq '.checks[] | select(.state != "ok")'
  memcg-tracer doctor --json | jq -r '.signals[] | [.name, .meaning, .hook, .event_ns] | @tsv'
  memcg-tracer doctor --quiet && memcg-tracer record -d 10"""
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("-q", "--quiet", is_flag=True, help="Print only why `record` cannot work; nothing if it can.")
@click.pass_context
def command(context: click.Context, as_json: bool, quiet: bool) -> None:
    """Show what this kernel offers, what is missing and what that costs.

    As root the programs are loaded and attached, and the cost of an event is measured. Exit status 1 if
    `record` could not work here.
    """
    checks = examine_kernel()
    may_load = not any(check.prevents_recording for check in checks)
    examined = examine_tracer(may_load=may_load, measure=not quiet)
    checks += examined.checks
    obstacles = [check for check in checks if check.prevents_recording]
    if as_json:
        document = {
            "schema": 1,
            "can_record": not obstacles,
            "checks": [asdict(check) for check in checks],
            "signals": [finding.document() for finding in examined.signals],
        }
        click.echo(json.dumps(document, indent=2))
    elif quiet:
        for check in obstacles[:1]:
            click.echo(sentence(check))
    else:
        write(sys.stdout, report(checks, examined.signals, obstacles))
    if obstacles:
        context.exit(1)


def sentence(check: Check) -> str:
    """A failed check in one line: what it is, and what to do."""
    remedy = f"; {check.remedy}" if check.remedy else ""
    return visible(f"{check.name}: {check.detail}{remedy}")


def report(checks: list[Check], signals: list[Finding], obstacles: list[Check]) -> Iterator[RenderableType]:
    """The checks by area, what is not ok with its cost and remedy below it; the signals by stream; and the
    conclusion.
    """
    for area in _AREAS:
        yield Text(area, style="bold")
        yield Padding(_table([check for check in checks if check.area == area]), (0, 0, 1, 2))
    yield from _matrix([finding for finding in signals if finding.choice])
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


def _matrix(signals: list[Finding]) -> Iterator[RenderableType]:
    """A row for each signal, and below it what it tells and what is not exact, or why it is absent."""
    if not signals:
        return
    yield Padding(_row(Text(), Text(), *(Text(heading, "dim") for heading in _HEADINGS)), (0, 0, 0, _INDENT))
    for stream, findings in groupby(signals, key=lambda finding: finding.signal.stream):
        yield Text(f"stream {stream}", style="bold")
        for finding in findings:
            yield Padding(_row(*_cells(finding)), (0, 0, 0, _INDENT))
            remarks = Text("\n".join(_remarks(finding)), "dim")
            yield Padding(remarks, (0, 0, 0, _INDENT + _CELLS[0] + _GAP))
        yield Text()
    measured = any(finding.cost for finding in signals)
    yield Padding(Text(_LEGEND if measured else _UNMEASURED, "dim"), (0, 0, 1, 0))


def _row(*cells: Text) -> Table:
    """A table of one row, so that what stands between rows may be as wide as all columns."""
    table = Table.grid(padding=(0, _GAP, 0, 0))
    for cell, width in zip(cells, _CELLS, strict=True):
        justify: JustifyMethod = "right" if cell is cells[-1] else "left"
        table.add_column(width=width, justify=justify, overflow="fold")
    table.add_row(*cells)
    return table


def _cells(finding: Finding) -> Iterator[Text]:
    choice, cost = finding.choice, finding.cost
    assert choice is not None
    hooks = choice.way.hooks if choice.way else ()
    yield Text(choice.meaning, _STYLES[choice.meaning])
    yield Text(finding.signal.name)
    yield Text("\n".join(hook.kind for hook in hooks) or "-")
    yield Text("\n".join(hook.target for hook in hooks) or "-")
    yield Text("-" if cost is None or cost.event_ns is None else f"{cost.event_ns:,.0f}")


def _remarks(finding: Finding) -> Iterator[str]:
    choice = finding.choice
    assert choice is not None
    if choice.way is None:
        yield f"why: {visible(choice.why_not)}"
        yield f"costs: {finding.signal.without}"
        return
    yield finding.signal.meaning
    if choice.way.approximate:
        yield f"approximate: {choice.way.approximate}"
