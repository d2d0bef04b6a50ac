"""A cgroup's memory as step functions of time, out of the `charge` table.

The rows of that table are signed changes of the cgroup that was charged itself; memory.stat and the page
counter are hierarchical. So the level of a cgroup is what it was at the start plus the running sum over the
cgroup and everything below it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from tracer.analysis import names
from tracer.analysis.tables import (
    Bools,
    Int64s,
    TraceTables,
    integers,
    is_one_of,
    known,
    times_ns,
)

Weights = Mapping[str, int]

ANON: Final[Weights] = {"anon": 1}
CACHE: Final[Weights] = {"file": 1, "shmem": -1}
"""Page cache with a file behind it: NR_FILE_PAGES contains shmem, which reclaim cannot just drop."""
NOT_CACHE: Final[Weights] = {"anon": 1, "shmem": 1, "kernel": 1, "sock": 1}


@dataclass(frozen=True, slots=True)
class Steps:
    """A quantity that changes at `times` (ns, ascending) to `values`; before the first it is `before`."""

    times: Int64s
    values: Int64s
    before: int | None

    def at(self, time_ns: int) -> int | None:
        """The value at a moment, changes at that very moment included."""
        position = int(np.searchsorted(self.times, time_ns, side="right"))
        return self.before if position == 0 else int(self.values[position - 1])

    def within(self, begin_ns: int, end_ns: int) -> Steps:
        """The same quantity from `begin_ns` to `end_ns`, both included."""
        first = int(np.searchsorted(self.times, begin_ns, side="left"))
        last = int(np.searchsorted(self.times, end_ns, side="right"))
        before = self.before if first == 0 else int(self.values[first - 1])
        return Steps(self.times[first:last], self.values[first:last], before)

    def peak(self) -> int | None:
        """The greatest value, `before` included."""
        candidates = [] if self.before is None else [self.before]
        if len(self.values):
            candidates.append(int(self.values.max()))
        return max(candidates, default=None)

    def least(self) -> int | None:
        """The least value, `before` included."""
        candidates = [] if self.before is None else [self.before]
        if len(self.values):
            candidates.append(int(self.values.min()))
        return min(candidates, default=None)


NOTHING: Final = Steps(np.array([], dtype=np.int64), np.array([], dtype=np.int64), 0)


def total(parts: Sequence[Steps]) -> Steps:
    """The sum of quantities, each of which counts as 0 before anything is known of it. Of several changes at
    one moment only the last counts."""
    return _merged(parts, np.add)


def largest(parts: Sequence[Steps]) -> Steps:
    """At each moment the greatest of the quantities, taken likewise."""
    return _merged(parts, np.maximum)


def _merged(parts: Sequence[Steps], combine: np.ufunc) -> Steps:
    times = np.unique(np.concatenate([part.times for part in parts]))
    values, before = np.zeros(len(times), dtype=np.int64), 0
    for part in parts:
        earlier = part.before or 0
        position = np.searchsorted(part.times, times, side="right")
        values = combine(values, np.concatenate([[earlier], part.values])[position])
        before = int(combine(before, earlier))
    return Steps(times, values, before)


def level(trace: TraceTables, cgroup_id: int, members: Int64s, weights: Weights) -> Steps | None:
    """The weighted sum of categories of the cgroup and its descendants, in bytes; None when the trace does
    not say what it was at the start."""
    base = base_bytes(trace, cgroup_id, weights)
    return None if base is None else change(trace, members, weights, base)


def change(trace: TraceTables, members: Int64s, weights: Weights, base: int = 0) -> Steps:
    """The same as a change since the start of the trace (or above `base`), which is always known."""
    charge = trace.charge
    rows = is_one_of(charge["category"], weights) & is_one_of(charge["cgroup_id"], members.tolist())
    picked = charge[rows]
    factor = np.zeros(len(picked), dtype=np.int64)
    for category, weight in weights.items():
        factor[is_one_of(picked["category"], [category])] = weight
    return Steps(times_ns(picked), base + np.cumsum(integers(picked["bytes"]) * factor), base)


def base_bytes(trace: TraceTables, cgroup_id: int, weights: Weights) -> int | None:
    """The weighted sum at the start of the trace: of the cgroup's `start` sample, or zero where the cgroup
    was made during the trace. None: not known."""
    (base,), (is_known,) = base_levels(trace, [cgroup_id], weights)
    return int(base) if is_known else None


def base_levels(trace: TraceTables, cgroup_ids: Sequence[int], weights: Weights) -> tuple[Int64s, Bools]:
    """(`base_bytes` of each of the cgroups, 0 where it is not known; where it is known)."""
    samples, ids = trace.samples, np.array(cgroup_ids, dtype=np.int64)
    starts = np.flatnonzero(
        is_one_of(samples["source"], ["start"]) & is_one_of(samples["cgroup_id"], cgroup_ids)
    )
    sampled_ids, firsts = np.unique(integers(samples["cgroup_id"].iloc[starts]), return_index=True)
    row = pd.Index(sampled_ids).get_indexer(pd.Index(ids))
    base = np.zeros(len(ids), dtype=np.int64)
    sampled = row >= 0
    is_known = sampled.copy()
    for category, weight in weights.items():
        value = samples[f"{category}_bytes"].iloc[starts[firsts]]
        base[sampled] += weight * integers(value, missing=0)[row[sampled]]
        is_known[sampled] &= known(value)[row[sampled]]
    is_known |= ~sampled & made_in_trace(trace.cgroups, ids)
    return np.where(is_known, base, 0), is_known


def levels_at(
    trace: TraceTables, cgroup_ids: Sequence[int], weights: Weights, time_ns: int
) -> dict[int, int | None]:
    """`level` of each of these cgroups at one moment, in one pass for all of them; None: not known."""
    base, is_known = base_levels(trace, cgroup_ids, weights)
    levels = base.tolist()
    charge = trace.charge.iloc[: int(np.searchsorted(times_ns(trace.charge), time_ns, side="right"))]
    picked = charge[is_one_of(charge["category"], weights)]
    factor = picked["category"].astype(object).map(dict(weights)).to_numpy(dtype=np.int64)
    changes = pd.Series(integers(picked["bytes"]) * factor).groupby(integers(picked["cgroup_id"])).sum()
    for number, positions in names.positions_above(trace.cgroups, cgroup_ids).items():
        for position in positions:
            levels[position] += int(changes.get(number, 0))
    return {
        number: level if known_ else None
        for number, level, known_ in zip(cgroup_ids, levels, is_known.tolist(), strict=True)
    }


def made_in_trace(cgroups: pd.DataFrame, cgroup_ids: Int64s) -> Bools:
    """Which of the cgroups were made during the trace."""
    return np.isin(cgroup_ids, integers(cgroups["cgroup_id"])[known(cgroups["created"])])


def counter(trace: TraceTables, cgroup_id: int, column: str) -> Steps:
    """`usage_bytes` or `limit_bytes` of the cgroup's own page counter (struct mem_cgroup, memory) wherever a
    charge row or a sample read it; None before the first reading."""
    times, values = [], []
    for table in (trace.charge, trace.samples):
        rows = table[(integers(table["cgroup_id"]) == cgroup_id) & known(table[column])]
        times.append(times_ns(rows))
        values.append(integers(rows[column]))
    merged_times, merged = np.concatenate(times), np.concatenate(values)
    order = np.argsort(merged_times, kind="stable")
    return Steps(merged_times[order], merged[order], None)


def count(trace: TraceTables, cgroup_id: int, column: str) -> Steps:
    """A running count of memory.stat (`schema.MEMORY_STAT_COUNTS`) as the samples read it.

    A reading can lag behind an earlier one where the kernel had not yet folded its per-CPU parts together
    (mm/memcontrol.c, mem_cgroup_flush_stats); the count itself never falls, so neither does this.
    """
    samples = trace.samples
    rows = samples[(integers(samples["cgroup_id"]) == cgroup_id) & known(samples[column])]
    before = 0 if made_in_trace(trace.cgroups, np.array([cgroup_id])).any() else None
    return Steps(times_ns(rows), np.maximum.accumulate(integers(rows[column])), before)
