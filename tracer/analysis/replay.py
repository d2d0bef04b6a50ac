"""Replay a trace: what was known of each cgroup at past moments, computed by the code of live views
(`tracer.live`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa

from tracer.analysis.core import tables
from tracer.analysis.core.columns import Int64s
from tracer.analysis.trace import AnalysedTrace
from tracer.live.now import CgroupNow, Snapshots
from tracer.live.tally import Tally
from tracer.schema import TABLES

_TABLES: Final = ("reclaim", "stalls", "oom", "samples")
_CACHE: Final = "pagecache"


def moments(trace: AnalysedTrace, every: str) -> Iterator[tuple[int, list[CgroupNow]]]:
    """Yield (moment in ns since the epoch, the cgroups with a sample by then), each `every` and at the end.

    A row of the page cache counts from the moment at which it was recorded, as in a live view: as a rule, at
    most one moment late. The ledger (`charge`) is not replayed, so the values that follow from it are
    missing. The machine's free swap is not in a trace: see `knows_cushions`.
    """
    tally = Tally(tables.page_size(trace), lambda: 0)
    snapshots, cgroups = Snapshots(tally), trace.table("cgroups")
    for batch in _unremoved(cgroups).to_batches():
        tally.take("cgroups", batch)
    streams: list[tuple[str, _Stream]] = [(name, _Sorted(trace.table(name), "time")) for name in _TABLES]
    streams += [(_CACHE, _Recorded(trace)), ("cgroups", _Sorted(cgroups, "removed"))]  # the removals last
    for moment_ns in _moments(*trace.span_ns, every):
        for name, stream in streams:
            for rows in stream.until(moment_ns):
                tally.take(name, rows)
        yield moment_ns, snapshots.take(moment_ns)


def knows_cushions(trace: AnalysedTrace) -> bool:
    """Return whether cushions, and forecasts from them, are right: the machine had no swap."""
    memory = trace.meta["memory"]
    return memory is not None and memory.get("swap_total_bytes") == 0


def _moments(first_ns: int, last_ns: int, every: str) -> Iterator[int]:
    step_ns = pd.Timedelta(every).value
    yield from range(first_ns + step_ns, last_ns, step_ns)
    yield last_ns


def _unremoved(cgroups: pa.Table) -> pa.Table:
    at, kind = cgroups.schema.get_field_index("removed"), cgroups.schema.field("removed")
    return cgroups.set_column(at, kind, pa.nulls(cgroups.num_rows, kind.type))


class _Stream(Protocol):
    """Rows of a table, each of which is yielded once, in a batch, when its time has come."""

    def until(self, moment_ns: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows up to a moment that were not yielded yet."""
        ...


class _Sorted:
    """The rows of a table in the order of a column of times, without those in which it is null."""

    def __init__(self, rows: pa.Table, column: str) -> None:
        self._rows = rows.filter(rows[column].is_valid()).sort_by(column).combine_chunks()
        self._times = _nanoseconds(self._rows[column])
        self._given = 0

    def until(self, moment_ns: int) -> Iterator[pa.RecordBatch]:
        end = int(np.searchsorted(self._times, moment_ns, side="right"))
        yield from self._rows.slice(self._given, end - self._given).to_batches()
        self._given = end


class _Recorded:
    """The rows of the page cache as they were recorded, batch by batch: they may be too many for memory."""

    def __init__(self, trace: AnalysedTrace) -> None:
        self._batches = trace.batches(_CACHE, TABLES[_CACHE].names)
        self._next: pa.RecordBatch | None = None
        self._latest: Int64s = np.zeros(0, dtype=np.int64)

    def until(self, moment_ns: int) -> Iterator[pa.RecordBatch]:
        while True:
            if self._next is None:
                self._next = next(self._batches, None)
                if self._next is None:
                    return
                self._latest = np.maximum.accumulate(_nanoseconds(self._next["time"]))
            count = int(np.searchsorted(self._latest, moment_ns, side="right"))
            if count:
                yield self._next.slice(0, count)
            if count < self._next.num_rows:
                self._next, self._latest = self._next.slice(count), self._latest[count:]
                return
            self._next = None


def _nanoseconds(times: pa.Array | pa.ChunkedArray) -> Int64s:
    return np.asarray(times.cast(pa.int64()).to_numpy(), dtype=np.int64)
