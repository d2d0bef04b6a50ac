"""A cgroup that lived through the trace: `explain` returns one `Held` for each if nothing was killed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tracer.analysis.results.forms import as_object
from tracer.analysis.results.kill import Sizing
from tracer.analysis.results.memory import (
    Allocator,
    FurtherAllocators,
    MissPoint,
    Reclaim,
    SeenMemory,
)
from tracer.analysis.results.quality import Quality

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class LostTime:
    """The time of the tasks of a cgroup and those below it over the whole trace: `analysis.views.lost_time`.

    The first four are lost, `work_ms` is CPU time outside of reclaim, `cpu_ms` all CPU time. None: not known.
    """

    reclaim_ms: float | None
    reread_ms: float | None
    swap_in_ms: float | None
    throttled_ms: float | None
    first_read_ms: float | None
    work_ms: float | None
    cpu_ms: float | None


@dataclass(frozen=True, slots=True)
class Crawl:
    """The stretch of the trace that explains a state other than "held", and the lost share within it.

    `lasts`: the stretch went on until the end of the trace, and processes that were delayed in it lived then.
    `grown_bytes`: the growth of memory that reclaim cannot free, or had to swap out, from its peak in the
    first third to its peak in the last third; `room_bytes`: what was left of the limit for such memory in the
    last third. None: not known, or no limit.
    """

    begin: pd.Timestamp
    end: pd.Timestamp
    lost_share: float
    lasts: bool
    grown_bytes: int | None = None
    room_bytes: int | None = None

    def is_flat(self) -> bool:
        """Return whether memory that reclaim cannot free was flat: at its pace in the stretch, the room that
        was left would last a hundred times as long as the stretch, or longer."""
        if self.grown_bytes is None or self.room_bytes is None:
            return False
        # Two thirds of the stretch lie between the peaks.
        return self.room_bytes > 0 and self.grown_bytes * 150 <= self.room_bytes

    def grown_per_minute(self) -> int | None:
        """Return the pace of `grown_bytes` in bytes a minute; None if there was no growth, or it is not
        known."""
        seconds = (self.end - self.begin).total_seconds() * 2 / 3
        return None if not self.grown_bytes or seconds <= 0 else round(self.grown_bytes * 60 / seconds)


@dataclass(frozen=True, slots=True)
class RereadFile:
    """A file, the part of it that was evicted and read again, and whether a task of the cgroup executes it.

    `path` is None if no name is known, `executable` if the trace does not know the programs of its tasks.
    """

    path: str | None
    refaulted_bytes: int
    executable: bool | None


@dataclass(frozen=True, slots=True)
class Delayed:
    """The processes of one name that were delayed most in the stretch of `Crawl`.

    `delayed_ms` is their time in reclaim, also waiting for a CPU there, and their other lost time.
    """

    comm: str | None
    processes: int
    delayed_ms: float


@dataclass(frozen=True, slots=True)
class HighOwner:
    """A memory.high or memory.swap.high (`file`) and its cgroup: that of `Held`, one above it, or one below.

    `cgroup` and `container` are None for a cgroup above that was not traced; the other fields are None if not
    known. `high_events`: how often usage (of swap) exceeded it in the trace, or that of a cgroup below it.
    """

    cgroup: str | None
    container: str | None
    high_bytes: int | None
    high_events: int | None
    is_ancestor: bool
    file: Literal["memory.high", "memory.swap.high"] = "memory.high"


@dataclass(frozen=True, slots=True)
class LoweredLimit:
    """A limit whose last change lowered it to `new_bytes` while `usage_bytes`, which is more, were in use.

    `file`: its file; v1's limit of memory is called memory.max as well. `limit_bytes`: the limit before.
    `time`: when the lower one was first read.
    """

    file: Literal["memory.max", "memory.high"]
    limit_bytes: int
    new_bytes: int
    usage_bytes: int
    time: pd.Timestamp


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of the work of a cgroup: `analysis.explain.slowed.progress` has the definitions.

    `state` is "held", "throttled" or "thrashing"; None: the trace does not have the CPU time of tasks and
    their waits for files.
    """

    state: str | None = None
    lost_share: float | None = None
    lost: LostTime | None = None
    crawl: Crawl | None = None
    delayed: tuple[Delayed, ...] = ()
    files: tuple[RereadFile, ...] = ()


@dataclass(frozen=True, slots=True)
class Held(SeenMemory):
    """A cgroup that lived: how near it came to its limit, and what reclaim freed, over the whole trace.

    `limit_bytes` is `schema.UNLIMITED_BYTES` if no limit is set. `peak_usage_bytes` is the highest usage in
    the trace, also between two readings if the kernel has it (memory.peak). `headroom_bytes` is the limit
    less the peak (if the limit was lowered, the peak since then); it is 0 if usage was above the limit, since
    the kernel lets some charges pass, and None without a limit. Among the moments at which usage was at least
    99 % of its peak, `peak_time` is the first with the most memory that reclaim cannot free, or had to swap
    out. The `_at_peak_bytes` are the sizes at that moment; page cache is without shmem, and
    `kernel_parts_at_peak_bytes` are the parts of kernel memory (with sockets), by name.

    `peak_anon_bytes` and `peak_swap_bytes` are the most at any moment. `evicted_on_request_bytes` is the part
    of `evicted_bytes` that writes to memory.reclaim took, to memory.force_empty of v1, or of a limit below
    usage, `refaulted_bytes` the part that the cgroup, or one below it, read again; `kernel_refaulted_bytes`
    is the kernel's count (workingset_refault_file), which includes what was evicted before the trace or from
    another cgroup.

    `stuck_since`: the moment from which its tasks waited at the limit until the end, with the OOM killer
    disabled (v1 memory.oom_control); None: they did not. `run` of `runs` is the life of its name.
    `recorded_until`: the last record of a recording that breaks off; the time after it is not known.
    `recorder_cgroup`: the cgroup of the recorder, if it was traced and had a limit. `cut_off`: how the work
    of the recorded command was cut off; None: it was not, or that is not known.

    `allocators` are the processes that were charged most until `peak_time`, `further_allocators` the sum of
    the others. `code` made the largest kind of memory grow until then (page cache over the whole trace if its
    tasks were thrashing). `miss_curve`: `analysis.views.miss_curve`, empty if nothing was read again.
    `mappings` and `runtime` are of the look that found most memory; empty if the cgroup was never so near its
    limit. `cached` is of the last look.

    `kernel_peak_bytes` is the kernel's own peak of usage (memory.peak), including the time before the trace.
    `max_events`: how often usage was about to exceed the limit, by the kernel's count in the trace.
    `high_bytes` and `high_events` are memory.high and how often usage exceeded it in the trace, or that of a
    cgroup below; None on v1. `effective_high_bytes` is the least memory.high of the cgroup and those above
    it, traced or not; `high_owner` is the one that was exceeded, else the least one, else None.
    `psi_some_share` is the share of the trace in which some task waited for memory (memory.pressure).
    `lowered`: the limits that were lowered below usage.
    """

    cgroup: str
    container: str | None
    limit_bytes: int | None
    peak_usage_bytes: int | None
    peak_time: pd.Timestamp | None
    headroom_bytes: int | None
    peak_anon_bytes: int | None
    cache_at_peak_bytes: int | None
    evicted_bytes: int
    refaulted_bytes: int | None
    kernel_refaulted_bytes: int | None
    max_events: int | None
    reclaim: Reclaim
    sizing: Sizing
    quality: Quality
    anon_at_peak_bytes: int | None = None
    shmem_at_peak_bytes: int | None = None
    kernel_at_peak_bytes: int | None = None
    peak_swap_bytes: int | None = None
    stuck_since: pd.Timestamp | None = None
    cgroup_id: int | None = None
    run: int = 1
    runs: int = 1
    recorded_until: pd.Timestamp | None = None
    cut_off: str | None = None
    allocators: tuple[Allocator, ...] = ()
    further_allocators: FurtherAllocators | None = None
    recorder_cgroup: str | None = None
    miss_curve: tuple[MissPoint, ...] | None = None
    progress: Progress = Progress()
    high_bytes: int | None = None
    high_events: int | None = None
    effective_high_bytes: int | None = None
    high_owner: HighOwner | None = None
    psi_some_share: float | None = None
    kernel_peak_bytes: int | None = None
    kernel_parts_at_peak_bytes: Mapping[str, int | None] = field(default_factory=dict)
    evicted_on_request_bytes: int = 0
    lowered: tuple[LoweredLimit, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the object of this cgroup in the `held` list of `explain --json`.

        The fields of `progress` stand in it beside the others.
        """
        found: dict[str, Any] = {}
        for name, value in as_object(self).items():
            found |= value if name == "progress" else {name: value}
        return found
