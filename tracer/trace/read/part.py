"""One file of a table: read within bounds, and known to be rows of the table's schema.

The bytes may be anybody's. What comes out of here has the types of `schema.TABLES`, NULL only where it may
be, texts that are text, and numbers within `value_ranges.value_range`: nothing after it looks again.
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
from tracer.trace.read import memory_bounds
from tracer.trace.read.column_check import conforming, require_akin
from tracer.trace.read.memory_bounds import Budget
from tracer.trace.untrusted_files import open_file
from tracer.trace.write.journal import read_journal

_BATCH_ROWS: Final = 1 << 20
_METADATA_BYTES: Final = 64 << 20  # of Parquet's own: a part of a million rows has some KiB
_DAMAGED: Final = (LookupError, ValueError, TypeError, OverflowError, pa.ArrowException, OSError)
"""What Arrow and `columns.conforming` raise for a file that is not as it should be."""


def read_part(trace: Path, path: Path, schema: pa.Schema, budget: Budget) -> pa.Table:
    """The columns of `schema`, some of the table's, of a file below the directory `trace`.

    Raises FileNotFoundError, and TraceError where the file is damaged or exceeds the budget.
    """
    with _reading(trace, path) as file:
        batches = (
            _journal(path, file, schema, budget) if _is_journal(path) else _rows(path, file, schema, budget)
        )
        found = [conforming(budget.table, batch, schema) for batch in batches if batch.num_rows]
    return pa.Table.from_batches(found, schema)


def count_part(trace: Path, path: Path, schema: pa.Schema, budget: Budget) -> int:
    """How many rows the file has: of a Parquet file by its metadata. Raises as `read_part` does."""
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
    except FileNotFoundError:
        raise
    except _DAMAGED as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].strip().rstrip(".")
        raise TraceError(
            f"{path} cannot be read as schema {SCHEMA_VERSION} ({reason[:200]}): restore it from a copy"
        ) from error


def _journal(path: Path, file: BinaryIO, schema: pa.Schema, budget: Budget) -> Iterator[pa.RecordBatch]:
    """All whole batches, read from memory: of a file, Arrow would reserve as much as a torn length says."""
    length = os.fstat(file.fileno()).st_size
    budget.take(path, rows=0, stored_bytes=length)
    for batch in read_journal(pa.py_buffer(file.read(length)), lambda stored: require_akin(stored, schema)):
        budget.take(path, rows=batch.num_rows, stored_bytes=0)
        yield batch


def _rows(path: Path, file: BinaryIO, schema: pa.Schema, budget: Budget) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet file; columns of text as dictionaries, which repeat nothing."""
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
    with pq.ParquetFile(file, read_dictionary=texts, **_METADATA_LIMITS) as parquet:
        for batch in parquet.iter_batches(_BATCH_ROWS, columns=[column.path for column in columns]):
            found += batch.num_rows
            if found > claimed:
                raise ValueError(f"it holds more than the {claimed:,} rows that it claims")
            yield batch
    if found < claimed:
        raise ValueError(f"it holds {found:,} rows of {claimed:,}")


def _leaves(metadata: pq.FileMetaData) -> list[pq.ColumnSchema]:
    return [metadata.schema.column(number) for number in range(metadata.num_columns)]


def _claimed(path: Path, file: BinaryIO, metadata: pq.FileMetaData, budget: Budget) -> int:
    """How many rows the metadata claims; raises ValueError for a claim that cannot be."""
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
