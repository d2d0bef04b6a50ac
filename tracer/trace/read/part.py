"""Reading of one file of a table, within the bounds of memory.

The file may come from anyone. The rows that leave this module have the types of `schema.TABLES`, NULL only
where the schema allows it, valid UTF-8, and numbers within `schema.value_range`. No later code checks
them again.

A few KiB of Parquet can stand for more rows than fit into memory, so the memory that a trace may take is
bounded. A recording stays far below each bound. Each of its rows takes some bytes on disk, because its time
differs from the time of the row before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tracer.errors import TraceError
from tracer.kernel.meminfo import meminfo_bytes
from tracer.schema import ADDED_COLUMNS, SCHEMA_VERSION, value_range
from tracer.trace.arrow_columns import encoded
from tracer.trace.journal_stream import read_journal
from tracer.trace.layout import open_file

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
        if column.type != field.type:
            column = column.cast(field.type)
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
    return column.cast(kind) if column.type != kind else column


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
