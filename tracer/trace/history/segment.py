"""A stretch of the history: the rows of all tables from some seconds, compressed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from tracer.schema import TABLES
from tracer.trace.arrow_columns import nullable_integers

_WRITE: Final = pa.ipc.IpcWriteOptions(use_threads=False)
_READ: Final = pa.ipc.IpcReadOptions(use_threads=False)
_CODEC: Final = pa.Codec("zstd")


@dataclass(frozen=True)
class Part:
    """Rows of one table as an Arrow IPC stream of `stream_bytes`, compressed as a whole. Arrow would compress
    each buffer of each column, which takes ten times as long for few rows, and more room. `raw_bytes` is the
    size of the rows as columns."""

    content: bytes
    rows: int
    raw_bytes: int
    stream_bytes: int

    @classmethod
    def of(cls, table: str, batches: Iterable[pa.RecordBatch]) -> Part:
        """Compress batches that have the schema of the table."""
        data = pa.Table.from_batches(batches, TABLES[table]).unify_dictionaries().combine_chunks()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, data.schema, options=_WRITE) as stream:
            stream.write_table(data)
        whole = sink.getvalue()
        return cls(_CODEC.compress(whole, asbytes=True), data.num_rows, data.nbytes, whole.size)

    def read(self) -> pa.Table:
        with pa.ipc.open_stream(_CODEC.decompress(self.content, self.stream_bytes), options=_READ) as stream:
            return stream.read_all()


@dataclass(frozen=True, eq=False)
class Segment:
    """Rows of several tables from `begin_ns` to `end_ns` (CLOCK_REALTIME).

    Segments are numbered in the order in which their rows arrived. `fineness_ns` is the interval to which the
    rows are thinned; 0: the rows are as recorded.
    """

    number: int
    begin_ns: int
    end_ns: int
    fineness_ns: int
    parts: Mapping[str, Part]

    @classmethod
    def of(cls, number: int, batches: Mapping[str, list[pa.RecordBatch]], fineness_ns: int = 0) -> Segment:
        """Compress rows; at least one row is required."""
        times = [
            nullable_integers(batch.column("time"), 0) for listed in batches.values() for batch in listed
        ]
        return cls(
            number,
            min(int(part.min()) for part in times),
            max(int(part.max()) for part in times),
            fineness_ns,
            {table: Part.of(table, listed) for table, listed in batches.items()},
        )

    @property
    def size_bytes(self) -> int:
        return sum(len(part.content) for part in self.parts.values())

    @property
    def raw_bytes(self) -> int:
        return sum(part.raw_bytes for part in self.parts.values())

    def read(self, table: str) -> list[pa.RecordBatch]:
        """Return the rows of a table; an empty list if the segment has no such rows."""
        part = self.parts.get(table)
        return [] if part is None else part.read().to_batches()
