"""The last minutes of a recording in memory: new rows as they arrive, older rows thinned, the oldest
dropped.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer.schema import TABLES
from tracer.trace.arrow_columns import (
    IDENTITY_KEYS,
    conform,
    integers,
    keep_last,
    nullable_integers,
    take,
    weight_bytes,
)
from tracer.trace.history.bases import Bases, OwnSums, begun_at
from tracer.trace.history.segment import Part, Segment
from tracer.trace.history.thinning import SUMS_OF_RUNS_NS, summed_rows, thin
from tracer.trace.meta import Meta
from tracer.trace.row_sink import Rows, RowSink

_RECENT_BYTES: Final = 512 << 10
_MERGED_BYTES: Final = 2 << 20
"""The most bytes of rows, as columns, that are merged at once. The names of 80,000 files are 12 MiB: reading
them together would take twice as much for a moment."""
_MOST_ROWS_OF_KEY: Final = 2
"""Superseded rows are dropped when there are more rows than this for each key, on average."""

_NEVER: Final = np.iinfo(np.int64).max


class KeptNames:
    """Rows of the identity tables, in the order in which they came; all but the latest are compressed."""

    def __init__(self) -> None:
        self._recent: dict[str, list[pa.RecordBatch]] = {table: [] for table in IDENTITY_KEYS}
        self._recent_bytes = dict.fromkeys(IDENTITY_KEYS, 0)
        self._parts: dict[str, list[Part]] = {table: [] for table in IDENTITY_KEYS}

    @property
    def size_bytes(self) -> int:
        """Return the memory that the rows take."""
        packed = sum(len(part.content) for parts in self._parts.values() for part in parts)
        return packed + sum(self._recent_bytes.values())

    def count(self, table: str) -> int:
        """Return the number of rows of a table, including superseded rows."""
        packed = sum(part.rows for part in self._parts[table])
        return packed + sum(int(batch.num_rows) for batch in self._recent[table])

    def add(self, table: str, batch: pa.RecordBatch) -> None:
        """Add rows; each supersedes earlier rows with the same key."""
        self._recent[table].append(batch)
        self._recent_bytes[table] += weight_bytes(batch)
        if self._recent_bytes[table] > _RECENT_BYTES:
            self._pack(table)

    def pack(self) -> None:
        """Compress the latest rows as well."""
        for table, recent in self._recent.items():
            if recent:
                self._pack(table)

    def tables(self, table: str) -> Iterator[pa.Table]:
        """Yield the rows of a table, including superseded rows, about 2 MiB at a time."""
        for part in self._parts[table]:
            yield part.read()
        for batch in self._recent[table]:
            yield pa.Table.from_batches([batch])

    def read(self, table: str) -> pa.Table:
        """Return the latest row of each key."""
        return _latest(table, list(self.tables(table)))

    def forget_tasks(self, before_ns: int) -> None:
        """Forget the processes that ended before a time (CLOCK_REALTIME), and processes whose end was not
        seen but whose id another process has now."""
        data = self.read("tasks")
        ends = nullable_integers(data.column("exited"), _NEVER)
        is_kept = (ends >= before_ns) & (_has_its_id(data) | (ends != _NEVER))
        if not is_kept.all():
            self._keep("tasks", [take(data, np.flatnonzero(is_kept))])

    def retain(self, table: str, ids: npt.NDArray[np.int64]) -> None:
        """Forget the rows of a table whose id is not among these."""
        parts: list[Part] = []
        for part in self._parts[table]:
            few = _among(table, part.read(), ids)
            if few.num_rows == part.rows:
                parts.append(part)
            else:
                self._append(table, parts, few)
        self._parts[table] = parts
        recent, self._recent[table] = self._recent[table], []
        for batch in recent:
            few = _among(table, pa.Table.from_batches([batch]), ids)
            is_whole = few.num_rows == batch.num_rows
            self._recent[table] += [batch] if is_whole else few.combine_chunks().to_batches()
        self._recent_bytes[table] = sum(map(weight_bytes, self._recent[table]))
        if self.count(table) > _MOST_ROWS_OF_KEY * len(ids):
            self._keep(table, [self.read(table)])

    def among(self, table: str, ids: npt.NDArray[np.int64]) -> pa.Table:
        """Return the latest row of each key that is among these ids, of a table with one key."""
        return _latest(table, [_among(table, data, ids) for data in self.tables(table)])

    def _pack(self, table: str) -> None:
        rows = _latest(table, [pa.Table.from_batches([batch]) for batch in self._recent[table]])
        self._recent[table].clear()
        self._recent_bytes[table] = 0
        self._append(table, self._parts[table], rows)

    def _keep(self, table: str, pieces: Iterable[pa.Table]) -> None:
        parts: list[Part] = []
        for piece in pieces:
            self._append(table, parts, piece)
        self._parts[table] = parts
        self._recent[table].clear()
        self._recent_bytes[table] = 0

    @staticmethod
    def _append(table: str, parts: list[Part], rows: pa.Table) -> None:
        """Merge rows into the last part, or add them as a new part if both together would be too large."""
        if not rows.num_rows:
            return
        if parts and parts[-1].raw_bytes + rows.nbytes <= _MERGED_BYTES:
            rows = _latest(table, [parts.pop().read(), rows])
        parts.append(Part.of(table, rows.to_batches()))


def _latest(table: str, pieces: list[pa.Table]) -> pa.Table:
    """Return the latest row of each key in pieces of a table, which are in the order of their rows."""
    if not pieces:
        return pa.Table.from_batches([], TABLES[table])
    return keep_last(pa.concat_tables(pieces).unify_dictionaries(), table)


def _among(table: str, data: pa.Table, ids: npt.NDArray[np.int64]) -> pa.Table:
    (key,) = IDENTITY_KEYS[table]
    return take(data, np.flatnonzero(np.isin(integers(data.column(key)), ids)))


def _has_its_id(tasks: pa.Table) -> npt.NDArray[np.bool_]:
    """Return, for each process, whether no process that began later has the same tgid."""
    tgids, starts = integers(tasks.column("tgid")), integers(tasks.column("start_ns"))
    order = np.lexsort([starts, tgids])
    is_last = np.ones(len(order), np.bool_)
    is_last[order[:-1]] = np.diff(tgids[order]) != 0
    return is_last


_S: Final = 1_000_000_000
_STAGES: Final = ((0, 0, 0), (30 * _S, 100_000_000, 10 * _S), (120 * _S, _S, 60 * _S))
"""The fineness of rows by their age: (age, interval to which they are thinned, length of a segment)."""

_OPEN_BYTES: Final = 2 << 20
"""The most bytes of rows, as columns, that are thinned at once. Thinning needs about four times as much
memory."""
_FEW_BYTES: Final = 1 << 20
_FOLDED_EVERY_NS: Final = 10 * _S
"""Rows of less than `_FEW_BYTES` wait this long before they are compressed: small blocks cost as much time as
large ones."""

_YOUNGEST_NS: Final = 10 * _S
"""Younger rows are not thinned to save memory, and not dropped for cgroups that come and go."""

_WITH_FILES: Final = ("pagecache", "file_waits", "contents")
_DROPPED_AT_ONCE_NS: Final = 4 * _S
"""The least time span of rows that is dropped at once for cgroups that come and go: more rows than arrive
until the next drop."""
_NAMES_EVERY_NS: Final = 20 * _S
_LEAST_FILES: Final = 20_000  # the number of files above which files without references are forgotten
Follower = Callable[[str, pa.RecordBatch], object]


class History(RowSink):
    """Keeps the rows of the last `keep_ns`, in about `most_bytes` of memory.

    Rows are thinned with age (`_STAGES`), and earlier if they take more memory than allowed. Then the oldest
    rows are dropped, from all tables up to the same time, so that a trace of the history is complete since
    its begin. `followers` receive each batch that arrives. `named_files` returns the ids of the files that
    the kernel has named and will not name again.
    """

    def __init__(self, meta: Meta, *, keep_ns: int, most_bytes: int) -> None:
        self.meta = meta
        self.rows = dict.fromkeys(TABLES, 0)
        self.lost: Counter[str] = Counter()  # stays empty: rows that were not kept are older than the begin
        self.followers: list[Follower] = []
        self.keep_ns = keep_ns
        self.most_bytes = most_bytes
        self.names = KeptNames()
        self.named_files: Callable[[], npt.NDArray[np.int64]] = lambda: np.zeros(0, np.int64)
        self._files_due = _LEAST_FILES
        self._names_ns = self._folded_ns = 0
        self._bases = Bases()
        self._charged = OwnSums()  # of the rows in the history
        self._segments: deque[Segment] = deque()
        self._segments_bytes = 0
        self._open: dict[str, list[pa.RecordBatch]] = {}
        self._open_bytes = 0
        self._next = self._mark = 0
        self._kills: list[int] = []
        clock = meta["clock"]
        self._complete_ns = clock["realtime_ns"]  # no row since then was dropped

    # Rows in

    def append(self, table: str, batch: pa.RecordBatch | pa.Table) -> None:
        """Add rows, cast to the table's schema by `conform`."""
        for conforming in conform(table, batch):
            self.rows[table] += conforming.num_rows
            if table in IDENTITY_KEYS:
                self.names.add(table, conforming)
                if table == "cgroups":
                    self._bases.note_cgroups(conforming)
            else:
                if table == "samples":
                    self._bases.add_starts(conforming)
                elif table == "oom":
                    self._kills += nullable_integers(conforming.column("time"), 0).tolist()
                elif table == "charge":
                    self._charged.add(conforming)
                self._open.setdefault(table, []).append(conforming)
                self._open_bytes += weight_bytes(conforming)
            for follower in self.followers:
                follower(table, conforming)
        if self._open_bytes > _OPEN_BYTES:
            self._fold()
            while self.size_bytes * 4 > self.most_bytes * 5 and self._save_memory(self._segments[-1].end_ns):
                pass  # before the next `age`, a flood may bring more rows than may be kept

    def write_meta(self) -> None:
        """Note before the first row which categories have no rows in `charge`; `meta` is in each trace."""
        if not any(self.rows.values()):
            self._bases = Bases(self.meta.get("unrecorded_categories", ()))

    def close(self, end_reason: str, **meta_updates: Any) -> None:
        """Note the end in `meta`."""
        self.meta = cast(Meta, {**self.meta, "end_reason": end_reason, **meta_updates})

    # Age

    @property
    def size_bytes(self) -> int:
        """Return the memory that the rows take."""
        rows_bytes = self._segments_bytes + self._open_bytes
        return rows_bytes + self.names.size_bytes + self._bases.size_bytes + self._charged.size_bytes

    def age(self, now_ns: int) -> None:
        """Thin rows that have become old, and drop rows that are older than `keep_ns` or take too much
        memory.

        `now_ns` is CLOCK_REALTIME of the history's clock pair. Call this every second or two while rows
        arrive.
        """
        if self._open_bytes > _FEW_BYTES or now_ns - self._folded_ns >= min(
            _FOLDED_EVERY_NS, self.keep_ns // 8
        ):
            self._fold()
            self._folded_ns = now_ns
        for stage in (1, 2):
            for group in self._due(stage, now_ns - _STAGES[stage][0]):
                self._thin(group, stage)
        while self._segments and self._segments[0].end_ns < now_ns - self.keep_ns:
            self._drop()
        begin_ns = self._forget_before(now_ns)
        if self.size_bytes > self.most_bytes:
            self.names.pack()
        while self.size_bytes > self.most_bytes and self._save_memory(now_ns):
            begin_ns = self._forget_before(now_ns)
        if now_ns - self._names_ns > _NAMES_EVERY_NS:
            self._names_ns = now_ns
            self.names.forget_tasks(begin_ns)
            self.names.retain("cgroups", np.fromiter(self._bases.ids(begin_ns), np.int64))
            if self.names.count("inodes") > self._files_due:
                self._forget_files()

    def _forget_before(self, now_ns: int) -> int:
        """Forget cgroups that were removed before the oldest row, and return the time of this row."""
        begin_ns = now_ns - self.keep_ns if self.begin_ns is None else self.begin_ns
        self._bases.forget(begin_ns)
        self._kills = [time_ns for time_ns in self._kills if time_ns >= begin_ns]
        return begin_ns

    @property
    def begin_ns(self) -> int | None:
        """Return the time of the oldest row (CLOCK_REALTIME); None: there is none."""
        return min((segment.begin_ns for segment in self._segments), default=None)

    def _fold(self) -> None:
        """Compress the rows that arrived since the last call."""
        if self._open:
            self._add(len(self._segments), Segment.of(self._next, self._open))
            self._next += 1
            self._open, self._open_bytes = {}, 0

    def _add(self, position: int, segment: Segment) -> None:
        self._segments.insert(position, segment)
        self._segments_bytes += segment.size_bytes

    def _due(self, stage: int, before_ns: int) -> Iterator[list[Segment]]:
        """Yield groups of old segments of the earlier stage; each makes one segment of this stage."""
        while True:
            group, is_whole = self._group(stage)
            if not is_whole or group[-1].end_ns >= before_ns:
                return
            yield group

    def _group(self, stage: int) -> tuple[list[Segment], bool]:
        """Return the oldest segments of the earlier stage, as many as make one segment of this stage, and
        whether no more segments will join them."""
        *_, window_ns = _STAGES[stage]
        group: list[Segment] = []
        raw_bytes = 0
        for segment in self._segments:
            if segment.fineness_ns != _STAGES[stage - 1][1]:
                if group:
                    break
                continue
            raw_bytes += segment.raw_bytes
            if group and (raw_bytes > _MERGED_BYTES or segment.end_ns - group[0].begin_ns > window_ns):
                return group, True
            if group and group[-1].number < self._mark <= segment.number:
                return group, True
            group.append(segment)
        return group, False

    def _thin(self, group: list[Segment], stage: int) -> None:
        """Replace segments by one segment with thinned rows."""
        fineness_ns = _STAGES[stage][1]
        clock, kills = self.meta["clock"], sorted(set(self._kills))
        origin_ns = clock["realtime_ns"] - clock["monotonic_ns"]  # a step of CLOCK_REALTIME does not move it
        tables = dict.fromkeys(table for segment in group for table in segment.parts)
        batches: dict[str, list[pa.RecordBatch]] = {}
        for table in tables:
            listed = [batch for segment in group for batch in segment.read(table)]
            data = pa.Table.from_batches(listed, TABLES[table]).unify_dictionaries()
            batches[table] = (
                thin(table, data, fineness_ns, origin_ns=origin_ns, cuts=kills).combine_chunks().to_batches()
            )
        position = self._segments.index(group[0])
        for segment in group:
            self._segments.remove(segment)
            self._segments_bytes -= segment.size_bytes
        self._add(position, Segment.of(group[-1].number, batches, fineness_ns))

    def _save_memory(self, now_ns: int) -> bool:
        """Thin rows before their time, the oldest first; drop the oldest if all are thinned, or if cgroups
        that come and go take more memory than rows. Return whether another call would free more at once."""
        is_for_rows = self._segments_bytes > self._bases.size_bytes
        for stage in (2, 1):
            group, _ = self._group(stage)
            if is_for_rows and group and group[-1].end_ns < now_ns - _YOUNGEST_NS:
                self._thin(group, stage)
                return True
        if len(self._segments) < 2:
            return False
        if is_for_rows:
            self._drop()
            return True
        first = self._segments[0]
        excess_ns = round((now_ns - first.begin_ns) * (1 - self.most_bytes / self.size_bytes))
        until_ns = min(first.end_ns + max(_DROPPED_AT_ONCE_NS, excess_ns), now_ns - _YOUNGEST_NS)
        while len(self._segments) > 1 and self._segments[0].end_ns < until_ns:
            self._drop()
        return False  # removed cgroups are forgotten some seconds later

    def _forget_files(self) -> None:
        """Forget the files without references in the history that the kernel would name again."""
        columns = [self.names.read("tasks").column("exe_inode_id")]
        for segment in self._segments:
            columns += [
                pa.Table.from_batches(segment.read(table)).column("inode_id")
                for table in _WITH_FILES
                if table in segment.parts
            ]
        ids = [np.unique(nullable_integers(column, 0)) for column in columns]
        self.names.retain("inodes", np.concatenate([*ids, self.named_files()]))
        self._files_due = max(2 * self.names.count("inodes"), _LEAST_FILES)

    def _drop(self) -> None:
        segment = self._segments.popleft()
        self._complete_ns = max(self._complete_ns, segment.end_ns)
        self._segments_bytes -= segment.size_bytes
        for table in ("charge", "samples"):
            for batch in segment.read(table):
                self._bases.drop(table, batch)
                if table == "charge":
                    self._charged.add(batch, -1)

    # Rows out

    def mark(self) -> int:
        """Return the number with which `replay` begins with the rows that arrive from now on."""
        self._fold()
        self._mark = self._next
        return self._mark

    def replay(self, sink: Rows, now_ns: int, since: int = 0) -> int:
        """Append the history to a sink, and return its begin (CLOCK_REALTIME).

        The sink gets the names, a `start` sample of each cgroup, and the rows since the number `since`
        (`mark`).
        """
        self._fold()
        told = [segment for segment in self._segments if segment.number >= since]
        begin_ns = min((segment.begin_ns for segment in told), default=now_ns)
        bases = self._bases
        if earlier := list(takewhile(lambda segment: segment.number < since, self._segments)):
            bases = bases.copy()
            for segment in earlier:
                for table in ("charge", "samples"):
                    for batch in segment.read(table):
                        bases.drop(table, batch)
        for table in IDENTITY_KEYS:
            if table == "cgroups":
                ids = np.fromiter(bases.ids(begin_ns), np.int64)
                sink.append(table, begun_at(self.names.among(table, ids), begin_ns))
            else:
                for names in self.names.tables(table):
                    sink.append(table, names)
        for batch in bases.rows(begin_ns, pa.Table.from_batches([], TABLES["charge"])):
            sink.append("samples", batch)
        for segment in told:
            for table in segment.parts:
                for batch in segment.read(table):
                    sink.append(table, batch)
        sink.append_rows("summed", self._sums(told))
        return begin_ns

    def recent(
        self, since_ns: int, tables: Collection[str] = TABLES.keys()
    ) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Yield (table, rows) that hold all rows since a time (CLOCK_REALTIME), and some older ones."""
        late = takewhile(lambda segment: segment.end_ns >= since_ns, reversed(self._segments))
        for segment in reversed([*late]):
            for table in (one for one in segment.parts if one in tables):
                yield from ((table, batch) for batch in segment.read(table))
        for table in (one for one in self._open if one in tables):
            yield from ((table, batch) for batch in self._open[table])

    def levels(self, time_ns: int, cgroup_ids: Sequence[int]) -> list[pa.RecordBatch]:
        """Return a `start` sample at a recent time for each of these cgroups that lived then, with the sizes
        of its categories. For a cgroup with others below it, `cgroup_ids` must have these as well. Like
        `recent`, it reads only the rows since then."""
        moved = self._charged.of(cgroup_ids)
        for _, rows in self.recent(time_ns, ("charge",)):
            late = nullable_integers(rows.column("time"), 0) >= time_ns
            late &= np.isin(integers(rows.column("cgroup_id")), cgroup_ids)
            moved.add(take(rows, np.flatnonzero(late)), -1)
        return list(self._bases.levels(time_ns, cgroup_ids, moved.items()))

    def _sums(self, segments: list[Segment]) -> list[dict[str, Any]]:
        """Return the rows of `summed` for the rows that were thinned here."""
        thinned = [segment for segment in segments if segment.fineness_ns >= SUMS_OF_RUNS_NS]
        parts = [segment.parts["pagecache"] for segment in thinned if "pagecache" in segment.parts]
        return summed_rows(part.read() for part in parts)

    def fineness(self, since: int = 0) -> list[dict[str, int]]:
        """Return the times (`begin_ns`, CLOCK_REALTIME) since which rows are thinned to one in `every_ms`,
        the oldest first; 0: rows are as recorded. `since` has the meaning that it has in `replay`."""
        self._fold()
        stages: list[dict[str, int]] = []
        for segment in self._segments:
            every_ms = segment.fineness_ns // 1_000_000
            if segment.number >= since and (not stages or stages[-1]["every_ms"] != every_ms):
                stages.append({"begin_ns": segment.begin_ns, "every_ms": every_ms})
        return stages

    def shortened_to_s(self, now_ns: int) -> float | None:
        """Return the seconds that the history covers, if rows of the last `keep_ns` were dropped because they
        took too much memory; None: no such row is missing. `now_ns` as for `age`."""
        is_short = self._complete_ns > max(now_ns - self.keep_ns, self.meta["clock"]["realtime_ns"])
        return (now_ns - self._complete_ns) / 1e9 if is_short else None

    def sentence(self, now_ns: int) -> str:
        """Return a line with the time that the history covers, and its memory; `now_ns` as for `age`."""
        seconds = (now_ns - max(self._complete_ns, now_ns - self.keep_ns)) / 1e9
        return f"history: the last {seconds:.0f} s in {self.size_bytes / (1 << 20):.1f} MiB"
