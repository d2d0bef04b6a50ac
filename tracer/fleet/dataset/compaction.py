"""Merge many small files of a day into one, across hosts.

A file for each trace makes appending safe, and reading slow: opening a file costs more than reading its few
rows. So the rows of a table and a day are written into new files of up to `LARGEST_BYTES`, and the old files
are then removed. The new file names its traces in its metadata before any of the old files is removed, so an
interruption neither loses nor duplicates rows (`listing`), and the next compaction removes the leftovers.

Rows of summary tables are ordered by host, in runs that fit in memory. So a reader of some hosts reads few of
the row groups.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, groupby
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tracer.fleet.dataset import listing
from tracer.fleet.dataset.listing import TRACE_IDS, HeldFile, committed_ids, files_of
from tracer.fleet.dataset.spooled import SUMMARY_ROWS_TOGETHER, SpooledFile, spool
from tracer.fleet.dataset.store import Store
from tracer.fleet.summary.summaries import SUMMARIES
from tracer.schema import TABLES

LARGE_BYTES: Final = 100 << 20
"""Files of at least this length stay as they are."""
LARGEST_BYTES: Final = 400 << 20
COMPACT_FROM_FILES: Final = 64
"""`export` compacts a day of a table once it has this many small files, unless compaction is asked for."""

ALL_TABLES: Final = (*(f"{listing.RAW}/{table}" for table in TABLES), *SUMMARIES)

_ORDER: Final = ("host", "boot_id", "trace_id", "time")
_RUN_ROWS: Final = 10 * SUMMARY_ROWS_TOGETHER


def compact(
    store: Store,
    days: Iterable[tuple[str, str]] | None = None,
    *,
    fewest: int = 2,
    progress: Callable[[str, int], None] = lambda *_: None,
) -> int:
    """Merge small files of each table and day, and return how many files that removed.

    `days`: the (table, day) pairs to look at; None: all. A day with fewer than `fewest` small files stays as
    it is. `progress` is called with the table and the day, and the number of files, before each merge.
    """
    wanted = None if days is None else set(days)
    committed, removed = committed_ids(store), 0
    for table in ALL_TABLES:
        if wanted is not None and all(one != table for one, _ in wanted):
            continue
        found = files_of(store, table, committed)
        for path in found.leftovers:
            store.remove(path)
            removed += 1
        small = sorted(
            (file for file in found.held if file.size_bytes < LARGE_BYTES), key=lambda one: one.date
        )
        for date, files in groupby(small, key=lambda one: one.date):
            of_day = list(files)
            if len(of_day) >= max(fewest, 2) and (wanted is None or (table, date) in wanted):
                progress(f"{table} {date}", len(of_day))
                removed += _compact_day(store, table, of_day)
    return removed


def _compact_day(store: Store, table: str, files: Sequence[HeldFile]) -> int:
    removed = 0
    for schema, alike in _by_schema(store, files):
        for some in _bins(alike):
            if len(some) > 1:
                _write_together(store, table, schema, some)
                for file in some:
                    store.remove(file.path)
                    removed += 1
    return removed


def _write_together(store: Store, table: str, schema: pa.Schema, files: Sequence[HeldFile]) -> None:
    ids = sorted(frozenset[str]().union(*(file.trace_ids for file in files)))
    metadata = {TRACE_IDS: json.dumps(ids).encode()}
    with spool() as folder:
        if table in SUMMARIES:
            made = SpooledFile(folder, schema, metadata, rows_together=SUMMARY_ROWS_TOGETHER)
            parts = _sorted_runs(_rows(store, files))
        else:
            made, parts = SpooledFile(folder, schema, metadata), _rows(store, files)
        for part in parts:
            made.write(part)
        hosts = {file.path.split("/host=")[1].partition("/")[0] for file in files}
        host = hosts.pop() if len(hosts) == 1 else listing.MANY_HOSTS
        made.put(store, f"{table}/date={files[0].date}/host={host}/{listing.many_name(ids)}")


def _rows(store: Store, files: Sequence[HeldFile]) -> Iterator[pa.Table]:
    for file in files:
        with store.open(file.path) as content:
            for batch in pq.ParquetFile(content).iter_batches():
                yield only(pa.Table.from_batches([batch]).replace_schema_metadata(None), file)


def _sorted_runs(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the rows in sorted runs, a row group at a time."""
    waiting: list[pa.Table] = []
    for part in chain(parts, [None]):
        if part is not None:
            waiting.append(part)
        if waiting and (part is None or sum(one.num_rows for one in waiting) >= _RUN_ROWS):
            run = pa.concat_tables(waiting).sort_by([(name, "ascending") for name in _ORDER])
            waiting.clear()
            for first in range(0, run.num_rows, SUMMARY_ROWS_TOGETHER):
                yield run.slice(first, SUMMARY_ROWS_TOGETHER)


def only(rows: pa.Table, file: HeldFile) -> pa.Table:
    """Return the rows of the traces that are to be read from a file."""
    if not file.is_part:
        return rows
    return rows.filter(pc.is_in(rows["trace_id"], value_set=pa.array(sorted(file.trace_ids), pa.string())))


def _by_schema(store: Store, files: Sequence[HeldFile]) -> Iterator[tuple[pa.Schema, list[HeldFile]]]:
    """Yield (columns, files) for each set of files with equal columns: different versions are not merged."""
    found: dict[pa.Schema, list[HeldFile]] = {}
    for file in files:
        with store.open(file.path) as content:
            found.setdefault(pq.read_schema(content).remove_metadata(), []).append(file)
    yield from found.items()


def _bins(files: Sequence[HeldFile]) -> Iterator[list[HeldFile]]:
    """Yield groups of files that have at most `LARGEST_BYTES` in total, or a single file."""
    some: list[HeldFile] = []
    for file in sorted(files, key=lambda one: one.path):
        if some and sum(one.size_bytes for one in some) + file.size_bytes > LARGEST_BYTES:
            yield some
            some = []
        some.append(file)
    if some:
        yield some
