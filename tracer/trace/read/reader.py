"""The reader of a trace, complete or interrupted: each file of a table within the bounds of memory.

The file may come from anyone. The rows that leave this module have the types of `schema.TABLES`, NULL only
where the schema allows it, valid UTF-8, and numbers within `schema.value_range`. No later code checks
them again.

A few KiB of Parquet can stand for more rows than fit into memory, so the memory that a trace may take is
bounded. A recording stays far below each bound. Each of its rows takes some bytes on disk, because its time
differs from the time of the row before.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tracer.errors import TraceError
from tracer.kernel.meminfo import meminfo_bytes
from tracer.schema import ADDED_COLUMNS, SCHEMA_VERSION, TABLES, value_range
from tracer.trace import layout
from tracer.trace.arrow_columns import IDENTITY_KEYS, as_type, encoded, keep_last, rows_of
from tracer.trace.journal_stream import read_journal
from tracer.trace.layout import open_file
from tracer.trace.meta import read_meta

if TYPE_CHECKING:
    import pandas as pd


MOST_ROWS: Final = {
    "oom": 100_000,
    "oom_candidates": 5_000_000,
    "sigkills": 1_000_000,
    "kernel_log": 5_000_000,
    "loss": 1_000_000,
    "summed": 1_000_000,
    "armed": 1_000_000,
    "cgroups": 1_000_000,
    "tasks": 5_000_000,
    "inodes": 5_000_000,
    "stacks": 1_000_000,
}
"""The most rows of a table. Tables that are not listed are bounded by memory only."""

FREE_BYTES: Final = 1 << 30
EXPANSION: Final = 32
"""A table takes at most `FREE_BYTES` of memory, or `EXPANSION` times the length of its files. A factor of ten
is usual."""

_FEW_BYTES: Final = 1 << 20
"""A table that takes less is read without a look at the memory of the machine: most tables are that small."""

MOST_TEXT_BYTES: Final = 1 << 30
"""The most text in one column of a file; text that rows repeat counts each time."""

LONGEST_TEXT_BYTES: Final = 1 << 17
"""The longest text. A path has at most 4096 bytes (PATH_MAX), and each byte may be written as an escape of
four characters."""

MOST_FRAMES: Final = 20_000_000
"""The most frames in the stacks of a file."""


@dataclass(slots=True)
class Budget:
    """The rows and bytes of a table's files so far; `row_bytes` is the size of a row in memory.

    With `is_kept`, all rows are in memory at the end; otherwise at most the rows of one file.
    """

    table: str
    row_bytes: float
    is_kept: bool = True
    rows: int = 0
    stored_bytes: int = 0

    @classmethod
    def from_schema(cls, table: str, schema: pa.Schema, *, is_kept: bool = True) -> Budget:
        """Return the budget of a table whose columns in `schema` are read."""
        row_bytes = sum(_value_bytes(field.type) + field.nullable / 8 for field in schema)
        return cls(table, row_bytes, is_kept)

    def take(self, path: Path, *, rows: int, stored_bytes: int) -> None:
        """Add rows of the file `path`, and its length; raises TraceError if a bound is exceeded."""
        self.rows += rows
        self.stored_bytes += stored_bytes
        most = MOST_ROWS.get(self.table)
        if most is not None and self.rows > most:
            raise TraceError(
                f"{path}: {self.rows:,} rows of {self.table}, and no recording has more than {most:,}: "
                "restore it from a copy"
            )
        taken_bytes = self.rows * self.row_bytes
        if taken_bytes > max(FREE_BYTES, EXPANSION * self.stored_bytes):
            raise TraceError(
                f"{path}: {self.rows:,} rows of {self.table} in {self.stored_bytes:,} bytes, and no "
                "recording is so dense: restore it from a copy"
            )
        needed_bytes = max(taken_bytes, self.stored_bytes) if self.is_kept else stored_bytes
        if needed_bytes < _FEW_BYTES:
            return
        available_bytes = meminfo_bytes().get("MemAvailable")
        if available_bytes is not None and needed_bytes > available_bytes:
            raise TraceError(
                f"{path}: {self.rows:,} rows of {self.table} take {needed_bytes / (1 << 30):,.1f} GiB of "
                f"memory, and {available_bytes / (1 << 30):,.1f} GiB are available: use a larger machine"
            )


def _value_bytes(kind: pa.DataType) -> float:
    if pa.types.is_dictionary(kind):
        kind = kind.index_type
    if pa.types.is_string(kind) or pa.types.is_list(kind):
        return 4  # the offset of its end
    return float(kind.bit_width / 8)


def conforming(table: str, batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch from a file with the columns of `schema`, which has all or some columns of the table.

    A column that the batch lacks is null, or has the value that older traces imply. Raises KeyError,
    TypeError or ValueError (pyarrow.ArrowInvalid is a ValueError) for columns and values that the schema does
    not allow.
    """
    # Offsets and indices must be within their buffers, and texts must be UTF-8: otherwise later steps may
    # crash.
    batch.validate(full=True)
    arrays = [_conforming_column(table, batch, field) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def require_akin(stored: pa.Schema, schema: pa.Schema) -> None:
    """Raise TypeError if the type of a stored column is not another form of the schema's type."""
    for field in schema:
        for place in stored.get_all_field_indices(field.name):
            kind = stored.field(place).type
            if not _is_akin(kind, field.type):
                raise TypeError(f"column {field.name} is of type {kind}, not {field.type}")


def _is_akin(stored: pa.DataType, wanted: pa.DataType) -> bool:
    """Return whether the two types are different forms of the same values."""
    types = pa.types
    if types.is_list(wanted):
        return bool(types.is_list(stored)) and _is_akin(stored.value_type, wanted.value_type)
    if types.is_dictionary(wanted) or types.is_string(wanted):
        kind = stored.value_type if types.is_dictionary(stored) else stored
        return bool(types.is_string(kind) or types.is_large_string(kind))
    if types.is_timestamp(wanted):
        return bool(types.is_timestamp(stored)) and stored.tz == wanted.tz
    if types.is_integer(wanted):
        return bool(types.is_integer(stored))
    return bool(stored == wanted)


def _conforming_column(table: str, batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
    places = batch.schema.get_all_field_indices(field.name)
    if len(places) > 1:
        raise KeyError(f"{len(places)} columns are named {field.name}")
    if not places:
        implied = ADDED_COLUMNS.get(table, {}).get(field.name)
        if implied is not None:
            return pa.repeat(pa.scalar(implied, field.type), batch.num_rows)
        if not field.nullable:
            raise KeyError(f"there is no column {field.name}")
        return pa.nulls(batch.num_rows, field.type)
    column = batch.column(places[0])
    if pa.types.is_list(field.type):
        column = _lists(column, field.type)
    elif pa.types.is_dictionary(field.type):
        _require_short(column)
        column = encoded(column, field.type)
    else:
        if pa.types.is_string(field.type):
            _require_short(column)  # before the cast: a short dictionary may stand for much text
        column = as_type(column, field.type)
    if column.null_count and not field.nullable:
        raise ValueError(f"column {field.name} has NULL, which it never has")
    _require_in_range(table, field, column)
    return column


def _lists(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if len(column.flatten()) > MOST_FRAMES:
        raise ValueError(f"there are more than {MOST_FRAMES:,} frames")
    texts = column.flatten()
    if texts.null_count:
        raise ValueError("a list holds NULL, which it never does")
    _require_short(texts)
    return as_type(column, kind)


def _require_short(texts: pa.Array) -> None:
    """Raise ValueError for a text that is longer than any name of the kernel, or for too much text."""
    is_dictionary = pa.types.is_dictionary(texts.type)
    lengths = pc.binary_length(texts.dictionary if is_dictionary else texts)
    longest = pc.max(lengths).as_py() or 0
    if longest > LONGEST_TEXT_BYTES:
        raise ValueError(f"a text of {longest:,} bytes is longer than any name")
    if longest * len(texts) <= MOST_TEXT_BYTES:
        return
    total = pc.sum(lengths.take(texts.indices) if is_dictionary else lengths).as_py() or 0
    if total > MOST_TEXT_BYTES:
        raise ValueError(f"its texts are of {total:,} bytes")


def _require_in_range(table: str, field: pa.Field, column: pa.Array) -> None:
    allowed = value_range(table, field)
    if allowed is None:
        return
    if pa.types.is_timestamp(field.type):
        column = column.cast(pa.int64())
    found = pc.min_max(column).as_py()
    for value in (found["min"], found["max"]):
        if value is not None and not allowed[0] <= value <= allowed[1]:
            raise ValueError(
                f"column {field.name} has {value}, which is not between {allowed[0]} and {allowed[1]}"
            )


_KEPT_ROWS: Final = 1 << 20
_PASSING_ROWS: Final = 1 << 17  # a few columns of this length fit into a CPU's cache
_METADATA_BYTES: Final = 64 << 20  # of Parquet; a part of a million rows has some KiB
_DAMAGED: Final = (LookupError, ValueError, TypeError, OverflowError, pa.ArrowException, OSError)
"""The errors of Arrow and `column_check.conforming` for a damaged file."""


def read_batches(trace: Path, path: Path, schema: pa.Schema, budget: Budget) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file below the directory `trace` in batches, with the columns of `schema`: all or
    some columns of the table.

    Raises FileNotFoundError, and TraceError if the file is damaged or exceeds the budget.
    """
    with _reading(trace, path) as file:
        read = _journal if _is_journal(path) else _rows
        for batch in read(path, file, schema, budget):
            if batch.num_rows:
                yield conforming(budget.table, batch, schema)


def count_part(trace: Path, path: Path, schema: pa.Schema, budget: Budget) -> int:
    """Return the number of rows of a file, for Parquet from its metadata. Raises as `read_batches` does."""
    with _reading(trace, path) as file:
        if _is_journal(path):
            return sum(batch.num_rows for batch in _journal(path, file, schema, budget))
        with pq.ParquetFile(file, **_METADATA_LIMITS) as parquet:
            return _claimed(path, file, parquet.metadata, budget)


_METADATA_LIMITS: Final = {
    "thrift_string_size_limit": _METADATA_BYTES,
    "thrift_container_size_limit": 1_000_000,
}


def _is_journal(path: Path) -> bool:
    return path.suffix == ".arrows"


@contextmanager
def _reading(trace: Path, path: Path) -> Iterator[IO[bytes]]:
    try:
        with open_file(trace, path) as file:
            yield file
    except (FileNotFoundError, MemoryError):  # MemoryError: pa.ArrowMemoryError is an ArrowException too
        raise
    except _DAMAGED as error:
        if "Failed to launch" in str(error):  # of a thread: Arrow has no class for this error
            raise RuntimeError("can't start new thread") from error
        reason = (str(error).splitlines() or [type(error).__name__])[0].strip().rstrip(".")
        raise TraceError(
            f"{path} cannot be read as schema {SCHEMA_VERSION} ({reason[:200]}): restore it from a copy"
        ) from error


def _journal(path: Path, file: IO[bytes], schema: pa.Schema, budget: Budget) -> Iterator[pa.RecordBatch]:
    """Yield all complete batches. The file is read into a buffer first, because Arrow would allocate any size
    that a torn length gives if it read the file."""
    length = os.fstat(file.fileno()).st_size
    budget.take(path, rows=0, stored_bytes=length)
    for batch in read_journal(pa.py_buffer(file.read(length)), lambda stored: require_akin(stored, schema)):
        budget.take(path, rows=batch.num_rows, stored_bytes=0)
        yield batch


def _rows(path: Path, file: IO[bytes], schema: pa.Schema, budget: Budget) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a Parquet file; columns of text are dictionaries, which repeat nothing."""
    with pq.ParquetFile(file, **_METADATA_LIMITS) as first:
        metadata = first.metadata
        claimed = _claimed(path, file, metadata, budget)
        if not claimed:
            return
        require_akin(first.schema_arrow, schema)
        leaves = map(metadata.schema.column, range(metadata.num_columns))
        columns = [column for column in leaves if column.path.split(".")[0] in schema.names]
        texts = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
    file.seek(0)
    found = 0
    options = {"read_dictionary": texts, "pre_buffer": False}  # otherwise the whole file would be in memory
    with pq.ParquetFile(file, metadata=metadata, **options, **_METADATA_LIMITS) as parquet:
        rows = _KEPT_ROWS if budget.is_kept else _PASSING_ROWS
        for batch in parquet.iter_batches(
            rows, columns=[column.path for column in columns], use_threads=False
        ):
            found += batch.num_rows
            if found > claimed:
                raise ValueError(f"it holds more than the {claimed:,} rows that it claims")
            yield batch
    if found < claimed:
        raise ValueError(f"it holds {found:,} rows of {claimed:,}")


def _claimed(path: Path, file: IO[bytes], metadata: pq.FileMetaData, budget: Budget) -> int:
    """Return the number of rows that the metadata claims; raises ValueError for an impossible claim."""
    length = os.fstat(file.fileno()).st_size
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    rows = [int(group.num_rows) for group in groups]
    if min(rows, default=0) < 0 or sum(rows) != metadata.num_rows:
        raise ValueError(f"its groups have {sum(rows):,} rows, and it {metadata.num_rows:,}")
    budget.take(path, rows=sum(rows), stored_bytes=length)
    most_bytes = max(FREE_BYTES, EXPANSION * length)
    for group in groups:
        chunks = [group.column(number) for number in range(group.num_columns)]
        if any(not 0 <= chunk.total_uncompressed_size <= most_bytes for chunk in chunks):
            raise ValueError("a column claims to be longer than any that was recorded")
        if any(not 0 <= chunk.num_values <= MOST_FRAMES + group.num_rows for chunk in chunks):
            raise ValueError("a column claims to have more values than any that was recorded")
    return sum(rows)


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
