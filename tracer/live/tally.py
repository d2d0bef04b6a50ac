"""Tally: the latest sample and the sums of each cgroup, from the rows as they come.

All sums include the cgroups below, also removed ones, as the kernel's own counters of a cgroup do. A removed
cgroup is forgotten; memory that is uncharged from it later is subtracted from the cgroups above it.

One thread calls `take`, another one may call `copy` at any time, and `take` never waits. A copy that was made
while `take` ran is made again (`_version` is odd during `take`). If that goes on, `take` makes the copy.
"""

from __future__ import annotations

import itertools
import mmap
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from tracer.live.alarm import Alarm
from tracer.live.cgroup_states import CgroupStates
from tracer.live.countdown import Countdown, free_swap_bytes
from tracer.live.flows import CATEGORY_NAMES, WIDTH, Evictions, evictions_of, flows_of
from tracer.live.sample_arrays import UNKNOWN, Numbers, is_word, values
from tracer.schema import TABLES
from tracer.trace.arrow_columns import integers, is_known, nullable_integers, words

SAMPLE_COLUMNS: Final = tuple(
    name for name in TABLES["samples"].names if name not in ("time", "cgroup_id", "source", "kill_id")
)
"""The columns that are kept of a sample: `UNKNOWN` for null."""

_NAMES: Final = ("path", "container_id", "container", "pod", "namespace", "unit")
_KIND: Final = np.dtype(
    [
        ("time", "i8"),  # of the latest sample; 0: there is none
        ("sample", "i8", len(SAMPLE_COLUMNS)),
        ("cushion", "i8", 3),  # left, room and cache of `countdown.cushions`; UNKNOWN: there is no limit
        ("start", "i8", len(CATEGORY_NAMES)),  # the categories of its `start` sample
        ("flows", "i8", WIDTH),
        ("changes", "i8"),  # of this row; two states with the same number are the same
    ]
)
_FRESH: Final = (
    0,
    (UNKNOWN,) * len(SAMPLE_COLUMNS),
    (UNKNOWN,) * 3,
    (UNKNOWN,) * len(CATEGORY_NAMES),
    (0,) * WIDTH,
    0,
)
MOST_NAMELESS: Final = 1024
"""The most cgroups that have rows and no name yet: names come within a second."""

MOST_LINKS: Final = 16_384
"""The most removed cgroups whose parent is remembered."""

MOST_DEAD: Final = 1024
"""The most removed cgroups whose names are kept: a cgroup may be removed before its kill is known."""

MOST_EVICTORS: Final = 64
"""The most evictors of one cgroup's page cache that have sums of their own; the others share `OTHERS`."""

OTHERS: Final = 0
_TRIES: Final = 50
"""After so many attempts to copy between two calls of `take`, `take` itself makes a copy."""

_PAUSE_S: Final = 0.0002


@dataclass(frozen=True, slots=True)
class Names:
    """The names of a cgroup; null: there is none, or it is not known. Any user can choose them."""

    path: str
    parent_id: int | None
    is_new: bool
    container_id: str | None = None
    container: str | None = None
    pod: str | None = None
    namespace: str | None = None
    unit: str | None = None


@dataclass(frozen=True)
class Copy:
    """The state of a tally at one moment. `names` are the same as in an earlier copy with the same
    `names_version`. `places` are positions in `rows`; `approaches` has the rows of `Countdown.states`, at
    `approach_places`."""

    names: dict[int, Names]
    names_version: int
    places: dict[int, int]
    rows: Any
    approach_places: dict[int, int]
    approaches: Any
    evicted: dict[int, dict[int, int]]


class Tally:
    """A follower of rows (`History.followers`), whose state is bounded by the cgroups that exist.

    `page_bytes` is the machine's, `free_swap` returns its free swap in bytes, and `alarmed` is called when a
    cushion will be used up soon. `lost` has the records that each stream has lost.
    """

    def __init__(
        self,
        page_bytes: int = mmap.PAGESIZE,
        free_swap: Callable[[], int] = free_swap_bytes,
        alarmed: Callable[[Alarm], object] = lambda _: None,
    ) -> None:
        self._alarmed = alarmed
        self.lost: Counter[str] = Counter()
        self.page_bytes = page_bytes
        self._states = CgroupStates(_KIND, _FRESH)
        self._countdown = Countdown(free_swap)
        self._names: dict[int, Names] = {}
        self._nameless: dict[int, None] = {}
        self._links: dict[int, int | None] = {}
        self._lines: dict[int, Numbers] = {}
        self._evicted: dict[int, dict[int, int]] = {}
        self._dead: dict[int, Names] = {}
        self._latest_ns = (0, 0)
        self._version = self._names_version = 0
        self._is_asked = False
        self._given: Copy | None = None

    def __len__(self) -> int:
        return len(self._states)

    def take(self, table: str, rows: pa.RecordBatch) -> None:
        """Add rows of any table of the schema, in the order in which they are recorded."""
        if not rows.num_rows:
            return
        self._version += 1
        try:
            self._forget_nameless()
            if table == "cgroups":
                self._take_names(rows)
            elif table == "samples":
                self._take_samples(rows)
            elif table == "loss":
                self._take_losses(rows)
            else:
                for flows in flows_of(table, rows, self.page_bytes):
                    self._add(flows.cgroup_ids, flows.sums)
                if table == "pagecache":
                    self._add_evictions(evictions_of(rows, self.page_bytes))
        finally:
            self._version += 1
            if self._is_asked:
                self._is_asked, self._given = False, self._copy()

    def names_of(self, cgroup_id: int) -> Names | None:
        """Return the names of a cgroup that exists or was removed lately; None: they are not known."""
        return self._names.get(cgroup_id) or self._dead.get(cgroup_id)

    def now_ns(self) -> int:
        """Return the present time on the clock of the rows; 0: there was no sample. It is late by the age
        that the last sample had when it came: some tenths of a second."""
        row_ns, taken_ns = self._latest_ns
        return row_ns and row_ns + time.monotonic_ns() - taken_ns

    def copy(self) -> Copy:
        """Return the present state, from any thread, one at a time."""
        for attempt in itertools.count():
            version = self._version
            if version % 2 == 0:
                try:
                    copy = self._copy()
                except RuntimeError:  # a dictionary grew meanwhile
                    continue
                if version == self._version:
                    return copy
            if attempt == _TRIES:
                self._given = None
                self._is_asked = True
            elif attempt > _TRIES and (given := self._given) is not None:
                return given
            time.sleep(_PAUSE_S)  # another thread is in `take`
        raise AssertionError

    def copy_losses(self) -> dict[str, int]:
        """Return stream -> records lost, from any thread."""
        return dict(self.lost)

    def _copy(self) -> Copy:
        approaches = self._countdown.states
        return Copy(
            self._names.copy(),
            self._names_version,
            self._states.copy_places(),
            self._states.copy_rows(),
            approaches.copy_places(),
            approaches.copy_rows(),
            {owner: by.copy() for owner, by in self._evicted.items()},
        )

    # Cgroups

    def _take_names(self, rows: pa.RecordBatch) -> None:
        self._names_version += 1
        self._lines.clear()
        removed = is_known(_chunked(rows, "removed")).tolist()
        created = is_known(_chunked(rows, "created")).tolist()
        ids = integers(_chunked(rows, "cgroup_id")).tolist()
        parents = nullable_integers(_chunked(rows, "parent_id"), UNKNOWN).tolist()
        names = rows.select(_NAMES).to_pylist()
        gone = []
        for number, parent, is_removed, is_new, given in zip(
            ids, parents, removed, created, names, strict=True
        ):
            parent_id = None if parent == UNKNOWN else parent
            is_first = number in self._nameless and number not in self._names
            self._nameless.pop(number, None)
            if is_removed:
                gone.append((number, parent_id))
            self._links.pop(number, None)
            self._names[number] = Names(parent_id=parent_id, is_new=is_new, **given)
            if is_first and parent_id is not None:
                own = self._states.rows["flows"][self._states.places(np.array([number]))]
                self._add(np.array([parent_id]), own)
        for number, parent_id in gone:
            self._forget(number, parent_id)

    def _forget(self, cgroup_id: int, parent_id: int | None) -> None:
        """Forget a cgroup, except for its parent: rows of the cgroup may come later."""
        if (names := self._names.pop(cgroup_id, None)) is not None:
            self._dead[cgroup_id] = names
            if len(self._dead) > MOST_DEAD:
                del self._dead[next(iter(self._dead))]
        self._evicted.pop(cgroup_id, None)
        self._states.forget([cgroup_id])
        self._countdown.forget([cgroup_id])
        self._lines.clear()
        self._links[cgroup_id] = parent_id
        if len(self._links) > MOST_LINKS:
            del self._links[next(iter(self._links))]

    def _line(self, cgroup_id: int) -> Numbers:
        """Return the places of a cgroup and of all above it; for a removed cgroup, only of those above it."""
        line = self._lines.get(cgroup_id)
        if line is None:
            ids: list[int] = []
            at: int | None = cgroup_id
            seen = set[int]()
            while at is not None and at not in seen:
                seen.add(at)
                if at in self._links:
                    at = self._links[at]
                    continue
                ids.append(at)
                if at not in self._names:
                    self._nameless[at] = None
                    break
                at = self._names[at].parent_id
            line = self._lines[cgroup_id] = self._states.places(np.array(ids, np.int64))
        return line

    def _forget_nameless(self) -> None:
        """Forget the oldest cgroups whose names did not come."""
        while len(self._nameless) > MOST_NAMELESS:
            oldest = next(iter(self._nameless))
            del self._nameless[oldest]
            self._evicted.pop(oldest, None)
            self._states.forget([oldest])
            self._lines.clear()

    # Rows

    def _add(self, cgroup_ids: Numbers, sums: Numbers) -> None:
        lines = [self._line(number) for number in cgroup_ids.tolist()]
        if not lines:
            return
        of = np.repeat(np.arange(len(lines)), [len(line) for line in lines])
        places = np.concatenate(lines)
        order = np.argsort(places, kind="stable")
        places, starts = np.unique(places[order], return_index=True)
        self._states.rows["flows"][places] += np.add.reduceat(sums[of[order]], starts)
        self._states.rows["changes"][places] = self._version

    def _add_evictions(self, found: Evictions) -> None:
        for owner, evictor, size in zip(
            found.owners.tolist(), found.evictors.tolist(), found.sizes.tolist(), strict=True
        ):
            if owner not in self._links:
                by = self._evicted.setdefault(owner, {})
                key = evictor if evictor in by or len(by) < MOST_EVICTORS else OTHERS
                by[key] = by.get(key, 0) + size

    def _take_samples(self, rows: pa.RecordBatch) -> None:
        times = values(rows, "time")
        self._latest_ns = int(times[-1]), time.monotonic_ns()
        for alarm in self._countdown.take(rows):
            self._alarmed(alarm)
        left, room, cache, _, has_limit = self._countdown.cushions_of(rows, int(times[-1]))
        cushions = np.where(has_limit[:, None], np.stack([left, room, cache], axis=1), UNKNOWN)
        ids = values(rows, "cgroup_id")
        read = np.stack([values(rows, name) for name in SAMPLE_COLUMNS], axis=1)
        is_living = np.array([number not in self._links for number in ids.tolist()], np.bool_)
        is_kill = is_word(rows, "source", "oom")
        lasts = _last_of_each(ids, is_living & ~is_kill)
        self._lines_for(ids[lasts])
        places = self._states.places(ids[lasts])
        states = self._states.rows
        states["time"][places] = times[lasts]
        states["changes"][places] = self._version
        psi = [SAMPLE_COLUMNS.index(name) for name in ("psi_some_total_us", "psi_full_total_us")]
        before = states["sample"][places]
        states["sample"][places] = read[lasts]
        for column in psi:  # pressure is not read at each sample
            now = read[lasts, column]
            states["sample"][places, column] = np.where(now == UNKNOWN, before[:, column], now)
        states["cushion"][places] = cushions[lasts]
        starts = np.flatnonzero(is_word(rows, "source", "start") & is_living)
        if len(starts):
            columns = [SAMPLE_COLUMNS.index(f"{name}_bytes") for name in CATEGORY_NAMES]
            at = self._states.places(ids[starts])
            states["start"][at] = read[starts][:, columns]

    def _lines_for(self, cgroup_ids: Numbers) -> None:
        for number in cgroup_ids.tolist():
            self._line(number)

    def _take_losses(self, rows: pa.RecordBatch) -> None:
        codes, streams = words(_chunked(rows, "stream"))
        sums = np.bincount(codes, integers(_chunked(rows, "lost")), len(streams))
        for stream, lost in zip(streams, sums.tolist(), strict=True):
            self.lost[str(stream)] += int(lost)


def _last_of_each(ids: Numbers, mask: Any) -> Numbers:
    """Return the position of the last row of each id, among the rows in the mask."""
    rows = np.flatnonzero(mask)
    _, firsts = np.unique(ids[rows][::-1], return_index=True)
    lasts: Numbers = rows[len(rows) - 1 - firsts]
    return lasts


def _chunked(rows: pa.RecordBatch, name: str) -> pa.ChunkedArray:
    return pa.chunked_array([rows.column(name)])
