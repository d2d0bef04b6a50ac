"""The memory of a cgroup that reclaim cannot free, and the swap that could take some of it.

Reclaim cannot free anonymous memory and shmem (except for what swap takes), locked page cache, kernel memory
without reclaimable slab, and sockets.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import (
    Bools,
    Int64s,
    integers,
    is_one_of,
    known,
    swap_room_of,
)
from tracer.analysis.core.evicted import is_evicted
from tracer.analysis.core.ledger import Steps
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import TraceTables, end_ns, page_size

_UNRECLAIMABLE: Final[ledger.Weights] = {
    "anon": 1,
    "shmem": 1,
    "kernel": 1,
    "slab_reclaimable": -1,
    "sock": 1,
}
"""Memory that reclaim cannot free without swap, except for locked page cache."""
_OF_CACHE_DIVISOR: Final = 32
_READ: Final = (
    *("swap_limit_bytes", "limit_bytes", "is_swap_limited", "is_limited"),
    *("effective_swap_limit_bytes", "is_effective_swap_limited"),
)


def unreclaimable(subtree: Subtree) -> Steps | None:
    """Return the memory that reclaim cannot free, in bytes; None if the trace has no value for the start."""
    kept = ledger.level(subtree, _UNRECLAIMABLE)
    return None if kept is None else ledger.total([kept, ledger.locked_files(subtree)])


def _with_swap(subtree: Subtree) -> ledger.Weights:
    """Return `_UNRECLAIMABLE` and swap, which has counted what zswap keeps in memory."""
    own = ledger.own_weights(subtree)
    return {**own, "slab_reclaimable": own.get("slab_reclaimable", 0) - 1, "swap": 1}


def unreclaimable_growth(subtree: Subtree, moments: Int64s) -> Int64s:
    """Return how much more memory is unreclaimable or in swap than at the start of the trace, in bytes, at
    each of the moments.

    Swapping out does not change it, to zswap neither. It is known even if the memory at the start is not.
    """
    change = ledger.change(subtree, _with_swap(subtree))
    counted = change.at_each(moments) + ledger.locked_files(subtree).at_each(moments)
    return counted - ledger.swap_cache(subtree).at_each(moments)


def growth_within(subtree: Subtree, begin_ns: int, end_ns: int) -> int:
    """Return by how much memory that is unreclaimable or in swap grew in an interval, in bytes: its peak in
    the last third less that in the first; 0 if it shrank.

    Peaks are compared because memory of short-lived processes comes and goes.
    """
    third = (end_ns - begin_ns) // 3
    change = ledger.change(subtree, _with_swap(subtree))
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


def in_reading_bytes(subtree: Subtree, *, by_faults: bool = True) -> int:
    """Return the most page cache that a disk may have been reading at a time, in bytes: twice the largest run
    that was read, because the next readahead begins while the previous one is read.

    A run is at least a whole readahead, unless it has holes, and at most all that was read within 10 ms.
    `by_faults`: runs that page faults read count as well.
    """
    read = subtree.once_for_all("sizing.read", lambda: _read_by_cgroup(subtree.whole))
    own = read[np.isin(integers(read["cgroup_id"]), subtree.members)]
    if not by_faults:
        own = own[~own["is_by_faults"]]
    largest, whole = int(own["largest"].max() if len(own) else 0), int(own["pages"].sum())
    return min(2 * largest, whole) * page_size(subtree.whole)


def read_around_bytes(subtree: Subtree) -> int:
    """Return the most that a page fault may read around its page with more room, in bytes: the largest run
    that one read, or what the cgroup never held of the files in which they read, if that is less.

    A page fault also reads the pages around, unless most faults in a file found no page in memory
    (do_sync_mmap_readahead() in mm/filemap.c): then it reads one page.
    """
    read = subtree.once_for_all("sizing.read", lambda: _read_by_cgroup(subtree.whole))
    own = read[np.isin(integers(read["cgroup_id"]), subtree.members) & read["is_by_faults"]]
    page, largest = page_size(subtree.whole), int(own["largest"].max() if len(own) else 0)
    never_held = _never_held_pages(subtree, page) if largest else None
    return min(largest, largest if never_held is None else never_held) * page


def _never_held_pages(subtree: Subtree, page: int) -> int | None:
    """Return the pages that a cgroup never held of the files in which its page faults read.

    None: the size of a file is not known, or the file was written in the trace, by any cgroup: its last known
    size may be too small, and a page may have been added twice.
    """
    kinds, totals = subtree.whole.cache_events.kinds, subtree.whole.page_moves.totals
    is_own = np.isin(integers(kinds["cgroup_id"]), subtree.members)
    by_fault, by_write = (
        is_one_of(kinds["op"], ["add"]) & is_one_of(kinds["cause"], [cause]) for cause in ("fault", "write")
    )
    files = np.unique(totals["file"][(is_own & by_fault)[totals["kind"]]])
    if np.isin(files, totals["file"][by_write[totals["kind"]]]).any():
        return None
    # A page that it held was there at the end or was evicted for good. Pages dropped otherwise do not count.
    stayed = totals["left"] + np.where(is_evicted(kinds)[totals["kind"]], totals["pages"], 0)
    held = np.where(is_own[totals["kind"]], stayed - totals["returned"], 0)
    held_of_files = np.bincount(totals["file"], held, len(subtree.whole.cache_events.files))[files]
    inodes = subtree.whole.inodes
    sizes = dict(
        zip(integers(inodes["inode_id"]).tolist(), integers(inodes["size_bytes"]).tolist(), strict=True)
    )
    ids = integers(subtree.whole.cache_events.files["inode_id"])[files].tolist()
    pages = np.array([-(-sizes.get(number, 0) // page) for number in ids], dtype=np.int64)
    is_known = (pages > 0) & (pages >= held_of_files)
    return int((pages - held_of_files).sum()) if is_known.all() else None


def _read_by_cgroup(trace: TraceTables) -> pd.DataFrame:
    """Return a row for each kind of event that is a read: its `cgroup_id`, whether it `is_by_faults`, the sum
    of the `pages` of its events, and the `largest` of them."""
    events = trace.cache_events
    kinds = events.kinds
    is_read = is_one_of(kinds["op"], ["add"]) & is_one_of(kinds["cause"], ["read", "readahead", "fault"])
    largest, pages = (np.zeros(len(kinds), dtype=np.int64) for _ in range(2))
    for some in events.recorded(is_read):
        np.maximum.at(largest, some.kind, some.pages.astype(np.int64))
        np.add.at(pages, some.kind, some.pages.astype(np.int64))
    columns = {
        "cgroup_id": integers(kinds["cgroup_id"]),
        "is_by_faults": is_one_of(kinds["cause"], ["fault"]),
        "largest": largest,
        "pages": pages,
    }
    return pd.DataFrame(columns)[is_read]


_NEVER_SWAPPED: Final[ledger.Weights] = {"kernel": 1, "slab_reclaimable": -1, "sock": 1}
SWAP_ROOM_NOT_KNOWN: Final = "how much swap the cgroup could use is not known"


def swapped_out(subtree: Subtree) -> Steps | None:
    """Return the memory that was in swap, in bytes, without what `anon` counts as well; None if it is not
    known what was there at the start."""
    swapped = ledger.level(subtree, {"swap": 1})
    return None if swapped is None else ledger.total([swapped, ledger.swap_cache(subtree).negative()])


def with_swapped(subtree: Subtree, kept: Steps) -> Steps:
    """Return `unreclaimable` memory with the memory that was in swap, in bytes."""
    swapped = swapped_out(subtree)
    return kept if swapped is None else ledger.total([kept, swapped])


def never_swapped_bytes(subtree: Subtree) -> int:
    """Return the peak of the kernel memory and sockets that no swap takes, in bytes; 0 if it is not known."""
    fixed = ledger.level(subtree, _NEVER_SWAPPED)
    return (fixed and ledger.total([fixed]).peak()) or 0


def swap_room_bytes(subtree: Subtree) -> int | None:
    """Return the swap that the cgroup could use beside a limit, in bytes: the lesser of the machine's and its
    own. None: not known."""
    meta = subtree.whole.meta
    machine = (meta.get("memory") or {}).get("swap_total_bytes")
    samples = own_samples(subtree, ("is_swap_limited", "is_limited"))
    allowed = swap_room_of(samples.iloc[-1], meta.get("cgroup_version")) if len(samples) else None
    bounds = [bound for bound in (machine, allowed) if bound is not None]
    return min(bounds) if 0 in bounds or len(bounds) == 2 else machine


def unwritten(subtree: Subtree) -> Steps:
    """Return the page cache that was dirty or in writeback over time, in bytes, by the cgroup's samples."""
    return ledger.sampled(subtree, ("file_dirty_bytes", "file_writeback_bytes"))


_SLAB: Final[ledger.Weights] = {"slab_reclaimable": 1}


def reclaimable_slab(subtree: Subtree) -> Steps:
    """Return the kernel objects (slab) that reclaim may free over time, in bytes; 0 if they are not known."""
    return ledger.level(subtree, _SLAB) or ledger.change(subtree, _SLAB)


def dropped_slab_bytes(subtree: Subtree) -> int:
    """Return the reclaimable slab that was freed, in bytes, without what goes with the page cache that it
    serves: a buffer head of 104 bytes for a page at most, and a node of 576 for 64 pages."""
    picked, bytes_ = subtree.charges.weighted(_SLAB)
    freed = -int(np.minimum(bytes_[picked], 0).sum(dtype=np.int64))
    evicted_pages = subtree.evicted.pages_between(subtree.start_ns, end_ns(subtree.whole))
    return max(freed - evicted_pages * page_size(subtree.whole) // _OF_CACHE_DIVISOR, 0)
