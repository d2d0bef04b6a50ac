"""Journals: a part of a table while it is recorded, and the Parquet files that journals become.

A journal is an Arrow IPC stream, every prefix of which can be read. A stream only grows, so the dictionary of
a column of repeated strings cannot be extended in place. The stream format allows a new dictionary before any
batch, which is valid from there on. Arrow's writer compares the dictionary of each batch with the last one,
and writes it only if they differ. So a fixed enumeration is written once, and any other dictionary as often
as it changes. Readers unify the dictionaries.

Journals that a recorder left (`TraceWriter.leave`, or a killed recorder) are compacted by another process.
With `is_durable`, a Parquet file is on disk (fsync(2)) before its journals are removed.
"""

from __future__ import annotations

import errno
import io
import mmap
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from typing import IO

import pyarrow as pa

from tracer.directory import Directory
from tracer.errors import TraceError
from tracer.schema import TABLES
from tracer.trace import layout
from tracer.trace.arrow_columns import IDENTITY_KEYS, keep_last
from tracer.trace.journal_stream import read_journal
from tracer.trace.layout import journal_temporary, part_name, whole_name


class ClosedJournal:
    """A journal without a writer: the file `name` in `folder` holds `rows` rows. Methods raise OSError."""

    def __init__(self, folder: Directory, name: str) -> None:
        self.folder = folder
        self.name = name
        self.rows = 0

    def read(self) -> IO[bytes]:
        return self.folder.read(self.name)

    def unlink(self) -> None:
        self.folder.unlink(self.name)


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
            with parquet.ParquetWriter(file, data.schema, compression="zstd") as writer:
                if data.num_rows:  # most tables of a short recording have no row, and need no group of rows
                    writer.write_table(data)
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


class StoredJournal(ClosedJournal):
    """The journal `name` in `folder`, with the rows that a reader finds; a torn tail is left out.

    Raises TraceError for a column whose name or type is not in the table; the journal of an older recorder
    may lack columns.
    """

    def __init__(self, folder: Directory, name: str, table: str) -> None:
        super().__init__(folder, name)
        with self.read() as file:
            self.size_bytes = os.fstat(file.fileno()).st_size
            batches = mapped_batches(file)
        self.rows = sum(batch.num_rows for batch in batches)
        known = {field.name: field.type for field in TABLES[table]}
        if batches and any(known.get(field.name) != field.type for field in batches[0].schema):
            raise TraceError(
                f"{folder.path / name} is damaged, no recorder writes such columns: restore it from a copy"
            )


def compact_stored(trace: Directory) -> None:
    """Turn all journals of a trace into Parquet files, which are on disk afterwards.

    The trace can be read at any moment, and a repetition after a failure at any step is safe. The folder of
    journals stays. Raises OSError, TraceError or pa.ArrowException if a table cannot be written.
    """
    with trace.subfolder(layout.JOURNAL) as scratch:
        stored = _stored(scratch)
        entries = frozenset(trace.names())
        for table in sorted(stored, key=lambda table: sum(one.size_bytes for one in stored[table].values())):
            # The smallest table first: each compaction frees space.
            if layout.whole_name(table) in entries:
                _discard(stored[table])
            else:
                _compact_parts(trace, scratch, table, stored[table])


def _stored(scratch: Directory) -> dict[str, dict[int, StoredJournal]]:
    """Return table -> number -> journal, and remove temporary files that killed attempts have left."""
    found: defaultdict[str, dict[int, StoredJournal]] = defaultdict(dict)
    for name in scratch.names():
        numbered = layout.NUMBERED_JOURNAL.fullmatch(name)
        if numbered is not None and numbered[1] in TABLES:
            found[numbered[1]][int(numbered[2])] = StoredJournal(scratch, name, numbered[1])
        elif numbered is None and layout.JOURNAL_FILE.fullmatch(name):
            scratch.unlink(name)
    return found


def _compact_parts(
    trace: Directory, scratch: Directory, table: str, journals: dict[int, StoredJournal]
) -> None:
    parts = _part_numbers(trace, table)
    _discard({number: journals.pop(number) for number in sorted(journals.keys() & parts)})
    ordered = dict(sorted(journals.items()))
    if table in IDENTITY_KEYS or (not parts and len(ordered) < 2):
        compact_whole(trace, scratch, table, list(ordered.values()), is_durable=True)
        return
    for number, journal in ordered.items():
        compact_part(trace, scratch, table, number, journal, is_durable=True)


def _part_numbers(trace: Directory, table: str) -> frozenset[int]:
    try:
        with trace.subfolder(table) as folder:
            found = map(layout.PART.fullmatch, folder.names())
            return frozenset(int(part[1]) for part in found if part)
    except FileNotFoundError:
        return frozenset()


def _discard(journals: dict[int, StoredJournal]) -> None:
    """Remove journals whose rows are in Parquet files, which a process wrote before it was killed."""
    for journal in journals.values():
        journal.unlink()


class Journal(ClosedJournal):
    """An open part: the file `name` in `folder` holds its flushed rows, and perhaps a torn tail.

    Methods raise OSError if the file cannot be written; the caller must then call `abandon`.
    """

    def __init__(self, folder: Directory, name: str, schema: pa.Schema) -> None:
        super().__init__(folder, name)
        self.removed_rows = 0  # flushed to a file that was then removed
        self.is_flushed = False  # since the last batch
        self.began_ns = time.monotonic_ns()
        self._unflushed: list[pa.RecordBatch] = []
        self._flushed_bytes = 0
        self._file = folder.create(name)
        self._stream = pa.ipc.new_stream(self._file, schema)

    def append(self, batch: pa.RecordBatch) -> None:
        """Write a batch; it survives this process after `flush`."""
        self._unflushed.append(batch)
        self.is_flushed = False
        self.rows += batch.num_rows
        self._stream.write_batch(batch)

    def flush(self) -> None:
        """Give all rows to the kernel, so that they survive the end of this process."""
        self._file.flush()
        if self.is_removed:
            raise FileNotFoundError(errno.ENOENT, "its files were removed", self.name)
        self._flushed_bytes = self._file.tell()
        self._unflushed.clear()
        self.is_flushed = True

    @property
    def size_bytes(self) -> int:
        """Return the length of the file up to the last flush."""
        return self._flushed_bytes

    @property
    def is_removed(self) -> bool:
        """Return whether the file was removed, so that its rows are lost when it is closed."""
        return os.fstat(self._file.fileno()).st_nlink == 0

    def close(self) -> None:
        """End the stream and close the file; until all is written, unflushed rows are kept for `abandon`."""
        self._stream.close()
        self.flush()
        self._file.close()

    def abandon(self) -> list[pa.RecordBatch]:
        """Cut the file off at the last flush, close it, and return the batches after the flush.

        `rows` is then the number of rows that a reader finds: 0 if the file was removed.
        """
        assert isinstance(self._file, io.BufferedWriter)
        is_removed = False
        if not self._file.closed:
            is_removed = self.is_removed
            with suppress(OSError):
                os.ftruncate(self._file.fileno(), self._flushed_bytes)
            self._file.raw.close()  # without writing the buffer
            with suppress(ValueError):
                self._file.close()  # frees the buffer
        unflushed, self._unflushed = self._unflushed, []
        self.rows -= sum(batch.num_rows for batch in unflushed)
        if is_removed:
            self.rows, self.removed_rows = 0, self.rows
        return unflushed

    def exists(self) -> bool:
        """Return whether the file has its name in the folder."""
        try:
            self.folder.mode(self.name)
        except FileNotFoundError:
            return False
        return True
