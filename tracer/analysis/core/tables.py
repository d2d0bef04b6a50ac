"""What the analysis asks of a trace, and the way from its pandas columns to NumPy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from tracer.schema import LIMITS, UNLIMITED_BYTES
from tracer.trace.meta import WRITE_FAILED

if TYPE_CHECKING:
    from tracer.analysis.core.lookup.losses import Losses
    from tracer.analysis.core.lookup.stacks import Functions
    from tracer.analysis.core.naming import Places, Processes
    from tracer.analysis.kernel_log.matching import Logged

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class TraceTables(Protocol):
    """The tables of a trace as DataFrames (columns: `schema.TABLES`), indexed by UTC `time` where they have
    one and then sorted by it, and what meta.json says."""

    @property
    def meta(self) -> Mapping[str, Any]: ...
    @property
    def charge(self) -> pd.DataFrame: ...
    @property
    def pagecache(self) -> pd.DataFrame: ...
    @property
    def reclaim(self) -> pd.DataFrame: ...
    @property
    def stalls(self) -> pd.DataFrame: ...
    @property
    def swap_io(self) -> pd.DataFrame: ...
    @property
    def oom(self) -> pd.DataFrame: ...
    @property
    def oom_candidates(self) -> pd.DataFrame: ...
    @property
    def kernel_log(self) -> pd.DataFrame: ...
    @property
    def samples(self) -> pd.DataFrame: ...
    @property
    def loss(self) -> pd.DataFrame: ...
    @property
    def cgroups(self) -> pd.DataFrame: ...
    @property
    def tasks(self) -> pd.DataFrame: ...
    @property
    def inodes(self) -> pd.DataFrame: ...
    @property
    def stack_samples(self) -> pd.DataFrame: ...
    @property
    def stacks(self) -> pd.DataFrame: ...
    @property
    def refaults(self) -> pd.DataFrame:
        """What follows from `pagecache`, once for all that asks: `analysis.views.refaults.refaults`."""
        ...

    @property
    def needed_again(self) -> pd.DataFrame:
        """The same by piece of a file: `analysis.views.refaults.needed_again`."""
        ...

    @property
    def waits(self) -> pd.DataFrame:
        """What follows from `stalls` and `reclaim`: `analysis.views.stalls.waits`."""
        ...

    @property
    def places(self) -> Places:
        """What `cgroups` holds, to be looked up: `analysis.core.naming.Places`."""
        ...

    @property
    def processes(self) -> Processes:
        """What `tasks` holds, likewise: `analysis.core.naming.Processes`."""
        ...

    @property
    def losses(self) -> Losses:
        """What `loss` holds, likewise: `analysis.core.lookup.losses.Losses`."""
        ...

    @property
    def logged(self) -> list[Logged]:
        """The reports in `kernel_log`: `analysis.kernel_log.comparison.logged`."""
        ...

    @property
    def functions(self) -> Functions:
        """What `stacks` holds, likewise: `analysis.core.lookup.stacks.Functions`."""
        ...


_RECLAIM_CAUSES: Final = ("reclaim_memcg", "reclaim_direct", "reclaim_kswapd")

NO_ID: Final = -1
"""Stands for a null id in the int64 arrays of this package; kernel ids and inode hashes are positive."""


def times_ns(frame: pd.DataFrame) -> Int64s:
    """The `time` index of a table as nanoseconds since the epoch."""
    return _index_ns(frame.index)


def column_times_ns(column: pd.Series) -> Int64s:
    """A column of times as nanoseconds since the epoch; nulls are the least int64, as in NumPy."""
    return _index_ns(pd.Index(column))


def _index_ns(index: pd.Index) -> Int64s:
    times = pd.DatetimeIndex(index)
    if times.unit != "ns":  # as_unit() would copy what is in ns already
        times = times.as_unit("ns")
    return np.asarray(times.asi8, dtype=np.int64)


def utc_times(time_ns: Int64s) -> pd.DatetimeIndex:
    """Nanoseconds since the epoch as pandas has them in the tables."""
    return pd.DatetimeIndex(time_ns.view("datetime64[ns]")).tz_localize("UTC")


def integers(column: pd.Series, missing: int = NO_ID) -> Int64s:
    """A column as int64, with `missing` in the place of nulls."""
    return np.asarray(column.to_numpy(np.int64, na_value=missing), dtype=np.int64)


def known(column: pd.Series) -> Bools:
    return np.asarray(column.notna().to_numpy(), dtype=np.bool_)


def kernel_numbers(table: pd.DataFrame, name: str) -> pd.Series:
    """A column as the kernel has it: a limit that is not set is `schema.UNLIMITED_BYTES`, NA is not known."""
    if name not in LIMITS:
        return table[name]
    return table[name].mask(table[LIMITS[name]].eq(False).fillna(False), UNLIMITED_BYTES)


def limit_of(row: Mapping[str, Any] | pd.Series, name: str = "limit_bytes") -> int | None:
    """The same of one row."""
    flag = row[LIMITS[name]]
    return None if pd.isna(flag) else int(row[name]) if flag else UNLIMITED_BYTES


def is_one_of(column: pd.Series, values: Iterable[str | int]) -> Bools:
    return np.asarray(column.isin(list(values)).to_numpy(), dtype=np.bool_)


def is_evicted(pagecache: pd.DataFrame) -> Bools:
    """Which rows of `pagecache` are folios that reclaim took."""
    return is_one_of(pagecache["op"], ["delete"]) & is_one_of(pagecache["cause"], _RECLAIM_CAUSES)


def is_shmem(trace: TraceTables) -> Bools:
    """Return which rows of `pagecache` are of tmpfs, memfd or shared anonymous memory.

    They are deletions alone: mm/shmem.c adds its folios without the tracepoint. What they held is in the
    ledger, as shmem, and is no page cache that could be dropped.
    """
    files = trace.inodes["inode_id"][is_one_of(trace.inodes["fs_type"], ["tmpfs"])]
    return is_one_of(trace.pagecache["inode_id"], files)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dictionaries; each column becomes Python's objects at once: `to_dict` goes by cells."""
    cells = {str(name): frame[name].tolist() for name in frame.columns}
    return [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]


def optional(value: Any) -> int | None:
    """A cell of a nullable integer column."""
    return None if pd.isna(value) else int(value)


def optional_text(value: Any) -> str | None:
    """A cell of a nullable string column."""
    return None if pd.isna(value) else str(value)


def page_size(trace: TraceTables) -> int:
    return int(trace.meta["page_size"])


def utc_time(time_ns: int) -> pd.Timestamp:
    """An instant, from nanoseconds since the epoch."""
    return pd.Timestamp(time_ns, tz="UTC")


def breaks_off(trace: TraceTables) -> bool:
    """Return whether the last record is before the recording's end: the recorder was killed, is still at
    work, or could not write on."""
    return trace.meta["ended"] is None or trace.meta.get("end_reason") == WRITE_FAILED


def start_ns(trace: TraceTables) -> int:
    """The first moment that any table speaks of, in nanoseconds since the epoch; 0 for an empty trace."""
    return min((int(times_ns(table)[0]) for table in _timed(trace) if len(table)), default=0)


def end_ns(trace: TraceTables) -> int:
    """The last such moment."""
    return max((int(times_ns(table)[-1]) for table in _timed(trace) if len(table)), default=0)


def _timed(trace: TraceTables) -> tuple[pd.DataFrame, ...]:
    return trace.charge, trace.pagecache, trace.reclaim, trace.oom, trace.samples
