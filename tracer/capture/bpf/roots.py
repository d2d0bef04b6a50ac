"""What the kernel programs trace: the cgroups in their map `roots` with all below, and those that come as
wanted.

A cgroup that is made is decided on in the kernel, before its first charge (follow_new in
bpf/identity.bpf.c).
"""

from __future__ import annotations

import os
from collections import OrderedDict, deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from tracer.capture.bpf.load import WANTED_PATHS, Programs
from tracer.errors import TracerError
from tracer.wire.fields import PATH_LEN

_YES: Final = 1  # of enum follow in bpf/events.h
_DEAD_KEPT: Final = 1024
CAME_KEPT: Final = WANTED_PATHS // 2
"""Of how many paths it is remembered that a traced cgroup was there."""


class Roots:
    """The maps that say what is traced. `rooted`: the hierarchy's own path, which the kernel's paths begin
    with.
    """

    def __init__(self, programs: Programs, rooted: str = "/") -> None:
        self._programs = programs
        self._rooted = rooted.rstrip("/")
        self._is_open = False
        self._dead: deque[int] = deque()
        self._came: OrderedDict[str, None] = OrderedDict()

    def add(self, cgroup_id: int) -> None:
        """Trace this cgroup and all below it, from now on."""
        try:
            self._programs.map("roots")[cgroup_id] = _YES
        except OSError as error:
            raise TracerError(
                "more cgroups fit than can be traced at once: give fewer, or the cgroup above them"
            ) from error
        self._look_again()

    def remove(self, cgroup_ids: Iterable[int]) -> None:
        """Trace these no more."""
        for cgroup_id in cgroup_ids:
            self._programs.map("roots").delete(cgroup_id)
        self._look_again()

    def bury(self, cgroup_id: int) -> None:
        """Note that a root is gone. Its remaining memory is traced until many other roots are gone."""
        self._dead.append(cgroup_id)
        while len(self._dead) > _DEAD_KEPT:
            self._programs.map("roots").delete(self._dead.popleft())

    def want(self, path: str) -> bool:
        """Trace whatever is made at `path`, for ever. False: that path is too long for the kernel program."""
        return self._set_path(path)

    def want_again(self, path: str) -> None:
        """Trace what is made at `path`, where a traced cgroup was, until many others have come."""
        if path in self._came:
            self._came.move_to_end(path)
        elif self._set_path(path):
            self._came[path] = None
            if len(self._came) > CAME_KEPT:
                oldest, _ = self._came.popitem(last=False)
                self._programs.map("wanted_paths").delete(self._key(oldest))

    def want_undecided(self) -> None:
        """Trace every new cgroup, until `add` or `remove` decides on it."""
        self._is_open = True
        self._look_again()

    def forget_tasks(self, tgids: Iterable[int]) -> None:
        """Have the next sight of these processes sent, as if it were the first."""
        for tgid in tgids:
            self._programs.map("seen_tasks").delete(tgid)

    def _set_path(self, path: str) -> bool:
        key = self._key(path)
        if len(key) >= PATH_LEN:
            return False
        with suppress(OSError):  # full
            self._programs.map("wanted_paths")[key] = _YES
            return True
        return False

    def _key(self, path: str) -> bytes:
        return os.fsencode(f"{self._rooted}{path}" if path != "/" else self._rooted or "/")

    def _look_again(self) -> None:
        """What the programs remember of each cgroup is wrong now."""
        self._programs.run("look_again", [self._is_open])
