"""The answer of `fleet` for a terminal: a sentence, a few facts, the first rows of each table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.cells import cell_len
from rich.console import RenderableType
from rich.text import Text

from tracer import units
from tracer.fleet.reduction.fleet_answer import Fleet
from tracer.render.fleet import fleet_tables
from tracer.render.fleet.fleet_tables import NAMES, Section
from tracer.render.terminal import paragraphs
from tracer.render.words.escape import fitted
from tracer.render.words.prose import prose

_MOST_ROWS: Final = 15
_INDENT: Final = 2
_GAP: Final = 2
_LEAST_NAME_CELLS: Final = 12


def lines(fleet: Fleet, columns: int) -> Iterator[RenderableType]:
    """Yield the text, for a width in columns."""
    yield prose(fleet_tables.sentence(fleet), "bold")
    yield Text()
    yield paragraphs.facts(fleet_tables.facts(fleet))
    for section in fleet_tables.sections(fleet, _MOST_ROWS):
        yield paragraphs.title(section.heading)
        yield from _table(section, columns)


def _table(section: Section, columns: int) -> Iterator[RenderableType]:
    if len(section.columns) == 1:
        yield paragraphs.bullets(row[0] for row in section.rows)
    elif section.rows:
        yield paragraphs.indented(_rows(section, columns))
    more = f"{units.count(section.more)} more: --json and --report have them all. " if section.more else ""
    wide_note = section.wide_note if columns >= section.wide_cells else ""
    if note := f"{more}{section.note}{wide_note}".strip():
        yield paragraphs.note(note)


def _rows(section: Section, columns: int) -> paragraphs.Rows:
    """Return the table, with names shortened to the room that the numbers leave."""
    given_up = section.wide if columns < section.wide_cells else None
    kept = [at for at, (title, _) in enumerate(section.columns) if title != given_up]
    headings = [section.columns[at] for at in kept]
    rows = [[row[at] for at in kept] for row in section.rows]
    widths = [
        max(cell_len(cell) for cell in (title, *(row[at] for row in rows)))
        for at, (title, _) in enumerate(headings)
    ]
    names = [at for at, (title, _) in enumerate(headings) if title in NAMES]
    taken = sum(width + _GAP for at, width in enumerate(widths) if at not in names)
    room = columns - _INDENT - taken - _GAP * (len(names) - 1)
    each = max(room // len(names), _LEAST_NAME_CELLS)
    drawn = paragraphs.Rows(*headings)
    for row in rows:
        drawn.add_row(*(Text(fitted(cell, each)) if at in names else cell for at, cell in enumerate(row)))
    return drawn
