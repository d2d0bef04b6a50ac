"""The rows of a dataset in parts that fit in memory, without duplicates from overlapping traces.

A part has all rows of its hosts and of their boots, so rows that several traces share are found within a part
(`summary.overlaps`). A boot can have several host names: a machine can be renamed while it runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
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
from tracer.fleet.summary.time_window import ALWAYS, TimeWindow

PART_BYTES: Final = 16 << 20
"""The length of all files of a part. In memory, their rows take about ten times as much."""
_PART_FILES: Final = 2000
_ALL: Final[Mapping[str, list[str]]] = {}
_THREADS: Final = 8  # if the dataset is far away, most of the time is waiting
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class HostRange:
    """A part of a dataset: for each table, the files with its rows. All its hosts are between `first` and
    `last`, and no other part has rows of its `boots` (boot ids, or ids of traces without one)."""

    address: str
    first: str
    last: str
    boots: frozenset[str]
    files: Mapping[str, tuple[HeldFile, ...]]


@dataclass(frozen=True, slots=True)
class _Recorded:
    """The entry of a trace in `sources`; times are in ns since the epoch."""

    host: str
    boot: str
    begin_ns: int
    end_ns: int


def host_ranges(
    address: str,
    tables: Iterable[str],
    part_bytes: int = PART_BYTES,
    leave_out: Callable[[str, TracerError], None] = refuse,
    window: TimeWindow = ALWAYS,
) -> list[HostRange]:
    """Return the parts of a dataset, in order of their hosts, without traces recorded entirely outside of the
    window.

    Only the rows of `sources` and the names of the files are read. Files of a day on which none of the traces
    can have rows are left out. `leave_out` is called with the path and the error of a file that is damaged;
    if it returns, the traces in that file are left out. Raises TracerError if there is no dataset, and
    UsageError for an invalid address.
    """
    store = Store(address)
    require_dataset(store)
    last_day = None if window.until_ns is None else _day(window.until_ns)
    sources = files_of(store, "sources", None, leave_out, last_day=last_day)
    recorded = _recorded(store, sources.held, leave_out, window)
    held: tuple[HeldFile, ...]
    if window == ALWAYS:
        committed, held, first_day, last_day = sources.trace_ids(), sources.held, None, None
    elif not recorded:
        return []
    else:
        committed = frozenset(recorded)
        held = tuple(_with_traces(file, committed) for file in sources.held if file.trace_ids & committed)
        # A minute may have begun before its trace, and a row's day follows the clock as it was set then.
        first_day = _day(min(one.begin_ns for one in recorded.values()), -_DAY)
        last_day = _day(max(one.end_ns for one in recorded.values()), _DAY)
    files = {
        table: held
        if table == "sources"
        else files_of(store, table, committed, leave_out, first_day=first_day, last_day=last_day).held
        for table in dict.fromkeys(tables)
    }
    return [_range(address, recorded, files, ids) for ids in _groups(recorded, files, part_bytes)]


def read(part: HostRange, columns: Mapping[str, list[str]] = _ALL) -> dict[str, pa.Table]:
    """Return the rows of a part, each kill, life and minute once. Columns of a later version are left out,
    and columns that an older version did not have are null.

    `columns`: table -> the columns to read, `trace_id` among them. In such a table, rows that several traces
    share stay duplicated. Raises TracerError if a file is damaged, or was compacted meanwhile.
    """
    store = Store(part.address)
    found = {table: _read_table(store, table, part, columns.get(table)) for table in part.files}
    return found | merged({table: rows for table, rows in found.items() if table not in columns})


def _day(time_ns: int, more: timedelta = timedelta(0)) -> str:
    """Return the day of a moment in UTC, as folders are named, plus `more`."""
    return (datetime.fromtimestamp(time_ns // 1_000_000_000, UTC) + more).date().isoformat()


def _recorded(
    store: Store,
    files: Sequence[HeldFile],
    leave_out: Callable[[str, TracerError], None],
    window: TimeWindow,
) -> dict[str, _Recorded]:
    """Return the traces that were recorded in the window."""

    def of_file(file: HeldFile) -> dict[str, _Recorded] | TracerError:
        try:
            rows = _read_file(store, file, ["trace_id", "host", "boot_id", "time", "end"], None)
        except TracerError as error:
            return error
        rows = window.overlapping(rows)
        begins = rows["time"].cast(pa.int64())
        ends = pc.coalesce(rows["end"].cast(pa.int64()), begins)
        boots = pc.coalesce(rows["boot_id"], rows["trace_id"])
        columns = (values.to_pylist() for values in (rows["trace_id"], rows["host"], boots, begins, ends))
        found = zip(*columns, strict=True)
        return {trace_id: _Recorded(*one) for trace_id, *one in found if trace_id in file.trace_ids}

    found: dict[str, _Recorded] = {}
    with ThreadPoolExecutor(_THREADS, "dataset") as threads:
        for file, recorded in zip(files, threads.map(of_file, files), strict=True):
            if isinstance(recorded, TracerError):
                leave_out(file.path, recorded)
            else:
                found |= recorded
    return found


def _groups(
    recorded: Mapping[str, _Recorded], files: Mapping[str, Sequence[HeldFile]], part_bytes: int
) -> Iterator[frozenset[str]]:
    """Yield groups of traces, machine by machine in order. The files of a group are about as long as those of
    a part should be."""
    machine_of = _machines(recorded)
    lengths, counts = Counter[str](), Counter[str]()
    for of_table in files.values():
        for file in of_table:
            for trace_id in file.trace_ids & machine_of.keys():
                lengths[machine_of[trace_id]] += file.size_bytes // len(file.trace_ids)
                counts[machine_of[trace_id]] += not file.is_many
    traces: dict[str, set[str]] = {}
    for trace_id, machine in machine_of.items():
        traces.setdefault(machine, set()).add(trace_id)
    some: list[str] = []
    for machine in sorted(traces):
        together = [*some, machine]
        is_full = (
            sum(lengths[one] for one in together) > part_bytes
            or sum(counts[one] for one in together) > _PART_FILES
        )
        if some and is_full:
            yield frozenset[str]().union(*(traces[one] for one in some))
            some = []
        some.append(machine)
    if some:
        yield frozenset[str]().union(*(traces[one] for one in some))


def _machines(recorded: Mapping[str, _Recorded]) -> dict[str, str]:
    """Return for each trace the first host name of its machine: hosts with a boot in common are one
    machine."""
    earlier: dict[str, str] = {}

    def first_of(host: str) -> str:
        while (one := earlier.get(host, host)) != host:
            host = one
        return host

    host_of_boot: dict[str, str] = {}
    for one in recorded.values():
        pair = first_of(one.host), first_of(host_of_boot.setdefault(one.boot, one.host))
        earlier[max(pair)] = min(pair)
    return {trace_id: first_of(one.host) for trace_id, one in recorded.items()}


def _range(
    address: str,
    recorded: Mapping[str, _Recorded],
    files: Mapping[str, Sequence[HeldFile]],
    trace_ids: frozenset[str],
) -> HostRange:
    """Return the part with these traces."""
    found = [recorded[trace_id] for trace_id in trace_ids]
    hosts = {one.host for one in found}
    held = {
        table: tuple(_with_traces(file, trace_ids) for file in of_table if file.trace_ids & trace_ids)
        for table, of_table in files.items()
    }
    return HostRange(address, min(hosts), max(hosts), frozenset(one.boot for one in found), held)


def _with_traces(file: HeldFile, trace_ids: frozenset[str]) -> HeldFile:
    """Return the file, restricted to the rows of these traces."""
    if file.trace_ids <= trace_ids:
        return file
    return replace(file, trace_ids=file.trace_ids & trace_ids, is_part=True)


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
            found = parquet.read_row_groups(groups, columns, use_threads=False)
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
