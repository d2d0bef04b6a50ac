"""The help: the keys and the meanings of the columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Final

from tracer.categories import LAYERS
from tracer.quantities import TOP_COLUMNS, Quantity
from tracer.render.words.prose import wrapped
from tracer.top.screen.cells import Line, Span
from tracer.top.short_numbers import NONE

KEYS: Final = (
    ("q", "quit; elsewhere, go back to the list"),
    ("h ?", "this help"),
    ("up down PgUp PgDn Home End", "select a cgroup, or scroll"),
    ("left right", "fold the cgroups below; turn to other tables"),
    ("Enter", "look into it: memory, processes, files, reclaim"),
    ("c", "the code that makes its memory grow"),
    ("x", "explain it: its kill, or how near it came"),
    ("w", "write a trace of the last minutes"),
    ("/", "show only names with what you type; Esc: all"),
    ("< >", "sort by another column"),
    ("r", "reverse the order; of files: read memory again"),
    ("t", "tree, or one list"),
    ("space", "halt the screen; recording goes on"),
    ("+ -", "longer or shorter interval"),
)
_BEFORE: Final = (("CGROUP", "container, or end of the path; ✗2: OOM kills at its limit; +: folded"),)
_AFTER: Final = (("USAGE BEFORE", "usage in the intervals before, up to its largest value"),)
_COLOURS: Final = (
    ("red", "KILL IN is less than 10 s"),
    ("yellow", "there was an OOM kill at its limit"),
)
_TABLES: Final = (
    ("memory", "what USAGE is made of"),
    ("processes", "ANON to SWAP: memory of the process, whoever is charged for it; CHARGED: to this cgroup"),
    (
        "files",
        "page cache: NOW in memory, DIRTY: of that, to be written before reclaim can free it; ADDED, EVICTED "
        "by reclaim, or DROPPED: deleted, truncated, drop_caches",
    ),
    (
        "reclaim",
        "attempts of a process to free memory here: pages EXAMINED and FREED, attempts that FREED NONE",
    ),
    ("evictors", "whose tasks EVICTED page cache of this cgroup"),
    ("code", "functions whose memory grew, as a SHARE of what was sampled, and who called them"),
)
_LONGEST: Final = 26
_MARGIN: Final = 3


@cache
def help_lines(columns: int) -> tuple[Line, ...]:
    """Return the help for a screen of so many columns, 60 or more."""
    meanings = [(column.head, meaning(quantity)) for quantity, column in TOP_COLUMNS]
    bar = [(one.glyph * 3, f"{one.label}: {one.meaning}", one.name) for one in LAYERS]
    return (
        *_titled("keys", columns),
        *_entries(((*one, "head") for one in KEYS), columns),
        (),
        *_titled("columns (a number contains the cgroups below; ? is not known, - is none)", columns),
        *_entries(((*one, "head") for one in (*_BEFORE, *meanings, *_AFTER)), columns),
        (),
        *_titled("the bar: usage as a share of the limit; without a limit, of the machine", columns),
        *_entries(bar, columns),
        (),
        *_titled("colours of a cgroup", columns),
        *_entries(zip(*zip(*_COLOURS, strict=True), ("kill", "warn"), strict=True), columns),
        (),
        *_titled("tables of a cgroup: now, and of about the last minute", columns),
        *_entries(((*one, "head") for one in _TABLES), columns),
    )


def meaning(quantity: Quantity) -> str:
    """Return the meaning of a column of numbers."""
    rate = ", per second" if quantity.kind == "flow" and quantity.unit == "bytes" else ""
    absent = f"; {NONE}: {quantity.absent}" if quantity.absent else ""
    return f"{quantity.meaning}{rate}{absent}"


def _titled(title: str, columns: int) -> Iterator[Line]:
    yield from ((Span(f" {text}", "title"),) for text in wrapped(title, columns - 2))


def _entries(entries: Iterable[tuple[str, str, str]], columns: int) -> Iterator[Line]:
    """Yield a line for each name with its meaning and style, and lines with the rest of a long meaning."""
    listed = list(entries)
    cells = min(max(len(name) for name, _, _ in listed), _LONGEST)
    for name, meaning, style in listed:
        shown = name
        for text in wrapped(meaning, columns - _MARGIN - cells - 2):
            yield (Span(" " * _MARGIN), Span(f"{shown:<{cells}}", style), Span(f" {text}"))
            shown = ""
