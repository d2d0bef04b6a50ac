"""One selector of a recording: the cgroups that match it now, and the line for the user about them."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from tracer.capture.bpf.roots import REMEMBERED_PATHS
from tracer.kernel.cgroups.selectors import Selector
from tracer.stored_names import stored_path

_PROMPT_LINES: Final = 10
_MOST_PAUSE_S: Final = 60.0


@dataclass
class SelectorState:
    """A selector and its matches.

    `present` maps cgroup id to path. `seen_paths` holds the paths that its cgroups had, most recent last.
    `arrivals` counts the matches since the last line for the user.
    """

    selector: Selector
    present: dict[int, str] = field(default_factory=dict)
    seen_paths: OrderedDict[str, None] = field(default_factory=OrderedDict)
    arrivals: int = 0
    _reported: frozenset[int] = frozenset()
    _lines: int = 0
    _next_line_s: float = 0.0

    @property
    def name(self) -> str:
        """Return the command-line argument, quoted for messages."""
        return f"'{stored_path(self.selector.text)}'"

    def add_match(self, path: str) -> None:
        """Count a match; a cgroup that is made at this path later matches, whatever its container's name."""
        self.arrivals += 1
        self.seen_paths[path] = None
        self.seen_paths.move_to_end(path)
        if len(self.seen_paths) > REMEMBERED_PATHS:
            self.seen_paths.popitem(last=False)

    def mark_reported(self) -> None:
        """Regard the present matches as known to the user."""
        self._reported, self.arrivals = frozenset(self.present), 0

    def news(self, *, is_last: bool) -> str | None:
        """Return a line on what appeared, disappeared or came back since the last line; None if nothing did.

        After the first ten lines each pause is twice as long as the one before, up to a minute. `is_last`
        ignores the pause: no further line follows.
        """
        now = time.monotonic()
        present = frozenset(self.present)
        is_due = is_last or now >= self._next_line_s
        if not is_due or (present == self._reported and not self.arrivals):
            return None
        line = self._line()
        self._reported, self.arrivals = present, 0
        self._lines += 1
        if self._lines > _PROMPT_LINES:
            self._next_line_s = now + min(2.0 ** (self._lines - _PROMPT_LINES), _MOST_PAUSE_S)
        return line

    def _line(self) -> str | None:
        last = stored_path(next(reversed(self.seen_paths), ""))
        again = f", made {self.arrivals} times" if self.arrivals > 1 else ""
        if not self.present:
            return f"{self.name} is gone ('{last}'{again}): waiting for it to come again"
        return f"{self.name}: now tracing '{last}'{again}" if self.arrivals else None
