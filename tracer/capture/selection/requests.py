"""The user's request: the selectors, the paths that matched them, and the lines for the user about both."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from tracer.capture.bpf.roots import REMEMBERED_PATHS
from tracer.kernel.cgroups.cgroupfs import Hierarchy
from tracer.kernel.cgroups.containers import ContainerNames, Lookup, identify, with_short_ids
from tracer.kernel.cgroups.selectors import Selector, list_cgroups
from tracer.stored_names import stored_path

GONE_AFTER_S: Final = 30.0
"""The time after which a line says that nothing matches any more: what is restarted is back before."""

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
    _gone_s: float = math.inf

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
        """Return a line on what appeared or came back since the last line, or has been gone for
        `GONE_AFTER_S`; None if nothing did. A life that ends before the next one begins has one line.

        After the first ten lines each pause is twice as long as the one before, up to a minute. `is_last`
        ignores the pause: no further line follows.
        """
        now = time.monotonic()
        if self.present or not self._reported:
            self._gone_s = math.inf
        else:
            self._gone_s = min(self._gone_s, now)
        is_gone = is_last or now - self._gone_s >= GONE_AFTER_S
        has_gone = bool(self._reported) and not self.present and is_gone
        if not (self.arrivals or has_gone) or (now < self._next_line_s and not is_last):
            return None
        line = self._line()
        self.mark_reported()
        self._lines += 1
        if self._lines > _PROMPT_LINES:
            self._next_line_s = now + min(2.0 ** (self._lines - _PROMPT_LINES), _MOST_PAUSE_S)
        return line

    def _line(self) -> str:
        last = with_short_ids(stored_path(next(reversed(self.seen_paths), "")))
        again = f", made {self.arrivals} times" if self.arrivals > 1 else ""
        if not self.present:
            return f"{self.name} is gone ('{last}'{again}): waiting for it to come again"
        return f"{self.name}: now tracing '{last}'{again}"


_MOST_PATHS: Final = 1000


class Requests:
    """The selectors of a recording; None stands for every cgroup."""

    def __init__(self, hierarchy: Hierarchy, selectors: Sequence[Selector] | None) -> None:
        self._hierarchy = hierarchy
        self.is_everything = selectors is None
        self.states = [SelectorState(selector) for selector in selectors or ()]
        self._matched: dict[str, None] = {}

    def matching(self, path: str, names: ContainerNames | None) -> list[SelectorState]:
        """Return the selectors that match a cgroup.

        `names` are the names of its container; None if the container runtime has not answered.
        """
        ref = identify(path)
        container = None if ref is None else ref.container_id
        name = names.container if names else None
        return [
            state
            for state in self.states
            if state.selector.fits_path(path)
            or (container is not None and state.selector.fits_container(container, name))
            or path in state.seen_paths
        ]

    def add_match(self, states: Sequence[SelectorState], cgroup_id: int, path: str) -> None:
        """Note that a cgroup matches these selectors."""
        for state in states:
            state.present[cgroup_id] = path
            state.add_match(path)
            self._note_matched(path)

    def _note_matched(self, path: str) -> None:
        if len(self._matched) < _MOST_PATHS:
            self._matched[path] = None

    def add_command_cgroup(self, path: str) -> None:
        """Count the cgroup of the recorder's command among the matches."""
        self._matched[path] = None

    def rename(self, cgroup_id: int, path: str) -> None:
        """Change the path of a match. Its old path stays among the matched paths, and the kernel log names
        the new one."""
        for state in self.states:
            if cgroup_id in state.present:
                state.present[cgroup_id] = path
                self._note_matched(path)

    def remove(self, cgroup_id: int) -> bool:
        """Note that a cgroup is gone. Return whether it matched a selector."""
        removed = [state.present.pop(cgroup_id, None) for state in self.states]
        return any(path is not None for path in removed)

    def matched_paths(self) -> list[str] | None:
        """Return the matched paths as a trace keeps them, first match first; None: every cgroup is traced."""
        return None if self.is_everything else [stored_path(path) for path in self._matched]

    def includes(self, path: str, undecided: Collection[str]) -> bool:
        """Return whether a path is at or below a matched path, or one of the `undecided` paths."""
        inside = path.rstrip("/") + "/"
        return self.is_everything or any(
            inside.startswith(place.rstrip("/") + "/") for place in chain(self._matched, undecided)
        )

    def concerns(self, rooted_path: str, undecided: Collection[str]) -> bool:
        """Return whether a cgroup is included, or above an included one, which its limit then bounds.

        `rooted_path` is its path from the root of the hierarchy, as the kernel log has it.
        """
        if self.is_everything or len(self._matched) >= _MOST_PATHS:
            return True
        path = self._hierarchy.visible_path(rooted_path)
        if path is None:
            return self._hierarchy.root.startswith(rooted_path.rstrip("/") + "/")
        below = path.rstrip("/") + "/"
        return self.includes(path, undecided) or any(
            place.startswith(below) for place in chain(self._matched, undecided)
        )

    def waiting(self, lookup: Lookup) -> Iterator[str]:
        """Yield a line for each selector that matches no cgroup now; later news are relative to now."""
        listing = None
        for state in self.states:
            state.mark_reported()
            if not state.present:
                listing = listing or list_cgroups(self._hierarchy, lookup)
                near = listing.near(state.selector)
                yield f"no cgroup or container is {state.name} yet: waiting for it ({near})"

    def news(self, *, is_last: bool = False) -> Iterator[str]:
        """Yield a line for each selector whose matches came, went or came back since the last call."""
        for state in self.states:
            if (line := state.news(is_last=is_last)) is not None:
                yield line

    def never_matched(self) -> list[str]:
        """Return the selectors that matched no cgroup, as they were typed."""
        return [state.name for state in self.states if not state.seen_paths]
