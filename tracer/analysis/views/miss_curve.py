"""The miss curve: how much of the page cache that was read again a cgroup would have kept with more memory.

A page that comes back was missing since its eviction. It would have stayed if the lists had had room for the
pages that came to lie before it: those that were evicted after it and were still out when it came back. This
number is its reuse distance. It equals the distance in Mattson's stack of pages beyond the present size
("Evaluation techniques for storage hierarchies", 1970): with as many more pages of memory, an LRU list that
takes in what reclaim evicts has the page, with fewer it has not. The kernel's refault distance
(mm/workingset.c) counts all evictions in between. A page that was evicted and came back twice counts twice
there, although it needs room once, so that random access to a set of pages seems to need more than the set.

Only evictions and refaults are in the trace, and no hits. So the curve is about more memory, never about
less. It is a model: the kernel keeps two lists of files, or generations (lru_gen), and which pages it evicts
changes with the memory. docs/sizing.md has measured differences: with both, they are greatest for a hot set
that is mapped, whose accesses the kernel knows by the bits of page tables.

Memory that was swapped out after the eviction counts as evicted for good, so that a distance may be too long
in a cgroup that swaps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from tracer.analysis.core import naming
from tracer.analysis.core.columns import Int64s, integers, is_one_of, times_ns
from tracer.analysis.core.subtree import Subtree, Subtrees
from tracer.analysis.core.tables import TraceTables, page_size
from tracer.analysis.results.memory import MissPoint

_MOST_FOLLOWED: Final = 1 << 17
"""Of more refaults, one in so many is taken that no more than these are left."""

_MOST_CELLS: Final = 1 << 19
_LEAST_CELL_NS: Final = 1_000
_EVICTIONS_EACH: Final = 1 << 18

_PERCENT: Final = (*range(5, 100, 5), 98, 99, 100)


@dataclass(frozen=True, slots=True)
class Reuse:
    """The refaults of a cgroup's page cache: `extra_pages` (ascending) that would have spared each one.

    `pages` are those that came back, and `back_ns` is when. `scale` of them stand behind each element.
    """

    extra_pages: Int64s
    pages: Int64s
    back_ns: Int64s
    scale: float

    def within(self, begin_ns: int, end_ns: int) -> Reuse:
        """Return the refaults within an interval, both ends included."""
        inside = (self.back_ns >= begin_ns) & (self.back_ns <= end_ns)
        return Reuse(self.extra_pages[inside], self.pages[inside], self.back_ns[inside], self.scale)

    def total_pages(self) -> int:
        """Return the number of pages that came back."""
        return round(int(self.pages.sum()) * self.scale)

    def extra_to_spare(self, most_left_pages: int) -> int:
        """Return the least number of extra pages with which at most so many pages come back."""
        left = (self.pages.sum() - np.cumsum(self.pages)) * self.scale
        if self.total_pages() <= most_left_pages:
            return 0
        return int(self.extra_pages[np.argmax(left <= most_left_pages)])


def miss_curve(trace: TraceTables, cgroup: str | int | None = None) -> pd.DataFrame:
    """Return rows for each cgroup that has page cache which was read again, each with all cgroups below it.

    With `extra_bytes` more memory, `spared_bytes` of the page cache that was evicted and read again would
    have stayed; `spared_share` of it, from 0 to 1. The last row of a cgroup spares all that the trace has.
    Memory without a limit of its own, or that was evicted for a limit above the cgroup or for the whole
    machine, is in the curve as well: the cgroup would need so much more of that. `cgroup` is a pattern
    (`core.naming.select`); None: all cgroups.
    """
    subtrees, columns = Subtrees(trace), ("cgroup_id", "extra_bytes", "spared_bytes", "spared_share")
    ids = naming.with_data(trace)
    if cgroup is not None:
        ids = [number for number in naming.select(trace, cgroup) if number in set(ids)]
    rows = [
        (number, point.extra_bytes, point.spared_bytes, point.spared_share)
        for number, members in naming.descendants_of(trace.cgroups, ids).items()
        for point in points(subtrees.subtree_at(number, members))
    ]
    frame = pd.DataFrame.from_records(rows, columns=columns)
    return frame.astype(dict(zip(columns, ("int64", "int64", "int64", "float64"), strict=True)))


def points(subtree: Subtree) -> tuple[MissPoint, ...]:
    """Return the curve of a cgroup in steps of a twentieth of its refaults; empty if it had none."""
    reuse = reuse_of(subtree)
    spared = np.cumsum(reuse.pages)
    if not len(spared):
        return ()
    wanted = np.searchsorted(spared, np.ceil(spared[-1] * np.array(_PERCENT) / 100))
    extras = np.unique(reuse.extra_pages[wanted])
    at_extra = spared[np.searchsorted(reuse.extra_pages, extras, side="right") - 1]
    page = page_size(subtree.whole)
    return tuple(
        MissPoint(extra * page, round(pages * reuse.scale) * page, pages / int(spared[-1]))
        for extra, pages in zip(extras.tolist(), at_extra.tolist(), strict=True)
    )


def reuse_of(subtree: Subtree) -> Reuse:
    """Return the reuse distances of the refaults of a cgroup and all below it."""
    return subtree.once("miss_curve.reuse", lambda: _reuse(subtree))


def _reuse(subtree: Subtree) -> Reuse:
    refaulted = subtree.refaulted
    step = max(-(-len(refaulted) // _MOST_FOLLOWED), 1)
    some = refaulted.chosen(np.arange(step // 2, len(refaulted), step))
    order = np.argsort(some.evicted_ns, kind="stable")
    gone_ns, back_ns, pages = (
        one[order] for one in (some.evicted_ns, some.time, some.pages.astype(np.int64))
    )
    if not len(pages):
        return Reuse(pages, pages, back_ns, 1.0)
    scale = float(refaulted.pages.sum(dtype=np.int64) / pages.sum())
    between = _evicted_between(subtree, gone_ns, back_ns) - _nested(back_ns, pages) * scale
    extra = np.maximum(np.rint(between), 1).astype(np.int64)
    order = np.argsort(extra, kind="stable")
    return Reuse(extra[order], pages[order], back_ns[order], scale)


def _evicted_between(subtree: Subtree, begin_ns: Int64s, end_ns: Int64s) -> npt.NDArray[np.float64]:
    """Return the pages of a cgroup that were evicted, or swapped out, from each moment to another.

    They are counted in cells of time. A run lasts up to 10 ms, in which thousands of pages go, so its pages
    count evenly over the cells that it lasts for.
    """
    first, last = int(begin_ns.min()), int(end_ns.max())
    cell_ns = max((last - first) // _MOST_CELLS, _LEAST_CELL_NS)
    cells = (last - first) // cell_ns + 1
    pace = np.zeros(cells + 1)
    for time, took, pages in _evictions(subtree, first, last):
        begin = (time - first) // cell_ns
        end = np.maximum((time + took - first) // cell_ns, begin + 1)
        share = pages / (end - begin)
        pace += np.bincount(begin, share, cells + 1)
        pace -= np.bincount(np.minimum(end, cells), share, cells + 1)
    gone = np.append(0.0, np.cumsum(np.cumsum(pace)))
    return np.asarray(gone[(end_ns - first) // cell_ns] - gone[(begin_ns - first) // cell_ns])


def _evictions(subtree: Subtree, first_ns: int, last_ns: int) -> Iterator[tuple[Int64s, Int64s, Int64s]]:
    """Yield (times, durations in ns, pages) of what was evicted, and swapped out, in an interval."""
    evicted, swap_io = subtree.evicted, subtree.swap_io
    begin, end = np.searchsorted(evicted.time, [first_ns, last_ns + 1]).tolist()
    for some in range(begin, end, _EVICTIONS_EACH):
        rows = slice(some, min(some + _EVICTIONS_EACH, end))
        took, pages = (one[rows].astype(np.int64) for one in (evicted.duration_ns, evicted.pages))
        yield evicted.time[rows], took, pages
    written = swap_io[is_one_of(swap_io["op"], ["write"])]
    time = times_ns(written)
    inside = (time >= first_ns) & (time <= last_ns)
    yield time[inside], np.zeros(inside.sum(), dtype=np.int64), integers(written["nr_pages"])[inside]


def _nested(back_ns: Int64s, pages: Int64s) -> Int64s:
    """Return for each refault the pages that were evicted after it and back before it.

    The refaults are in order of their evictions, so these are the later ones that were back earlier. Each
    round compares the halves of blocks: those of the second half that were back before one of the first. The
    elements of a block are in the order in which they were back; its halves are the blocks of the next round.
    """
    count = len(back_ns)
    bits = max(count - 1, 0).bit_length()
    weight, nested = np.zeros((2, 1 << bits), dtype=np.int64)
    weight[:count] = pages
    order = np.append(np.argsort(back_ns, kind="stable"), np.arange(count, 1 << bits)).reshape(1, -1)
    for bit in reversed(range(bits)):
        is_later = (order >> bit & 1).astype(np.bool_)
        before = np.cumsum(np.where(is_later, weight[order], 0), axis=1)
        nested[order[~is_later]] += before[~is_later]
        halves = [order[half].reshape(-1, 1 << bit) for half in (~is_later, is_later)]
        order = np.stack(halves, axis=1).reshape(-1, 1 << bit)
    return nested[:count]
