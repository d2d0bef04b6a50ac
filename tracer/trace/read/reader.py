"""The reader of a trace, complete or interrupted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from tracer.errors import TraceError
from tracer.schema import TABLES
from tracer.trace import layout
from tracer.trace.arrow_columns import rows_of
from tracer.trace.identity_tables import IDENTITY_KEYS, keep_last
from tracer.trace.meta import read_meta
from tracer.trace.read.memory_bounds import Budget
from tracer.trace.read.part import count_part, read_part

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")


def _to_frame(table: pa.Table) -> pd.DataFrame:
    from tracer.trace.read.to_pandas import to_frame  # noqa: PLC0415  the recorder must not import pandas

    return to_frame(table)


class TableFrame(cached_property["pd.DataFrame"]):
    """The table that is named like the attribute, as a DataFrame."""

    def __init__(self) -> None:
        super().__init__(self._read)

    def _read(self, trace: Trace) -> pd.DataFrame:
        assert self.attrname is not None
        return _to_frame(trace.table(self.attrname))


class Trace:
    """A trace on disk. Raises TraceError if `path` is not a trace that this version can read.

    The tables are DataFrames, which are read at first use and kept. The index is the sorted column `time`, in
    UTC, if the table has one.
    """

    charge = TableFrame()
    pagecache = TableFrame()
    reclaim = TableFrame()
    stalls = TableFrame()
    swap_io = TableFrame()
    oom = TableFrame()
    oom_candidates = TableFrame()
    kernel_log = TableFrame()
    samples = TableFrame()
    cgroups = TableFrame()
    tasks = TableFrame()
    inodes = TableFrame()
    stack_samples = TableFrame()
    stacks = TableFrame()

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.meta = read_meta(self.path)

    @property
    def interrupted(self) -> bool:
        """Return whether the trace has no end: the recorder was killed, or is still at work."""
        return self.meta["ended"] is None

    @property
    def size_bytes(self) -> int:
        """Return the length of all files of the trace."""
        return layout.size_bytes(self.path)

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows of a table, in recorded order, with the schema `TABLES[name]` or `columns` of it.

        A table that was never written is empty, and a column that was added to the format later is null. An
        identity table has the last row of each key. Raises TraceError for a damaged file, and KeyError for an
        unknown table or column.
        """
        schema = TABLES[name]
        wanted = schema.names if columns is None else list(columns)
        needed = dict.fromkeys([*wanted, *IDENTITY_KEYS.get(name, ())])
        stored = pa.schema([schema.field(column) for column in needed])

        def read(paths: list[Path]) -> pa.Table:
            budget = Budget.from_schema(name, stored)
            parts = [read_part(self.path, path, stored, budget) for path in paths]
            return pa.concat_tables([pa.Table.from_batches([], stored), *parts])

        data = self._settled(name, read).unify_dictionaries()
        return keep_last(data, name).select(wanted)

    def rows(self, name: str) -> int:
        """Return the number of rows of `table`; for Parquet parts without reading them."""
        keys = IDENTITY_KEYS.get(name)
        if keys and layout.whole_path(self.path, name) not in layout.parts(self.path, name):
            return int(self.table(name, keys).num_rows)

        def count(paths: list[Path]) -> int:
            budget = Budget.from_schema(name, TABLES[name])
            return sum(count_part(self.path, path, TABLES[name], budget) for path in paths)

        return self._settled(name, count)

    @cached_property
    def loss(self) -> pd.DataFrame:
        """Return the rows of `loss`, and a row for each stream of which meta.json counts more lost records.

        On a full disk the table itself may not have been written. Such a row begins at the last sample, the
        last moment at which all tables were written.
        """
        written = self.table("loss")
        unwritten = self._losses_of_meta(written)
        rows = pa.Table.from_batches([rows_of("loss", unwritten)]) if unwritten else written.slice(0, 0)
        return _to_frame(pa.concat_tables([written, rows]).unify_dictionaries())

    def _losses_of_meta(self, written: pa.Table) -> list[dict[str, Any]]:
        ended = self.meta["ended"]
        counted = Counter(self.meta["lost"] or {})
        for stream, lost in zip(written["stream"].to_pylist(), written["lost"].to_pylist(), strict=True):
            counted[stream] -= lost
        if ended is None or not (missing := +counted):
            return []
        times = self.table("samples", ["time"])["time"].cast(pa.int64()).to_pylist()
        begin = max(times, default=self.meta["clock"]["realtime_ns"])
        end = max(begin, round(datetime.fromisoformat(ended).timestamp() * 1e9))
        return [
            {"time": end, "begin": begin, "stream": stream, "lost": lost} for stream, lost in missing.items()
        ]

    def _settled(self, name: str, read: Callable[[list[Path]], T]) -> T:
        """Return `read` of the table's files; read again if the recorder turned one into Parquet
        meanwhile."""
        paths = layout.parts(self.path, name)
        while True:
            try:
                return read(paths)
            except FileNotFoundError as error:
                before, paths = paths, layout.parts(self.path, name)
                if paths == before:
                    raise TraceError(f"{error.filename} vanished meanwhile: open the trace again") from error
