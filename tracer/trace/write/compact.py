"""Compaction: journals are turned into Parquet files."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from contextlib import suppress

import pyarrow as pa

from tracer.directory import Directory
from tracer.errors import TraceError
from tracer.schema import TABLES
from tracer.trace.identity_tables import keep_last
from tracer.trace.journal_stream import read_journal
from tracer.trace.layout import journal_temporary, part_name, whole_name
from tracer.trace.write.journal import Journal


def compact_whole(trace: Directory, scratch: Directory, table: str, journals: Sequence[Journal]) -> int:
    """Write the rows of all journals of a table as its only Parquet file; return the number of its rows.

    The file is made in `scratch`, the folder of journals, and renamed when it is complete. No journal is
    removed before that, and a repetition after a failure at any step is safe. Raises OSError if a file cannot
    be written, and TraceError if a journal lost rows.
    """
    return _compact(scratch, table, journals, trace, whole_name(table))


def compact_part(trace: Directory, scratch: Directory, table: str, number: int, journal: Journal) -> None:
    """Write the rows of one journal as a part of its table, as `compact_whole` does."""
    with trace.subfolder(table, make=True) as parts:
        _compact(scratch, table, [journal], parts, part_name(number))


def count_rows(table: str, journals: Sequence[Journal]) -> int:
    """Return the number of rows that a reader finds in the journals of a table."""
    batches = [batch for journal in journals for batch in _mapped(journal)]
    return int(keep_last(pa.Table.from_batches(batches, TABLES[table]), table).num_rows)


def _compact(
    scratch: Directory, table: str, journals: Sequence[Journal], target: Directory, name: str
) -> int:
    batches = [batch for journal in journals for batch in _whole(journal)]
    data = keep_last(pa.Table.from_batches(batches, TABLES[table]).unify_dictionaries(), table)
    temporary = journal_temporary(table, name)
    with suppress(FileNotFoundError):  # left by an attempt that failed
        scratch.unlink(temporary)
    from pyarrow import parquet  # noqa: PLC0415  a recorder's start has no time for it

    try:
        with scratch.create(temporary) as file:
            parquet.write_table(data, file, compression="zstd")
    except OSError:
        with suppress(OSError):
            scratch.unlink(temporary)
        raise
    scratch.replace(temporary, name, target)
    for journal in journals:
        with suppress(OSError):  # a reader prefers the Parquet file
            journal.unlink()
    return int(data.num_rows)


def _whole(journal: Journal) -> list[pa.RecordBatch]:
    """Return all rows of a closed journal; raises TraceError if some are missing."""
    batches = _mapped(journal)
    found = sum(batch.num_rows for batch in batches)
    if found != journal.rows:
        path = journal.folder.path / journal.name
        raise TraceError(f"{path} holds {found} rows of {journal.rows}: keep it, and check the disk")
    return batches


def _mapped(journal: Journal) -> list[pa.RecordBatch]:
    """Return the rows in the file of a closed journal, mapped from the page cache."""
    if not journal.rows:
        return []
    with journal.read() as file:
        if not os.fstat(file.fileno()).st_size:
            return []
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return list(read_journal(pa.py_buffer(mapping), lambda _: None))
