"""The names behind the ids in the history: the latest row of each process, file, cgroup and stack."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer.schema import TABLES
from tracer.trace.arrow_columns import integers, nullable_integers, take, weight_bytes
from tracer.trace.history.segment import Part
from tracer.trace.identity_tables import IDENTITY_KEYS, keep_last

_RECENT_BYTES: Final = 512 << 10
_MERGED_BYTES: Final = 2 << 20
"""The most bytes of rows, as columns, that are merged at once. The names of 80,000 files are 12 MiB: reading
them together would take twice as much for a moment."""
_MOST_ROWS_OF_KEY: Final = 2
"""Superseded rows are dropped when there are more rows than this for each key, on average."""

_NEVER: Final = np.iinfo(np.int64).max


class KeptNames:
    """Rows of the identity tables, in the order in which they arrived. All but the latest rows are
    compressed."""

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
        """Replace the rows of a table."""
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
