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
    and sorted. Derived tables and look-ups are computed at first use, and kept for all callers
    (`analysis.trace.AnalysedTrace`).
    """

    @property
    def meta(self) -> Mapping[str, Any]: ...

    reclaim: pd.DataFrame
    stalls: pd.DataFrame
    file_waits: pd.DataFrame
    task_time: pd.DataFrame
    swap_io: pd.DataFrame
    oom: pd.DataFrame
    oom_candidates: pd.DataFrame
    sigkills: pd.DataFrame
    kernel_log: pd.DataFrame
    samples: pd.DataFrame
    loss: pd.DataFrame
    summed: pd.DataFrame
    armed: pd.DataFrame
    shmem_files: pd.DataFrame
    contents: pd.DataFrame
    mappings: pd.DataFrame
    runtimes: pd.DataFrame
    cgroups: pd.DataFrame
    tasks: pd.DataFrame
    inodes: pd.DataFrame
    code_samples: pd.DataFrame
    stacks: pd.DataFrame

    @property
    def defects(self) -> Defects: ...
    @property
    def charges(self) -> Charges: ...
    @property
    def evicted(self) -> Evicted: ...
    @property
    def span_ns(self) -> tuple[int, int]: ...
    @property
    def cache_events(self) -> CacheEvents: ...
    @property
    def page_moves(self) -> PageMoves: ...
    @property
    def refaults(self) -> pd.DataFrame: ...
    @property
    def refaulted(self) -> Refaulted: ...
    @property
    def waits(self) -> pd.DataFrame: ...
    @property
    def places(self) -> Places: ...
    @property
    def processes(self) -> Processes: ...
    @property
    def losses(self) -> Losses: ...
    @property
    def looks(self) -> Looks: ...
    @property
    def summed_intervals(self) -> SummedIntervals: ...
    @property
    def fineness(self) -> Fineness: ...
    @property
    def logged(self) -> list[Logged]: ...
    @property
    def missed(self) -> list[LogKill]: ...
    @property
    def functions(self) -> Functions: ...


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
