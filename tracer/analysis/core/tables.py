"""The protocol between a trace and its analysis, and facts about the tables as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import NO_ID, Bools, Int64s, integers, is_one_of, times_ns
from tracer.analysis.core.rows import Batched
from tracer.errors import Defects
from tracer.stored_names import MINOR_BITS
from tracer.trace.recording_ends import WRITE_FAILED

if TYPE_CHECKING:
    from tracer.analysis.core.evicted import Evicted, Refaulted
    from tracer.analysis.core.gaps import Fineness, Looks, Losses, SummedIntervals
    from tracer.analysis.core.lives import Places
    from tracer.analysis.core.lookups import Functions, Logged, LogKill, Processes
    from tracer.analysis.core.page_cache import CacheEvents, PageMoves
    from tracer.analysis.core.rows import Charges

_DEVICE: Final = r"^(\d{1,9}):(\d{1,9})$"


class TraceTables(Batched, Protocol):
    """The tables of a trace as DataFrames, tables derived from them, and `meta`: the contents of meta.json.

    The columns of the tables are those of `schema.TABLES`. A table with a `time` is indexed by it, in UTC,
    and sorted. Derived tables and look-ups are computed at first use, and kept for all callers.
    """

    @property
    def meta(self) -> Mapping[str, Any]: ...

    @property
    def defects(self) -> Defects:
        """Return the bugs that cost a part of the answer so far."""
        ...

    @property
    def reclaim(self) -> pd.DataFrame: ...
    @property
    def stalls(self) -> pd.DataFrame: ...
    @property
    def file_waits(self) -> pd.DataFrame: ...
    @property
    def task_time(self) -> pd.DataFrame: ...
    @property
    def swap_io(self) -> pd.DataFrame: ...
    @property
    def oom(self) -> pd.DataFrame: ...
    @property
    def oom_candidates(self) -> pd.DataFrame: ...
    @property
    def sigkills(self) -> pd.DataFrame: ...
    @property
    def kernel_log(self) -> pd.DataFrame: ...
    @property
    def samples(self) -> pd.DataFrame: ...
    @property
    def loss(self) -> pd.DataFrame: ...
    @property
    def summed(self) -> pd.DataFrame: ...
    @property
    def armed(self) -> pd.DataFrame: ...
    @property
    def shmem_files(self) -> pd.DataFrame: ...
    @property
    def contents(self) -> pd.DataFrame: ...
    @property
    def mappings(self) -> pd.DataFrame: ...
    @property
    def runtimes(self) -> pd.DataFrame: ...
    @property
    def cgroups(self) -> pd.DataFrame: ...
    @property
    def tasks(self) -> pd.DataFrame: ...
    @property
    def inodes(self) -> pd.DataFrame: ...
    @property
    def code_samples(self) -> pd.DataFrame: ...
    @property
    def stacks(self) -> pd.DataFrame: ...

    @property
    def charges(self) -> Charges:
        """Return the columns of `charge` that an analysis reads."""
        ...

    @property
    def evicted(self) -> Evicted:
        """Return the rows of `pagecache` that reclaim took from cgroups."""
        ...

    @property
    def span_ns(self) -> tuple[int, int]:
        """Return `tables.span_ns`."""
        ...

    @property
    def cache_events(self) -> CacheEvents:
        """Return the rows of `pagecache` in a form for analyses of every page."""
        ...

    @property
    def page_moves(self) -> PageMoves:
        """Return what the order of these events means: `analysis.views.refaults.page_moves`."""
        ...

    @property
    def refaults(self) -> pd.DataFrame:
        """Return the links from refaults to evictions: `analysis.views.refaults.refaults`."""
        ...

    @property
    def refaulted(self) -> Refaulted:
        """Return the refaults of cgroups."""
        ...

    @property
    def waits(self) -> pd.DataFrame:
        """Return the times that threads waited for memory: `analysis.views.reclaim.waits`."""
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
    def looks(self) -> Looks:
        """Return the look-up of `samples`."""
        ...

    @property
    def summed_intervals(self) -> SummedIntervals:
        """Return the look-up of `summed`."""
        ...

    @property
    def fineness(self) -> Fineness:
        """Return the look-up of the fineness of rows."""
        ...

    @property
    def logged(self) -> list[Logged]:
        """Return the reports in `kernel_log`."""
        ...

    @property
    def missed(self) -> list[LogKill]:
        """Return the kills that only `kernel_log` has: `analysis.kernel_log.decisions.missed`."""
        ...

    @property
    def functions(self) -> Functions:
        """Return the look-up of `stacks`."""
        ...


@dataclass(frozen=True, slots=True)
class ShmemFiles:
    """The files of tmpfs, memfd and shared anonymous memory, and their devices (dev_t).

    All their rows in `pagecache` are deletions: mm/shmem.c adds its folios without the tracepoint. Their
    memory is in the ledger as shmem; it was not page cache that reclaim could drop. A sum over many files is
    shmem if its device is one of these.
    """

    inode_ids: Int64s
    devices: Int64s

    @classmethod
    def from_inodes(cls, inodes: pd.DataFrame) -> ShmemFiles:
        files = inodes[is_one_of(inodes["fs_type"], ["tmpfs"])]
        major, minor = files["dev"].astype(str).str.extract(_DEVICE).dropna().astype(np.int64).to_numpy().T
        return cls(integers(files["inode_id"]), np.unique((major << MINOR_BITS) + minor))

    def __len__(self) -> int:
        return len(self.inode_ids)

    def hold(self, inode_id: Int64s, dev: Int64s) -> Bools:
        """Return a mask of the rows of `pagecache` with these values that are about shmem."""
        held: Bools = np.isin(inode_id, self.inode_ids) | ((inode_id == NO_ID) & np.isin(dev, self.devices))
        return held


CHARGE_BATCH_PAGES: Final = 64
"""The most pages that a CPU has charged in advance (MEMCG_CHARGE_BATCH in mm/memcontrol.c)."""


def page_size(trace: TraceTables) -> int:
    """Return the size of a page of the recorded machine, in bytes."""
    return int(trace.meta["page_size"])


def unrecorded_categories(trace: TraceTables) -> frozenset[str]:
    """Return the categories without rows in `charge` because their counters were not found. These categories
    may have changed all the same. Older traces do not name them."""
    return frozenset(trace.meta.get("unrecorded_categories", ()))


def breaks_off(trace: TraceTables) -> bool:
    """Return whether the recording may have gone on after the last record of the trace.

    True if the recorder was killed, is still running, or could not write any more.
    """
    return trace.meta["ended"] is None or trace.meta.get("end_reason") == WRITE_FAILED


def start_ns(trace: TraceTables) -> int:
    """Return the time of the first charge, page-cache event, reclaim attempt, kill or sample, in ns since the
    epoch; 0 for an empty trace.
    """
    return trace.span_ns[0]


def end_ns(trace: TraceTables) -> int:
    """Return the time of the last of these events and samples, in ns since the epoch; 0 for an empty
    trace."""
    return trace.span_ns[1]


def span_ns(trace: TraceTables) -> tuple[int, int]:
    """Return (`start_ns`, `end_ns`) of a trace."""
    moved = trace.cache_events.bounds_ns
    others = [trace.charges.time, *(times_ns(table) for table in (trace.reclaim, trace.oom, trace.samples))]
    bounds = [*([] if moved is None else [moved]), *(_bounds(times) for times in others if len(times))]
    return min((first for first, _ in bounds), default=0), max((last for _, last in bounds), default=0)


def _bounds(times: Int64s) -> tuple[int, int]:
    return int(times.min()), int(times.max())
