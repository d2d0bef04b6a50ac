"""The maps that choose the cgroups to trace: `roots`, traced with all cgroups below them, and paths.

The BPF program decides on a new cgroup before its first charge (follow_new in bpf/identity.bpf.c).
"""

from __future__ import annotations

import os
from collections import OrderedDict, deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from tracer.capture.bpf.load import WANTED_PATHS, Programs
from tracer.enumerations import FOLLOW
from tracer.errors import TracerError
from tracer.wire.fields import PATH_LEN

_YES: Final = FOLLOW.number("yes")
_DEAD_KEPT: Final = 1024
_DEAD_AT_ONCE: Final = 64
"""The number of roots that are removed together: after each change, the programs check all accounts."""

REMEMBERED_PATHS: Final = WANTED_PATHS // 2
"""Paths of traced cgroups that are remembered, so that a cgroup made there again is traced."""


class Roots:
    """The selection, as the maps of the BPF programs have it.

    `rooted` is the path of the cgroup mount in the hierarchy: paths in the kernel begin with it.
    """

    def __init__(self, programs: Programs, rooted: str = "/") -> None:
        self._programs = programs
        self._rooted = rooted.rstrip("/")
        self._is_open = False
        self._dead: deque[int] = deque()
        self._remembered: OrderedDict[str, None] = OrderedDict()

    def add(self, cgroup_id: int) -> None:
        """Trace a cgroup and all below it from now on. Raises TracerError if the map is full."""
        try:
            self._programs.map("roots")[cgroup_id] = _YES
        except OSError as error:
            raise TracerError(
                "more cgroups match than can be traced at once: give fewer, or the cgroup above them"
            ) from error
        self._look_again()

    def remove(self, cgroup_ids: Iterable[int]) -> None:
        """Stop tracing these cgroups."""
        for cgroup_id in cgroup_ids:
            self._programs.map("roots").delete(cgroup_id)
        self._look_again()

    def bury(self, cgroup_id: int) -> None:
        """Note that a root was removed. Its memory is traced until 961 to 1,024 later roots are removed."""
        self._dead.append(cgroup_id)
        if len(self._dead) > _DEAD_KEPT:
            self.remove([self._dead.popleft() for _ in range(_DEAD_AT_ONCE)])

    def want(self, path: str) -> bool:
        """Trace each cgroup that is made at `path`. Return False if the path is too long or the map is
        full.
        """
        key = self._key(path)
        if len(key) >= PATH_LEN:
            return False
        with suppress(OSError):  # the map is full
            self._programs.map("wanted_paths")[key] = _YES
            return True
        return False

    def want_again(self, path: str) -> None:
        """Trace each cgroup that is made at `path`, until `REMEMBERED_PATHS` other paths are newer."""
        if path in self._remembered:
            self._remembered.move_to_end(path)
        elif self.want(path):
            self._remembered[path] = None
            if len(self._remembered) > REMEMBERED_PATHS:
                oldest, _ = self._remembered.popitem(last=False)
                self._programs.map("wanted_paths").delete(self._key(oldest))

    def want_undecided(self) -> None:
        """Trace every new cgroup, until `add` or `remove` decides on it."""
        self._is_open = True
        self._look_again()

    def forget_tasks(self, tgids: Iterable[int]) -> None:
        """Let the programs report the next event of these processes as if it were their first."""
        for tgid in tgids:
            self._programs.map("seen_tasks").delete(tgid)

    def _key(self, path: str) -> bytes:
        return os.fsencode(f"{self._rooted}{path}" if path != "/" else self._rooted or "/")

    def _look_again(self) -> None:
        """Make the BPF programs drop what they have cached about each cgroup."""
        self._programs.run("look_again", [self._is_open])
