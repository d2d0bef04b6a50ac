"""Sentences that a terminal may wrap between any two words, but not inside `99.7 MiB` or `(pid 41)`.

rich wraps at every space, also at one that Unicode calls non-breaking. So such a space is a private-use
character until the text is laid out, and `text.to_text` puts the space back. No name can hold that character:
`visible` escapes all of them.
"""

from __future__ import annotations

import re
from typing import Final

from rich.text import Text

_HELD: Final = "\ue000"
_UNITS: Final = "B|[KMGTPE]iB|%|[um]?s|min|h|pages?|columns|times|CPUs"
_INSIDE: Final = re.compile(
    rf"(?<=\d) (?=(?:{_UNITS})(?!\w))"
    r"|(?<=\d min) (?=\d\d s)|(?<=\d h) (?=\d\d min)"
    r"|(?<=\bpid) (?=\d)|(?<=\bkill) (?=\d)|(?<=\bnumber) (?=\d)|(?<=--\w{4}) (?=\d)"
)


def prose(words: str, style: str = "") -> Text:
    """Return the words as a text that wraps between them."""
    return Text(held_together(words), style=style)


def held_together(words: str) -> str:
    """Return the words with each space that must not be broken at as a character that is none."""
    return _INSIDE.sub(_HELD, words)


def released(laid_out: str) -> str:
    """Return the spaces that `held_together` took away."""
    return laid_out.replace(_HELD, " ")
