"""The names of the files of a dataset.

    dataset.json                                            its format and version
    kills/date=2026-11-27/host=web-7/<trace id>.parquet     the rows of one trace
    kills/date=2026-11-27/host=_many/many-<digest>.parquet  the rows of many traces, from `compaction`
    raw/charge/date=…/host=…/<trace id>.parquet             the tables of traces
    raw/meta/date=…/host=…/<trace id>.json                  their meta.json

The date is the day of the rows in UTC, and the host is percent-encoded. Both are columns in the files as
well.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

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
