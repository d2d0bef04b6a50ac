"""The paths of cgroups by id, including removed cgroups."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Final

from tracer.kernel.cgroups import cgroupfs
from tracer.kernel.cgroups.cgroupfs import Hierarchy, Walked

REMOVED_KEPT: Final = 4096
_IDLE_FOR_A_WALK: Final = 50.0
"""The least time between two walks, in durations of a walk."""


class KnownPaths:
    """The paths that a walk found, and the paths that the kernel has reported since.

    An id is never reused. kernfs allocates ids in increasing order, and their upper half counts how often the
    lower half wrapped around (__kernfs_new_node in fs/kernfs/dir.c). So an unknown id belongs to a removed
    cgroup, unless the id is newer than the last walk: then the report of the cgroup's creation was lost.
    `now` returns seconds.
    """

    def __init__(self, hierarchy: Hierarchy, now: Callable[[], float] = time.monotonic) -> None:
        self._hierarchy = hierarchy
        self._now = now
        self._paths: dict[int, str | None] = {}  # None: outside of the mount
        self._removed: dict[int, int] = {}  # id -> when, for the last removed cgroups
        self._walked_to = 0
        self._walk_from_s = 0.0

    def walk(self) -> list[Walked]:
        """Return the cgroups that exist, and remember their paths."""
        begin = self._now()
        walked = list(cgroupfs.walk(self._hierarchy))
        gone = {number: self._paths[number] for number in self._removed}
        self._paths = {**{one.id: one.path for one in walked}, **gone}
        self._walked_to = max([self._walked_to, *(one.id for one in walked)])
        self._walk_from_s = self._now() + _IDLE_FOR_A_WALK * (self._now() - begin)
        return walked

    def note_made(self, cgroup_id: int, path: str | None) -> None:
        """Note the path of a new cgroup; None: it is outside of this mount."""
        self._paths[cgroup_id] = path

    def note_renamed(self, cgroup_id: int, path: str | None) -> list[int]:
        """Note the new path of a cgroup. Return the ids of the cgroup and of all cgroups below it, whose
        paths change with it."""
        old = self._paths.get(cgroup_id)
        self._paths[cgroup_id] = path
        if old is None or path is None:
            return [cgroup_id]
        below = {
            number: path + known[len(old) :]
            for number, known in self._paths.items()
            if known is not None and known.startswith(f"{old}/") and number not in self._removed
        }
        self._paths |= below
        return [cgroup_id, *below]

    def note_removed(self, cgroup_id: int, time_ns: int) -> None:
        """Note when a cgroup was removed. The time is forgotten after `REMOVED_KEPT` later removals."""
        if cgroup_id in self._paths:
            self._removed[cgroup_id] = time_ns
            if len(self._removed) > REMOVED_KEPT:
                oldest = next(iter(self._removed))
                del self._removed[oldest], self._paths[oldest]

    def find(self, cgroup_ids: Iterable[int]) -> dict[int, str]:
        """Return id -> path for the cgroups whose path is known.

        The cgroups are walked if one is newer than the last walk. The next walk is put off for 50 times as
        long as this one took; until then, a newer id is not found.
        """
        ids = list(cgroup_ids)
        newest = max((number for number in ids if number not in self._paths), default=0)
        if newest > self._walked_to and self._now() >= self._walk_from_s:
            self.walk()
            self._walked_to = max(self._walked_to, newest)
        return {number: path for number in ids if (path := self._paths.get(number)) is not None}

    def removed_ns(self, cgroup_id: int) -> int | None:
        """Return the noted time of a cgroup's removal; None if there is none."""
        return self._removed.get(cgroup_id)

    def whole(self, cgroup_id: int, path: str, *, is_new: bool) -> str:
        """Return the whole path of a cgroup that begins with `path`; `path` if the cgroup is gone.

        `is_new`: the known path of the cgroup is out of date.
        """
        if not is_new and (known := self._paths.get(cgroup_id)) is not None:
            return known
        above, _, begins = path.rpartition("/")
        found = cgroupfs.walk(self._hierarchy, above or "/", os.fsencode(begins))
        return next((one.path for one in found if one.id == cgroup_id), path)
