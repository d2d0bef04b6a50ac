"""A cgroup that lived through the trace: `explain` returns one `Held` for each if nothing was killed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tracer.analysis.results.conclusions import Sizing
from tracer.analysis.results.json_values import as_object
from tracer.analysis.results.quality import Quality
from tracer.analysis.results.reclaim_attempts import Reclaim

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Held:
    """A cgroup that lived: how near it came to its limit, and what reclaim freed, over the whole trace.

    `limit_bytes` is `schema.UNLIMITED_BYTES` if no limit is set. `headroom_bytes` is the limit less the peak;
    it is 0 if usage was above the limit, since the kernel lets some charges pass, and None without a limit.
    `cache_at_peak_bytes` is page cache without shmem at `peak_time`; shmem and kernel memory are of the same
    moment. `peak_swap_bytes`: the most that was in swap. `stuck_since`: the moment from which its tasks
    waited at the limit until the end, with the OOM killer disabled (v1 memory.oom_control); None: they did
    not. `run` of `runs` is the life of its name. `recorded_until`: the last record of a recording that breaks
    off; the time after it is not known. `recorder_cgroup`: the cgroup of the recorder, if it was traced and
    had a limit.
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
    max_events: int | None
    reclaim: Reclaim
    sizing: Sizing
    quality: Quality
    shmem_at_peak_bytes: int | None = None
    kernel_at_peak_bytes: int | None = None
    peak_swap_bytes: int | None = None
    stuck_since: pd.Timestamp | None = None
    cgroup_id: int | None = None
    run: int = 1
    runs: int = 1
    recorded_until: pd.Timestamp | None = None
    recorder_cgroup: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the object of this cgroup in the `held` list of `explain --json`."""
        return as_object(self)
