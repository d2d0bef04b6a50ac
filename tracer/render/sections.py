"""The few shapes that texts in the terminal are made of: titles, facts with a label, tables without rules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

_INDENT: Final = 2
_LABEL_CELLS: Final = 13


def title(words: str) -> RenderableType:
    """A heading with a blank line before it."""
    return Padding(Text(words, style="bold cyan"), (1, 0, 0, 0))


def facts(lines: Iterable[tuple[str, str]], label_cells: int = _LABEL_CELLS) -> RenderableType:
    """Labels in one column, sentences that wrap in another."""
    grid = Table.grid(padding=(0, 1), pad_edge=False)
    grid.add_column(min_width=label_cells, no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for label, sentence in lines:
        grid.add_row(Text(label), Text(sentence))
    return indented(grid)


def table(*columns: tuple[str, str]) -> Table:
    """A table without rules; each column is a title and `<` or `>`, the side its cells stand on."""
    titled = any(heading for heading, _ in columns)
    made = Table(box=None, show_header=titled, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for heading, side in columns:
        made.add_column(heading, justify="right" if side == ">" else "left", overflow="fold")
    return made


def indented(renderable: RenderableType) -> RenderableType:
    return Padding(renderable, (0, 0, 0, _INDENT))


def note(words: str) -> RenderableType:
    """A remark on what stands above it."""
    return indented(Text(words, style="dim"))
