"""The state of each cgroup when a trace begins in the middle of a recording.

The memory of a cgroup at a moment is its `start` sample plus all rows of `charge` until then, for the cgroup
and all cgroups below it. Rows that leave the history are added to the `start` sample, so that the sum stays
the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer.categories import CATEGORIES
from tracer.schema import TABLES, TIME
from tracer.trace.arrow_columns import (
    Column,
    integers,
    is_known,
    names,
    nullable_integers,
    numbers,
    take,
    words,
)

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Data: TypeAlias = pa.RecordBatch | pa.Table
_Sample: TypeAlias = tuple[int, Int64s, Bools]
"""Time in ns, values of `_COLUMNS`, a mask of the known values."""

SETTLED_NS: Final = 10_000_000_000
"""After this time, the kernel memory of a removed cgroup is freed, or belongs to the parent."""

MOST_HELD: Final = 1000
"""The most removed cgroups with unfreed memory for which a trace still has a `start` sample."""

MOST_LINKS: Final = 65_536
"""The most cgroups for which only the parent is kept: about 7 MB."""

_ROWS_AT_ONCE: Final = 1000
"""The most `start` samples of a batch: a thousand take 2 MB while they are made."""

_BYTES_OF_CGROUP: Final = 340
_BYTES_OF_SUMS: Final = 230
_BYTES_OF_LINK: Final = 110
_BYTES_OF_PACKED: Final = 40  # beside its content

_COLUMNS: Final = [
    name for name in TABLES["samples"].names if name not in ("time", "cgroup_id", "source", "kill_id")
]
_PLACE: Final = {category.name: place for place, category in enumerate(CATEGORIES)}
_SIZES: Final = np.array([_COLUMNS.index(category.column) for category in CATEGORIES])
_READ: Final = np.array([_COLUMNS.index(name) for name in ("usage_bytes", "limit_bytes")])
_NOT_MOVED: Final = np.array([_PLACE[name] for name in ("anon", "file", "sock", "swap")])
"""Categories that may stay charged to a removed cgroup. At the removal, the parent takes over kernel memory
(memcg_reparent_objcgs in mm/memcontrol.c), and its counters in the removed cgroup do not change any more. If
the kernel also passes on anon and file (lru_reparent_memcg), `charge` has moved them, and their sum is
0."""


@dataclass(slots=True)
class _Cgroup:
    """The state of a cgroup. `start`, `sums` and `sample` are None until they get values.

    `start` has its categories at the beginning, `_packed`, and `sums` the changes by rows that left the
    history. `sample` has the columns of samples that left the history, `_packed`. `read_ns` is the time of
    the last reading of its page counter, in these samples or in rows of `charge`.
    """

    parent_id: int | None = None
    created_ns: int | None = None
    removed_ns: int | None = None
    children: int = 0
    start_ns: int = 0
    start: bytes | None = None
    sums: Int64s | None = None
    sample: bytes | None = None
    read_ns: int = 0

    @property
    def packed_bytes(self) -> int:
        """Return approximately the memory that `start` and `sample` take."""
        return sum(_BYTES_OF_PACKED + len(one) for one in (self.start, self.sample) if one is not None)

    def add(self, sums: Int64s) -> None:
        """Add changes of the categories (bytes)."""
        self.sums = sums.copy() if self.sums is None else self.sums + sums

    def take_samples(self, samples: Iterable[_Sample]) -> None:
        """Keep the known columns of samples, each of which is later than all earlier ones."""
        kept, is_kept = _unpacked(self.sample, len(_COLUMNS))
        for time_ns, values, known in samples:
            is_taken = known.copy()
            if time_ns < self.read_ns:
                is_taken[_READ] = False
            elif known[_READ].any():
                self.read_ns = time_ns
            kept[is_taken] = values[is_taken]
            is_kept |= is_taken
        self.sample = _packed(kept, is_kept)

    def level(self) -> tuple[Int64s, Bools]:
        """Return (bytes of each category without the rows of the history, a mask of the known categories)."""
        sums = np.zeros(len(CATEGORIES), np.int64) if self.sums is None else self.sums
        if self.start is not None:
            start, known = _unpacked(self.start, len(CATEGORIES))
            return start + sums, known
        return sums, np.full(len(CATEGORIES), self.created_ns is not None)

    def lives_at(self, time_ns: int) -> bool:
        """Return whether the cgroup was not removed before this time."""
        return self.removed_ns is None or self.removed_ns >= time_ns

    def holds_memory(self, time_ns: int) -> bool:
        """Return whether memory is known to be left at `time_ns` that only this cgroup can be charged for;
        any memory counts if the cgroup was removed less than `SETTLED_NS` before."""
        level, known = self.level()
        places = slice(None) if self.lives_at(time_ns - SETTLED_NS) else _NOT_MOVED
        return bool((level[places] * known[places] > 0).any())


class OwnSums:
    """The sums of rows of `charge` for each cgroup itself: bytes of each category, in order of their number.
    A cgroup whose sums are all 0 takes no memory."""

    def __init__(self) -> None:
        self._sums: dict[int, Int64s] = {}

    @property
    def size_bytes(self) -> int:
        """Return approximately the memory that all sums take."""
        return _BYTES_OF_SUMS * len(self._sums)

    def add(self, charges: Data, sign: int = 1) -> None:
        """Add rows of `charge`, or subtract them (`sign` -1)."""
        for cgroup_id, sums in _sums(charges) if charges.num_rows else ():
            total = sign * sums + self._sums.get(cgroup_id, 0)
            if total.any():
                self._sums[cgroup_id] = total
            else:
                self._sums.pop(cgroup_id, None)

    def of(self, cgroup_ids: Iterable[int]) -> OwnSums:
        """Return a copy for some cgroups."""
        copied = OwnSums()
        copied._sums = {one: self._sums[one] for one in cgroup_ids if one in self._sums}
        return copied

    def items(self) -> Iterable[tuple[int, Int64s]]:
        """Return (id, sums) of each cgroup."""
        return self._sums.items()


class Bases:
    """The `start` samples of a trace that begins with the history.

    `unrecorded` are the categories without rows in `charge` (`unrecorded_categories` in meta.json).
    """

    def __init__(self, unrecorded: Collection[str] = ()) -> None:
        self._is_recorded = np.array([category.name not in unrecorded for category in CATEGORIES])
        self._cgroups: dict[int, _Cgroup] = {}
        self._packed_bytes = 0
        self._summed = 0  # cgroups with `sums`
        self._nameless: set[int] = set()
        self._removed: deque[int] = deque()
        self._held: dict[int, None] = {}
        self._links: dict[int, int | None] = {}

    @property
    def size_bytes(self) -> int:
        """Return approximately the memory that all cgroups take."""
        states = _BYTES_OF_CGROUP * len(self._cgroups) + _BYTES_OF_LINK * len(self._links)
        return states + _BYTES_OF_SUMS * self._summed + self._packed_bytes

    def note_cgroups(self, rows: Data) -> None:
        """Note parents, creation and removal from rows of `cgroups`, as they arrive."""
        columns = [_optional(rows.column(name)) for name in ("parent_id", "created", "removed")]
        ids = integers(rows.column("cgroup_id")).tolist()
        for cgroup_id, parent_id, created_ns, removed_ns in zip(ids, *columns, strict=True):
            if cgroup_id in self._links:
                continue
            one = self._cgroup(cgroup_id)
            self._nameless.discard(cgroup_id)
            one.created_ns = one.created_ns if created_ns is None else created_ns
            if one.parent_id is None and parent_id is not None and cgroup_id not in self._line(parent_id):
                self._set_parent(one, parent_id)
            if one.removed_ns is None and removed_ns is not None:
                one.removed_ns = removed_ns
                self._removed.append(cgroup_id)

    def add_starts(self, samples: Data) -> None:
        """Keep the first sample with source `start` of each cgroup, as the rows of `samples` arrive."""
        codes, sources = words(samples.column("source"))
        is_start = codes == (sources.index("start") if "start" in sources else -1)
        if not is_start.any():
            return
        data = take(samples, np.flatnonzero(is_start))
        for cgroup_id, (first, *_) in _samples(data):
            one = self._cgroup(cgroup_id)
            if one.start is None:
                time_ns, values, known = first
                one.start, one.start_ns = _packed(values[_SIZES], known[_SIZES]), time_ns
                self._packed_bytes += _BYTES_OF_PACKED + len(one.start)
                if one.sample is None:
                    self._take_samples(one, [first])

    def drop(self, table: str, data: Data) -> None:
        """Take rows of any table that leave the history, the oldest first.

        Samples of a cgroup that was removed before the last of these rows are not kept: any trace that can
        still begin has no such cgroup, or has it only for the memory that is still charged to it.
        """
        if not data.num_rows or table not in ("charge", "samples"):
            return
        end_ns = int(nullable_integers(data.column("time"), 0).max())
        if table == "charge":
            for cgroup_id, sums in _sums(data):
                self._add(cgroup_id, sums)
            self._read_counters(data, end_ns)
        else:
            for cgroup_id, samples in _samples(data):
                if (one := self._sampled_after(cgroup_id, end_ns)) is not None:
                    self._take_samples(one, samples)

    def ids(self, time_ns: int) -> set[int]:
        """Return the ids of the cgroups that belong in a trace that begins at `time_ns` (since the epoch).

        Cgroups that were removed earlier are left out, unless some of their memory may not be free yet.
        """
        return {
            cgroup_id
            for cgroup_id, one in self._cgroups.items()
            if cgroup_id not in self._nameless and (one.lives_at(time_ns) or one.holds_memory(time_ns))
        }

    def rows(self, time_ns: int, moved: Data) -> Iterator[pa.RecordBatch]:
        """Yield the rows of `samples` with source `start` for a trace that begins at `time_ns`.

        `moved` are rows of `charge` that are in the history and will not be in the trace. The returned rows
        come before all other samples of the trace. They have no row for a cgroup whose own `start` sample is
        still in the history, unless rows were dropped since.
        """
        return self._starts(time_ns, sorted(self.ids(time_ns)), _sums(moved) if moved.num_rows else ())

    def levels(
        self, time_ns: int, cgroup_ids: Iterable[int], moved: Iterable[tuple[int, Int64s]]
    ) -> Iterator[pa.RecordBatch]:
        """Yield rows like those of `rows` for some cgroups, with the sizes of categories alone: other
        columns are of samples that left the history, which may have been long before `time_ns`.

        `moved` are (id, sums of the cgroup's own rows).
        """
        living = [one for one in cgroup_ids if one in self._cgroups and self._cgroups[one].lives_at(time_ns)]
        return self._starts(time_ns, living, moved, has_samples=False)

    def _starts(
        self,
        time_ns: int,
        cgroup_ids: Iterable[int],
        moved: Iterable[tuple[int, Int64s]],
        *,
        has_samples: bool = True,
    ) -> Iterator[pa.RecordBatch]:
        added: dict[int, Int64s] = {}
        for cgroup_id, sums in moved:
            for above in self._line(cgroup_id):
                added[above] = added[above] + sums if above in added else sums
        found: list[tuple[int, Int64s, Bools]] = []
        for cgroup_id in cgroup_ids:
            one = self._cgroups[cgroup_id]
            if one.created_ns is not None and one.created_ns >= time_ns:
                continue
            if one.start is None and one.created_ns is None and one.sample is None:
                continue
            is_ahead = one.start is not None and one.start_ns >= time_ns
            if is_ahead and one.sums is None and cgroup_id not in added:
                continue
            found.append((cgroup_id, *self._row(one, added.get(cgroup_id), has_samples=has_samples)))
            if len(found) == _ROWS_AT_ONCE:
                yield _batch(time_ns, *zip(*found, strict=True))
                found.clear()
        if found:
            yield _batch(time_ns, *zip(*found, strict=True))

    def copy(self) -> Bases:
        """Return a copy that takes and returns rows, but cannot forget cgroups."""
        copied = Bases()
        copied._is_recorded, copied._links = self._is_recorded, self._links
        copied._cgroups = {cgroup_id: replace(one) for cgroup_id, one in self._cgroups.items()}
        copied._nameless = self._nameless.copy()
        return copied

    def forget(self, before_ns: int) -> None:
        """Forget cgroups that were removed before this time (since the epoch), children before parents.

        A removed cgroup is kept for 10 s, and while some of its memory is not free. If too many removed
        cgroups hold memory, only the parent of the oldest ones is kept, so that memory freed later is
        subtracted from the cgroups above.
        """
        for cgroup_id in [number for number in self._nameless if not self._cgroups[number].children]:
            self._forget(cgroup_id, is_linked=False)
        while self._removed and not self._cgroups[self._removed[0]].lives_at(before_ns - SETTLED_NS):
            self._held[self._removed.popleft()] = None
        for cgroup_id in list(self._held):
            one = self._cgroups[cgroup_id]
            if not one.children and not one.holds_memory(before_ns):
                self._forget(cgroup_id, is_linked=one.created_ns is None)
        for cgroup_id in list(self._held)[: max(len(self._held) - MOST_HELD, 0)]:
            if not self._cgroups[cgroup_id].children:
                self._forget(cgroup_id, is_linked=True)

    def _cgroup(self, cgroup_id: int) -> _Cgroup:
        one = self._cgroups.get(cgroup_id)
        if one is None:
            one = self._cgroups[cgroup_id] = _Cgroup()
            self._nameless.add(cgroup_id)
        return one

    def _sampled_after(self, cgroup_id: int, end_ns: int) -> _Cgroup | None:
        """Return a cgroup that may have samples after `end_ns`; None: it was removed earlier."""
        if cgroup_id in self._links:
            return None
        one = self._cgroup(cgroup_id)
        return one if one.lives_at(end_ns) else None

    def _take_samples(self, one: _Cgroup, samples: Iterable[_Sample]) -> None:
        self._packed_bytes -= one.packed_bytes
        one.take_samples(samples)
        self._packed_bytes += one.packed_bytes

    def _line(self, cgroup_id: int | None) -> Iterator[int]:
        """Yield the ids of a cgroup and of all cgroups above it."""
        while cgroup_id is not None:
            yield cgroup_id
            one = self._cgroups.get(cgroup_id)
            cgroup_id = self._links.get(cgroup_id) if one is None else one.parent_id

    def _set_parent(self, one: _Cgroup, parent_id: int) -> None:
        one.parent_id = parent_id
        if parent_id not in self._links:
            self._cgroup(parent_id).children += 1
        if one.sums is not None:
            self._add(parent_id, one.sums)

    def _add(self, cgroup_id: int, sums: Int64s) -> None:
        """Add changes to a cgroup and to all cgroups above it."""
        for above in self._line(cgroup_id):
            if above not in self._links:
                one = self._cgroup(above)
                self._summed += one.sums is None
                one.add(sums)

    def _read_counters(self, charges: Data, end_ns: int) -> None:
        """Keep the last reading of the page counter of each cgroup that exists at `end_ns`."""
        usage, limit = (charges.column(name) for name in ("usage_bytes", "limit_bytes"))
        rows = np.flatnonzero(is_known(usage) & is_known(limit))
        if not len(rows):
            return
        ids, times = (nullable_integers(charges.column(name), 0)[rows] for name in ("cgroup_id", "time"))
        order = np.lexsort((times, ids))
        last = order[np.flatnonzero(np.diff(ids[order], append=-1))]
        usages, limits = (nullable_integers(column, 0)[rows[last]] for column in (usage, limit))
        known = np.zeros(len(_COLUMNS), np.bool_)
        known[_READ] = True
        values = np.zeros(len(_COLUMNS), np.int64)
        for cgroup_id, time_ns, *read in zip(
            ids[last].tolist(), times[last].tolist(), usages.tolist(), limits.tolist(), strict=True
        ):
            if (one := self._sampled_after(cgroup_id, end_ns)) is not None:
                values[_READ] = read
                self._take_samples(one, [(time_ns, values, known)])

    def _row(self, one: _Cgroup, added: Int64s | None, *, has_samples: bool) -> tuple[Int64s, Bools]:
        values, known = _unpacked(one.sample if has_samples else None, len(_COLUMNS))
        level, is_level_known = one.level()
        values[_SIZES] = level if added is None else level + added
        known[_SIZES] = is_level_known & self._is_recorded
        return values, known

    def _forget(self, cgroup_id: int, *, is_linked: bool) -> None:
        one = self._cgroups.pop(cgroup_id)
        self._packed_bytes -= one.packed_bytes
        self._summed -= one.sums is not None
        self._held.pop(cgroup_id, None)
        self._nameless.discard(cgroup_id)
        if one.parent_id in self._cgroups:
            self._cgroups[one.parent_id].children -= 1
        if is_linked:
            self._links[cgroup_id] = one.parent_id
            if len(self._links) > MOST_LINKS:
                del self._links[next(iter(self._links))]


def begun_at(cgroups: pa.Table, time_ns: int) -> pa.Table:
    """Return rows of `cgroups` for a trace that begins at `time_ns` (since the epoch), in order of creation.

    `created` is null for cgroups that were made earlier: for the trace, they have always existed.
    """
    created = nullable_integers(cgroups.column("created"), 0)
    order = np.argsort(created, kind="stable")
    rows = take(cgroups, order)
    is_null = (created < time_ns) | ~is_known(cgroups.column("created"))
    column = numbers(created[order], TIME, is_null[order])
    place = rows.schema.get_field_index("created")
    return rows.set_column(place, rows.schema.field(place), column)


def _optional(column: Column) -> list[int | None]:
    values, known = nullable_integers(column, 0).tolist(), is_known(column).tolist()
    return [value if is_set else None for value, is_set in zip(values, known, strict=True)]


def _sums(charges: Data) -> Iterator[tuple[int, Int64s]]:
    """Yield (id of a cgroup, the sum in bytes of its own rows of `charge` for each category)."""
    codes, vocabulary = words(charges.column("category"))
    places = np.array([_PLACE[str(word)] for word in vocabulary], np.int64)[codes]
    ids, which = np.unique(integers(charges.column("cgroup_id")), return_inverse=True)
    sums = np.zeros((len(ids), len(CATEGORIES)), np.int64)
    np.add.at(sums, (which.reshape(-1), places), integers(charges.column("bytes")))
    yield from zip(ids.tolist(), sums, strict=True)


def _packed(values: Int64s, known: Bools) -> bytes:
    """Return values and the mask of the known ones in few bytes: most columns of most cgroups are 0."""
    is_set = values != 0
    return bytes(np.packbits([known, is_set])) + bytes(values[is_set])


def _unpacked(content: bytes | None, length: int) -> tuple[Int64s, Bools]:
    """Return the `length` values and the mask that `_packed` got; for None, no value is known."""
    values = np.zeros(length, np.int64)
    if content is None:
        return values, np.zeros(length, np.bool_)
    octets = np.frombuffer(content, np.uint8)
    masks_bytes = -(-2 * length // 8)
    known, is_set = np.unpackbits(octets[:masks_bytes], count=2 * length).view(np.bool_).reshape(2, length)
    values[is_set] = octets[masks_bytes:].view(np.int64)
    return values, known.copy()


def _samples(samples: Data) -> Iterator[tuple[int, list[_Sample]]]:
    """Yield (id, its samples in order of time) for each cgroup."""
    data = samples.combine_chunks() if isinstance(samples, pa.Table) else samples
    times = nullable_integers(data.column("time"), 0)
    cgroup_ids = nullable_integers(data.column("cgroup_id"), 0)
    order = np.lexsort((times, cgroup_ids))
    values = np.stack([nullable_integers(data.column(name), 0) for name in _COLUMNS], axis=1)[order]
    known = np.stack([is_known(data.column(name)) for name in _COLUMNS], axis=1)[order]
    ids = cgroup_ids[order]
    rows = list(zip(times[order].tolist(), values, known, strict=True))
    starts = np.flatnonzero(np.diff(ids, prepend=-1)).tolist()
    for begin, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        yield int(ids[begin]), rows[begin:end]


def _batch(
    time_ns: int, ids: tuple[int, ...], values: tuple[Int64s, ...], known: tuple[Bools, ...]
) -> pa.RecordBatch:
    count, schema = len(ids), TABLES["samples"]
    columns = {
        "time": numbers(np.full(count, time_ns, np.int64), TIME),
        "cgroup_id": numbers(np.array(ids, np.int64)),
        "source": names(np.zeros(count, np.int32), ("start",)),
        "kill_id": pa.nulls(count, pa.int64()),
    }
    for name, column, is_set in zip(_COLUMNS, np.stack(values, axis=1), np.stack(known, axis=1), strict=True):
        columns[name] = numbers(column, null=~is_set)
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)
