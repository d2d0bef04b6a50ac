"""Sentences that wrap between any two words, but not inside `99.7 MiB` or `(pid 41)`.

A browser does not break a line at Unicode's no-break space. rich does, so for a terminal, a space that must
not break is replaced by a private-use character until the text is laid out. Then
`render.terminal.console.to_text` restores the space.
No name can contain this character, because `visible` escapes it.
"""

from __future__ import annotations

import re
import textwrap
from typing import Final, TypeAlias

from rich.text import Text

Fact: TypeAlias = tuple[str, str]
"""(label, sentence)"""

_HELD: Final = "\ue000"
_UNITS: Final = "B|[KMGTPE]iB|%|[um]?s|min|h|pages?|columns|times|CPUs|UTC"
_QUANTITY: Final = (
    rf"(?<=\d) (?=(?:{_UNITS})(?!\w))"
    r"|(?<=\d) (?=± \d)|(?<=±) (?=\d)|(?<=\d min) (?=\d\d s)|(?<=\d h) (?=\d\d min)"
    r"|(?<=\bpid) (?=\d)|(?<=\bkill)(?<!-kill) (?=\d)|(?<=\bnumber) (?=\d)"
)
_ON_A_PAGE: Final = re.compile(_QUANTITY)
"""Without the space after an option: a command that is copied from a page must keep its spaces."""
_INSIDE: Final = re.compile(rf"{_QUANTITY}|(?<=--\w{{4}}) (?=\d)")


def prose(words: str, style: str = "") -> Text:
    """Return the words as a text that wraps between them."""
    return Text(held_together(words), style=style)


def held_together(words: str) -> str:
    """Return the words with a private-use character in place of each space that must not wrap."""
    return _INSIDE.sub(_HELD, words)


def for_a_page(words: str) -> str:
    """Return the words with a no-break space inside each number and its unit, for a browser."""
    return _ON_A_PAGE.sub("\u00a0", words)


def unbroken(words: str) -> str:
    """Return words of which none begins a line, such as a name of several words."""
    return words.replace(" ", _HELD)


def wrapped(words: str, cells: int) -> list[str]:
    """Return the lines of the words, wrapped between them at `cells`; a path is not broken at a hyphen."""
    return [released(line) for line in textwrap.wrap(held_together(words), cells, break_on_hyphens=False)]


def released(laid_out: str) -> str:
    """Restore the spaces that `held_together` replaced."""
    return laid_out.replace(_HELD, " ")
