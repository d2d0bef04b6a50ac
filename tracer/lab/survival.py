"""Checks of the answer for an experiment without a kill; `tracer.lab.checks` has the checks for a kill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracer.lab.checks import Check, damons_bytes, equal_pgsteal
from tracer.units import count, size

if TYPE_CHECKING:
    import pandas as pd

    from tracer.analysis.results.kill import OomReport
    from tracer.analysis.results.survivor import Held
    from tracer.analysis.trace import AnalysedTrace

_NEAR_LIMIT_BYTES = 2 << 20  # a large folio


@dataclass(frozen=True)
class Survival:
    """The trace of an experiment without a kill, with the report about the experiment's cgroup."""

    trace: AnalysedTrace
    held: Held
    limit_bytes: int

    @property
    def page_size(self) -> int:
        """Return the page size of the recorded machine, in bytes."""
        return int(self.trace.meta["page_size"])

    def samples(self) -> pd.DataFrame:
        """Return the samples of the cgroup, in order of time."""
        samples = self.trace.samples
        return samples[samples["cgroup_id"] == self.cgroup_id()]

    def cgroup_id(self) -> int:
        """Return the id of the experiment's cgroup."""
        cgroups = self.trace.cgroups
        return int(cgroups.loc[cgroups["path"] == self.held.cgroup, "cgroup_id"].iloc[0])


def nothing_killed(reports: Sequence[OomReport]) -> Check:
    """Check that there is no kill."""
    return Check("no OOM kill", not reports, f"{len(reports)} in the trace")


def at_the_limit(survival: Survival) -> Check:
    """Check that usage reached the limit."""
    peak, hits = survival.held.peak_usage_bytes, survival.held.max_events
    near = peak is not None and survival.limit_bytes - peak <= _NEAR_LIMIT_BYTES
    passed = near and survival.held.limit_bytes == survival.limit_bytes and hits != 0  # None: not counted
    detail = f"usage reached {size(peak)} of {size(survival.limit_bytes)}, {count(hits)} hits"
    return Check("the work survives at its limit", passed, detail)


def cache_gave_way(survival: Survival) -> Check:
    """Check that nearly all of the peak was page cache, and that it was evicted to make room."""
    cache, peak = survival.held.cache_at_peak_bytes, survival.held.peak_usage_bytes or 0
    passed = cache is not None and peak > 0 and cache >= 0.7 * peak and survival.held.evicted_bytes > 0
    detail = f"{size(cache)} of {size(peak)} was cache, {size(survival.held.evicted_bytes)} evicted"
    return Check("page cache made room", passed, detail)


def evictions_equal_pgsteal(survival: Survival) -> Check:
    """Check that the trace has an eviction for each page that the kernel counts as stolen from the cgroup."""
    counts = survival.samples()["pgsteal"].dropna()
    stolen = None if counts.empty else int(counts.iloc[-1]) * survival.page_size
    damons = damons_bytes(survival.trace, [survival.cgroup_id()])
    return equal_pgsteal(survival.held.evicted_bytes, stolen, damons)


def read_again(file_bytes: int, times: int) -> Callable[[Survival], Check]:
    """Return the check that each reading adds nearly the whole file, and that the trace has all refaults."""

    def check(survival: Survival) -> Check:
        rows, back = survival.trace.pagecache, survival.trace.refaults
        added = rows[(rows["op"] == "add") & (rows["cgroup_id"] == survival.cgroup_id())]
        by_file = added.groupby("inode_id")["nr_pages"].sum() * survival.page_size
        came_in = int(by_file.max()) if len(by_file) else 0
        came_back = int(back.loc[back["inode_id"] == by_file.idxmax(), "bytes"].sum()) if came_in else 0
        passed = 0.97 * times * file_bytes <= came_in <= times * file_bytes
        passed = passed and came_in - came_back == file_bytes
        detail = f"{size(came_in)} added, {size(came_back)} of it again; the file has {size(file_bytes)}"
        return Check(f"a file that is read {times} times is added {times} times", passed, detail)

    return check


def refaults_equal_the_kernels(survival: Survival) -> Check:
    """Check that the refaults of the trace equal the kernel's count.

    The kernel's count is workingset_refault_file of memory.stat. It may include a few other pages that were
    evicted before the trace.
    """
    back, rows, own = survival.trace.refaults, survival.trace.pagecache, survival.cgroup_id()
    seen = int(back.loc[back["cgroup_id"] == own, "bytes"].sum())
    added = rows[(rows["op"] == "add") & (rows["cgroup_id"] == own)]
    by_file = added.groupby("inode_id")["nr_pages"].sum() * survival.page_size
    others = int(by_file.sum() - by_file.max()) if len(by_file) else 0
    counted = survival.held.kernel_refaulted_bytes
    passed = counted is not None and 0 < seen <= counted <= seen + others
    detail = f"{seen} bytes, {counted} by the kernel's count"
    return Check("refaults equal the kernel's count", passed, detail)


def thrash_is_seen(file_bytes: int) -> Callable[[Survival], Check]:
    """Return the check that `thrash` finds at least one whole reading of the file."""

    def check(survival: Survival) -> Check:
        found = survival.trace.thrash()
        found = found[found["cgroup_id"] == survival.cgroup_id()]
        evicted, back = int(found["evicted_bytes"].sum()), int(found["refaulted_bytes"].sum())
        detail = f"{len(found)} intervals, {size(evicted)} evicted, {size(back)} of it read again"
        return Check("cache that is read again soon is found", not found.empty and back >= file_bytes, detail)

    return check


def is_slowed_above(high_bytes: int) -> Callable[[Survival], Check]:
    """Return the check that usage exceeded memory.high, by the kernel's count, and stayed far below the
    limit."""

    def check(survival: Survival) -> Check:
        samples, peak = survival.samples(), survival.held.peak_usage_bytes or 0
        bounds, counts = (samples[name].dropna() for name in ("high_bytes", "high_events"))
        events = 0 if counts.empty else int(counts.iloc[-1])
        is_set = not bounds.empty and int(bounds.iloc[-1]) == high_bytes
        passed = is_set and events > 0 and high_bytes < peak < survival.limit_bytes
        detail = f"usage reached {size(peak)}, {count(events)} events at {size(high_bytes)}"
        return Check("the work is slowed above memory.high", passed, detail)

    return check
