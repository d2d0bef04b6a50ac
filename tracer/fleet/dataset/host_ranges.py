"""The rows of a dataset in parts that fit in memory, without what several traces have.

A part has all rows of its hosts. Traces of one boot are of one host, so what they share is found within a
part (`summary.overlaps`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tracer.errors import TracerError
from tracer.fleet.dataset.compaction import only
from tracer.fleet.dataset.listing import HeldFile, files_of, refuse, require_dataset
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


def host_ranges(
    address: str,
    tables: Iterable[str],
    part_bytes: int = PART_BYTES,
    leave_out: Callable[[str, TracerError], None] = refuse,
) -> list[HostRange]:
    """Return the parts of a dataset, in order of their hosts.

    Only the rows of `sources` and the names of the files are read. `leave_out` is called with the path and
    the error of a file that is damaged; if it returns, the traces of which that file tells are left out.
    Raises TracerError if it is no dataset, and UsageError for an address that is none.
    """
    store = Store(address)
    require_dataset(store)
    sources = files_of(store, "sources", leave_out=leave_out)
    committed = sources.trace_ids()
    files = {
        table: sources.held if table == "sources" else files_of(store, table, committed, leave_out).held
        for table in dict.fromkeys(tables)
    }
    host_of = _hosts(store, sources.held, leave_out)
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


def _hosts(
    store: Store, files: Sequence[HeldFile], leave_out: Callable[[str, TracerError], None]
) -> dict[str, str]:
    """Return trace -> its host."""

    def of_file(file: HeldFile) -> dict[str, str] | TracerError:
        try:
            rows = _read_file(store, file, ["trace_id", "host"], None)
        except TracerError as error:
            return error
        pairs = zip(rows["trace_id"].to_pylist(), rows["host"].to_pylist(), strict=True)
        return {trace_id: host for trace_id, host in pairs if trace_id in file.trace_ids}

    found: dict[str, str] = {}
    with ThreadPoolExecutor(_THREADS, "dataset") as threads:
        for file, hosts in zip(files, threads.map(of_file, files), strict=True):
            if isinstance(hosts, TracerError):
                leave_out(file.path, hosts)
            else:
                found |= hosts
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
    with ThreadPoolExecutor(_THREADS, "dataset") as threads:
        found = threads.map(lambda file: _read_file(store, file, columns, part), part.files[table])
        return pa.concat_tables([empty, *found]).combine_chunks()


def _read_file(store: Store, file: HeldFile, columns: list[str] | None, part: HostRange | None) -> pa.Table:
    table = file.path.partition("/")[0]
    with store.open(file.path) as content:
        # pq.read_table reads ahead in threads of Arrow. If a column is damaged, they still call `content`
        # when Python ends, which then aborts.
        parquet = pq.ParquetFile(content)
        if part is None or not file.is_many:
            found = parquet.read(columns, use_threads=False)
        else:
            groups = [number for number in range(parquet.num_row_groups) if _may_have(parquet, number, part)]
            beside = [] if columns is None or "host" in columns else ["host"]
            wanted = None if columns is None else [*columns, *beside]
            found = parquet.read_row_groups(groups, wanted, use_threads=False)
            hosts = found["host"]
            is_in_part = pc.and_(pc.greater_equal(hosts, part.first), pc.less_equal(hosts, part.last))
            found = found.filter(is_in_part).drop_columns(beside)
        rows = conform(found, table, columns)
    for column in SUMMARIES[table]:
        if not column.nullable and column.name in found.column_names and rows[column.name].null_count:
            raise TracerError(
                f"cannot read {store.url_of(file.path)}: {column.name} is null in it: restore it from a copy"
            )
    return only(rows, file)


def _may_have(parquet: pq.ParquetFile, group: int, part: HostRange) -> bool:
    """Return whether a row group can have rows of the hosts of a part."""
    metadata = parquet.metadata.row_group(group)
    columns = (metadata.column(number) for number in range(metadata.num_columns))
    known = next((column.statistics for column in columns if column.path_in_schema == "host"), None)
    if known is None or not known.has_min_max:
        return True
    return bool(known.min <= part.last and part.first <= known.max)
