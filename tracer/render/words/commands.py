"""Commands to paste into a shell: quoted, and broken into lines that fit the terminal."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Final

from rich.text import Text

from tracer.render.words.escape import visible

_INDENT: Final = 2
_CONTINUED: Final = " \\"


def may_be_pasted(word: str, columns: int) -> bool:
    """Return whether a word is safe to show in a terminal and fits on a line of a command."""
    return visible(word) == word and len(shlex.quote(word)) + 2 * _INDENT + 10 <= columns


def lines(parts: Sequence[Sequence[str]], columns: int) -> list[Text]:
    """Return a command as lines that a shell joins again. The words of a part stay on one line."""
    found: list[str] = []
    for part in map(shlex.join, parts):
        if found and len(found[-1]) + len(part) + 1 + len(_CONTINUED) <= columns:
            found[-1] += f" {part}"
        else:
            found.append(" " * (_INDENT * (2 if found else 1)) + part)
    continued = [line + _CONTINUED for line in found[:-1]]
    return [Text(line, no_wrap=True) for line in (*continued, *found[-1:])]
