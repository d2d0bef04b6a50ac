"""The names behind the ids in the history: the latest row of each process, file, cgroup and stack."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer.schema import TABLES
from tracer.trace.arrow_columns import integers, nullable_integers, take, weight_bytes
from tracer.trace.history.segment import Part
from tracer.trace.identity_tables import IDENTITY_KEYS, keep_last

_RECENT_BYTES: Final = 512 << 10
_NEVER: Final = np.iinfo(np.int64).max


class KeptNames:
    """Rows of the identity tables. All but the latest are compressed."""

    def __init__(self) -> None:
        self._recent: dict[str, list[pa.RecordBatch]] = {table: [] for table in IDENTITY_KEYS}
        self._recent_bytes = dict.fromkeys(IDENTITY_KEYS, 0)
        self._kept: dict[str, Part] = {}

    @property
    def size_bytes(self) -> int:
        """Return the memory that the rows take."""
        return sum(self._recent_bytes.values()) + sum(len(part.content) for part in self._kept.values())

    def count(self, table: str) -> int:
        """Return the number of rows of a table, those that others supersede included."""
        kept: int = self._kept[table].rows if table in self._kept else 0
        return kept + sum(int(batch.num_rows) for batch in self._recent[table])

    def add(self, table: str, batch: pa.RecordBatch) -> None:
        """Add rows, of which each supersedes earlier ones with its key."""
        self._recent[table].append(batch)
        self._recent_bytes[table] += weight_bytes(batch)
        kept = self._kept.get(table)
        if self._recent_bytes[table] > max(_RECENT_BYTES, 0 if kept is None else kept.raw_bytes // 4):
            self._keep(table, self.read(table))

    def pack(self) -> None:
        """Compress the latest rows as well."""
        for table, recent in self._recent.items():
            if recent:
                self._keep(table, self.read(table))

    def read(self, table: str) -> pa.Table:
        """Return the latest row of each key."""
        kept = [self._kept[table].read()] if table in self._kept else []
        recent = [pa.Table.from_batches([batch]) for batch in self._recent[table]]
        if not kept + recent:
            return pa.Table.from_batches([], TABLES[table])
        return keep_last(pa.concat_tables([*kept, *recent]).unify_dictionaries(), table)

    def forget_tasks(self, before_ns: int) -> None:
        """Forget the processes that ended before a time (CLOCK_REALTIME), and those whose end was not seen
        but whose id another one has."""
        data = self.read("tasks")
        ends = nullable_integers(data.column("exited"), _NEVER)
        is_kept = (ends >= before_ns) & (_has_its_id(data) | (ends != _NEVER))
        if not is_kept.all():
            self._keep("tasks", take(data, np.flatnonzero(is_kept)))

    def retain(self, table: str, ids: npt.NDArray[np.int64]) -> None:
        """Forget the rows of a table whose id is not among these."""
        if (kept := self.among(table, ids)).num_rows < self.count(table):
            self._keep(table, kept)

    def among(self, table: str, ids: npt.NDArray[np.int64]) -> pa.Table:
        """Return the latest row of each key that is among these ids, of a table with one key."""
        data = self.read(table)
        (key,) = IDENTITY_KEYS[table]
        return take(data, np.flatnonzero(np.isin(integers(data.column(key)), ids)))

    def _keep(self, table: str, data: pa.Table) -> None:
        self._recent[table].clear()
        self._recent_bytes[table] = 0
        self._kept[table] = Part.of(table, data.to_batches())


def _has_its_id(tasks: pa.Table) -> npt.NDArray[np.bool_]:
    """Return for each process whether none that began later has its tgid."""
    tgids, starts = integers(tasks.column("tgid")), integers(tasks.column("start_ns"))
    order = np.lexsort([starts, tgids])
    is_last = np.ones(len(order), np.bool_)
    is_last[order[:-1]] = np.diff(tgids[order]) != 0
    return is_last
