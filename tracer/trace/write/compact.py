"""Compaction, which turns journals into Parquet files.

With `is_durable`, a Parquet file is on disk (fsync(2)) before its journals are removed.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Protocol

import pyarrow as pa

from tracer.directory import Directory
from tracer.errors import TraceError
from tracer.schema import TABLES
from tracer.trace.identity_tables import keep_last
from tracer.trace.journal_stream import read_journal
from tracer.trace.layout import journal_temporary, part_name, whole_name


class ClosedJournal(Protocol):
    """A journal without a writer: the file `name` in `folder` holds `rows` rows."""

    folder: Directory
    name: str
    rows: int

    def read(self) -> IO[bytes]:
        """Open the file for reading."""

    def unlink(self) -> None:
        """Remove the file."""


def compact_whole(
    trace: Directory,
    scratch: Directory,
    table: str,
    journals: Sequence[ClosedJournal],
    *,
    is_durable: bool = False,
) -> int:
    """Write the rows of all journals of a table as its only Parquet file; return the number of its rows.

    The file is made in `scratch`, the folder of journals, and renamed when it is complete. No journal is
    removed before the rename, and a repetition after a failure at any step is safe. Raises OSError if a file
    cannot be written, and TraceError if a journal lost rows.
    """
    return _compact(scratch, table, journals, trace, whole_name(table), is_durable=is_durable)


def compact_part(
    trace: Directory,
    scratch: Directory,
    table: str,
    number: int,
    journal: ClosedJournal,
    *,
    is_durable: bool = False,
) -> None:
    """Write the rows of one journal as a part of its table, as `compact_whole` does."""
    with trace.subfolder(table, make=True) as parts:
        if is_durable:
            trace.sync()
        _compact(scratch, table, [journal], parts, part_name(number), is_durable=is_durable)


def count_rows(table: str, journals: Sequence[ClosedJournal]) -> int:
    """Return the number of rows that a reader finds in the journals of a table."""
    batches = [batch for journal in journals for batch in _mapped(journal)]
    return int(keep_last(pa.Table.from_batches(batches, TABLES[table]), table).num_rows)


def mapped_batches(file: IO[bytes]) -> list[pa.RecordBatch]:
    """Return the complete batches of a journal, mapped from the page cache."""
    if not os.fstat(file.fileno()).st_size:
        return []
    mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return list(read_journal(pa.py_buffer(mapping), lambda _: None))


def _compact(
    scratch: Directory,
    table: str,
    journals: Sequence[ClosedJournal],
    target: Directory,
    name: str,
    *,
    is_durable: bool,
) -> int:
    batches = [batch for journal in journals for batch in _whole(journal)]
    schema = batches[0].schema if batches else TABLES[table]  # maybe the schema of an older recorder
    data = keep_last(pa.Table.from_batches(batches, schema).unify_dictionaries(), table)
    temporary = journal_temporary(table, name)
    with suppress(FileNotFoundError):  # it exists only if a failed attempt left it
        scratch.unlink(temporary)
    from pyarrow import parquet  # noqa: PLC0415  a recorder's start has no time for it

    try:
        with scratch.create(temporary) as file:
            parquet.write_table(data, file, compression="zstd")
            if is_durable:
                file.flush()
                os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            scratch.unlink(temporary)
        raise
    scratch.replace(temporary, name, target)
    if is_durable:
        target.sync()
    for journal in journals:
        with suppress(OSError):  # a reader prefers the Parquet file
            journal.unlink()
    return int(data.num_rows)


def _whole(journal: ClosedJournal) -> list[pa.RecordBatch]:
    """Return all rows of a closed journal; raises TraceError if some are missing."""
    batches = _mapped(journal)
    found = sum(batch.num_rows for batch in batches)
    if found != journal.rows:
        path = journal.folder.path / journal.name
        raise TraceError(f"{path} holds {found} rows of {journal.rows}: keep it, and check the disk")
    return batches


def _mapped(journal: ClosedJournal) -> list[pa.RecordBatch]:
    """Return the rows in the file of a closed journal."""
    if not journal.rows:
        return []
    with journal.read() as file:
        return mapped_batches(file)
