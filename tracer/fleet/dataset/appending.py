"""Append a trace to a dataset: readers see all of it or nothing.

Files are named by the trace's id. So a trace that is appended again, or by two processes at the same time,
gets the same files, and the next attempt completes an interrupted one. The row in `sources` is written last:
with it, the trace is in the dataset. Among the raw tables, meta.json is written last.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from tracer.analysis import named_tables
from tracer.analysis.trace import AnalysedTrace
from tracer.directory import Directory
from tracer.errors import TracerError
from tracer.fleet.dataset import listing
from tracer.fleet.dataset.listing import committed_ids, require_dataset
from tracer.fleet.dataset.spooled import SpooledFile, spool
from tracer.fleet.dataset.store import Store
from tracer.fleet.pushing.target import private_files
from tracer.fleet.summary.origin import Origin
from tracer.fleet.summary.summaries import SUMMARIES
from tracer.fleet.summary.summarize import summarize
from tracer.schema import TABLES
from tracer.trace.write import claim

_ORIGIN: Final = ("date", "host", "boot_id", "trace", "trace_id")


def raw_schema(table: str) -> pa.Schema:
    """Return the columns of a raw table in a dataset: the trace and host, then the columns of
    `named_tables`."""
    return pa.schema(
        [SUMMARIES["sources"].field(name) for name in _ORIGIN] + list(named_tables.schema_of(table))
    )


def raw_rows(trace: AnalysedTrace, origin: Origin, table: str) -> Iterator[tuple[datetime.date, pa.Table]]:
    """Yield (day, rows of that day), some 100,000 rows at a time. Rows without a time belong to the trace's
    first day."""
    first = datetime.datetime.fromisoformat(trace.meta["started"]).astimezone(datetime.UTC).date()
    for rows in named_tables.batches(trace, table):
        if "time" not in rows.column_names:
            yield first, _with_origin(rows, origin, first)
            continue
        days = pc.cast(rows["time"], pa.date32())
        for day in pc.unique(days).to_pylist():
            yield day, _with_origin(rows.filter(pc.equal(days, pa.scalar(day, pa.date32()))), origin, day)


def _with_origin(rows: pa.Table, origin: Origin, day: datetime.date) -> pa.Table:
    values: Mapping[str, object] = {
        "date": day,
        "host": origin.host,
        "boot_id": origin.boot_id,
        "trace": origin.trace,
        "trace_id": origin.trace_id,
    }
    fields = [SUMMARIES["sources"].field(name) for name in _ORIGIN]
    columns = [pa.repeat(pa.scalar(values[field.name], field.type), rows.num_rows) for field in fields]
    return pa.Table.from_arrays([*columns, *rows.columns], schema=pa.schema([*fields, *rows.schema]))


@dataclass(frozen=True, slots=True)
class Appended:
    """The outcome for a trace. `kills` is None if the dataset already had the trace, and its raw data if
    wanted.

    `not_explained` has a sentence for each bug that cost a part of its summary.
    """

    trace_id: str
    kills: int | None
    written_bytes: int
    days: frozenset[tuple[str, str]] = field(default_factory=frozenset)
    """(table, day) of each file that was written"""
    not_explained: tuple[str, ...] = ()


class Appender:
    """A dataset to which traces are appended. It is created if it does not exist.

    The constructor raises TracerError if the place cannot hold a dataset. It lists the dataset's traces once.
    """

    def __init__(self, store: Store, *, is_raw: bool) -> None:
        self._store, self._is_raw = store, is_raw
        if store.read(listing.MARKER, 1) is None:
            if others := [name for name in store.entries() if not name.startswith(".")]:
                raise TracerError(
                    f"{store.url} has other files, such as {others[0]!r}, and is no dataset: name a new place"
                )
            _put_bytes(store, listing.MARKER, listing.marker_bytes())
        require_dataset(store)
        self._there = set(committed_ids(store))
        self._raw_there = _raw_ids(store) if is_raw else set[str]()

    def has(self, trace_id: str) -> bool:
        """Return whether the dataset already has a trace, and its raw data if wanted."""
        return trace_id in self._there and not (self._is_raw and trace_id not in self._raw_there)

    def append(self, trace: AnalysedTrace) -> Appended:
        """Append a trace unless the dataset has it.

        Raises TraceError for a trace that is damaged or still being recorded, TracerError, and OSError.
        """
        if trace.interrupted:
            with Directory.open(trace.path.resolve()) as folder:
                claim.lock(folder)  # released when the block ends
        origin = Origin.from_trace(trace)
        if self.has(origin.trace_id):
            return Appended(origin.trace_id, None, 0)
        kills, written, days = 0, 0, set[tuple[str, str]]()
        summary = None if origin.trace_id in self._there else summarize(trace)
        if self._is_raw and origin.trace_id not in self._raw_there:
            written += self._append_raw(trace, origin, days)
        if summary is not None:
            kills = summary.tables["kills"].num_rows
            order = [*(table for table in SUMMARIES if table != "sources"), "sources"]
            with spool() as folder:
                for table in order:
                    written += self._put_days(folder, table, summary.tables[table], origin, days)
            self._there.add(origin.trace_id)
        missing = () if summary is None else tuple(summary.defects.sentences())
        return Appended(origin.trace_id, kills, written, frozenset(days), missing)

    def _put_days(
        self, folder: Path, table: str, rows: pa.Table, origin: Origin, days: set[tuple[str, str]]
    ) -> int:
        written = 0
        for day in pc.unique(rows["date"]).to_pylist():
            file = SpooledFile(folder, rows.schema)
            file.write(rows.filter(pc.equal(rows["date"], pa.scalar(day, pa.date32()))))
            written += self._put(file, table, day, origin, days)
        return written

    def _append_raw(self, trace: AnalysedTrace, origin: Origin, days: set[tuple[str, str]]) -> int:
        written = 0
        for table in TABLES:
            files: dict[datetime.date, SpooledFile] = {}
            with spool() as folder, ExitStack() as opened:
                for day, rows in raw_rows(trace, origin, table):
                    if day not in files:
                        files[day] = SpooledFile(folder, raw_schema(table))
                        opened.callback(files[day].discard)
                    files[day].write(rows)
                for day, file in files.items():
                    written += self._put(file, f"{listing.RAW}/{table}", day, origin, days)
        day = datetime.datetime.fromisoformat(trace.meta["started"]).astimezone(datetime.UTC).date()
        folder_name = listing.folder_of(listing.RAW_META, day, origin.host)
        document = json.dumps(trace.meta).encode() + b"\n"
        _put_bytes(self._store, f"{folder_name}/{origin.trace_id}.json", document)
        self._raw_there.add(origin.trace_id)
        return written + len(document)

    def _put(
        self,
        file: SpooledFile,
        table: str,
        day: datetime.date,
        origin: Origin,
        days: set[tuple[str, str]],
    ) -> int:
        days.add((table, day.isoformat()))
        return file.put(
            self._store, f"{listing.folder_of(table, day, origin.host)}/{origin.trace_id}.parquet"
        )


def _raw_ids(store: Store) -> set[str]:
    parts = (listing.partition_of(path) for path in store.list(listing.RAW_META))
    return {part.trace_id for part in parts if part is not None and part.trace_id is not None}


def _put_bytes(store: Store, path: str, content: bytes) -> None:
    def chunks() -> Iterable[bytes]:
        return [content]

    with private_files():
        store.put(path, len(content), chunks)
