"""The findings of `doctor` for a terminal: the answer, the missing abilities, and their effects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import JustifyMethod, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tracer.capture.trial import Finding
from tracer.kernel.features import Check, State
from tracer.render.terminal import console
from tracer.render.words.escape import visible

_STYLES: Final = {
    State.OK: "green",
    State.DEGRADED: "yellow",
    State.MISSING: "red",
    State.UNKNOWN: "yellow",
    "exact": "green",
    "absent": "red",
}
_AREAS: Final = ("machine", "tracer")
_INDENT: Final = 2
_GAP: Final = 2
_CELLS: Final = (6, 18, 16, 39, 7)
"""Widths of meaning, signal, kind of hook, place and cost. With the gaps, they fill a line of plain text."""

_NARROW: Final = (0, 1, 4)
"""The positions of the columns that a narrow terminal shows: meaning, signal and cost."""

_HEADINGS: Final = ("", "signal", "hook", "at", "ns")
_LEGEND: Final = (
    "ns: the time of our programs for one event, start and end together, measured just now during a short "
    "workload; -: no event happened, or the hook is attached at the start only. The time that the kernel "
    "needs to call them is not included."
)
_UNMEASURED: Final = "These hooks would be attached; nothing was measured."


def sentence(check: Check) -> str:
    """Return a failed check with its remedy, in one line."""
    remedy = f"; {check.remedy}" if check.remedy else ""
    return visible(f"{check.name}: {check.detail}{remedy}")


def report(checks: Sequence[Check], signals: Sequence[Finding], *, columns: int) -> Iterator[RenderableType]:
    """Yield the answer, then the checks by area, then the signals by stream.

    A check that is not ok is shown with its effect and its remedy.
    """
    tried = [finding for finding in signals if finding.choice]
    yield from _answer(checks, tried)
    for area in _AREAS:
        yield console.title(area)
        yield Padding(_table([check for check in checks if check.area == area]), (0, 0, 0, 2))
    yield from _matrix(tried, columns)


def _answer(checks: Sequence[Check], signals: Sequence[Finding]) -> Iterator[RenderableType]:
    """Yield the answer: this machine can record, with the effects of missing abilities, or it cannot, with
    the remedies."""
    obstacles = [check for check in checks if check.prevents_recording]
    if obstacles:
        names = ", ".join(check.name for check in obstacles)
        yield Text(f"This machine cannot record, because of: {names}.", style="bold")
        yield console.facts((check.name, visible(check.remedy or check.detail)) for check in obstacles)
        return
    missing = [(check.name, visible(_cost(check))) for check in checks if check.cost]
    missing += [
        (finding.signal.name, finding.signal.without)
        for finding in signals
        if finding.choice is not None and finding.choice.way is None
    ]
    if not missing:
        yield Text("This machine can record, and nothing is missing.", style="bold")
        return
    yield Text("This machine can record. What is missing, and the effect:", style="bold")
    yield console.facts(missing)


def _cost(check: Check) -> str:
    return f"not known ({check.detail}): {check.cost}" if check.state is State.UNKNOWN else check.cost


def _table(checks: Sequence[Check]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, width=max(map(len, State)))
    table.add_column(no_wrap=True)
    table.add_column()
    for check in checks:
        detail = Text(visible(check.detail))
        if check.cost:
            detail.append(f"\neffect: {visible(check.cost)}", style="dim")
        if check.remedy:
            detail.append(f"\nremedy: {visible(check.remedy)}", style="dim")
        table.add_row(Text(check.state, style=_STYLES[check.state]), Text(check.name), detail)
    return table


def _matrix(signals: Sequence[Finding], columns: int) -> Iterator[RenderableType]:
    """Yield a row for each signal, and below it the signal's meaning and inaccuracy, or why it is absent.

    If the columns do not fit, the hook is also below the row.
    """
    if not signals:
        return
    is_wide = columns >= _INDENT + sum(_CELLS) + _GAP * (len(_CELLS) - 1)
    shown = range(len(_CELLS)) if is_wide else _NARROW
    headings = [Text(_HEADINGS[at], "dim") for at in shown]
    streams: dict[str, list[Finding]] = {}
    for finding in signals:
        streams.setdefault(finding.signal.stream, []).append(finding)
    for stream, findings in streams.items():
        yield console.title(f"stream {stream}")
        if headings:
            yield Padding(_row(headings, shown), (0, 0, 0, _INDENT))
            headings = []
        for finding in findings:
            cells = list(_cells(finding))
            yield Padding(_row([cells[at] for at in shown], shown), (0, 0, 0, _INDENT))
            remarks = [*([] if is_wide else _hooks(finding)), *_remarks(finding)]
            yield Padding(Text("\n".join(remarks), "dim"), (0, 0, 0, _INDENT + _CELLS[0] + _GAP))
    measured = any(finding.cost for finding in signals)
    yield Padding(Text(_LEGEND if measured else _UNMEASURED, "dim"), (1, 0, 0, 0))


def _hooks(finding: Finding) -> Iterator[str]:
    way = finding.choice and finding.choice.way
    yield from (f"{hook.kind} {hook.target}" for hook in (way.hooks if way else ()))


def _row(cells: Sequence[Text], shown: Sequence[int]) -> Table:
    """Return a table of one row, so that the text between rows can be as wide as all columns."""
    table = Table.grid(padding=(0, _GAP, 0, 0))
    for cell, width in zip(cells, (_CELLS[at] for at in shown), strict=True):
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
        yield f"effect: {finding.signal.without}"
        return
    yield finding.signal.meaning
