"""The prefixes of the lines of one log, learned from the log.

Consoles, log shippers and people put prefixes of any form before lines. If a line has words that certainly
begin a message of the kernel, the text before them is the prefix. Other lines of the log have the same
prefix, with other numbers in it.
"""

from __future__ import annotations

import re
from typing import Final

from tracer.kernel.kmsg.text import shapes

MOST_CHARACTERS: Final = 512
_MOST_PREFIXES: Final = 8
_PROGRAM: Final = re.compile(r"(?<!kernel)\[\d{1,10}\]: ?$")
_RUN: Final = re.compile(r"(\d+)|(\s+)|([^\d\s]+)")


def pattern(prefix: str) -> re.Pattern[str]:
    """Return a pattern for this prefix, and for the same prefix with other numbers."""
    return re.compile("".join(map(_generalised, _RUN.finditer(prefix))))


def _generalised(run: re.Match[str]) -> str:
    if run[1] is not None:
        return r"\d{1,20}"
    if run[2] is not None:
        return r"[ \t]{0,40}" if run.start() and len(run[2]) > 1 else r"\s" * len(run[2])
    return re.escape(run[3])


class Learned:
    """The prefixes of one log, the most recently used first."""

    def __init__(self) -> None:
        self._known: list[re.Pattern[str]] = []

    def end(self, line: str) -> int:
        """Return the end of the prefix of a line; 0 if it has no known prefix."""
        for number, known in enumerate(self._known):
            if (found := known.match(line)) is not None:
                if number:
                    self._known.insert(0, self._known.pop(number))
                return found.end()
        return 0

    def learn(self, prefix: str) -> None:
        """Remember a prefix, and all prefixes that differ from it only in numbers."""
        if prefix and not self.end(prefix):
            self._known.insert(0, pattern(prefix))
            del self._known[_MOST_PREFIXES:]


def before_message(line: str) -> str | None:
    """Return the text before the words that begin a message of the kernel; "" without such words, None if
    another program quotes them."""
    prefix = line[: max(shapes.anchor(line), 0)]
    if len(prefix) > MOST_CHARACTERS:
        return ""
    return None if _PROGRAM.search(prefix) is not None else prefix
