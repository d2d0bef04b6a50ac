"""The paths of cgroups by their ids, also of cgroups that are gone."""

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
    """The paths that a walk found, and those that the kernel has reported since.

    An id is of one cgroup for ever. kernfs allocates ids in increasing order, and their upper half counts how
    often the lower one began anew (__kernfs_new_node in fs/kernfs/dir.c). So an unknown id is of a cgroup
    that is gone, unless it is newer than the last walk: then the report that the cgroup was made has been
    lost. `now` returns seconds.
    """

    def __init__(self, hierarchy: Hierarchy, now: Callable[[], float] = time.monotonic) -> None:
        self._hierarchy = hierarchy
        self._now = now
        self._paths: dict[int, str | None] = {}  # None: outside of the mount
        self._removed: dict[int, int] = {}  # of the last ones that are gone, by id
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
        """Note the new path of a cgroup. Return its id and those of the cgroups below it, whose paths have
        changed as well."""
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
        """Note when a cgroup was removed. It is forgotten when `REMOVED_KEPT` later ones were removed."""
        if cgroup_id in self._paths:
            self._removed[cgroup_id] = time_ns
            if len(self._removed) > REMOVED_KEPT:
                oldest = next(iter(self._removed))
                del self._removed[oldest], self._paths[oldest]

    def find(self, cgroup_ids: Iterable[int]) -> dict[int, str]:
        """Return the paths of those that are known, by id.

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
        """Return when a cgroup was removed, as it was noted; None if it was not."""
        return self._removed.get(cgroup_id)

    def whole(self, cgroup_id: int, path: str, *, is_new: bool) -> str:
        """Return the path of a cgroup of which `path` is the beginning; `path` if the cgroup is gone.

        `is_new`: the path is not the one that is known of it.
        """
        if not is_new and (known := self._paths.get(cgroup_id)) is not None:
            return known
        above, _, begins = path.rpartition("/")
        found = cgroupfs.walk(self._hierarchy, above or "/", os.fsencode(begins))
        return next((one.path for one in found if one.id == cgroup_id), path)
