"""The events of the page cache as arrays of small numbers, for analyses that look at every page.

A row of `pagecache` is an event: a run of folios that a process added to the cache or deleted from it. A
trace has millions of events, of few kinds and few files, and an event is kept in some 20 bytes. The events
are in groups by file, and by range of pages where a file has many events. No page is in two groups, so a
group is analysed without the others, and its arrays mostly fit into a CPU's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from tracer.analysis.core.columns import (
    NO_ID,
    Bools,
    Int64s,
    Unsigned,
    ascending,
    column_times_ns,
    distinct,
    firsts_of,
    integers,
    is_repeated,
    joined,
    known,
    narrow,
    reorder,
    taken,
)
from tracer.analysis.core.lookups import Processes
from tracer.analysis.core.rows import Batched, Rows, each, encoded, rows_of

R = TypeVar("R")

_COLUMNS: Final = (
    *("time", "duration_ns", "cgroup_id", "tgid", "task_cgroup_id", "op", "cause", "inode_id", "dev", "ino"),
    *("index", "nr_pages"),
)
_KINDS: Final = ("cgroup_id", "tgid", "task_cgroup_id", "op", "cause")

_GROUPS: Final = 256
_MOST_TOGETHER: Final = 1 << 17
_MOST_PARTS: Final = 128
_MOST_SAMPLED: Final = 10_000
_CELL_BITS: Final = 16
_PART_ROWS: Final = 1 << 19
_LINKS_EACH: Final = 1 << 17
_FOREVER: Final = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Events:
    """Some events: arrays with an element for each event.

    `time` and `duration` are in ns. `file` and `kind` are positions in `CacheEvents.files` and
    `CacheEvents.kinds`. An event covers `pages` pages, from `first` on.
    """

    time: Int64s
    duration: Unsigned
    file: Unsigned
    first: Unsigned
    pages: Unsigned
    kind: Unsigned

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, chosen: slice | Int64s) -> Events:
        return Events(*(taken(getattr(self, name), chosen) for name in self.__slots__))

    @classmethod
    def joined(cls, parts: list[Events]) -> Events:
        """Return several events as one; empties the list."""
        return cls(*_joined(cls.__slots__, parts))

    def reorder(self, order: Int64s) -> None:
        """Put the events into another order, in place."""
        for name in self.__slots__:
            reorder(getattr(self, name), order)

    @property
    def take_time(self) -> bool:
        """Return whether some events may last longer than a moment."""
        return bool((self.duration[:1] if is_repeated(self.duration) else self.duration).any())

    def time_at(self, event: npt.NDArray[np.integer[Any]], page: Int64s) -> Int64s:
        """Return when each event reached the given page, if it took equally long for each of its pages."""
        time = self.time[event]
        lasting = np.flatnonzero(self.duration[event])  # most events are a single page
        event = event[lasting]
        before = page[lasting] - self.first[event].astype(np.int64)
        share = before / np.maximum(self.pages[event].astype(np.int64) - 1, 1)
        time[lasting] += (self.duration[event] * share).astype(np.int64)
        return np.asarray(time)


@dataclass(frozen=True, slots=True)
class Links:
    """Refaults: pairs of an eviction and an addition that brought back some of its pages.

    `added_kind` and `evicted_kind` are the kinds of both events. `pages` are the pages that they share.
    `evicted_ns` is the time of the eviction (ns since the epoch). `back_ns` is `evicted_ns` plus the time
    from the eviction of the first of these pages to its return.
    """

    added_kind: Unsigned
    evicted_kind: Unsigned
    file: Unsigned
    pages: Unsigned
    evicted_ns: Int64s
    back_ns: Int64s

    def __len__(self) -> int:
        return len(self.pages)

    @property
    def away_ns(self) -> Int64s:
        """Return the time from the eviction of the first page of each refault to its return."""
        return np.asarray(self.back_ns - self.evicted_ns)

    def batches(self) -> Iterator[Links]:
        """Yield the refaults in batches that fit into a CPU's cache."""
        for first in range(0, len(self), _LINKS_EACH):
            some = slice(first, first + _LINKS_EACH)
            yield Links(*(getattr(self, name)[some] for name in self.__slots__))

    @classmethod
    def joined(cls, parts: list[Links]) -> Links:
        """Return the refaults of several groups as one; empties the list."""
        return cls(*_joined(cls.__slots__, parts))

    def sort(self) -> None:
        """Put the refaults into the order in which the pages came back, in place."""
        order = ascending(self.back_ns, int(self.back_ns.min(initial=_FOREVER)))
        for name in self.__slots__:
            reorder(getattr(self, name), order)


def _joined(names: Sequence[str], parts: list[Any]) -> Iterator[npt.NDArray[Any]]:
    """Yield each array of several parts as one, and free those of the parts, which are large."""
    arrays = [[getattr(part, name) for part in parts] for name in reversed(names)]
    parts.clear()
    while arrays:
        yield joined(arrays.pop() or [np.zeros(0, dtype=np.int64)])


@dataclass(frozen=True, slots=True)
class PageMoves:
    """The refaults, and what became of pages, by the order of the events of each page.

    `links` are in no order. `totals` has arrays of sums over events of one file and kind: `file` and `kind`
    (positions in `CacheEvents`; a pair may occur again), `last_ns` (the time of the last of the events), and
    sums of pages: `pages`, all of them; `left`, which the events added and which were there at the end of the
    trace; `refaulted`, which they added and which had been evicted; `returned`, which they evicted and which
    were read again.
    """

    links: Links
    totals: Mapping[str, Int64s]


@dataclass(frozen=True)
class CacheEvents:
    """All events of a trace.

    `files` has `inode_id`, `dev` and `ino`; if `inode_id` is null, the row stands for all files of the device
    that were not distinguished. A kind is everything else that can be the same for many events: `kinds` has
    `cgroup_id` of the owner (`NO_ID`: none), `is_removed` (the owner's directory was gone by then), `tgid`
    (`NO_ID`: several), `task` (the position in `tasks` of that process, -1: not there), `task_cgroup_id`,
    `op`, `cause`, and `is_summed` (a sum of runs, whose pages are not known: its `first` means nothing).
    """

    files: pd.DataFrame
    kinds: pd.DataFrame
    _parts: Sequence[_Part]

    def batches(self) -> Iterator[Events]:
        """Yield all events in batches. The batches are in recorded order, the events of a batch in no
        order."""
        return (part.events(slice(None)) for part in self._parts)

    def recorded(self, is_picked: Bools) -> Iterator[Events]:
        """Yield the events of the kinds in a mask, in batches. The batches and their events are in recorded
        order."""
        return each(lambda part: part.recorded(is_picked), self._parts)

    def of_each_group(self, find: Callable[[int, Events], R]) -> Iterator[R]:
        """Yield `find(group, events)` for the number of each group and its events, which are in order of
        time. All events of a page are in one group."""
        sizes = sum((np.diff(part.bounds) for part in self._parts), np.zeros(1, dtype=np.int64))

        def found(number: int) -> R:
            events = Events.joined([part.group(number) for part in self._with(number)])
            order = _order_of_time(events.time)
            return find(number, events if order is None else events[order])

        return each(found, np.flatnonzero(sizes).tolist())

    def rows_of_group(self, number: int) -> Int64s:
        """Return the positions in the table, as recorded, of the events of a group in order of time."""
        parts = self._with(number)
        rows = np.concatenate([part.rows(number) for part in parts])
        order = _order_of_time(np.concatenate([part.group(number).time for part in parts]))
        return rows if order is None else rows[order]

    def _with(self, number: int) -> list[_Part]:
        return [part for part in self._parts if part.bounds[number] < part.bounds[number + 1]]

    @cached_property
    def bounds_ns(self) -> tuple[int, int] | None:
        """Return the times of the first and the last event; None without any."""
        bounds = [(int(events.time.min()), int(events.time.max())) for events in self.batches()]
        firsts, lasts = zip(*bounds, strict=True) if bounds else ((), ())
        return (min(firsts), max(lasts)) if bounds else None


@dataclass(frozen=True, slots=True)
class _Part:
    """Consecutive events of the table, from row `first_row` on, sorted by group.

    `order` has their positions in recorded order. The events from `bounds[n]` to `bounds[n + 1]` belong to
    group n. `kept` are the events, with their times since `start_ns` in the smallest type that holds them.
    """

    kept: Events
    start_ns: np.int64
    first_row: int
    order: Unsigned
    bounds: Int64s

    def events(self, chosen: slice | Int64s) -> Events:
        some = self.kept[chosen]
        time = np.add(some.time, self.start_ns, dtype=np.int64, casting="unsafe")  # of uint64: not float64
        return replace(some, time=time)

    def group(self, number: int) -> Events:
        return self.events(slice(*self.bounds[number : number + 2]))

    def rows(self, number: int) -> Int64s:
        return self.order[slice(*self.bounds[number : number + 2])].astype(np.int64) + self.first_row

    def recorded(self, is_picked: Bools) -> Events:
        picked = np.flatnonzero(is_picked[self.kept.kind])
        place = np.full(len(self.order), -1, dtype=np.int64)
        place[self.order[picked].astype(np.int64)] = picked  # faster with positions of this type
        return self.events(place[place >= 0])


def _order_of_time(time: Int64s) -> Int64s | None:
    """Return the positions that sort times, equal ones in their order; None if they are in order."""
    return None if (time[1:] >= time[:-1]).all() else np.argsort(time, kind="stable")


def from_trace(trace: Batched, cgroups: pd.DataFrame, processes: Processes) -> CacheEvents:
    """Return the events of a trace with these cgroups and processes."""
    reading = _Reading(cgroups, processes)
    for rows in rows_of(trace, "pagecache", _COLUMNS):
        reading.add(rows)
    return reading.events()


class _Codes:
    """Numbers for distinct values, from 0 in the order of their first occurrence."""

    def __init__(self) -> None:
        self.values: dict[Any, int] = {}

    def of(self, values: Iterable[Any]) -> Int64s:
        numbers = self.values
        return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)


class _Reading:
    """The events read so far, and the numbers of their files and kinds."""

    def __init__(self, cgroups: pd.DataFrame, processes: Processes) -> None:
        gone = cgroups[known(cgroups["removed"])]
        removed_ns = column_times_ns(gone["removed"]).tolist()
        self._removed_ns = dict(zip(integers(gone["cgroup_id"]).tolist(), removed_ns, strict=True))
        self._processes = processes
        self._files, self._kinds = _Codes(), _Codes()
        self._devices: list[int] = []
        self._inos: list[int] = []
        self._parts: list[Events] = []
        self._starts_ns: list[np.int64] = []
        self._waiting: list[Events] = []

    def add(self, rows: Rows) -> None:
        """Add rows of `pagecache`."""
        self._waiting.append(
            Events(
                time=rows.integers("time"),
                duration=narrow(rows.integers("duration_ns")),
                file=self._numbers_of_files(rows),
                first=narrow(rows.integers("index", missing=0)),
                pages=narrow(rows.integers("nr_pages")),
                kind=self._numbers_of_kinds(rows),
            )
        )
        if sum(map(len, self._waiting)) >= _PART_ROWS:
            self._add_part()

    def _add_part(self) -> None:
        part = Events.joined(self._waiting)
        start_ns = part.time.min()
        time: npt.NDArray[Any] = narrow(part.time - start_ns)
        self._parts.append(replace(part, time=time))
        self._starts_ns.append(start_ns)

    def events(self) -> CacheEvents:
        """Return all events that were added."""
        if self._waiting:
            self._add_part()
        keys = np.array(list(self._files.values), dtype=np.int64)
        is_file = keys >= 0
        files = {
            "inode_id": pd.arrays.IntegerArray(keys, ~is_file),
            "dev": np.array(self._devices, dtype=np.int64),
            "ino": pd.arrays.IntegerArray(np.array(self._inos, dtype=np.uint64), ~is_file),
        }
        names = ("cgroup_id", "is_removed", "tgid", "task", "task_cgroup_id", "op", "cause", "is_summed")
        kinds = pd.DataFrame.from_records(list(self._kinds.values), columns=names)
        numbers = dict.fromkeys(("cgroup_id", "task", "task_cgroup_id"), "int64")
        kinds = kinds.astype({**numbers, "tgid": "int32", "is_removed": "bool", "is_summed": "bool"})
        for name in ("op", "cause"):
            kinds[name] = pd.Categorical(kinds[name], categories=pd.unique(kinds[name]))
        return CacheEvents(pd.DataFrame(files), kinds, self._grouped())

    def _grouped(self) -> list[_Part]:
        """Return the parts with their events sorted by group. The low byte of a file's number is its group;
        groups that would have many events are divided by ranges of pages."""
        counts = (np.bincount(_low_bytes(part), minlength=_GROUPS) for part in self._parts)
        sizes = sum(counts, np.zeros(_GROUPS, dtype=np.int64))
        large = np.flatnonzero(sizes > _MOST_TOGETHER).tolist()
        cuts = {number: self._edges(number, int(sizes[number])) for number in large}
        groups = _GROUPS + sum(map(len, cuts.values()))

        def grouped(placed: tuple[int, np.int64, Events]) -> _Part:
            first_row, start_ns, part = placed
            low, next_group = _low_bytes(part), _GROUPS
            group = low.astype(np.uint16)
            for number, edges in cuts.items():
                inside = low == number
                if len(edges) and inside.any():
                    span = _ranges_of(part.first[inside], edges)
                    group[inside] = np.where(span == 0, number, next_group - 1 + span)
                next_group += len(edges)
            bounds = np.append(0, np.cumsum(np.bincount(group, minlength=groups)))
            order = np.argsort(group, kind="stable")  # of 16 bits: a radix sort
            part.reorder(order)
            return _Part(part, start_ns, first_row, narrow(order), bounds)

        firsts = np.cumsum([0, *map(len, self._parts)]).tolist()
        return [*each(grouped, zip(firsts[:-1], self._starts_ns, self._parts, strict=True))]

    def _edges(self, number: int, count: int) -> Int64s:
        """Return indices of pages that cut the `count` events of files with this low byte into ranges; no
        event is in two ranges."""
        inside = [_low_bytes(part) == number for part in self._parts]
        step, spans = count // _MOST_SAMPLED + 1, min(count // _MOST_TOGETHER + 1, _MOST_PARTS)
        some = [part.first[mask][::step] for part, mask in zip(self._parts, inside, strict=True)]
        sample = np.sort(np.concatenate(some).astype(np.int64))
        edges = np.unique(sample[np.arange(1, spans) * len(sample) // spans])
        crossing = np.zeros(len(edges) + 1, dtype=np.int64)
        for part, mask in zip(self._parts, inside, strict=True):
            long = np.flatnonzero(mask & (part.pages > 1))
            begin = part.first[long].astype(np.int64)
            for bound, sign in ((begin, 1), (begin + part.pages[long] - 1, -1)):
                place = np.searchsorted(edges, bound, side="right")
                crossing += sign * np.bincount(place, minlength=len(edges) + 1)
        return np.asarray(edges[np.cumsum(crossing)[:-1] == 0], dtype=np.int64)

    def _numbers_of_files(self, rows: Rows) -> Unsigned:
        """Return the numbers of the rows' files. The key of a file is its `inode_id`. The files of a device
        that were not distinguished share a key below zero."""
        values, code = encoded(rows.batch.column("inode_id"))
        if values.null_count:
            keys = rows.integers("inode_id")
            keys = np.where(keys == NO_ID, -1 - rows.integers("dev"), keys)
            values, code = encoded(pa.array(keys))
        known_files = len(self._files.values)
        number = self._files.of(values.to_pylist())
        if len(self._files.values) > known_files:
            new = firsts_of(code, len(number))[number >= known_files]
            of_new = rows.batch.select(["dev", "ino"]).take(pa.array(new))
            self._devices += of_new.column("dev").to_pylist()
            self._inos += of_new.column("ino").fill_null(0).to_pylist()
        return narrow(number)[code]

    def _numbers_of_kinds(self, rows: Rows) -> Unsigned:
        time, of_task = rows.integers("time"), rows.integers("tgid")
        coded = [encoded(rows.batch.column(name)) for name in _KINDS]
        owners, processes = (values.to_pylist() for values, _ in coded[:2])
        removed_ns = np.array([self._removed_ns.get(number, _FOREVER) for number in owners], dtype=np.int64)
        is_removed: Bools = np.broadcast_to(np.False_, len(time))
        if removed_ns.min() < time.max():
            is_removed = removed_ns[coded[0][1]] < time
        is_summed = ~rows.known("index")
        columns: list[npt.NDArray[Any]] = [is_removed, is_summed, *(code for _, code in coded)]
        if self._processes.is_any_reused(processes):
            columns.append(self._processes.positions_at(of_task, time) + 1)
        code, firsts = distinct(*columns)
        first_rows = Rows(rows.batch.take(pa.array(firsts)))
        owner, tgid, actor = (first_rows.integers(name).tolist() for name in _KINDS[:3])
        op, cause = (first_rows.batch.column(name).to_pylist() for name in _KINDS[3:])
        task = self._processes.positions_at(of_task[firsts], time[firsts]).tolist()
        gone, summed = is_removed[firsts].tolist(), is_summed[firsts].tolist()
        number = self._kinds.of(zip(owner, gone, tgid, task, actor, op, cause, summed, strict=True))
        return narrow(number)[code]


def _low_bytes(events: Events) -> npt.NDArray[np.uint8]:
    return events.file.astype(np.uint8)


def _ranges_of(indices: Unsigned, edges: Int64s) -> npt.NDArray[np.uint16]:
    """Return the number of the edges at or below each index.

    If the edges are far apart, most indices are found by their upper bits, in a table.
    """
    lowest = indices.min()
    shift = max(int(indices.max() - lowest).bit_length() - _CELL_BITS, 0)
    cell = (indices - lowest) >> np.uint8(shift)
    begins = int(lowest) + (np.arange(int(cell.max()) + 2, dtype=np.int64) << shift)
    found = np.searchsorted(edges, begins, side="right").astype(np.uint16)[cell]
    unsure = np.flatnonzero((np.diff(np.searchsorted(edges, begins)) > 0)[cell])
    found[unsure] = np.searchsorted(edges, indices[unsure].astype(np.int64), side="right")
    return np.asarray(found, dtype=np.uint16)
