"""The reader of a trace, complete or interrupted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tracer.errors import TraceError
from tracer.schema import TABLES
from tracer.trace import layout
from tracer.trace.arrow_columns import rows_of
from tracer.trace.identity_tables import IDENTITY_KEYS, keep_last
from tracer.trace.meta import read_meta
from tracer.trace.read.part import Budget, count_part, read_batches

if TYPE_CHECKING:
    import pandas as pd


def _to_frame() -> Callable[[pa.Table], pd.DataFrame]:
    """Return `to_pandas.to_frame`. It frees a table while it converts it, if nobody else has the table."""
    from tracer.trace.read.to_pandas import to_frame  # noqa: PLC0415  the recorder must not import pandas

    return to_frame


class TableFrame(cached_property["pd.DataFrame"]):
    """The table with the name of the attribute, as a DataFrame."""

    def __init__(self) -> None:
        super().__init__(self._read)

    def _read(self, tables: Tables) -> pd.DataFrame:
        assert self.attrname is not None
        return tables._frame(self.attrname)


class Tables(ABC):
    """The tables of a trace as DataFrames, which are read at first use and kept.

    The index is the sorted column `time`, in UTC, if the table has one.
    """

    charge = TableFrame()
    pagecache = TableFrame()
    reclaim = TableFrame()
    stalls = TableFrame()
    file_waits = TableFrame()
    task_time = TableFrame()
    swap_io = TableFrame()
    oom = TableFrame()
    oom_candidates = TableFrame()
    sigkills = TableFrame()
    kernel_log = TableFrame()
    loss = TableFrame()
    samples = TableFrame()
    cgroups = TableFrame()
    tasks = TableFrame()
    inodes = TableFrame()
    code_samples = TableFrame()
    stacks = TableFrame()
    summed = TableFrame()
    armed = TableFrame()
    shmem_files = TableFrame()
    contents = TableFrame()
    mappings = TableFrame()
    runtimes = TableFrame()

    @abstractmethod
    def _frame(self, name: str) -> pd.DataFrame:
        """Return the table, read now."""


class Trace(Tables):
    """A trace on disk. Raises TraceError if `path` is not a trace that this version can read."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.meta = read_meta(self.path)

    @property
    def interrupted(self) -> bool:
        """Return whether the trace has no end, because the recorder was killed or is still at work."""
        return self.meta["ended"] is None

    @property
    def size_bytes(self) -> int:
        """Return the length of all files of the trace."""
        return layout.size_bytes(self.path)

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows of a table, in recorded order, with the schema `TABLES[name]` or `columns` of it.

        A table that was never written is empty, and a column that was added to the format later is null. An
        identity table has only the last row of each key. Raises TraceError for a damaged file, and KeyError
        for an unknown table or column.
        """
        wanted = TABLES[name].names if columns is None else list(columns)
        needed = list(dict.fromkeys([*wanted, *IDENTITY_KEYS.get(name, ())]))
        schema = _some_columns(name, needed)
        batches = self._batches(name, schema, lambda: Budget.from_schema(name, schema))
        data = pa.Table.from_batches(batches, schema)
        return keep_last(data.unify_dictionaries(), name).select(wanted)

    def _frame(self, name: str) -> pd.DataFrame:
        return _to_frame()(self._whole_loss() if name == "loss" else self.table(name))

    def has_table(self, name: str) -> bool:
        """Return whether the recorder knew the table. If it did not, the content of the table is unknown."""
        return name in (self.meta["rows"] or ()) or bool(layout.parts(self.path, name))

    def batches(self, name: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a table in recorded order, some 100,000 at a time, with these columns.

        The memory that this takes does not grow with the table, but a table beyond the same bounds is
        refused. The rows of one time need not be together, and an identity table has superseded rows as well.
        A word may have another code in each batch. Raises as `table` does.
        """
        schema = _some_columns(name, columns)
        return self._batches(name, schema, lambda: Budget.from_schema(name, TABLES[name], is_kept=False))

    def _batches(
        self, name: str, schema: pa.Schema, new_budget: Callable[[], Budget]
    ) -> Iterator[pa.RecordBatch]:
        given, paths = 0, layout.parts(self.path, name)
        while True:
            budget, skipped = new_budget(), given
            try:
                for path in paths:
                    for batch in read_batches(self.path, path, schema, budget):
                        new = batch.slice(min(skipped, batch.num_rows))
                        skipped -= batch.num_rows - new.num_rows
                        given += new.num_rows
                        if new.num_rows:
                            yield new
                return
            except FileNotFoundError as error:
                paths = self._paths_after(paths, error, name)

    def rows(self, name: str) -> int:
        """Return the number of rows that `table` returns; Parquet parts are counted without reading them."""
        keys = IDENTITY_KEYS.get(name)
        if keys and layout.whole_path(self.path, name) not in layout.parts(self.path, name):
            return int(self.table(name, keys).num_rows)

        paths = layout.parts(self.path, name)
        while True:
            budget = Budget.from_schema(name, TABLES[name])
            try:
                return sum(count_part(self.path, path, TABLES[name], budget) for path in paths)
            except FileNotFoundError as error:
                paths = self._paths_after(paths, error, name)

    def _whole_loss(self) -> pa.Table:
        """Return the rows of `loss`, and a row for each stream for which meta.json counts more lost records.

        On a full disk the table itself may not have been written. Such a row begins at the last sample, the
        last moment at which all tables were written.
        """
        written = self.table("loss")
        unwritten = self._losses_of_meta(written)
        rows = pa.Table.from_batches([rows_of("loss", unwritten)]) if unwritten else written.slice(0, 0)
        return pa.concat_tables([written, rows]).unify_dictionaries()

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

    def _paths_after(self, before: list[Path], error: FileNotFoundError, name: str) -> list[Path]:
        """Return the table's files after a file of `before` was turned into Parquet."""
        paths = layout.parts(self.path, name)
        if paths == before:
            raise TraceError(f"{error.filename} vanished meanwhile: open the trace again") from error
        return paths


def _some_columns(name: str, columns: Sequence[str]) -> pa.Schema:
    return pa.schema([TABLES[name].field(column) for column in columns])
