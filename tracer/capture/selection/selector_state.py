"""One selector that is followed: which of its cgroups are there, and what is said of that."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from tracer.capture.bpf.roots import CAME_KEPT
from tracer.kernel.cgroups.selectors import Selector
from tracer.stored_names import stored_path

_PROMPT_LINES: Final = 10
_MOST_PAUSE_S: Final = 60.0


@dataclass
class Followed:
    """What is known of one selector. `there`: cgroup id -> path; `came`: the paths at which its cgroups were,
    the latest last; `lives`: how many came since something was said.
    """

    selector: Selector
    there: dict[int, str] = field(default_factory=dict)
    came: OrderedDict[str, None] = field(default_factory=OrderedDict)
    lives: int = 0
    _said: frozenset[int] = frozenset()
    _lines: int = 0
    _next_line_s: float = 0.0

    @property
    def name(self) -> str:
        """The argument, to be said."""
        return f"'{stored_path(self.selector.text)}'"

    def note(self, path: str) -> None:
        """One of its cgroups is at this path, and will be what it means when it is made again."""
        self.lives += 1
        self.came[path] = None
        self.came.move_to_end(path)
        if len(self.came) > CAME_KEPT:
            self.came.popitem(last=False)

    def begin(self) -> None:
        """Take what is there now as known to the user."""
        self._said, self.lives = frozenset(self.there), 0

    def news(self, *, is_last: bool) -> str | None:
        """Say in a line what has come, gone or come again since the last one; None: nothing.

        After the first lines, the next ones wait: twice as long each time, a minute at most. `is_last`: there
        is no next one, so this one waits for nothing.
        """
        now = time.monotonic()
        there = frozenset(self.there)
        is_due = is_last or now >= self._next_line_s
        if not is_due or (there == self._said and not self.lives):
            return None
        line = self._line()
        self._said, self.lives = there, 0
        self._lines += 1
        if self._lines > _PROMPT_LINES:
            self._next_line_s = now + min(2.0 ** (self._lines - _PROMPT_LINES), _MOST_PAUSE_S)
        return line

    def _line(self) -> str | None:
        last = stored_path(next(reversed(self.came), ""))
        again = f", made {self.lives} times" if self.lives > 1 else ""
        if not self.there:
            return f"{self.name} is gone ('{last}'{again}): waiting for it to come again"
        return f"{self.name}: now tracing '{last}'{again}" if self.lives else None
