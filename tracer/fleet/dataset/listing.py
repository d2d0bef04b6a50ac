"""The names of the files of a dataset, the traces that it has, and the files that hold them.

    dataset.json                                            its format and version
    kills/date=2026-11-27/host=web-7/<trace id>.parquet     the rows of one trace
    kills/date=2026-11-27/host=_many/many-<digest>.parquet  the rows of many traces, from `compaction`
    raw/charge/date=…/host=…/<trace id>.parquet             the tables of traces
    raw/meta/date=…/host=…/<trace id>.json                  their meta.json

The date is the day of the rows in UTC, and the host is percent-encoded. Both are columns in the files as
well.

A trace is in the dataset once its row is in `sources`, which is written last. A file of another table whose
trace is not in `sources` is being written, or was left by a writer that ended too early: readers leave it
out.

A file of many traces names them in its metadata. If a trace is named there, its own file is a leftover of an
interrupted compaction, and readers leave it out as well. If two files of many traces name the same trace, its
rows are read from the one with more traces.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import pyarrow.parquet as pq

from tracer.errors import TracerError
from tracer.fleet.dataset.store import Store

MARKER: Final = "dataset.json"
FORMAT: Final = "memcg-tracer dataset"
VERSION: Final = 1

RAW: Final = "raw"
RAW_META: Final = "raw/meta"
MANY_HOSTS: Final = "_many"

_LONGEST_HOST: Final = 150
_SMALL: Final = re.compile(r"([0-9a-f]{16})\.(?:parquet|json)")
_MANY: Final = re.compile(r"many-[0-9a-f]{16}\.parquet")
_PARTITION: Final = re.compile(r"date=(\d{4}-\d\d-\d\d)/host=([^/]*)/([^/]+)")


def marker_bytes() -> bytes:
    """Return the content of dataset.json."""
    return json.dumps({"format": FORMAT, "version": VERSION}).encode() + b"\n"


def folder_of(table: str, date: datetime.date, host: str) -> str:
    """Return the folder of a table's rows of a day and a host. A long name is cut, and ends with a digest."""
    name = quote(host, safe="")
    if len(name) > _LONGEST_HOST:
        name = f"{name[:_LONGEST_HOST]}-{hashlib.sha256(host.encode()).hexdigest()[:16]}"
    return f"{table}/date={date.isoformat()}/host={name}"


def many_name(trace_ids: Iterable[str]) -> str:
    """Return the name of a file with the rows of these traces: the same for the same traces."""
    digest = hashlib.sha256(" ".join(sorted(trace_ids)).encode()).hexdigest()
    return f"many-{digest[:16]}.parquet"


@dataclass(frozen=True, slots=True)
class Partition:
    """A file of a table: its path in the table, its day, and its trace; None: it holds many traces."""

    path: str
    date: str
    trace_id: str | None


def partition_of(path: str) -> Partition | None:
    """Return what a path below a table says about its file; None: it is not a file of a dataset."""
    found = _PARTITION.fullmatch(path)
    if found is None:
        return None
    date, _, name = found.groups()
    small = _SMALL.fullmatch(name)
    if small is not None:
        return Partition(path, date, small[1])
    return Partition(path, date, None) if _MANY.fullmatch(name) else None


TRACE_IDS: Final = b"memcg_tracer.trace_ids"
_MOST_MARKER_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class HeldFile:
    """A file of a table. `trace_ids` are the traces whose rows are to be read from it.

    `is_part`: it holds rows of other traces as well. `is_many`: a compaction wrote it.
    """

    path: str
    date: str
    size_bytes: int
    trace_ids: frozenset[str]
    is_part: bool = False
    is_many: bool = False


@dataclass(frozen=True, slots=True)
class TableFiles:
    """The files of a table: those to read, and leftovers of compactions, whose rows are in other files."""

    held: tuple[HeldFile, ...]
    leftovers: tuple[str, ...]

    def trace_ids(self) -> frozenset[str]:
        """Return the traces whose rows these files hold. For `sources`, they are the traces of the
        dataset."""
        return frozenset[str]().union(*(file.trace_ids for file in self.held))


def require_dataset(store: Store) -> None:
    """Raise TracerError unless there is a dataset that this version can read."""
    content = store.read(MARKER, _MOST_MARKER_BYTES)
    if content is None:
        raise TracerError(
            f"{store.url} is no dataset, since it has no {MARKER}: make one with memcg-tracer "
            "export TRACE --to dataset"
        )
    version = _version(content)
    if version is None:
        raise TracerError(f"{store.url_of(MARKER)} is not that of a dataset: name another place")
    if version > VERSION:
        raise TracerError(f"{store.url} is of a newer version ({version}): use a newer memcg-tracer")


def _version(content: bytes) -> int | None:
    with suppress(ValueError, RecursionError):
        found = json.loads(content)
        if isinstance(found, dict) and found.get("format") == FORMAT:
            version = found.get("version")
            return version if isinstance(version, int) else None
    return None


def refuse(_: str, error: TracerError) -> None:
    """Raise the error of a damaged file."""
    raise error


def files_of(
    store: Store,
    table: str,
    committed: frozenset[str] | None = None,
    leave_out: Callable[[str, TracerError], None] = refuse,
    *,
    first_day: str | None = None,
    last_day: str | None = None,
) -> TableFiles:
    """Return the files of a table that hold traces of the dataset; `committed` are its traces, None: all.

    Files of days before `first_day` or after `last_day`, such as 2026-11-27, are skipped. `leave_out` is
    called with the path and the error of a file of many traces that does not name them.
    """
    many: dict[Partition, int] = {}
    small: dict[Partition, int] = {}
    for path, size in sorted(store.list(table).items()):
        part = partition_of(path)
        if part is not None and (first_day or part.date) <= part.date <= (last_day or part.date):
            (many if part.trace_id is None else small)[part] = size
    named: dict[Partition, frozenset[str]] = {}
    for part in many:
        path = f"{table}/{part.path}"
        try:
            named[part] = _trace_ids(store, path)
        except TracerError as error:
            leave_out(path, error)
    held, leftovers, taken = [], [], set[tuple[str, str]]()
    for part in sorted(named, key=lambda one: (-len(named[one]), one.path)):
        ids = frozenset(one for one in named[part] if (part.date, one) not in taken)
        taken |= {(part.date, one) for one in ids}
        wanted = ids if committed is None else ids & committed
        path = f"{table}/{part.path}"
        if not ids:
            leftovers.append(path)
        elif wanted:
            is_part = wanted != named[part]
            held.append(HeldFile(path, part.date, many[part], wanted, is_part=is_part, is_many=True))
    for part, size in small.items():
        path, trace_id = f"{table}/{part.path}", part.trace_id or ""
        if (part.date, trace_id) in taken:
            leftovers.append(path)
        elif committed is None or trace_id in committed:
            held.append(HeldFile(path, part.date, size, frozenset([trace_id])))
    return TableFiles(tuple(held), tuple(leftovers))


def committed_ids(store: Store) -> frozenset[str]:
    """Return the traces of the dataset."""
    return files_of(store, "sources").trace_ids()


def _trace_ids(store: Store, path: str) -> frozenset[str]:
    """Return the traces that a file of many traces names in its metadata; raises TracerError if it names
    none."""
    with store.open(path) as file:
        metadata = pq.read_schema(file).metadata or {}
        if TRACE_IDS not in metadata:
            raise TracerError(f"{store.url_of(path)} does not name its traces: restore it from a copy")
        return frozenset(map(str, json.loads(metadata[TRACE_IDS])))
