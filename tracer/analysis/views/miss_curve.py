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

Mattson's list has one size. Page cache has what its limit leaves beside other memory, and reclaim may free
many pages at a time (32 folios of up to 2 MiB each, SWAP_CLUSTER_MAX), so that it is not full for a while. So
where the trace has the use of one limit, a distance counts from the least room that the page cache had since
the eviction, and not from what it held when the page came back. The least need of a page is counted from all
the room that there was when it came back: with less, it is sure to be missing.

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

from tracer.analysis.core import ledger, naming
from tracer.analysis.core.columns import Bools, Int64s, integers, is_one_of, times_ns
from tracer.analysis.core.ledger import Steps
from tracer.analysis.core.subtree import Subtree, Subtrees
from tracer.analysis.core.tables import TraceTables, page_size
from tracer.analysis.results.memory import MissPoint
from tracer.schema import UNLIMITED_BYTES

_MOST_FOLLOWED: Final = 1 << 17
"""Of more refaults, one in so many is taken that no more than these are left."""

_MOST_CELLS: Final = 1 << 19
_LEAST_CELL_NS: Final = 1_000
_EVICTIONS_EACH: Final = 1 << 18

_MOST_SPANS: Final = 1 << 16

_PERCENT: Final = (*range(5, 100, 5), 98, 99, 100)


@dataclass(frozen=True, slots=True)
class Reuse:
    """The refaults of a cgroup's page cache: `extra_pages` (ascending) that would have spared each one.

    `least_pages`: with fewer, the page is sure to be missing (below 0: it may be there with less memory than
    in the trace). `pages` are those that came back, `gone_ns` and `back_ns` are when they were evicted and
    back. `scale` of them stand behind each element.
    """

    extra_pages: Int64s
    least_pages: Int64s
    pages: Int64s
    gone_ns: Int64s
    back_ns: Int64s
    scale: float

    def within(self, begin_ns: int, end_ns: int) -> Reuse:
        """Return the refaults within an interval, both ends included."""
        return self._chosen((self.back_ns >= begin_ns) & (self.back_ns <= end_ns))

    def _chosen(self, some: Bools | Int64s) -> Reuse:
        return Reuse(
            self.extra_pages[some],
            self.least_pages[some],
            self.pages[some],
            self.gone_ns[some],
            self.back_ns[some],
            self.scale,
        )

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
        return Reuse(pages, pages, pages, gone_ns, back_ns, 1.0)
    scale = float(refaulted.pages.sum(dtype=np.int64) / pages.sum())
    cells = _Cells.over(int(gone_ns.min()), int(back_ns.max()))
    evicted = cells.sums(_evictions(subtree, cells.first_ns, cells.last_ns))
    out = cells.at(evicted, back_ns) - cells.at(evicted, gone_ns) - _nested(back_ns, pages) * scale
    known_needs = _needs(subtree, cells, out, (gone_ns, back_ns))
    if known_needs is None:
        extra, least = out, out - int(subtree.evicted.pages.max(initial=0))
    else:
        extra, least = known_needs[0], known_needs[1] - _together(subtree, gone_ns, pages)
    extra = np.maximum(np.rint(extra), 1).astype(np.int64)
    found = Reuse(extra, np.rint(least).astype(np.int64), pages, gone_ns, back_ns, scale)
    return found._chosen(np.argsort(extra, kind="stable"))


_Moved = tuple[Int64s, Int64s, Int64s]
"""Times, durations in ns, and pages that were added or taken."""
_Pages = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Cells:
    """Cells of time in which pages are counted. A run lasts up to 10 ms, in which thousands of pages go, so
    its pages count evenly over the cells that it lasts for."""

    first_ns: int
    last_ns: int
    cell_ns: int

    @classmethod
    def over(cls, first_ns: int, last_ns: int) -> _Cells:
        """Return the cells of an interval."""
        return cls(first_ns, last_ns, max((last_ns - first_ns) // _MOST_CELLS, _LEAST_CELL_NS))

    def sums(self, moved: Iterator[_Moved]) -> _Pages:
        """Return how many pages moved before each cell, and before the end of the last one."""
        cells, before = (self.last_ns - self.first_ns) // self.cell_ns + 1, 0
        pace = np.zeros(cells + 1)
        for time, took, pages in moved:
            before += int(pages[time < self.first_ns].sum())
            inside = np.flatnonzero((time >= self.first_ns) & (time <= self.last_ns))
            begin = (time[inside] - self.first_ns) // self.cell_ns
            end = np.maximum((time[inside] + took[inside] - self.first_ns) // self.cell_ns, begin + 1)
            share = pages[inside] / (end - begin)
            pace += np.bincount(begin, share, cells + 1)
            pace -= np.bincount(np.minimum(end, cells), share, cells + 1)
        return np.append(0.0, np.cumsum(np.cumsum(pace))) + before

    def at(self, sums: _Pages, moments_ns: Int64s) -> _Pages:
        """Return how many pages had moved before the cell of each moment."""
        return np.asarray(sums[(moments_ns - self.first_ns) // self.cell_ns])


def _together(subtree: Subtree, gone_ns: Int64s, pages: Int64s) -> Int64s:
    """Return the pages that were evicted in rows that may overlap with the eviction of each refault, without
    its own: which of them were evicted before it is not known."""
    evicted = subtree.evicted
    ends = evicted.time + evicted.duration_ns
    order = np.argsort(ends, kind="stable")
    ends = ends[order]
    begun = np.append(0, np.cumsum(evicted.pages, dtype=np.int64))
    ended = np.append(0, np.cumsum(evicted.pages[order], dtype=np.int64))
    there = begun[np.searchsorted(evicted.time, gone_ns, side="right")]
    over = ended[np.searchsorted(ends, gone_ns, side="left")]
    return np.asarray(np.maximum(there - over - pages, 0))


def _needs(
    subtree: Subtree, cells: _Cells, out: _Pages, moments_ns: tuple[Int64s, Int64s]
) -> tuple[_Pages, _Pages] | None:
    """Return how many more pages of memory are enough for each refault, and with how many the page is sure
    to be missing. `out`: the pages that were evicted after it and still out. `moments_ns`: when it was
    evicted and back.

    None: the size of the page cache is not known, or something else than one limit without swap decided what
    was evicted.
    """
    limits, cache = ledger.counter(subtree, "limit_bytes"), ledger.level(subtree, ledger.CACHE)
    others, limit = ledger.level(subtree, ledger.NOT_CACHE), limits.peak()
    is_bound = limit is not None and limit == limits.least() and limit < UNLIMITED_BYTES
    is_alone = not ledger.count(subtree, "high_events").peak() and not len(subtree.swap_io)
    if cache is None or cache.before or others is None or limit is None or not (is_bound and is_alone):
        return None
    page = page_size(subtree.whole)
    held = _held(subtree, cells)
    if held.min() < -1:
        return None
    at_gone, at_back = (cells.at(held, moments) for moments in moments_ns)
    most, most_inside = (_most_between(others, *moments_ns, inside=inside) for inside in (False, True))
    near = [others.at_each(moments_ns[1] + near_ns) for near_ns in (-ledger.SUMMED_NS, 0, ledger.SUMMED_NS)]
    room = min(limit // page, int((at_gone + others.at_each(moments_ns[0]) / page).max()))
    least = np.maximum(out + at_back + np.minimum.reduce(near) / page, at_gone + most_inside / page)
    return out + np.maximum(at_back + most / page - room, 0), least - room


def _held(subtree: Subtree, cells: _Cells) -> _Pages:
    """Return the pages in the page cache before each cell, of a cgroup that was made in the trace.

    Shared memory is deleted, but never added (docs/trace-format.md), so only files with additions count.
    """
    kinds, totals = subtree.whole.cache_events.kinds, subtree.whole.page_moves.totals
    is_own = np.isin(integers(kinds["cgroup_id"]), subtree.members)
    added, deleted = (is_own & is_one_of(kinds["op"], [op]) for op in ("add", "delete"))
    sign = added.astype(np.int64) - deleted
    is_file = np.zeros(len(subtree.whole.cache_events.files), dtype=np.bool_)
    is_file[totals["file"][added[totals["kind"]]]] = True

    def moved() -> Iterator[_Moved]:
        for some in subtree.whole.cache_events.recorded(added | deleted):
            pages = np.where(is_file[some.file], sign[some.kind] * some.pages, 0)
            yield some.time, some.duration.astype(np.int64), pages

    return cells.sums(moved())


def _most_between(level: Steps, begin_ns: Int64s, end_ns: Int64s, *, inside: bool) -> Int64s:
    """Return the greatest value of a level from each moment to another, with the time of a row around both;
    `inside`: without it, and 0 if no time is left.

    Values are kept for spans of time, and for 2, 4, 8, … of them from each on.
    """
    first, last = int(begin_ns.min()) - ledger.SUMMED_NS, int(end_ns.max()) + ledger.SUMMED_NS
    span_ns = max((last - first) // _MOST_SPANS, ledger.SUMMED_NS)
    spans = (last - first) // span_ns + 1
    most = [level.at_each(first + np.arange(spans) * span_ns)]
    are_within = (level.times > first) & (level.times <= last)
    np.maximum.at(most[0], (level.times[are_within] - first) // span_ns, level.values[are_within])
    while 2 << len(most) <= 2 * spans:
        half = 1 << len(most) - 1
        most.append(np.maximum(most[-1][:-half], most[-1][half:]))
    around_ns = -ledger.SUMMED_NS if inside else ledger.SUMMED_NS
    begin = (begin_ns - around_ns - first) // span_ns + inside
    end = (end_ns + around_ns - first) // span_ns + 1 - inside
    bits = np.frexp(np.maximum(end - begin, 0).astype(np.float64))[1] - 1
    found = np.zeros(len(begin), dtype=np.int64)
    for bit, values in enumerate(most):
        some = np.flatnonzero(bits == bit)
        found[some] = np.maximum(values[begin[some]], values[end[some] - (1 << bit)])
    return found


def _evictions(subtree: Subtree, first_ns: int, last_ns: int) -> Iterator[_Moved]:
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
