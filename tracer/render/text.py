"""From rich renderables to the characters of a stream: width, colour and encoding are decided here alone."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterable
from typing import Final, TextIO

from rich.console import Console, RenderableType

PLAIN_COLUMNS: Final = 100
"""The width of everything that is not written to a colour terminal."""

LEAST_COLUMNS: Final = 60

_ASCII: Final = str.maketrans(
    {
        "█": "#",
        "▓": "s",
        "▚": "k",
        "▒": "d",
        "░": "c",
        "·": ".",
        "│": "|",
        "┃": "|",
        "─": "-",
        "┬": "+",
        "┐": "+",
        "✗": "x",
        "▲": "^",
        "…": "~",
        "−": "-",
        "–": "-",
        "→": ">",
        "←": "<",
        "≥": ">",
        "✓": "+",
    }
)


def is_colour_terminal(stream: TextIO) -> bool:
    """Whether escape sequences belong into `stream` (https://no-color.org is honoured)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def columns_of(stream: TextIO) -> int:
    """The width to draw for: the terminal's, or `PLAIN_COLUMNS` for pipes, files and NO_COLOR."""
    if not stream.isatty():
        return PLAIN_COLUMNS
    columns = max(LEAST_COLUMNS, shutil.get_terminal_size((PLAIN_COLUMNS, 24)).columns)
    return columns if is_colour_terminal(stream) else min(columns, PLAIN_COLUMNS)


def to_text(renderables: Iterable[RenderableType], *, columns: int, colour: bool) -> str:
    """The renderables one below the other; without `colour` no escape sequence is in it.

    Console markup, emoji codes and highlighting are off: a comm such as `[red]` is shown as it is.
    """
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
        console.print(renderable)
    return "".join(line.rstrip() + "\n" for line in out.getvalue().splitlines())


def write(stream: TextIO, renderables: Iterable[RenderableType]) -> None:
    """Writes the renderables as fits `stream`; an encoding that lacks our glyphs gets ASCII ones."""
    text = to_text(renderables, columns=columns_of(stream), colour=is_colour_terminal(stream))
    encoding = stream.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(_ASCII).encode(encoding, "backslashreplace").decode(encoding)
    stream.write(text)
    stream.flush()
