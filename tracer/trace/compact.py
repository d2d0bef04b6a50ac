"""A journal becomes Parquet."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tracer.errors import TraceError
from tracer.schema import TABLES
from tracer.trace.journal import Journal, read_journal
from tracer.trace.layout import JOURNAL, create, keep_last


def compact(trace: Path, table: str, journals: Sequence[Journal], target: Path) -> None:
    """Write the rows of closed journals as the Parquet file `target`, then remove the journals.

    Nothing is removed before all rows stand under their final name, and repeating it after a failure at any
    step is safe. Raises OSError where a file cannot be written, TraceError where a journal lost rows.
    """
    batches = [batch for journal in journals for batch in _mapped(journal)]
    data = keep_last(pa.Table.from_batches(batches, TABLES[table]).unify_dictionaries(), table)
    temporary = trace / JOURNAL / f"{table}.{target.stem}.tmp"
    try:
        with create(temporary) as file:
            pq.write_table(data, file, compression="zstd")
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if target.parent != trace:
        target.parent.mkdir(mode=0o700, exist_ok=True)
    temporary.replace(target)
    for journal in journals:
        journal.path.unlink()


def _mapped(journal: Journal) -> list[pa.RecordBatch]:
    """All rows of a closed journal, on the page cache that they are in already."""
    if not journal.rows:
        return []
    with journal.path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    batches = list(read_journal(pa.py_buffer(mapping), lambda _: None))
    found = sum(batch.num_rows for batch in batches)
    if found != journal.rows:
        raise TraceError(f"{journal.path} holds {found} rows of {journal.rows}: keep it, and check the disk")
    return batches
