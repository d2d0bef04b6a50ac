"""The lives of a name: a container that restarts has one cgroup after the other, and each is a life of it.

A name is the container's where it is known, with its pod and what lies below its own cgroup; else it is the
path. The *run* of a cgroup is its ordinal among those of its name, from 1, in the order of creation.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import Int64s, column_times_ns, integers, known, optional_text

_Key = tuple[str | None, str | None, str, str]
"""(namespace, pod, container or path, what lies below the container's own cgroup)"""


@dataclass(frozen=True, slots=True)
class Life:
    """One cgroup of `runs` that had the same name. `name` is as it came from the kernel or a runtime."""

    cgroup_id: int
    name: str
    run: int
    runs: int


class Lives:
    """Which run of which name each cgroup of a trace is."""

    def __init__(self, cgroups: pd.DataFrame) -> None:
        self._ids = integers(cgroups["cgroup_id"]).tolist()
        self._paths = cgroups["path"].astype(str).tolist()
        self._made_ns = made_ns(cgroups).tolist()
        order = sorted(range(len(self._ids)), key=lambda row: (self._made_ns[row], row))
        self._at_path: dict[str, list[int]] = {}
        for row in order:
            self._at_path.setdefault(self._paths[row].rstrip("/"), []).append(row)
        self._life = self._lives(_keys(cgroups, self._paths), order)

    def of(self, cgroup_id: int) -> Life:
        """A cgroup that the trace has no name of is the one run of its id."""
        return self._life.get(cgroup_id) or Life(cgroup_id, f"id:{cgroup_id}", 1, 1)

    def under(self, path: str, made_ns: int) -> int | None:
        """The cgroup with this path that one made then below it belongs to: the last that was made before it,
        else the first; None where no cgroup had the path."""
        rows = self._at_path.get(path.rstrip("/"), [])
        if not rows:
            return None
        earlier = bisect_right(rows, made_ns, key=self._made_ns.__getitem__)
        return int(self._ids[rows[max(earlier - 1, 0)]])

    def is_succeeded(self, path: str) -> bool:
        """Whether several cgroups had this path, one after the other."""
        return len(self._at_path.get(path.rstrip("/"), [])) > 1

    def in_order(self, cgroup_ids: Sequence[int]) -> list[int]:
        """The names in the order of the first of each, and of each name its lives one after the other."""
        lives = [self.of(number) for number in cgroup_ids]
        first: dict[object, int] = {}
        for position, life in enumerate(lives):
            first.setdefault(self._name(life), position)
        return [life.cgroup_id for life in sorted(lives, key=lambda one: (first[self._name(one)], one.run))]

    def by_name(self, cgroup_ids: Sequence[int]) -> list[list[Life]]:
        """These lives, those of one name together, as `in_order` has them."""
        found: dict[object, list[Life]] = {}
        for number in self.in_order(cgroup_ids):
            life = self.of(number)
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
    """When each was made, in ns since the epoch; 0 for those that were there before the trace began."""
    return np.where(known(cgroups["created"]), column_times_ns(cgroups["created"]), 0)


class Container(NamedTuple):
    """What a cgroup's row tells of its container; None: not known."""

    name: str | None
    container_id: str | None
    pod: str | None
    namespace: str | None


def containers(cgroups: pd.DataFrame) -> list[Container]:
    """One for each row. A runtime may be slower than a container that crashes: what one life of a path tells
    holds for all of it, since the path has the container's id."""
    columns = ("container", "container_id", "pod", "namespace")
    cells = ([optional_text(cell) for cell in cgroups[name]] for name in columns)
    rows = [Container(*row) for row in zip(*cells, strict=True)]
    paths = cgroups["path"].astype(str).tolist()
    of_path = {path: row for path, row in zip(paths, rows, strict=True) if row.name is not None}
    return [of_path.get(path, row) for path, row in zip(paths, rows, strict=True)]


def _keys(cgroups: pd.DataFrame, paths: Sequence[str]) -> list[_Key]:
    return [
        (None, None, path, "")
        if row.name is None
        else (row.namespace, row.pod, row.name, _below(path, row.container_id))
        for path, row in zip(paths, containers(cgroups), strict=True)
    ]


def _below(path: str, container_id: str | None) -> str:
    """What of the path lies below the last component that has the container's id in it."""
    if container_id is None:
        return ""
    _, found, rest = path.rpartition(container_id)
    return rest.partition("/")[2] if found else ""
