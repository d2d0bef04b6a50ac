"""The memory of a cgroup that reclaim cannot free, as a function of time.

It is anonymous memory and shmem (except for what swap takes), locked page cache, kernel memory without
reclaimable slab, and sockets.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import Bools, Int64s, integers, known, times_ns
from tracer.analysis.core.ledger import Steps
from tracer.analysis.core.subtree import Subtree

_UNRECLAIMABLE: Final[ledger.Weights] = {
    "anon": 1,
    "shmem": 1,
    "kernel": 1,
    "slab_reclaimable": -1,
    "sock": 1,
}
"""Memory that reclaim cannot free without swap, except for locked page cache."""
_LISTS: Final = ("anon_bytes", "shmem_bytes", "inactive_anon_bytes", "active_anon_bytes")
_READ: Final = (
    *("unevictable_bytes", *_LISTS),
    *("swap_limit_bytes", "limit_bytes", "is_swap_limited", "is_limited"),
    *("effective_swap_limit_bytes", "is_effective_swap_limited"),
)


def unreclaimable(subtree: Subtree) -> Steps | None:
    """Return the memory that reclaim cannot free, in bytes; None if the trace has no value for the start."""
    kept = ledger.level(subtree, _UNRECLAIMABLE)
    return None if kept is None else ledger.total([kept, _locked_files(subtree)])


def unreclaimable_growth(subtree: Subtree, moments: Int64s) -> Int64s:
    """Return how much more memory is unreclaimable or in swap than at the start of the trace, in bytes, at
    each of the moments.

    Swapping out does not change it. It is known even if the memory at the start is not.
    """
    change = ledger.change(subtree, {**_UNRECLAIMABLE, "swap": 1})
    return change.at_each(moments) + _locked_files(subtree).at_each(moments)


def growth_within(subtree: Subtree, begin_ns: int, end_ns: int) -> int:
    """Return by how much memory that is unreclaimable or in swap grew in an interval, in bytes: its peak in
    the last third less that in the first; 0 if it shrank.

    Peaks are compared because memory of short-lived processes comes and goes.
    """
    third = (end_ns - begin_ns) // 3
    change = ledger.change(subtree, {**_UNRECLAIMABLE, "swap": 1})
    peaks = []
    for first, last in ((begin_ns, begin_ns + third), (end_ns - third, end_ns)):
        inside = change.times[(change.times >= first) & (change.times < last)]
        peaks.append(int(unreclaimable_growth(subtree, np.append(inside, [first, last])).max()))
    return max(peaks[1] - peaks[0], 0)


def own_samples(subtree: Subtree, columns: tuple[str, ...]) -> pd.DataFrame:
    """Return the cgroup's own samples in which all these columns are known."""

    def find() -> pd.DataFrame:
        samples = subtree.samples
        own: pd.DataFrame = samples.loc[integers(samples["cgroup_id"]) == subtree.cgroup_id, list(_READ)]
        return own

    samples = subtree.once("sizing.samples", find)
    is_known: Bools = np.logical_and.reduce([known(samples[name]) for name in columns])
    found: pd.DataFrame = samples[is_known]
    return found


def _locked_files(subtree: Subtree) -> Steps:
    """Return the unevictable page cache as sampled: `unevictable` without anon and shmem that are on no
    list."""
    rows = own_samples(subtree, ("unevictable_bytes", *_LISTS))
    unevictable = integers(rows["unevictable_bytes"])
    anon, shmem, inactive, active = (integers(rows[name]) for name in _LISTS)
    of_processes = np.clip(anon + shmem - inactive - active, 0, unevictable)
    return Steps(times_ns(rows), unevictable - of_processes, 0)
