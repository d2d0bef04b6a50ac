"""What the analysis asks of a trace, and the way from its pandas columns to NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

import pandas as pd

from tracer.analysis.core.columns import Bools, is_one_of, times_ns
from tracer.analysis.core.lookup.cgroups import Places
from tracer.analysis.core.lookup.log_reports import Logged
from tracer.analysis.core.lookup.losses import Losses
from tracer.analysis.core.lookup.processes import Processes
from tracer.analysis.core.lookup.stacks import Functions
from tracer.trace.meta import WRITE_FAILED


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
        """What `cgroups` holds, to be looked up: `analysis.core.lookup.cgroups.Places`."""
        ...

    @property
    def processes(self) -> Processes:
        """What `tasks` holds, likewise: `analysis.core.lookup.processes.Processes`."""
        ...

    @property
    def losses(self) -> Losses:
        """What `loss` holds, likewise: `analysis.core.lookup.losses.Losses`."""
        ...

    @property
    def logged(self) -> list[Logged]:
        """The reports in `kernel_log`: `analysis.core.lookup.log_reports.logged`."""
        ...

    @property
    def functions(self) -> Functions:
        """What `stacks` holds, likewise: `analysis.core.lookup.stacks.Functions`."""
        ...


_RECLAIM_CAUSES: Final = ("reclaim_memcg", "reclaim_direct", "reclaim_kswapd")


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


def page_size(trace: TraceTables) -> int:
    return int(trace.meta["page_size"])


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
