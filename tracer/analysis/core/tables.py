"""The protocol between a trace and its analysis, and facts about the tables as a whole."""

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

_RECLAIM_CAUSES: Final = ("reclaim_memcg", "reclaim_direct", "reclaim_kswapd")


class TraceTables(Protocol):
    """The tables of a trace as DataFrames, tables derived from them, and `meta`: the contents of meta.json.

    The columns of the tables are those of `schema.TABLES`. A table with a `time` is indexed by it, in UTC,
    and sorted. Derived tables and look-ups are computed at first use, and kept for all callers.
    """

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
        """Return the links from refaults to evictions: `analysis.views.refaults.refaults`."""
        ...

    @property
    def needed_again(self) -> pd.DataFrame:
        """Return the pieces of files that were refaulted: `analysis.views.refaults.needed_again`."""
        ...

    @property
    def waits(self) -> pd.DataFrame:
        """Return the times that threads waited for memory: `analysis.views.stalls.waits`."""
        ...

    @property
    def places(self) -> Places:
        """Return the look-up of `cgroups`."""
        ...

    @property
    def processes(self) -> Processes:
        """Return the look-up of `tasks`."""
        ...

    @property
    def losses(self) -> Losses:
        """Return the look-up of `loss`."""
        ...

    @property
    def logged(self) -> list[Logged]:
        """Return the reports in `kernel_log`."""
        ...

    @property
    def functions(self) -> Functions:
        """Return the look-up of `stacks`."""
        ...


def is_evicted(pagecache: pd.DataFrame) -> Bools:
    """Return a mask of the rows of `pagecache` that are folios taken by reclaim."""
    return is_one_of(pagecache["op"], ["delete"]) & is_one_of(pagecache["cause"], _RECLAIM_CAUSES)


def is_shmem(trace: TraceTables) -> Bools:
    """Return a mask of the rows of `pagecache` that are of tmpfs, memfd or shared anonymous memory.

    All these rows are deletions: mm/shmem.c adds its folios without the tracepoint. Their memory is in the
    ledger as shmem; it was no page cache that reclaim could drop.
    """
    files = trace.inodes["inode_id"][is_one_of(trace.inodes["fs_type"], ["tmpfs"])]
    return is_one_of(trace.pagecache["inode_id"], files)


def page_size(trace: TraceTables) -> int:
    """Return the size of a page of the recorded machine, in bytes."""
    return int(trace.meta["page_size"])


def breaks_off(trace: TraceTables) -> bool:
    """Return whether the recording may have gone on after the last record of the trace.

    True if the recorder was killed, is still running, or could not write any more.
    """
    return trace.meta["ended"] is None or trace.meta.get("end_reason") == WRITE_FAILED


def start_ns(trace: TraceTables) -> int:
    """Return the time of the first charge, page-cache event, reclaim attempt, kill or sample, in ns since the
    epoch; 0 for an empty trace.
    """
    return min((int(times_ns(table)[0]) for table in _timed(trace) if len(table)), default=0)


def end_ns(trace: TraceTables) -> int:
    """Return the time of the last of these events and samples, in ns since the epoch; 0 for an empty one."""
    return max((int(times_ns(table)[-1]) for table in _timed(trace) if len(table)), default=0)


def _timed(trace: TraceTables) -> tuple[pd.DataFrame, ...]:
    return trace.charge, trace.pagecache, trace.reclaim, trace.oom, trace.samples
