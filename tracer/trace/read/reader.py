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


class Trace:
    """A trace on disk. Raises TraceError if `path` is not a trace that this version can read.

    The tables are DataFrames, which are read at first use and kept. The index is the sorted column `time`, in
    UTC, if the table has one.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.meta = read_meta(self.path)

    @property
    def interrupted(self) -> bool:
        """Whether the trace has no end: the recorder was killed, or is still at work."""
        return self.meta["ended"] is None

    @property
    def size_bytes(self) -> int:
        """The length of all files of the trace."""
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
    def charge(self) -> pd.DataFrame:
        return self._frame("charge")

    @cached_property
    def pagecache(self) -> pd.DataFrame:
        return self._frame("pagecache")

    @cached_property
    def reclaim(self) -> pd.DataFrame:
        return self._frame("reclaim")

    @cached_property
    def stalls(self) -> pd.DataFrame:
        return self._frame("stalls")

    @cached_property
    def swap_io(self) -> pd.DataFrame:
        return self._frame("swap_io")

    @cached_property
    def oom(self) -> pd.DataFrame:
        return self._frame("oom")

    @cached_property
    def oom_candidates(self) -> pd.DataFrame:
        return self._frame("oom_candidates")

    @cached_property
    def kernel_log(self) -> pd.DataFrame:
        return self._frame("kernel_log")

    @cached_property
    def samples(self) -> pd.DataFrame:
        return self._frame("samples")

    @cached_property
    def loss(self) -> pd.DataFrame:
        """The rows of `loss`, and a row for each stream of which meta.json counts more lost records.

        On a full disk the table itself may not have been written. Such a row begins at the last sample, the
        last moment at which all tables were written.
        """
        from tracer.trace.read.to_pandas import to_frame  # noqa: PLC0415  the recorder must not import pandas

        written = self.table("loss")
        unwritten = self._losses_of_meta(written)
        rows = pa.Table.from_batches([rows_of("loss", unwritten)]) if unwritten else written.slice(0, 0)
        return to_frame(pa.concat_tables([written, rows]).unify_dictionaries())

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

    @cached_property
    def cgroups(self) -> pd.DataFrame:
        return self._frame("cgroups")

    @cached_property
    def tasks(self) -> pd.DataFrame:
        return self._frame("tasks")

    @cached_property
    def inodes(self) -> pd.DataFrame:
        return self._frame("inodes")

    @cached_property
    def stack_samples(self) -> pd.DataFrame:
        return self._frame("stack_samples")

    @cached_property
    def stacks(self) -> pd.DataFrame:
        return self._frame("stacks")

    def _frame(self, name: str) -> pd.DataFrame:
        from tracer.trace.read.to_pandas import to_frame  # noqa: PLC0415  the recorder must not import pandas

        return to_frame(self.table(name))

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
