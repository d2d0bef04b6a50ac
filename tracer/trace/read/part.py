"""Reading of one file of a table, within the bounds of memory.

The file may come from anyone. The rows that leave this module have the types of `schema.TABLES`, NULL only
where the schema allows it, valid UTF-8, and numbers within `value_ranges.value_range`. No later code checks
them again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from tracer.errors import TraceError
from tracer.schema import SCHEMA_VERSION
from tracer.trace.journal_stream import read_journal
from tracer.trace.read import memory_bounds
from tracer.trace.read.column_check import conforming, require_akin
from tracer.trace.read.memory_bounds import Budget
from tracer.trace.untrusted_files import open_file

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
    """Return the number of rows of a file; for Parquet, the number comes from its metadata. Raises as
    `read_batches` does."""
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
def _reading(trace: Path, path: Path) -> Iterator[BinaryIO]:
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


def _journal(path: Path, file: BinaryIO, schema: pa.Schema, budget: Budget) -> Iterator[pa.RecordBatch]:
    """Yield all complete batches. The file is read into a buffer first, because Arrow would allocate any size
    that a torn length gives if it read the file."""
    length = os.fstat(file.fileno()).st_size
    budget.take(path, rows=0, stored_bytes=length)
    for batch in read_journal(pa.py_buffer(file.read(length)), lambda stored: require_akin(stored, schema)):
        budget.take(path, rows=batch.num_rows, stored_bytes=0)
        yield batch


def _rows(path: Path, file: BinaryIO, schema: pa.Schema, budget: Budget) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a Parquet file; columns of text are dictionaries, which repeat nothing."""
    with pq.ParquetFile(file, **_METADATA_LIMITS) as first:
        metadata = first.metadata
        claimed = _claimed(path, file, metadata, budget)
        if not claimed:
            return
        require_akin(first.schema_arrow, schema)
        columns = [column for column in _leaves(metadata) if column.path.split(".")[0] in schema.names]
        texts = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
    file.seek(0)
    found = 0
    options = {"read_dictionary": texts, "pre_buffer": False}  # otherwise the whole file would be in memory
    with pq.ParquetFile(file, **options, **_METADATA_LIMITS) as parquet:
        rows = _KEPT_ROWS if budget.is_kept else _PASSING_ROWS
        for batch in parquet.iter_batches(rows, columns=[column.path for column in columns]):
            found += batch.num_rows
            if found > claimed:
                raise ValueError(f"it holds more than the {claimed:,} rows that it claims")
            yield batch
    if found < claimed:
        raise ValueError(f"it holds {found:,} rows of {claimed:,}")


def _leaves(metadata: pq.FileMetaData) -> list[pq.ColumnSchema]:
    return [metadata.schema.column(number) for number in range(metadata.num_columns)]


def _claimed(path: Path, file: BinaryIO, metadata: pq.FileMetaData, budget: Budget) -> int:
    """Return the number of rows that the metadata claims; raises ValueError for an impossible claim."""
    length = os.fstat(file.fileno()).st_size
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    rows = [int(group.num_rows) for group in groups]
    if min(rows, default=0) < 0 or sum(rows) != metadata.num_rows:
        raise ValueError(f"its groups have {sum(rows):,} rows, and it {metadata.num_rows:,}")
    budget.take(path, rows=sum(rows), stored_bytes=length)
    most_bytes = max(memory_bounds.FREE_BYTES, memory_bounds.EXPANSION * length)
    for group in groups:
        chunks = [group.column(number) for number in range(group.num_columns)]
        if any(not 0 <= chunk.total_uncompressed_size <= most_bytes for chunk in chunks):
            raise ValueError("a column claims to be longer than any that was recorded")
        if any(not 0 <= chunk.num_values <= memory_bounds.MOST_FRAMES + group.num_rows for chunk in chunks):
            raise ValueError("a column claims to have more values than any that was recorded")
    return sum(rows)
