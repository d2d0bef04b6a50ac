"""The terminal: the building blocks of texts, and their output to a stream.

Only this module decides on width, colour and encoding.
"""

from __future__ import annotations

import io
import os
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, TextIO, TypeAlias

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from tracer.packed import Packed
from tracer.render.words.prose import held_together, prose, released

_INDENT: Final = 2
_LABEL_CELLS: Final = 13
_WORD_CELLS: Final = 40
"""In a narrow table, a word of more cells (such as a path) may be broken."""

_GAPS: Final = (2, 1)
"""Cells between the columns of a table. The second number is for a table that does not fit with the first."""


def title(words: str) -> RenderableType:
    """Return a heading with a blank line before it."""
    return Padding(prose(words, "bold cyan"), (1, 0, 0, 0))


def facts(lines: Iterable[tuple[str, str]], label_cells: int = _LABEL_CELLS) -> RenderableType:
    """Return labels in one column, and their sentences in another, in which they wrap."""
    indent = " " * _INDENT
    grid = Table.grid()
    grid.add_column(min_width=_INDENT + label_cells + 1, no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for label, sentence in lines:
        grid.add_row(Text(f"{indent}{label} "), prose(sentence))
    return grid


def bullets(sentences: Iterable[str]) -> RenderableType:
    """Return the sentences as a list with dashes."""
    return facts((("-", sentence) for sentence in sentences), label_cells=1)


class Rows:
    """A table without rules. Each column is a title and its alignment, `<` or `>`.

    Only a left-aligned last column wraps. If the table is wider than the terminal, each row becomes a
    sentence behind its first cell.
    """

    def __init__(self, *columns: tuple[str, str]) -> None:
        self._columns = columns
        self._rows: list[Sequence[str | Text]] = []

    def add_row(self, *cells: str | Text) -> None:
        """Add a row with one cell for each column."""
        self._rows.append(cells)

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        least_cells = sum(self._least_cells())
        for gap in _GAPS:
            if least_cells + gap * (len(self._columns) - 1) <= options.max_width:
                yield self._table(gap)
                return
        yield facts(self._sentences(), label_cells=1)

    def _least_cells(self) -> Iterator[int]:
        """Yield the width that each column needs, in cells."""
        for at, (heading, _) in enumerate(self._columns):
            cells = [str(cell) for row in self._rows for cell in row[at : at + 1]]
            if self._may_wrap(at):
                cells = [word[:_WORD_CELLS] for cell in cells for word in cell.split()]
            yield max(map(cell_len, [heading, *cells]))

    def _may_wrap(self, at: int) -> bool:
        return at == len(self._columns) - 1 and self._columns[at][1] == "<"

    def _table(self, gap: int) -> Table:
        titled = any(heading for heading, _ in self._columns)
        made = Table(box=None, show_header=titled, padding=(0, gap, 0, 0), pad_edge=False, header_style="dim")
        for at, (heading, side) in enumerate(self._columns):
            made.add_column(
                Text(heading, no_wrap=True),
                justify="right" if side == ">" else "left",
                overflow="fold",
                no_wrap=not self._may_wrap(at),
            )
        for cells in self._rows:
            made.add_row(*(prose(cell) if isinstance(cell, str) else cell for cell in cells))
        return made

    def _sentences(self) -> Iterable[tuple[str, str]]:
        for first, *rest in self._rows:
            yield f"{first}:", _sentence(self._columns, rest)


class LongRows:
    """A table of many rows, which looks as `Rows` does, indented and without colour, in a hundredth of the
    time."""

    def __init__(self, columns: Sequence[tuple[str, str]], rows: Iterable[tuple[str, ...]]) -> None:
        self._columns = columns
        self._rows = Packed(rows)
        self._may_wrap = columns[-1][1] == "<"

    def __len__(self) -> int:
        return len(self._rows)

    def as_rows(self) -> RenderableType:
        """Return the table as rich draws it."""
        table = Rows(*self._columns)
        for cells in self._rows:
            table.add_row(*cells)
        return indented(table)

    def lines(self, columns: int) -> Iterator[str]:
        """Yield the lines of the table in so many columns."""
        room = columns - _INDENT
        least, whole = self._cells()
        for gap in _GAPS:
            rest = room - sum(least[:-1]) - gap * (len(least) - 1)
            if least[-1] <= rest:
                found = self._in_columns((*least[:-1], min(whole, rest)), gap)
                break
        else:
            found = self._sentences(room - _INDENT)
        yield from (f"{' ' * _INDENT}{line}".rstrip() for line in found)

    def _cells(self) -> tuple[list[int], int]:
        """Return the least width of each column, as `Rows` has it, and the width of all of the last one."""
        least = [cell_len(heading) for heading, _ in self._columns]
        whole = least[-1]
        for cells in self._rows:
            widths = [*map(cell_len, cells)]
            whole = max(whole, widths[-1])
            if self._may_wrap:
                widths[-1] = max((cell_len(word[:_WORD_CELLS]) for word in cells[-1].split()), default=0)
            least = [*map(max, least, widths)]
        return least, whole

    def _in_columns(self, widths: Sequence[int], gap: int) -> Iterator[str]:
        sides = [side for _, side in self._columns]
        for cells in ([heading for heading, _ in self._columns], *self._rows):
            *first, last = cells
            before = "".join(_set(*one) + " " * gap for one in zip(first, widths, sides, strict=False))
            for line in _wrapped(last, widths[-1]):
                yield before + _set(line, widths[-1], sides[-1])
                before = " " * cell_len(before)

    def _sentences(self, room: int) -> Iterator[str]:
        width = max((cell_len(cells[0]) + 1 for cells in self._rows), default=1)
        for first, *rest in self._rows:
            label = f"{_set(f'{first}:', width, '<')} "
            for line in _wrapped(_sentence(self._columns, rest), room - width - 1):
                yield " " * _INDENT + label + line
                label = " " * (width + 1)


def _set(cell: str, width: int, side: str) -> str:
    cell = cell.rstrip() if side == ">" else cell
    room = " " * (width - cell_len(cell))
    return room + cell if side == ">" else cell + room


def _wrapped(words: str, width: int) -> Iterable[str]:
    """Return the lines of the words as rich wraps them."""
    if cell_len(words) <= width:
        return (words,)
    held = held_together(words)
    parts = held.split(" ")
    is_simple = words.isascii() and all(0 < len(part) <= width for part in parts)
    if not is_simple:
        plain = Console(width=width, file=io.StringIO())
        laid_out = Text(held).wrap(plain, width, overflow="fold")
        return [released(line.plain) for line in laid_out]
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + 1 + len(part) <= width:
            lines[-1] += f" {part}"
        else:
            lines.append(part)
    return map(released, lines)


def _sentence(columns: Sequence[tuple[str, str]], rest: Iterable[str | Text]) -> str:
    """Return the cells after the first, with their titles."""
    named = zip((heading for heading, _ in columns[1:]), rest, strict=False)
    return ", ".join(f"{heading} {cell}".strip() for heading, cell in named if str(cell))


@dataclass(frozen=True, slots=True)
class Command:
    """A command to paste, its last word on a line of its own. No line is broken: a terminal wraps one that is
    too wide, and copies it as one."""

    words: Sequence[str]

    def lines(self, _columns: int) -> Iterator[str]:
        """Yield the lines, which a shell joins again."""
        *first, last = self.words
        yield f"{' ' * _INDENT}{shlex.join(first)} \\"
        yield f"{' ' * 2 * _INDENT}{shlex.quote(last)}"


Written: TypeAlias = RenderableType | LongRows | Command
"""What can be written to a terminal."""


class Fitted:
    """The first of several forms of a text that fits into a number of lines, else the last form.

    Each form is a function, so that forms after the first fit are not rendered.
    """

    def __init__(self, lines: int, forms: Sequence[Callable[[], Iterable[RenderableType]]]) -> None:
        self._lines = lines
        self._forms = forms

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines: list[list[Segment]] = []
        for form in self._forms:
            lines = console.render_lines(Group(*form()), options, pad=False)
            if len(lines) <= self._lines:
                break
        for line in lines:
            yield from line
            yield Segment.line()


def indented(renderable: RenderableType) -> RenderableType:
    """Return the renderable with the indentation of facts."""
    return Padding(renderable, (0, 0, 0, _INDENT))


def note(words: str) -> RenderableType:
    """Return a remark about the text above it."""
    return indented(prose(words, "dim"))


PLAIN_COLUMNS: Final = 100
"""The width of output that is not written to a colour terminal."""

LEAST_COLUMNS: Final = 60
MOST_COLUMNS: Final = 1000

_LINES_AT_ONCE: Final = 1024

_ASCII: Final = str.maketrans("█▉▊▋▌▍▎▏▓▚▒░·│┃─┬┐✗▲…−–→←≥✓", "####||||skdc.||-++x^~--><>+")


def is_coloured(stream: TextIO) -> bool:
    """Return True if escape sequences may be written to `stream`.

    NO_COLOR (https://no-color.org) switches them off; otherwise FORCE_COLOR (https://force-color.org)
    switches them on, even in a pipe.
    """
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (stream.isatty() and os.environ.get("TERM") != "dumb")


def columns_for(stream: TextIO) -> int:
    """Return the width of the output in columns: COLUMNS if it is set, otherwise the width of the terminal.

    A pipe or file has `PLAIN_COLUMNS`. A terminal without colour has at most as many.
    """
    asked = os.environ.get("COLUMNS", "")
    if asked.isascii() and asked.isdigit() and int(asked) > 0:
        return min(max(LEAST_COLUMNS, int(asked)), MOST_COLUMNS)
    if not stream.isatty():
        return PLAIN_COLUMNS
    columns = max(LEAST_COLUMNS, shutil.get_terminal_size((PLAIN_COLUMNS, 24)).columns)
    return columns if is_coloured(stream) else min(columns, PLAIN_COLUMNS)


def to_text(renderables: Iterable[Written], *, columns: int, colour: bool) -> str:
    """Return the renderables one below the other, without escape sequences unless `colour` is set.

    Console markup, emoji codes and highlighting are off: a comm such as `[red]` is shown unchanged.
    """
    return "".join(_texts(renderables, columns=columns, colour=colour))


def _texts(renderables: Iterable[Written], *, columns: int, colour: bool) -> Iterator[str]:
    """Yield the text of `to_text` in pieces, so that a long table is never held as a whole."""
    out = io.StringIO()
    console = Console(
        file=out,
        width=columns,
        force_terminal=colour,
        color_system="256" if colour else None,
        no_color=not colour,
        markup=False,
        emoji=False,
        highlight=False,
        legacy_windows=False,
    )
    for renderable in renderables:
        if not isinstance(renderable, LongRows | Command):
            console.print(renderable)
            continue
        yield _taken_from(out)
        lines = renderable.lines(columns)
        while piece := list(islice(lines, _LINES_AT_ONCE)):
            yield "".join(f"{line}\n" for line in piece)
    yield _taken_from(out)


def _taken_from(out: io.StringIO) -> str:
    text = "".join(line.rstrip() + "\n" for line in released(out.getvalue()).splitlines())
    out.seek(0)
    out.truncate()
    return text


def write(stream: TextIO, renderables: Iterable[Written]) -> None:
    """Write the renderables in the form that fits `stream`. If its encoding lacks our glyphs, write ASCII
    glyphs."""
    encoding = stream.encoding or "utf-8"
    for text in _texts(renderables, columns=columns_for(stream), colour=is_coloured(stream)):
        stream.write(_encodable(text, encoding))
    stream.flush()


def _encodable(text: str, encoding: str) -> str:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_ASCII).encode(encoding, "backslashreplace").decode(encoding)
    return text
