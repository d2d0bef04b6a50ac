"""Rows that wait in memory while a trace cannot be written, and the count of lost rows."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer.schema import TABLES
from tracer.trace.arrow_columns import integers, rows_of, weight_bytes
from tracer.wire.streams import STREAMS

_FIRST_RETRY_S: Final = 0.25
_LONGEST_RETRY_S: Final = 4.0


@dataclass
class Failure:
    """The reason why rows wait in memory, and when to try again (CLOCK_MONOTONIC)."""

    reason: str
    began_s: float
    retry_s: float = 0.0  # the interval between attempts
    due_s: float = 0.0
    is_reported: bool = False

    def put_off(self, reason: str) -> None:
        """Set the time of the next attempt; the interval grows with each failed attempt."""
        self.reason = reason
        self.retry_s = min(max(2 * self.retry_s, _FIRST_RETRY_S), _LONGEST_RETRY_S)
        self.due_s = time.monotonic() + self.retry_s

    def kept_and_lost(self, written: int, lost: int, *, is_removed: bool) -> str:
        """Say how many rows are written, and how many are lost; `is_removed`: the trace was removed."""
        if is_removed:
            return f"nothing of it is left, and {lost:,} rows that came later are lost"
        since_s = time.monotonic() - self.began_s
        return (
            f"{written:,} rows, until {since_s:.1f} s before the end, are written, and what is there is "
            f"readable; {lost:,} rows are lost"
        )


HELD_BYTES: Final = 64 << 20
"""The memory that waiting rows may take."""

_BULK: Final = frozenset(stream.table for stream in STREAMS if stream.is_bulk)
_BULK_SHARE: Final = 0.75  # the rest is for kills, samples and names: few rows, but important
_STREAM_OF: Final = {stream.table: stream.name for stream in STREAMS}
_SUMMED: Final = ("pages", "bytes", "updates")


class Backlog:
    """Batches that wait to be written, by table, the oldest first.

    Batches take up to `most_bytes`. Rows beyond that are lost, and the caller counts them (`lose`). Only the
    sums of `charge` are kept, so that totals stay exact.
    """

    def __init__(self, most_bytes: int = HELD_BYTES) -> None:
        self.most_bytes = most_bytes
        self._bytes = 0
        self._waiting: defaultdict[str, deque[pa.RecordBatch]] = defaultdict(deque)
        self._lost: dict[str, tuple[int, int]] = {}  # stream -> (first loss on CLOCK_MONOTONIC, rows)
        self._sums: defaultdict[tuple[int, str], npt.NDArray[np.int64]]
        self._sums = defaultdict(lambda: np.zeros(len(_SUMMED), np.int64))

    @property
    def rows(self) -> dict[str, int]:
        """Return table -> waiting rows; tables without waiting rows are left out."""
        counts = {name: sum(batch.num_rows for batch in waiting) for name, waiting in self._waiting.items()}
        return {name: count for name, count in counts.items() if count}

    @property
    def lost(self) -> dict[str, int]:
        """Return stream -> rows lost since the last `take_lost`."""
        return {stream: count for stream, (_, count) in self._lost.items()}

    def put(self, table: str, batch: pa.RecordBatch) -> bool:
        """Append a batch to the batches of its table; return whether there was room for it.

        Charges without room are added to the sums.
        """
        most_bytes = self.most_bytes * (_BULK_SHARE if table in _BULK else 1)
        if self._bytes + weight_bytes(batch) > most_bytes:
            if table == "charge":
                self._sum_up(batch)
            return False
        self._bytes += weight_bytes(batch)
        self._waiting[table].append(batch)
        return True

    def put_back(self, table: str, batches: Iterable[pa.RecordBatch]) -> None:
        """Put batches before all other batches of their table, even without room."""
        listed = list(batches)
        self._bytes += sum(map(weight_bytes, listed))
        self._waiting[table].extendleft(reversed(listed))

    def take(self, table: str) -> deque[pa.RecordBatch]:
        """Remove and return all waiting batches of a table."""
        taken = self._waiting.pop(table, deque())
        self._bytes -= sum(map(weight_bytes, taken))
        return taken

    def tables(self) -> list[str]:
        """Return the tables that have waiting batches."""
        return [table for table in TABLES if self._waiting.get(table)]

    def lose(self, stream: str, rows: int, since_ns: int) -> None:
        """Count lost rows; `since_ns` is CLOCK_MONOTONIC."""
        since, count = self._lost.get(stream, (since_ns, 0))
        self._lost[stream] = (since, count + rows)

    def take_lost(self, time_ns: int, clock_offset_ns: int) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Yield and forget the rows of `loss` for lost rows, and the rows of `charge` for the sums of lost
        charges.

        `time_ns` is CLOCK_MONOTONIC, and `clock_offset_ns` is CLOCK_REALTIME minus CLOCK_MONOTONIC.
        """
        time = {"time": time_ns + clock_offset_ns}
        if self._lost:
            rows = [
                time | {"begin": since + clock_offset_ns, "stream": stream, "lost": count}
                for stream, (since, count) in self._lost.items()
            ]
            yield "loss", rows_of("loss", rows)
        if self._sums:
            unknown = dict.fromkeys(TABLES["charge"].names)
            charges = [
                unknown
                | time
                | {"cgroup_id": cgroup_id, "category": category}
                | dict(zip(_SUMMED, sums.tolist(), strict=True))
                for (cgroup_id, category), sums in self._sums.items()
            ]
            yield "charge", rows_of("charge", charges)
        self._lost.clear()
        self._sums.clear()

    def _sum_up(self, charges: pa.RecordBatch) -> None:
        """Add charges to the sums of their cgroup and category."""
        category = charges.column("category")
        codes = np.from_dlpack(category.indices).astype(np.int64)
        keys = np.stack([integers(charges.column("cgroup_id")), codes])
        groups, member_of = np.unique(keys, axis=1, return_inverse=True)
        sums = np.zeros((len(_SUMMED), groups.shape[1]), np.int64)
        for position, name in enumerate(_SUMMED):
            values = integers(charges.column(name))
            np.add.at(sums[position], member_of.ravel(), values)
        names = category.dictionary.to_pylist()
        for position, (cgroup_id, code) in enumerate(groups.T.tolist()):
            self._sums[cgroup_id, names[code]] += sums[:, position]


def stream_of(table: str) -> str:
    """Return the stream under which lost rows of a table are counted; without a ring, the table's name."""
    return _STREAM_OF.get(table, table)
