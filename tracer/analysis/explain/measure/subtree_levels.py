"""The cgroups at and below a limit, one by one: the level of each, and when it was removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from tracer.analysis.core import hierarchy, ledger, naming
from tracer.analysis.core.columns import (
    Bools,
    ColumnArrays,
    Int64s,
    column_times_ns,
    integers,
    is_one_of,
    known,
    times_ns,
)
from tracer.analysis.core.index import RowsByThing, RunningSums
from tracer.analysis.core.limits import kernel_numbers
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import unrecorded_categories
from tracer.schema import LIMITS

_NEVER: Final = np.iinfo(np.int64).max
_BOUNDS: Final = ("limit_bytes", "swap_limit_bytes", "effective_swap_limit_bytes", "swap_room_bytes")
_SWAP_LIMITS: Final = (*_BOUNDS, *(LIMITS[name] for name in _BOUNDS), "swap_bound_levels")


@dataclass(frozen=True, slots=True)
class SubtreeLevels:
    """The cgroups of a subtree, each by its position in `members`; `owner` is the position of its top.

    `children` are the cgroups right below the owner. `paths` numbers the paths of all cgroups; `parents` has
    the number of each path's parent, -1 if no cgroup has that path. `counts_for` holds pairs of positions: a
    charge to the cgroup in row 0 counts for the cgroup in row 1, which is the same or above it. `read` has
    the times of the samples, which are readings of files, and `swap_limits` their limits of memory and swap.
    `kept_bytes` is the usage in each sample that memory.min protects. Memory under memory.low is not in it:
    the kernel reclaims that before a kill (shrink_node_memcgs and memcg_low_skipped in mm/vmscan.c).
    """

    members: Int64s
    owner: int
    labels: list[str]
    children: Int64s
    paths: Int64s
    parents: Int64s
    removed_ns: Int64s
    counts_for: Int64s
    charged: RunningSums
    base: Int64s
    is_known: Bools
    swap_limits: ColumnArrays
    kept_bytes: Int64s
    read: RowsByThing

    @classmethod
    def from_subtree(cls, subtree: Subtree) -> SubtreeLevels:
        """Index the rows of a subtree by cgroup."""
        members, charges = subtree.members, subtree.charges
        ids = members.tolist()
        labels = naming.labels_of(subtree.cgroups, ids)
        numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
        owner = ids.index(subtree.cgroup_id)
        depth = len(labels[owner].rstrip("/").split("/")) + 1 if labels[owner].startswith("/") else None
        charged, bytes_ = charges.weighted(ledger.CHARGED)
        unrecorded = unrecorded_categories(subtree.whole)
        base, is_known = ledger.base_levels(subtree.samples, subtree.cgroups, ids, ledger.CHARGED, unrecorded)
        samples = subtree.samples[~is_one_of(subtree.samples["source"], ["oom"])]
        return cls(
            members=members,
            owner=owner,
            labels=labels,
            children=np.array([i for i, one in enumerate(labels) if len(one.split("/")) == depth], np.int64),
            paths=np.array([numbers[label] for label in labels]),
            parents=np.array([numbers.get(label.rpartition("/")[0], -1) for label in labels]),
            removed_ns=_removed_ns(subtree.cgroups, members),
            counts_for=_counts_for(subtree.cgroups, ids),
            charged=RunningSums.from_rows(
                charges.time[charged],
                np.searchsorted(members, charges.cgroup_id[charged]),
                bytes_[charged],
                len(ids),
            ),
            base=base,
            is_known=is_known,
            swap_limits=ColumnArrays.from_frame(samples, _SWAP_LIMITS),
            kept_bytes=np.minimum(
                *(integers(kernel_numbers(samples, name), missing=0) for name in ("min_bytes", "usage_bytes"))
            ),
            read=RowsByThing.from_rows(
                times_ns(samples), np.searchsorted(members, integers(samples["cgroup_id"])), len(ids)
            ),
        )

    def levels_at(self, time_ns: int) -> Int64s:
        """Return the level of each cgroup with all below it, in bytes; without meaning where `is_known` is
        False."""
        levels = self.base.copy()
        of, counts_for = self.counts_for
        np.add.at(levels, counts_for, self.charged.sums_at(time_ns)[of])
        return levels

    def gone_tops(self, time_ns: int) -> Int64s:
        """Return the positions of removed cgroups, without those below another removed one."""
        gone = self.removed_ns <= time_ns
        # The last element is for parents without a cgroup, whose position is -1.
        is_path_of_gone = np.zeros(len(self.members) + 1, dtype=bool)
        is_path_of_gone[self.paths[gone]] = True
        return np.flatnonzero(gone & ~is_path_of_gone[self.parents])

    def positions_above(self, cgroup_id: int) -> set[int]:
        """Return the positions of a cgroup and of those above it; empty if it is not a member."""
        of, counts_for = self.counts_for
        return set(counts_for[self.members[of] == cgroup_id].tolist())


def _removed_ns(cgroups: pd.DataFrame, members: Int64s) -> Int64s:
    removed = np.full(len(members), _NEVER)
    was_seen = known(cgroups["removed"])
    position = np.searchsorted(members, integers(cgroups["cgroup_id"])[was_seen])
    np.minimum.at(removed, position, column_times_ns(cgroups["removed"])[was_seen])
    return removed


def _counts_for(cgroups: pd.DataFrame, ids: list[int]) -> Int64s:
    above = hierarchy.positions_above(cgroups, ids)
    pairs = [(of, one) for of, number in enumerate(ids) for one in above[number]]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2).T
