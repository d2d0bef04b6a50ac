"""Compaction of a trace that nobody writes any more, by another process than its recorder.

The recorder closed the journals for this purpose (`TraceWriter.leave`), or was killed.
"""

from __future__ import annotations

import os
from collections import defaultdict
from typing import IO

from tracer.directory import Directory
from tracer.errors import TraceError
from tracer.schema import TABLES
from tracer.trace import layout
from tracer.trace.identity_tables import IDENTITY_KEYS
from tracer.trace.write.compact import compact_part, compact_whole, mapped_batches


class StoredJournal:
    """The journal `name` in `folder`, with the rows that a reader finds; a torn tail is left out.

    Raises TraceError for a column whose name or type is not in the table; the journal of an older recorder
    may lack columns.
    """

    def __init__(self, folder: Directory, name: str, table: str) -> None:
        self.folder = folder
        self.name = name
        with self.read() as file:
            self.size_bytes = os.fstat(file.fileno()).st_size
            batches = mapped_batches(file)
        self.rows = sum(batch.num_rows for batch in batches)
        known = {field.name: field.type for field in TABLES[table]}
        if batches and any(known.get(field.name) != field.type for field in batches[0].schema):
            raise TraceError(
                f"{folder.path / name} is damaged, no recorder writes such columns: restore it from a copy"
            )

    def read(self) -> IO[bytes]:
        """Open the file for reading."""
        return self.folder.read(self.name)

    def unlink(self) -> None:
        """Remove the file."""
        self.folder.unlink(self.name)


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
                _compact(trace, scratch, table, stored[table])


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


def _compact(trace: Directory, scratch: Directory, table: str, journals: dict[int, StoredJournal]) -> None:
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
    """Remove journals whose rows are in Parquet files, after a process was killed that had written these
    files."""
    for journal in journals.values():
        journal.unlink()
