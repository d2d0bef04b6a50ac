"""The answer of `fleet` for a terminal: a sentence, a few facts, the first rows of each table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.cells import cell_len
from rich.console import RenderableType
from rich.text import Text

from tracer.fleet.reduction.fleet_answer import Fleet
from tracer.render.fleet import fleet_facts, fleet_tables
from tracer.render.fleet.fleet_facts import counted
from tracer.render.fleet.fleet_tables import MOST_ROWS_OF_PAGE, NAMES, Section
from tracer.render.terminal import console
from tracer.render.words.escape import fitted
from tracer.render.words.prose import prose

_MOST_ROWS: Final = 15
_INDENT: Final = 2
_GAP: Final = 2
_LEAST_NAME_CELLS: Final = 12
_WIDE_CELLS: Final = 90


def lines(fleet: Fleet, columns: int) -> Iterator[RenderableType]:
    """Yield the text, for a width in columns."""
    yield prose(fleet_facts.sentence(fleet), "bold")
    yield Text()
    yield console.facts([*fleet_facts.facts(fleet), *fleet_facts.warnings(fleet)])
    for section in fleet_tables.sections(fleet, _MOST_ROWS, brief=True):
        yield console.title(section.heading)
        yield from _table(
            section.without(section.wide) if section.wide and columns < _WIDE_CELLS else section, columns
        )


def _table(section: Section, columns: int) -> Iterator[RenderableType]:
    if len(section.columns) == 1:
        yield console.bullets(row[0] for row in section.rows)
    elif section.rows:
        yield console.indented(_rows(section, columns))
    if section.more:
        yield console.note(_more(section))
    if note := section.explained():
        yield console.note(note)


def _more(section: Section) -> str:
    said = counted(section.more, "more row")
    if len(section.rows) + section.more <= MOST_ROWS_OF_PAGE:
        return f"{said}: --json and --report have them all."
    return f"{said}: --json has them all, --report the first {MOST_ROWS_OF_PAGE}."


def _rows(section: Section, columns: int) -> console.Rows:
    """Return the table, with names shortened to the room that the numbers leave."""
    widths = [
        max(cell_len(cell) for cell in (title, *(row[at] for row in section.rows)))
        for at, (title, _) in enumerate(section.columns)
    ]
    names = [at for at, (title, _) in enumerate(section.columns) if title in NAMES]
    taken = sum(width + _GAP for at, width in enumerate(widths) if at not in names)
    room = columns - _INDENT - taken - _GAP * (len(names) - 1)
    each = max(room // len(names), _LEAST_NAME_CELLS)
    drawn = console.Rows(*section.columns)
    for row in section.rows:
        drawn.add_row(*(Text(fitted(cell, each)) if at in names else cell for at, cell in enumerate(row)))
    return drawn
