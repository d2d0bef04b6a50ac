"""Rows of an interval reduced to one of each group, so that older history takes less memory.

Sums stay exact: the change of memory, the pages that came and went, the time that tasks ran and waited. The
time within an interval is lost, and so are the indices of a file's pages that came and went.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer.trace.arrow_columns import integers, nullable_integers, numbers, take, words

SUMS_OF_RUNS_NS: Final = 100_000_000
"""The least interval over which runs of the page cache are summed. In shorter intervals, runs are kept: a run
takes up to 10 ms, so a sum would save few rows, and would lose the pages of the run."""

SUMS_OF_FILES_NS: Final = 1_000_000_000
"""The least interval over which runs are summed over the processes and files of a device, as the BPF programs
do if they have no room for more (bpf/shared/page_sums.h)."""

REASON: Final = "history"
"""The reason for these sums in the table `summed`."""

Int64s = npt.NDArray[np.int64]

_OF_FILES: Final = ("tgid", "inode_id", "ino")
_MOST: Final = 1 << 62


@dataclass(frozen=True)
class Intervals:
    """The intervals that become one row: they begin at `origin_ns` and each `every_ns` before and after.

    `cuts` (ns, ascending) are moments that end an interval early, such as kills; a row at exactly this moment
    is before the cut. So the level of memory at a kill stays exact, and memory freed after the kill does not
    reduce the charge before it.
    """

    every_ns: int
    origin_ns: int = 0
    cuts: Sequence[int] = ()

    def numbers(self, times: Int64s) -> list[Int64s]:
        """Return columns that are equal for the times within one interval."""
        numbers = [(times - self.origin_ns) // self.every_ns]
        if len(self.cuts):
            numbers.append(np.searchsorted(np.asarray(self.cuts, np.int64), times).astype(np.int64))
        return numbers


def thin(
    table: str, data: pa.Table, interval_ns: int, *, origin_ns: int = 0, cuts: Sequence[int] = ()
) -> pa.Table:
    """Return the rows of `table` with at most one of each group in an interval, sorted by time.

    The arguments after `data` have the meaning that they have in `Intervals`. Rows of `samples` are left out
    only if their source is `periodic`. A table without groups is returned unchanged. Rows of `pagecache`
    become sums, without an index (`SUMS_OF_RUNS_NS`, `SUMS_OF_FILES_NS`); `summed_rows` returns the row of
    `summed` that states this.
    """
    reduce = _REDUCED.get(table)
    if reduce is None or not data.num_rows or (table == "pagecache" and interval_ns < SUMS_OF_RUNS_NS):
        return data
    return reduce(data.combine_chunks(), Intervals(interval_ns, origin_ns, cuts))


def summed_rows(blocks: Iterable[pa.Table]) -> list[dict[str, Any]]:
    """Return the row of `summed` for rows of `pagecache` that `thin` has summed, from the first to the last
    row of all `blocks`; an empty list if they have no rows. `begin` and `time` are in ns since the epoch."""
    intervals = [
        (int(begins.min()), int((begins + integers(block.column("duration_ns"))).max()))
        for block in blocks
        if len(begins := nullable_integers(block.column("time"), 0))
    ]
    if not intervals:
        return []
    begin_ns, end_ns = min(begin for begin, _ in intervals), max(end for _, end in intervals)
    return [{"begin": begin_ns, "time": end_ns, "stream": "pagecache", "reason": REASON}]


@dataclass(frozen=True)
class _Groups:
    """The rows of a table by group, in order of time within each group.

    `rows` are the positions of the rows in the table, and `starts` the positions in `rows` of each group's
    first row. `turns` are the positions of the same rows in the order of time.
    """

    data: pa.Table
    rows: Int64s
    turns: Int64s
    starts: Int64s

    @classmethod
    def of(cls, data: pa.Table, intervals: Intervals, keys: Sequence[str]) -> _Groups:
        """Group rows by the interval of their `time`, and by keys; null is a value of a key."""
        times = nullable_integers(data.column("time"), 0)
        by_time = np.argsort(times, kind="stable")
        codes = _codes(
            [*intervals.numbers(times), *(key for name in keys for key in _key(data.column(name)))]
        )
        turns = np.argsort(codes[by_time], kind="stable")
        rows = by_time[turns]
        starts = np.flatnonzero(np.diff(codes[rows], prepend=-1))
        return cls(data, rows, turns, starts)

    @property
    def ends(self) -> Int64s:
        """Return the position in `rows` of each group's last row."""
        return np.append(self.starts[1:], len(self.rows)) - 1

    def sums(self, column: str) -> Int64s:
        """Return the sum of a column over each group."""
        return self._over(np.add, integers(self.data.column(column)))

    def firsts(self, column: str) -> Int64s:
        """Return the earliest time (ns) in a column of times, for each group."""
        return self._over(np.minimum, nullable_integers(self.data.column(column), 0))

    def lengths(self) -> Int64s:
        """Return, for each group, the time (ns) from its first begin to its last end."""
        begins = nullable_integers(self.data.column("time"), 0)
        ends = begins + integers(self.data.column("duration_ns"))
        return self._over(np.maximum, ends) - self.firsts("time")

    def table(self, places: Int64s, **columns: Int64s | None) -> pa.Table:
        """Return one row of each group, at `places` in `rows`, sorted by time. `columns` are the values of
        other columns for each group; None: null."""
        order = np.argsort(self.turns[places])
        chosen = take(self.data, self.rows[places][order])
        for name, values in columns.items():
            number, kind = chosen.schema.get_field_index(name), chosen.schema.field(name).type
            column = pa.nulls(len(order), kind) if values is None else numbers(values[order], kind)
            chosen = chosen.set_column(number, chosen.schema.field(number), column)
        return chosen

    def _over(self, function: np.ufunc, values: Int64s) -> Int64s:
        reduced: Int64s = function.reduceat(values[self.rows], self.starts)
        return reduced


def _charge(data: pa.Table, intervals: Intervals) -> pa.Table:
    groups = _Groups.of(data, intervals, ("cgroup_id", "tgid", "category"))
    return groups.table(groups.ends, **{name: groups.sums(name) for name in ("pages", "bytes", "updates")})


def _pagecache(data: pa.Table, intervals: Intervals) -> pa.Table:
    unknown = ("index", *_OF_FILES) if intervals.every_ns >= SUMS_OF_FILES_NS else ("index",)
    keys = ("cgroup_id", "tgid", "task_cgroup_id", "op", "cause", "inode_id", "dev", "ino")
    groups = _Groups.of(data, intervals, [key for key in keys if key not in unknown])
    return groups.table(
        groups.starts,
        duration_ns=groups.lengths(),
        folios=groups.sums("folios"),
        nr_pages=groups.sums("nr_pages"),
        **dict.fromkeys(unknown, None),
    )


def _samples(data: pa.Table, intervals: Intervals) -> pa.Table:
    codes, sources = words(data.column("source"))
    is_kept = codes != (sources.index("periodic") if "periodic" in sources else -1)
    periodic = np.flatnonzero(~is_kept)
    if len(periodic):
        few = take(data.select(["time", "cgroup_id"]), periodic).combine_chunks()
        groups = _Groups.of(few, intervals, ("cgroup_id",))
        is_kept[periodic[groups.rows[groups.ends]]] = True
    kept = np.flatnonzero(is_kept)
    times = nullable_integers(data.column("time"), 0)[kept]
    return take(data, kept[np.argsort(times, kind="stable")])


def _task_time(data: pa.Table, intervals: Intervals) -> pa.Table:
    groups = _Groups.of(data, intervals, ("cgroup_id",))
    return groups.table(groups.ends, begin=groups.firsts("begin"), cpu_ns=groups.sums("cpu_ns"))


def _file_waits(data: pa.Table, intervals: Intervals) -> pa.Table:
    groups = _Groups.of(data, intervals, ("cgroup_id", "tgid", "inode_id"))
    return groups.table(
        groups.starts,
        duration_ns=groups.lengths(),
        waits=groups.sums("waits"),
        wait_ns=groups.sums("wait_ns"),
    )


_REDUCED: Final[dict[str, Callable[[pa.Table, Intervals], pa.Table]]] = {
    "charge": _charge,
    "pagecache": _pagecache,
    "samples": _samples,
    "task_time": _task_time,
    "file_waits": _file_waits,
}


def _key(column: pa.ChunkedArray) -> list[Int64s]:
    """Return arrays of numbers that are equal in rows with the same value; null is a value."""
    if pa.types.is_dictionary(column.type):
        return [words(column)[0]]
    values = nullable_integers(column, 0)
    return [values, nullable_integers(column, 1) != values] if column.null_count else [values]


def _codes(columns: Iterable[npt.NDArray[Any]]) -> Int64s:
    """Return a number for each row, from 0 up, which is equal in rows that agree in all columns.

    Sorting by one number is several times as fast as sorting by the columns.
    """
    codes: Int64s = np.zeros(1, np.int64)
    count = 1
    for column in columns:
        values = column.astype(np.int64, copy=False)
        least = int(values.min())
        span = int(values.max()) - least + 1
        if span > _MOST // len(values):
            values, least, span = _ranks(values), 0, len(values)
        if count > _MOST // span:
            codes, count = _ranks(codes), len(codes)
        codes, count = codes * span + (values - least), count * span
    return codes


def _ranks(values: Int64s) -> Int64s:
    ranks: Int64s = np.unique(values, return_inverse=True)[1].reshape(-1)
    return ranks
