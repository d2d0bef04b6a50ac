"""From rich renderables to the characters of a stream: width, colour and encoding are decided here alone."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterable
from typing import Final, TextIO

from rich.console import Console, RenderableType

from tracer.render.words.prose import released

PLAIN_COLUMNS: Final = 100
"""The width of everything that is not written to a colour terminal."""

LEAST_COLUMNS: Final = 60
MOST_COLUMNS: Final = 1000

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


def is_coloured(stream: TextIO) -> bool:
    """Return whether escape sequences belong into `stream`.

    NO_COLOR (https://no-color.org) switches them off, else FORCE_COLOR (https://force-color.org) switches
    them on, also in a pipe.
    """
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (stream.isatty() and os.environ.get("TERM") != "dumb")


def columns_of(stream: TextIO) -> int:
    """Return the width to draw for: COLUMNS if set, else the terminal's; `PLAIN_COLUMNS` for a pipe or file,
    and at most that many for a terminal without colour.
    """
    asked = os.environ.get("COLUMNS", "")
    if asked.isascii() and asked.isdigit() and int(asked) > 0:
        return min(max(LEAST_COLUMNS, int(asked)), MOST_COLUMNS)
    if not stream.isatty():
        return PLAIN_COLUMNS
    columns = max(LEAST_COLUMNS, shutil.get_terminal_size((PLAIN_COLUMNS, 24)).columns)
    return columns if is_coloured(stream) else min(columns, PLAIN_COLUMNS)


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
    return "".join(line.rstrip() + "\n" for line in released(out.getvalue()).splitlines())


def write(stream: TextIO, renderables: Iterable[RenderableType]) -> None:
    """Writes the renderables as fits `stream`; an encoding that lacks our glyphs gets ASCII ones."""
    text = to_text(renderables, columns=columns_of(stream), colour=is_coloured(stream))
    encoding = stream.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(_ASCII).encode(encoding, "backslashreplace").decode(encoding)
    stream.write(text)
    stream.flush()
