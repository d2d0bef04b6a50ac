"""The building blocks of texts in the terminal: titles, facts with labels, tables without rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tracer.render.words.prose import prose

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
    grid = Table.grid(padding=(0, 1), pad_edge=False)
    grid.add_column(min_width=label_cells, no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for label, sentence in lines:
        grid.add_row(Text(label), prose(sentence))
    return indented(grid)


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
            named = zip((heading for heading, _ in self._columns[1:]), rest, strict=False)
            cells = [f"{heading} {cell}".strip() for heading, cell in named if str(cell)]
            yield f"{first}:", ", ".join(cells)


class Fitted:
    """The first of several forms of a text that fits into a number of lines, else the last form.

    Each form is a function, so that forms after the first fit are not rendered.
    """

    def __init__(self, lines: int, forms: Sequence[Callable[[], Iterable[RenderableType]]]) -> None:
        self._lines = lines
        self._forms = forms

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for form in self._forms:
            group = Group(*form())
            if len(console.render_lines(group, options, pad=False)) <= self._lines:
                break
        yield group


def indented(renderable: RenderableType) -> RenderableType:
    """Return the renderable with the indentation of facts."""
    return Padding(renderable, (0, 0, 0, _INDENT))


def note(words: str) -> RenderableType:
    """Return a remark about the text above it."""
    return indented(prose(words, "dim"))
