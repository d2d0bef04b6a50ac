"""What stands before the kernel's text on the lines of one log, learned from the log.

Consoles, log shippers and people put something before each line that no list has. Where a line has words
that begin a message of the kernel for sure, what stands before them is the prefix; other lines have the same
but for its numbers.
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
    """What matches this prefix with other numbers in it."""
    return re.compile("".join(map(_generalised, _RUN.finditer(prefix))))


def _generalised(run: re.Match[str]) -> str:
    if run[1] is not None:
        return r"\d{1,20}"
    if run[2] is not None:
        return r"[ \t]{0,40}" if run.start() and len(run[2]) > 1 else r"\s" * len(run[2])
    return re.escape(run[3])


class Learned:
    """Prefixes of one log, the latest first."""

    def __init__(self) -> None:
        self._known: list[re.Pattern[str]] = []

    def end(self, line: str) -> int:
        """Where the prefix of a line ends; 0: it has none that is known."""
        for number, known in enumerate(self._known):
            if (found := known.match(line)) is not None:
                if number:
                    self._known.insert(0, self._known.pop(number))
                return found.end()
        return 0

    def learn(self, prefix: str) -> None:
        """Know this prefix, and those that differ from it by numbers only."""
        if prefix and not self.end(prefix):
            self._known.insert(0, pattern(prefix))
            del self._known[_MOST_PREFIXES:]


def before_message(line: str) -> str | None:
    """What stands before the words that begin a message of the kernel; empty where there are none, None where
    another program quotes them."""
    prefix = line[: max(shapes.anchor(line), 0)]
    if len(prefix) > MOST_CHARACTERS:
        return ""
    return None if _PROGRAM.search(prefix) is not None else prefix
