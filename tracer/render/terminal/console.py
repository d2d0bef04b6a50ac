"""Output of rich renderables to a stream. Only this module decides on width, colour and encoding."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterable
from typing import Final, TextIO

from rich.console import Console, RenderableType

from tracer.render.words.prose import released

PLAIN_COLUMNS: Final = 100
"""The width of output that is not written to a colour terminal."""

LEAST_COLUMNS: Final = 60
MOST_COLUMNS: Final = 1000

_ASCII: Final = str.maketrans("█▓▚▒░·│┃─┬┐✗▲…−–→←≥✓", "#skdc.||-++x^~--><>+")


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


def to_text(renderables: Iterable[RenderableType], *, columns: int, colour: bool) -> str:
    """Return the renderables one below the other, without escape sequences unless `colour` is set.

    Console markup, emoji codes and highlighting are off: a comm such as `[red]` is shown unchanged.
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
    """Write the renderables in the form that fits `stream`. If its encoding lacks our glyphs, write ASCII
    glyphs."""
    text = to_text(renderables, columns=columns_for(stream), colour=is_coloured(stream))
    encoding = stream.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(_ASCII).encode(encoding, "backslashreplace").decode(encoding)
    stream.write(text)
    stream.flush()
