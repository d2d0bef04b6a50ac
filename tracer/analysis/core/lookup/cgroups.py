"""The cgroups of a trace, looked up one at a time: paths, lives, containers, descendants."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import cached_property
from typing import Final

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import Int64s, column_times_ns, integers, known
from tracer.analysis.core.lives import Container, Lives, containers, made_ns

_FOREVER: Final = np.iinfo(np.int64).max


class Places:
    """The table `cgroups`, by id and by path."""

    def __init__(self, cgroups: pd.DataFrame) -> None:
        self._cgroups = cgroups
        self._ids = integers(cgroups["cgroup_id"])
        self._paths = cgroups["path"].astype(str).tolist()
        self._row = {number: row for row, number in enumerate(self._ids.tolist())}
        self._order = np.array(sorted(range(len(self._paths)), key=self._paths.__getitem__), dtype=np.int64)
        self._sorted = sorted(self._paths)
        removed = cgroups["removed"]
        self._made_ns = made_ns(cgroups)
        self._left_ns = np.where(known(removed), column_times_ns(removed), _FOREVER)

    @cached_property
    def _containers(self) -> list[Container]:
        return containers(self._cgroups)

    @cached_property
    def lives(self) -> Lives:
        """Return the cgroups by name and run."""
        return Lives(self._cgroups)

    def path_of(self, cgroup_id: int | None) -> str | None:
        """Return the path below the mount point of the memory controller; None if the trace has no path."""
        row = None if cgroup_id is None else self._row.get(cgroup_id)
        return None if row is None else str(self._paths[row])

    def label_of(self, cgroup_id: int) -> str:
        """Return the path, or `id:N` if the trace has no path."""
        return self.path_of(cgroup_id) or f"id:{cgroup_id}"

    def lifetime_ns(self, cgroup_id: int) -> tuple[int, int]:
        """Return when the cgroup was made and removed, in ns since the epoch.

        An unknown creation is 0, an unknown removal the largest int64.
        """
        row = self._row.get(cgroup_id)
        return (0, _FOREVER) if row is None else (int(self._made_ns[row]), int(self._left_ns[row]))

    def container_of(self, cgroup_id: int | None) -> tuple[str | None, str | None]:
        """Return (the container's name, or else its id; the pod's name); None: not known."""
        row = None if cgroup_id is None else self._row.get(cgroup_id)
        if row is None:
            return None, None
        container = self._containers[row]
        return container.name or container.container_id, container.pod

    def origin_of(self, cgroup_id: int | None) -> tuple[str | None, str | None]:
        """Return (the pod's namespace, the container's image); None: not known."""
        row = None if cgroup_id is None else self._row.get(cgroup_id)
        return (None, None) if row is None else (self._containers[row].namespace, self._containers[row].image)

    def id_at(self, path: str, time_ns: int) -> int | None:
        """Return the id of the cgroup that had this path at that time, None if there was none."""
        first, end = bisect_left(self._sorted, path), bisect_right(self._sorted, path)
        rows = self._order[first:end]
        rows = rows[(self._made_ns[rows] <= time_ns) & (self._left_ns[rows] >= time_ns)]
        return int(self._ids[rows[-1]]) if len(rows) else None

    def descendants(self, cgroup_id: int) -> Int64s:
        """Return the ids of the cgroup and of every cgroup below it, ascending.

        If several cgroups had the path, one after the other, a cgroup below it belongs to the last one that
        was made before it.
        """
        own, path = np.array([cgroup_id], dtype=np.int64), self.path_of(cgroup_id)
        if path is None:
            return own
        # Paths that begin with "/a/" sort before "/a0", because "0" follows "/" in ASCII.
        stem = path.rstrip("/")
        first, end = (bisect_left(self._sorted, stem + sign) for sign in ("/", "0"))
        rows = self._order[first:end]
        if self.lives.is_reused(path):
            made = self._made_ns[rows].tolist()
            rows = rows[[self.lives.parent_at(path, moment) == cgroup_id for moment in made]]
        return np.union1d(self._ids[rows], own)
