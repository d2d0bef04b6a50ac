"""What must be true of an experiment in which nothing is killed: the checks of `tracer.lab.checks` for those
who live.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.survivor import Held
from tracer.lab.checks import Check, damons_bytes, equal_pgsteal
from tracer.units import count, size

if TYPE_CHECKING:
    import pandas as pd

    from tracer.analysis.trace import AnalysedTrace

_NEAR_LIMIT_BYTES = 2 << 20  # a large folio


@dataclass(frozen=True)
class Survival:
    """A trace of one experiment without a kill, and what is said of the cgroup that it was made for."""

    trace: AnalysedTrace
    held: Held
    limit_bytes: int

    @property
    def page_size(self) -> int:
        return int(self.trace.meta["page_size"])

    def samples(self) -> pd.DataFrame:
        """Those of its cgroup, by time."""
        samples = self.trace.samples
        return samples[samples["cgroup_id"] == self.cgroup_id()]

    def cgroup_id(self) -> int:
        cgroups = self.trace.cgroups
        return int(cgroups.loc[cgroups["path"] == self.held.cgroup, "cgroup_id"].iloc[0])


def nothing_killed(reports: Sequence[OomReport]) -> Check:
    """The work ends by itself."""
    return Check("no OOM kill", not reports, f"{len(reports)} in the trace")


def at_the_limit(survival: Survival) -> Check:
    """It came to its limit and lived there."""
    peak, hits = survival.held.peak_usage_bytes, survival.held.max_events
    near = peak is not None and survival.limit_bytes - peak <= _NEAR_LIMIT_BYTES
    passed = near and survival.held.limit_bytes == survival.limit_bytes and hits != 0  # None: not counted
    detail = f"usage came to {size(peak)} of {size(survival.limit_bytes)}, {count(hits)} hits"
    return Check("it lived at its limit", passed, detail)


def cache_gave_way(survival: Survival) -> Check:
    """What held is named: nearly all of the peak was cache."""
    cache, peak = survival.held.cache_at_peak_bytes, survival.held.peak_usage_bytes or 0
    passed = cache is not None and peak > 0 and cache >= 0.7 * peak and survival.held.evicted_bytes > 0
    detail = f"{size(cache)} of {size(peak)} was cache, {size(survival.held.evicted_bytes)} evicted"
    return Check("what held is the cache that gave way", passed, detail)


def evictions_equal_pgsteal(survival: Survival) -> Check:
    """Every page that the kernel counts as stolen from the cgroup was seen to leave the page cache."""
    counts = survival.samples()["pgsteal"].dropna()
    stolen = None if counts.empty else int(counts.iloc[-1]) * survival.page_size
    damons = damons_bytes(survival.trace, [survival.cgroup_id()])
    return equal_pgsteal(survival.held.evicted_bytes, stolen, damons)


def read_again(file_bytes: int, times: int) -> Callable[[Survival], Check]:
    """Hardly any of the file was still there when it was read again, and all of that is seen to come back."""

    def check(survival: Survival) -> Check:
        rows, back = survival.trace.pagecache, survival.trace.refaults
        added = rows[(rows["op"] == "add") & (rows["cgroup_id"] == survival.cgroup_id())]
        by_file = added.groupby("inode_id")["nr_pages"].sum() * survival.page_size
        came_in = int(by_file.max()) if len(by_file) else 0
        came_back = int(back.loc[back["inode_id"] == by_file.idxmax(), "bytes"].sum()) if came_in else 0
        passed = 0.97 * times * file_bytes <= came_in <= times * file_bytes
        passed = passed and came_in - came_back == file_bytes
        detail = f"{size(came_in)} read, {size(came_back)} of it again; the file has {size(file_bytes)}"
        return Check(f"a file read {times} times came in {times} times", passed, detail)

    return check


def refaults_equal_the_kernels(survival: Survival) -> Check:
    """What was seen to come back is what the kernel counts (memory.stat, workingset_refault_file).

    The kernel may also remember that something else, of which there is little, was evicted before the trace.
    """
    back, rows, own = survival.trace.refaults, survival.trace.pagecache, survival.cgroup_id()
    seen = int(back.loc[back["cgroup_id"] == own, "bytes"].sum())
    added = rows[(rows["op"] == "add") & (rows["cgroup_id"] == own)]
    by_file = added.groupby("inode_id")["nr_pages"].sum() * survival.page_size
    others = int(by_file.sum() - by_file.max()) if len(by_file) else 0
    counted = survival.held.refaulted_bytes
    passed = counted is not None and 0 < seen <= counted <= seen + others
    detail = f"{seen} bytes, by the kernel's count {counted}"
    return Check("what came back equals the kernel's refaults", passed, detail)


def thrash_is_seen(file_bytes: int) -> Callable[[Survival], Check]:
    """`thrash` finds it: at least one whole reading of the file came back within seconds of its eviction."""

    def check(survival: Survival) -> Check:
        found = survival.trace.thrash()
        found = found[found["cgroup_id"] == survival.cgroup_id()]
        evicted, back = int(found["evicted_bytes"].sum()), int(found["refaulted_bytes"].sum())
        detail = f"{len(found)} intervals, {size(evicted)} evicted, {size(back)} of it back"
        return Check("it is said to thrash", not found.empty and back >= file_bytes, detail)

    return check
