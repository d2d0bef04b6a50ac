"""The rows of a dataset in parts that fit in memory, without what several traces have.

A part has all rows of its hosts. Traces of one boot are of one host, so what they share is found within a
part (`summary.overlaps`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from tracer.errors import TracerError
from tracer.fleet.dataset.compaction import only
from tracer.fleet.dataset.listing import HeldFile, files_of, require_dataset
from tracer.fleet.dataset.store import Store
from tracer.fleet.summary.overlaps import conform, merged
from tracer.fleet.summary.summaries import SUMMARIES

PART_BYTES: Final = 16 << 20
"""The length of the files of a part. In memory, their rows take about ten times as much."""
_PART_FILES: Final = 2000
_ALL: Final[Mapping[str, list[str]]] = {}
_THREADS: Final = 8  # most of the time goes into waiting where the dataset is far away


@dataclass(frozen=True, slots=True)
class HostRange:
    """A part of a dataset: the files with rows of the hosts from `first` to `last`, by table."""

    address: str
    first: str
    last: str
    files: Mapping[str, tuple[HeldFile, ...]]


def host_ranges(address: str, tables: Iterable[str], part_bytes: int = PART_BYTES) -> list[HostRange]:
    """Return the parts of a dataset, in order of their hosts.

    Only the rows of `sources` and the names of the files are read. Raises TracerError if it is no dataset,
    and UsageError for an address that is none.
    """
    store = Store(address)
    require_dataset(store)
    sources = files_of(store, "sources")
    committed = sources.trace_ids()
    files = {
        table: sources.held if table == "sources" else files_of(store, table, committed).held
        for table in dict.fromkeys(tables)
    }
    host_of = _hosts(store, sources.held)
    return [
        HostRange(address, hosts[0], hosts[-1], _files_with(files, ids))
        for hosts, ids in _groups(host_of, files, part_bytes)
    ]


def read(part: HostRange, columns: Mapping[str, list[str]] = _ALL) -> dict[str, pa.Table]:
    """Return the rows of a part, each kill, life and minute once. A column of a later version is left out,
    and one that an older version did not have is null.

    Of a table in `columns`, only these are read, `trace_id` among them, and what several traces have is there
    several times. Raises TracerError if a file is damaged, or was written together with others meanwhile.
    """
    store = Store(part.address)
    found = {table: _read_table(store, table, part, columns.get(table)) for table in part.files}
    return found | merged({table: rows for table, rows in found.items() if table not in columns})


def _hosts(store: Store, files: Sequence[HeldFile]) -> dict[str, str]:
    """Return trace -> its host."""
    found: dict[str, str] = {}
    for file, rows in zip(files, _read_all(store, files, ["trace_id", "host"], None), strict=True):
        pairs = zip(rows["trace_id"].to_pylist(), rows["host"].to_pylist(), strict=True)
        found |= {trace_id: host for trace_id, host in pairs if trace_id in file.trace_ids}
    return found


def _groups(
    host_of: Mapping[str, str], files: Mapping[str, Sequence[HeldFile]], part_bytes: int
) -> Iterator[tuple[list[str], frozenset[str]]]:
    """Yield (hosts in order, their traces) such that their files are about as long as a part should be."""
    lengths, counts = Counter[str](), Counter[str]()
    for of_table in files.values():
        for file in of_table:
            for trace_id in file.trace_ids & host_of.keys():
                lengths[host_of[trace_id]] += file.size_bytes // len(file.trace_ids)
                counts[host_of[trace_id]] += not file.is_many
    traces: dict[str, set[str]] = {}
    for trace_id, host in host_of.items():
        traces.setdefault(host, set()).add(trace_id)
    some: list[str] = []
    for host in sorted(traces):
        together = [*some, host]
        is_full = (
            sum(lengths[one] for one in together) > part_bytes
            or sum(counts[one] for one in together) > _PART_FILES
        )
        if some and is_full:
            yield some, frozenset[str]().union(*(traces[one] for one in some))
            some = []
        some.append(host)
    if some:
        yield some, frozenset[str]().union(*(traces[one] for one in some))


def _files_with(
    files: Mapping[str, Sequence[HeldFile]], trace_ids: frozenset[str]
) -> dict[str, tuple[HeldFile, ...]]:
    return {
        table: tuple(file for file in of_table if file.trace_ids & trace_ids)
        for table, of_table in files.items()
    }


def _read_table(store: Store, table: str, part: HostRange, columns: list[str] | None) -> pa.Table:
    empty = conform(SUMMARIES[table].empty_table(), table, columns)
    return pa.concat_tables([empty, *_read_all(store, part.files[table], columns, part)]).combine_chunks()


def _read_all(
    store: Store, files: Sequence[HeldFile], columns: list[str] | None, part: HostRange | None
) -> Iterator[pa.Table]:
    """Yield the rows of each file, in order; several are read at a time."""
    with ThreadPoolExecutor(_THREADS, "dataset") as threads:
        yield from threads.map(lambda file: _read_file(store, file, columns, part), files)


def _read_file(store: Store, file: HeldFile, columns: list[str] | None, part: HostRange | None) -> pa.Table:
    hosts = None if part is None else [("host", ">=", part.first), ("host", "<=", part.last)]
    table = file.path.partition("/")[0]
    with store.open(file.path) as content:
        found = pq.read_table(content, columns=columns, filters=hosts if file.is_many else None)
        rows = conform(found, table, columns)
    for column in SUMMARIES[table]:
        if not column.nullable and column.name in found.column_names and rows[column.name].null_count:
            raise TracerError(
                f"cannot read {store.url_of(file.path)}: {column.name} is null in it: restore it from a copy"
            )
    return only(rows, file)
