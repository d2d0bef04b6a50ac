"""The hierarchy of cgroups: the cgroups above and below many cgroups at once.

Two cgroups may have had the same path, one after the other. A cgroup below that path belongs to the one that
had the path when the cgroup below was made (`analysis.core.lives`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import Int64s, integers
from tracer.analysis.core.lives import Lives, made_ns
from tracer.analysis.core.tables import TraceTables


def paths_by_id(cgroups: pd.DataFrame) -> dict[int, str]:
    """Return id -> path, below the mount point of the memory controller."""
    ids = integers(cgroups["cgroup_id"]).tolist()
    return dict(zip(ids, cgroups["path"].astype(str).tolist(), strict=True))


def positions_above(cgroups: pd.DataFrame, cgroup_ids: Sequence[int]) -> dict[int, list[int]]:
    """Return id -> the positions in `cgroup_ids` of the cgroups for which a charge to it counts.

    The keys are `cgroup_ids` and all cgroups below any of them. A charge counts for the charged cgroup, whose
    position comes first, and for every cgroup above it.
    """
    paths, lives = paths_by_id(cgroups), Lives(cgroups)
    made = dict(zip(integers(cgroups["cgroup_id"]).tolist(), made_ns(cgroups).tolist(), strict=True))
    above: dict[int, list[int]] = {number: [position] for position, number in enumerate(cgroup_ids)}
    at_path: dict[str, dict[int, int]] = {}
    for position, number in enumerate(cgroup_ids):
        if number in paths:
            at_path.setdefault(paths[number].rstrip("/"), {})[number] = position
    for number, path in paths.items():
        end = len(path.rstrip("/"))
        while (end := path.rfind("/", 0, end)) >= 0:
            parents = at_path.get(path[:end])
            parent = None if parents is None else lives.parent_at(path[:end], made[number])
            if parents is not None and parent in parents:
                above.setdefault(number, []).append(parents[parent])
    return {number: positions for number, positions in above.items() if positions}


def descendants_of(cgroups: pd.DataFrame, cgroup_ids: Sequence[int]) -> dict[int, Int64s]:
    """Return id -> `Places.descendants(id)`, found in one pass for all `cgroup_ids`."""
    below: list[list[int]] = [[] for _ in cgroup_ids]
    for number, positions in sorted(positions_above(cgroups, cgroup_ids).items()):
        for position in positions:
            below[position].append(number)
    return {number: np.array(ids, np.int64) for number, ids in zip(cgroup_ids, below, strict=True)}


def members_of(trace: TraceTables, cgroup_ids: Sequence[int]) -> Int64s:
    """Return the ids of these cgroups and of all below any of them, ascending."""
    return np.unique(np.concatenate([trace.places.descendants(number) for number in cgroup_ids]))
