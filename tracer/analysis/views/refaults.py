"""Refaults: page cache that was evicted and read again, linked to the evictions that took it.

A refault is an addition right after an eviction in the history of a page
(`analysis.views.page_histories`).

Rows without an index are sums (docs/trace-format.md, `summed`): none of their pages can be followed. They are
in no link, and no link goes across them. So every link is certain, and the refaults are a lower bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import (
    NO_ID,
    Int64s,
    ascending,
    distinct,
    integers,
    narrow,
    sums_of,
    taken,
    utc_times,
)
from tracer.analysis.core.evicted import Refaulted
from tracer.analysis.core.page_cache import CacheEvents, Events, Links, PageMoves
from tracer.analysis.core.tables import ShmemFiles, TraceTables, page_size
from tracer.analysis.views.page_histories import Crossings, histories, meanings

R = TypeVar("R")

_CELL_BITS: Final = 16
COUNTS: Final = ("pages", "left", "refaulted", "returned")
"""The names of the sums of pages of `PageMoves`."""


def page_moves(trace: TraceTables) -> PageMoves:
    """Return the refaults of a trace, and what stayed in the cache."""
    links, totals = [], []
    for of_group, summed in _of_each_group(trace, lambda moves: (moves.links(), moves.totals())):
        links.append(of_group)
        totals.append(summed)
    nothing = np.zeros(0, dtype=np.int64)
    names = ("file", "kind", "last_ns", *COUNTS)
    of_all = {name: np.concatenate([nothing, *(part[name] for part in totals)]) for name in names}
    return PageMoves(Links.joined(links), of_all)


def refaulted(trace: TraceTables) -> Refaulted:
    """Return the refaults of cgroups, in order of time."""
    trace.page_moves.links.sort()  # in place, as a copy would take much memory
    return Refaulted.from_links(trace.page_moves.links, trace.cache_events)


def refaults(trace: TraceTables) -> pd.DataFrame:
    """Return a row for each pair of an eviction and an addition that brought back pages of it.

    The index, `time` (UTC), is the time of the addition. Columns of the addition: `cgroup_id` (the cgroup
    that is charged now, NA: none), `cause`, and `tgid` and `task_cgroup_id` of the process that needed the
    pages. Columns of the eviction: `evicted` (UTC), `evicted_cgroup_id` (the cgroup that was charged then),
    `evicted_cause`, `evictor_tgid`, `evictor_cgroup_id`. Columns of both: `inode_id`, `bytes`, `away_ns` (the
    time from the eviction of the first of these pages to its return), and their positions in `pagecache`,
    `added_row` and `evicted_row`.

    Pages that were evicted before the trace began, or whose eviction was lost or summed, have no row.
    """
    events, groups = trace.cache_events, [*_of_each_group(trace, lambda moves: moves)]
    links = Links.joined([group.links() for group in groups])
    time, position = _sorted_table(events)
    nothing = np.zeros(0, dtype=np.int64)
    rows = [events.rows_of_group(group.group) for group in groups]
    paired = [*zip(rows, groups, strict=True)]
    added = position[np.concatenate([nothing, *(of_group[group.added] for of_group, group in paired)])]
    evicted = position[np.concatenate([nothing, *(of_group[group.evicted] for of_group, group in paired)])]
    order = np.lexsort((evicted, added))
    added, evicted = added[order], evicted[order]
    now, before = events.kinds.iloc[links.added_kind[order]], events.kinds.iloc[links.evicted_kind[order]]
    columns = {
        "cgroup_id": _owners(now),
        "cause": now["cause"].array,
        "tgid": now["tgid"].array,
        "task_cgroup_id": now["task_cgroup_id"].array,
        "inode_id": integers(events.files["inode_id"])[links.file[order]],
        "bytes": links.pages[order].astype(np.int64) * page_size(trace),
        "away_ns": links.away_ns[order],
        "evicted": utc_times(links.evicted_ns[order]),
        "evicted_cgroup_id": _owners(before),
        "evicted_cause": before["cause"].array,
        "evictor_tgid": before["tgid"].array,
        "evictor_cgroup_id": before["task_cgroup_id"].array,
        "added_row": added,
        "evicted_row": evicted,
    }
    return pd.DataFrame(columns, index=utc_times(time[added]).rename("time"))


def _owners(kinds: pd.DataFrame) -> Any:
    """Return the owners of kinds; NA: there is no owner."""
    return kinds["cgroup_id"].astype("Int64").where(kinds["cgroup_id"] != NO_ID).array


def half_back_ns(links: Links, groups: int, group_of: Callable[[Links], Int64s]) -> Int64s:
    """Return for each group of refaults the time after which half of its pages were back, in ns.

    `group_of` gives the group of each refault, from 0; -1: it is in no group. Each group must have a page.
    The times are counted in cells, and only the times in the cell of the result are sorted.
    """
    longest = max((int(batch.away_ns.max()) for batch in links.batches()), default=0)
    shift = max(longest.bit_length() - max(_CELL_BITS - groups.bit_length(), 0), 0)
    cells = (longest >> shift) + 1

    def cell_of(batch: Links) -> Int64s:
        group = group_of(batch)
        return np.where(group >= 0, group * cells + (batch.away_ns >> shift), groups * cells)

    counts = np.zeros(groups * cells + 1, dtype=np.int64)
    for batch in links.batches():
        counts += np.bincount(cell_of(batch), batch.pages, len(counts)).astype(np.int64)
    running = counts[:-1].reshape(groups, cells).cumsum(axis=1)
    half = (running[:, -1:] + 1) // 2
    of_half = (running < half).sum(axis=1) + np.arange(groups) * cells
    group_at = np.full(len(counts), -1)
    group_at[of_half] = np.arange(groups)
    found: list[tuple[Int64s, ...]] = []
    for batch in links.batches():
        group = group_at[cell_of(batch)]
        inside = np.flatnonzero(group >= 0)
        found.append((group[inside], batch.away_ns[inside], batch.pages[inside].astype(np.int64)))
    group, away_ns, pages = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((away_ns, group))
    missing = half[:, 0] - (running.ravel() - counts[:-1])[of_half]
    before = np.append(0, np.cumsum(np.bincount(group, pages, groups)))[:-1].astype(np.int64)
    return np.asarray(away_ns[order][np.searchsorted(np.cumsum(pages[order]), before + missing)])


def _sorted_table(events: CacheEvents) -> tuple[Int64s, Int64s]:
    """Return (the times of `pagecache`, sorted; for each row as recorded its position in that order)."""
    recorded = events.recorded(np.ones(len(events.kinds), dtype=np.bool_))
    time = np.concatenate([*(part.time for part in recorded), np.zeros(0, dtype=np.int64)])
    order, position = np.argsort(time, kind="stable"), np.empty(len(time), dtype=np.int64)
    position[order] = np.arange(len(time))
    return time[order], position


@dataclass(frozen=True, slots=True)
class _Moves:
    """The refaults and the remaining pages of one group of events, from the histories of its pages.

    `group` is the number of the group. `evicted` and `added` are the events of each refault, and `pages` the
    number of pages that they share. `left` are events that added pages which were there at the end, and
    `left_pages` these pages; an event may occur again. Pages that are None are one page each.
    """

    group: int
    events: Events
    evicted: Int64s
    added: Int64s
    pages: Int64s | None
    left: Int64s
    left_pages: Int64s | None

    def totals(self) -> dict[str, Int64s]:
        """Return the sums by file and kind, as in `PageMoves`."""
        code, firsts = distinct(self.events.file, self.events.kind)
        last_ns = np.zeros(len(firsts), dtype=np.int64)
        last_ns[code] = self.events.time  # NumPy assigns repeated positions in order: the last one stays
        return {
            "file": self.events.file[firsts].astype(np.int64),
            "kind": self.events.kind[firsts].astype(np.int64),
            "last_ns": last_ns,
            "pages": sums_of(code, self.events.pages, len(firsts)),
            "left": sums_of(code[self.left], self.left_pages, len(firsts)),
            "refaulted": sums_of(code[self.added], self.pages, len(firsts)),
            "returned": sums_of(code[self.evicted], self.pages, len(firsts)),
        }

    def links(self) -> Links:
        """Return the refaults."""
        gone_ns, back_ns = _times(self.events, self.evicted, self.added)
        evicted_ns = self.events.time[self.evicted]
        one = np.broadcast_to(np.uint8(1), self.added.shape)
        return Links(
            added_kind=self.events.kind[self.added],
            evicted_kind=self.events.kind[self.evicted],
            file=taken(self.events.file, self.added),
            pages=one if self.pages is None else narrow(self.pages),
            evicted_ns=evicted_ns,
            back_ns=evicted_ns + (back_ns - gone_ns),
        )


def _of_each_group(trace: TraceTables, find: Callable[[_Moves], R]) -> Iterator[R]:
    """Yield `find` of what follows from each group of events. Sums and shmem are not followed."""
    cache, shmem = trace.cache_events, ShmemFiles.from_inodes(trace.inodes)
    is_indexed = ~cache.kinds["is_summed"].to_numpy(dtype=np.bool_)
    is_file = ~shmem.hold(*(integers(cache.files[name]) for name in ("inode_id", "dev")))
    is_every_one = bool(is_indexed.all() and is_file.all())
    crossings, meaning = Crossings.from_events(cache), meanings(cache.kinds)

    def moves(number: int, group: Events) -> R:
        followed = None if is_every_one else np.flatnonzero(is_indexed[group.kind] & is_file[group.file])
        events = group if followed is None else group[followed]
        stayed, pairs = [], []
        for history in histories(events, meaning):
            last = history.left()
            stayed.append((history.event[last], history.sizes(last)))
            before, after = history.refaults()
            pairs.append((history.event[before], history.event[after], history.sizes(after)))
        evicted, added, pages = _summed(events, pairs)
        certain = ~crossings.between(events, evicted, added)
        if not certain.all():
            evicted, added = evicted[certain], added[certain]
            pages = None if pages is None else pages[certain]
        left, left_pages = _together(stayed)
        certain = ~crossings.after(events, left)
        if not certain.all():
            left, left_pages = left[certain], None if left_pages is None else left_pages[certain]
        if followed is not None:
            evicted, added, left = followed[evicted], followed[added], followed[left]
        return find(_Moves(number, group, evicted, added, pages, left, left_pages))

    return cache.of_each_group(moves)


def _together(parts: list[tuple[Int64s, Int64s | None]]) -> tuple[Int64s, Int64s | None]:
    """Return events and their pages of several parts as one; pages that are None are one page each."""
    events = np.concatenate([np.zeros(0, dtype=np.int64), *(event for event, _ in parts)])
    if all(pages is None for _, pages in parts):
        return events, None
    return events, np.concatenate(
        [np.ones(len(event), dtype=np.int64) if pages is None else pages for event, pages in parts]
    )


def _times(events: Events, evicted: Int64s, added: Int64s) -> tuple[Int64s, Int64s]:
    """Return when the evictions and the additions reached the first page that they share."""
    if not events.take_time:
        gone_ns = events.time[evicted]
        return gone_ns, np.maximum(events.time[added], gone_ns)
    page = np.maximum(events.first[evicted], events.first[added]).astype(np.int64)
    gone_ns = events.time_at(evicted, page)
    return gone_ns, np.maximum(events.time_at(added, page), gone_ns)


def _summed(
    events: Events, parts: list[tuple[Int64s, Int64s, Int64s | None]]
) -> tuple[Int64s, Int64s, Int64s | None]:
    """Return each pair of events once, with the sum of its pages; `pages` None is one page for each."""
    if parts and all(size is None for *_, size in parts) and (events.pages == 1).all():
        evicted, added = (np.concatenate(one) for one in list(zip(*parts, strict=True))[:2])
        return evicted, added, None  # no pair has a second page
    bits = len(events).bit_length()
    pair, size = _together([(one << bits | other, pages) for one, other, pages in parts])
    if size is None:
        pair.sort()
    else:
        order = ascending(pair)
        pair, size = pair[order], size[order]
    firsts = np.flatnonzero(np.append(True, pair[1:] != pair[:-1])[: len(pair)])
    if size is None or not len(pair):
        summed = np.diff(firsts, append=len(pair))
    else:
        summed = np.add.reduceat(size, firsts)
    pair = pair[firsts]
    return pair >> bits, pair & ((1 << bits) - 1), summed
