"""The lives of a name, and the cgroups of a trace, looked up one at a time.

A container that restarts has one cgroup after the other, and each of them is a life.

If a cgroup's container is known, its name consists of the container, the namespace, the pod, and the path
below the container's own cgroup. Otherwise the name is the path of the cgroup. The *run* of a cgroup is its
ordinal, from 1, among the cgroups of its name in the order of their creation.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import Int64s, column_times_ns, integers, known, optional_text

_Key = tuple[str | None, str | None, str, str]
"""(namespace, pod, container or path, path below the container's own cgroup)"""


@dataclass(frozen=True, slots=True)
class Life:
    """One cgroup out of `runs` with the same name. `name` is spelt as the kernel or the runtime spells it."""

    cgroup_id: int
    name: str
    run: int
    runs: int


class Lives:
    """The cgroups of a trace by name and run."""

    def __init__(self, cgroups: pd.DataFrame) -> None:
        self._ids = integers(cgroups["cgroup_id"]).tolist()
        self._paths = cgroups["path"].astype(str).tolist()
        self._made_ns = made_ns(cgroups).tolist()
        order = sorted(range(len(self._ids)), key=lambda row: (self._made_ns[row], row))
        self._at_path: dict[str, list[int]] = {}
        for row in order:
            self._at_path.setdefault(self._paths[row].rstrip("/"), []).append(row)
        self._life = self._lives(_keys(cgroups, self._paths), order)

    def life_for(self, cgroup_id: int) -> Life:
        """Return the life of a cgroup. A cgroup without a name in the trace is run 1 of 1, and its id is its
        name."""
        return self._life.get(cgroup_id) or Life(cgroup_id, f"id:{cgroup_id}", 1, 1)

    def parent_at(self, path: str, made_ns: int) -> int | None:
        """Return the id of the cgroup that had this path when a cgroup was made below it at `made_ns`.

        It is the last one that was made by then, else the first one; None if no cgroup had the path.
        """
        rows = self._at_path.get(path.rstrip("/"), [])
        if not rows:
            return None
        earlier = bisect_right(rows, made_ns, key=self._made_ns.__getitem__)
        return int(self._ids[rows[max(earlier - 1, 0)]])

    def is_reused(self, path: str) -> bool:
        """Return whether several cgroups had this path, one after the other."""
        return len(self._at_path.get(path.rstrip("/"), [])) > 1

    def in_order(self, cgroup_ids: Sequence[int]) -> list[int]:
        """Return the ids with the lives of one name together, ordered by run.

        Names are ordered by their first occurrence in `cgroup_ids`.
        """
        lives = [self.life_for(number) for number in cgroup_ids]
        first: dict[object, int] = {}
        for position, life in enumerate(lives):
            first.setdefault(self._name(life), position)
        return [life.cgroup_id for life in sorted(lives, key=lambda one: (first[self._name(one)], one.run))]

    def by_name(self, cgroup_ids: Sequence[int]) -> list[list[Life]]:
        """Return the lives in the order of `in_order`, a list for each name."""
        found: dict[object, list[Life]] = {}
        for number in self.in_order(cgroup_ids):
            life = self.life_for(number)
            found.setdefault(self._name(life), []).append(life)
        return list(found.values())

    def _name(self, life: Life) -> object:
        return self._key.get(life.cgroup_id, life.cgroup_id)

    def _lives(self, keys: Sequence[_Key], order: Sequence[int]) -> dict[int, Life]:
        self._key = dict(zip(self._ids, keys, strict=True))
        rows_of: dict[_Key, list[int]] = {}
        for row in order:
            rows_of.setdefault(keys[row], []).append(row)
        return {
            self._ids[row]: Life(self._ids[row], "/".join(filter(None, key[2:])), run, len(rows))
            for key, rows in rows_of.items()
            for run, row in enumerate(rows, start=1)
        }


def made_ns(cgroups: pd.DataFrame) -> Int64s:
    """Return when each cgroup was made, in ns since the epoch; 0 if it is older than the trace."""
    return np.where(known(cgroups["created"]), column_times_ns(cgroups["created"]), 0)


class Container(NamedTuple):
    """The container of a cgroup, by its row of `cgroups`; None: not known."""

    name: str | None
    container_id: str | None
    pod: str | None
    namespace: str | None
    image: str | None


def containers(cgroups: pd.DataFrame) -> list[Container]:
    """Return the container of each row.

    A container that crashes may be gone before its runtime is asked for its name. The path contains the
    container's id, so a name that is known for one cgroup holds for all cgroups with the same path.
    """
    columns = ("container", "container_id", "pod", "namespace", "image")
    cells = ([optional_text(cell) for cell in cgroups[name]] for name in columns)
    rows = [Container(*row) for row in zip(*cells, strict=True)]
    paths = cgroups["path"].astype(str).tolist()
    at_path = {path: row for path, row in zip(paths, rows, strict=True) if row.name is not None}
    return [at_path.get(path, row) for path, row in zip(paths, rows, strict=True)]


def _keys(cgroups: pd.DataFrame, paths: Sequence[str]) -> list[_Key]:
    return [
        (None, None, path, "")
        if row.name is None
        else (row.namespace, row.pod, row.name, below_container(path, row.container_id))
        for path, row in zip(paths, containers(cgroups), strict=True)
    ]


def below_container(path: str, container_id: str | None) -> str:
    """Return the part of the path below the last component that contains the container's id."""
    if container_id is None:
        return ""
    _, found, rest = path.rpartition(container_id)
    return rest.partition("/")[2] if found else ""


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
        self._made_ns, self._is_made = made_ns(cgroups), known(cgroups["created"])
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

    def is_made(self, cgroup_id: int) -> bool:
        """Return whether the cgroup was made during the trace."""
        row = self._row.get(cgroup_id)
        return row is not None and bool(self._is_made[row])

    def container_of(self, cgroup_id: int | None) -> tuple[str | None, str | None]:
        """Return (the container's name, or else its id; the pod's name); None: not known."""
        row = None if cgroup_id is None else self._row.get(cgroup_id)
        if row is None:
            return None, None
        container = self._containers[row]
        return container.name or container.container_id, container.pod

    def named_container_of(self, cgroup_id: int) -> Container | None:
        """Return all names of the container of a cgroup; None if the trace does not have the cgroup."""
        row = self._row.get(cgroup_id)
        return None if row is None else self._containers[row]

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
