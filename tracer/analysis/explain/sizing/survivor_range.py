"""The range of limits for a cgroup that lived.

A limit holds as long as the memory that reclaim cannot free fits: anonymous memory and shmem (except for what
swap takes), locked page cache, kernel memory without reclaimable slab, and sockets. Other memory, mostly page
cache, only has to be read again.

`low` is the peak of the memory that reclaim cannot free, by the charge ledger. `high` adds the page cache
that the work needed: the cache that reclaim had taken and that was read again (`refaults.needed_again`), or
the cache on the active list, whichever is more, and the cache that had still to be written. It also adds
reclaimable slab, since no counter shows which part is in use (inodes and names of open files are counted
there). `high` is at most the peak of usage plus the cache that was read again. At `high` the work lives and
reads nothing again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import pandas as pd

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import Bools, integers, known, times_ns
from tracer.analysis.core.ledger import Steps
from tracer.analysis.core.limits import swap_room_of
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.explain.sizing.margins import Sized, needed_again, with_margin
from tracer.analysis.results.conclusions import Sizing
from tracer.units import size

_UNRECLAIMABLE: Final[ledger.Weights] = {
    "anon": 1,
    "shmem": 1,
    "kernel": 1,
    "slab_reclaimable": -1,
    "sock": 1,
}
"""Memory that reclaim cannot free without swap, except for locked page cache."""
_NEVER_SWAPPED: Final[ledger.Weights] = {"kernel": 1, "slab_reclaimable": -1, "sock": 1}
_LISTS: Final = ("anon_bytes", "shmem_bytes", "inactive_anon_bytes", "active_anon_bytes")
_READ: Final = (
    *("unevictable_bytes", *_LISTS, "active_file_bytes", "file_dirty_bytes", "file_writeback_bytes"),
    *("file_bytes", "swap_limit_bytes", "limit_bytes", "is_swap_limited", "is_limited"),
)


def survivor_range(subtree: Subtree, peak_usage_bytes: int | None) -> Sized:
    """Return the range for a cgroup in which nothing was killed."""
    kept = _unreclaimable(subtree)
    if kept is None or peak_usage_bytes is None:
        return Sizing(
            None
        ), "the memory that the cgroup held when the trace began, or its usage, is not known"
    swap_bytes = _swap_bytes(subtree)
    if swap_bytes is None:
        return Sizing(None), "how much swap the cgroup could use is not known"
    swapped = ledger.level(subtree, {"swap": 1})
    held = kept if swapped is None else ledger.total([kept, swapped])
    low = kept.peak() or 0
    if swap_bytes:
        fixed = ledger.level(subtree, _NEVER_SWAPPED)
        low = max((held.peak() or 0) - swap_bytes, (fixed and ledger.total([fixed]).peak()) or 0)
    again = needed_again(subtree)
    cache = ledger.largest([again, _active_file(subtree)])
    unwritten = _unwritten(subtree)
    slab = ledger.level(subtree, {"slab_reclaimable": 1}) or ledger.NOTHING
    wanted = ledger.total([held, cache, unwritten, slab]).peak() or 0
    if not wanted:
        return Sizing(None), "it held nothing"
    bound = max(peak_usage_bytes + (again.peak() or 0), held.peak() or 0)
    limits = with_margin(subtree.whole, low, min(wanted, bound))
    return Sizing(limits, tuple(_basis(limits, cache, unwritten, slab, swap_bytes))), None


def _basis(
    limits: tuple[int, int], cache: Steps, unwritten: Steps, slab: Steps, swap_bytes: int
) -> Iterator[str]:
    low, high = map(size, limits)
    swap = f" beside {size(swap_bytes)} of swap" if swap_bytes else ""
    yield f"Below {low}, memory that cannot be reclaimed does not fit{swap}."
    needed = [
        f"{size(part.peak())} of {what}"
        for part, what in (
            (cache, "page cache in active use or read again"),
            (unwritten, "page cache still to be written"),
            (slab, "reclaimable slab (some may be in use)"),
        )
        if (part.peak() or 0) * 100 > limits[1]
    ]
    room = " and ".join(needed) or "all other memory that was needed"
    yield f"At {high}, {room} fit as well, so nothing is read again."


def _unreclaimable(subtree: Subtree) -> Steps | None:
    kept = ledger.level(subtree, _UNRECLAIMABLE)
    return None if kept is None else ledger.total([kept, _locked_files(subtree)])


def _locked_files(subtree: Subtree) -> Steps:
    """Return the unevictable page cache as sampled: `unevictable` without anon and shmem that are on no
    list."""
    rows = _samples(subtree, ("unevictable_bytes", *_LISTS))
    unevictable = integers(rows["unevictable_bytes"])
    anon, shmem, inactive, active = (integers(rows[name]) for name in _LISTS)
    of_processes = np.clip(anon + shmem - inactive - active, 0, unevictable)
    return Steps(times_ns(rows), unevictable - of_processes, 0)


def _active_file(subtree: Subtree) -> Steps:
    rows = _samples(subtree, ("active_file_bytes",))
    return Steps(times_ns(rows), integers(rows["active_file_bytes"]), 0)


def _unwritten(subtree: Subtree) -> Steps:
    """Return the page cache that is dirty or under writeback, as sampled.

    The kernel counts memory that is being swapped out as under writeback; page cache is an upper bound.
    """
    rows = _samples(subtree, ("file_dirty_bytes", "file_writeback_bytes"))
    unwritten = integers(rows["file_dirty_bytes"]) + integers(rows["file_writeback_bytes"])
    cache = integers(rows["file_bytes"]) - integers(rows["shmem_bytes"], missing=0)
    is_known = known(rows["file_bytes"])
    return Steps(times_ns(rows), np.where(is_known, np.minimum(unwritten, cache), unwritten), 0)


def _samples(subtree: Subtree, columns: tuple[str, ...]) -> pd.DataFrame:
    """Return the cgroup's own samples in which all these columns are known."""

    def find() -> pd.DataFrame:
        samples = subtree.samples
        own: pd.DataFrame = samples.loc[integers(samples["cgroup_id"]) == subtree.cgroup_id, list(_READ)]
        return own

    samples = subtree.once("sizing.samples", find)
    is_known: Bools = np.logical_and.reduce([known(samples[name]) for name in columns])
    found: pd.DataFrame = samples[is_known]
    return found


def _swap_bytes(subtree: Subtree) -> int | None:
    """Return the swap that the cgroup could use beside a limit: the lesser of the machine's and its own."""
    meta = subtree.whole.meta
    machine = (meta.get("memory") or {}).get("swap_total_bytes")
    samples = _samples(subtree, ("is_swap_limited", "is_limited"))
    allowed = swap_room_of(samples.iloc[-1], meta.get("cgroup_version")) if len(samples) else None
    bounds = [bound for bound in (machine, allowed) if bound is not None]
    return min(bounds) if 0 in bounds or len(bounds) == 2 else machine
