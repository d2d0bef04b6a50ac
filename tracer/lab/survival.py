"""Checks of the answer for an experiment without a kill, and of the state of its cgroup (docs/states.md).

`tracer.lab.checks` has the checks for a kill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tracer.lab.checks import Check, damons_bytes, equal_pgsteal
from tracer.lab.disks.fuse import READ_AHEAD_BYTES
from tracer.units import UNKNOWN, count, duration, size

if TYPE_CHECKING:
    import pandas as pd

    from tracer.analysis.results.kill import OomReport
    from tracer.analysis.results.survivor import Held
    from tracer.analysis.trace import AnalysedTrace

_LOST: Final = ["reclaim_ms", "reread_ms", "swap_in_ms", "throttled_ms"]
_WORK: Final = ["work_ms", "first_read_ms"]
_BIN_MS: Final = 1000
_MOSTLY: Final = 2 / 3  # the rest is the interpreter, also if it compiles its modules


def state_is(survival: Survival, label: str) -> Check:
    """Check that the state is the label of the experiment."""
    detail = f"{_state(survival)}, label: {label}"
    return Check("the state is found", survival.held.progress.state == label, detail)


def state_is_as_defined(survival: Survival) -> Check:
    """Check, by plain sums over the trace, the state while a file is read again; the state depends on the
    disk.

    The state is thrashing if three conditions hold in any window: at least a third of the time was lost, the
    lost time is at least a tenth of the window, and at least a quarter of the evicted page cache was read
    again.
    """
    from tracer.analysis.views.lost_time import lost_time

    trace, own = survival.trace, survival.cgroup_id()
    times, rows, back = lost_time(trace, survival.held.cgroup), trace.pagecache, trace.refaults
    is_evicted = (rows["op"] == "delete") & rows["cause"].str.startswith("reclaim")
    gone, back = rows[is_evicted & (rows["cgroup_id"] == own)], back[back["cgroup_id"] == own]
    lost_ms = times[_LOST].fillna(0).sum(axis=1)
    seconds = times.assign(
        lost_ms=lost_ms,
        all_ms=lost_ms + times[_WORK].sum(axis=1, skipna=False),
        evicted_bytes=_in_bins(gone["nr_pages"] * survival.page_size, times.index),
        again_bytes=_in_bins(back["bytes"], times.index),
    )
    width = max(min(10, -(-len(seconds) // 4)), 1)
    sums = seconds[["lost_ms", "all_ms", "evicted_bytes", "again_bytes"]].rolling(width).sum()
    crawls = (3 * sums["lost_ms"] >= sums["all_ms"]) & (10 * sums["lost_ms"] >= width * _BIN_MS)
    crawls &= (sums["again_bytes"] > 0) & (4 * sums["again_bytes"] >= sums["evicted_bytes"])
    defined = "thrashing" if crawls.any() else "held"
    passed = bool(sums["all_ms"].notna().any()) and survival.held.progress.state == defined
    detail = f"{_state(survival)}; by definition: {defined}"
    return Check("the state is that of its definition", passed, detail)


def _in_bins(bytes_: pd.Series[int], begins: pd.Index[pd.Timestamp]) -> list[int]:
    """Return the sum of the bytes, whose index is the time, in each bin."""
    sums = bytes_.groupby(begins.searchsorted(bytes_.index, side="right") - 1).sum()
    return [int(sums.get(number, 0)) for number in range(len(begins))]


def own_program_is_foremost(survival: Survival, program: str) -> Check:
    """Check that the file of this name is read again most, and known to be executed."""
    first = next(iter(survival.held.progress.files), None)
    passed = first is not None and (first.path or "").endswith(f"/{program}") and first.executable is True
    executed = "executed" if first is not None and first.executable else "not executed"
    detail = f"{first.path or UNKNOWN}, {executed}, {size(first.refaulted_bytes)}" if first else "none"
    return Check("its own program is read again most", passed, detail)


def waits_are_those_of_the_disk(survival: Survival, read_s: float) -> Check:
    """Check that the waits for the most-read file fit a disk that takes this time for each part.

    The next part is read while the task works on the last one, so the task may wait for only half of the
    time. The task has one thread, so it cannot wait for longer than the trace lasts.
    """
    rows, waits = survival.trace.pagecache, survival.trace.file_waits
    added = rows[(rows["op"] == "add") & (rows["cgroup_id"] == survival.cgroup_id())]
    by_file = added.groupby("inode_id")["nr_pages"].sum() * survival.page_size
    name = "its waits are those of the disk"
    if by_file.empty:
        return Check(name, False, "nothing was read")
    own = waits[(waits["inode_id"] == by_file.idxmax()) & (waits["cgroup_id"] == survival.cgroup_id())]
    waited_s, disk_s = int(own["wait_ns"].sum()) / 1e9, int(by_file.max()) / READ_AHEAD_BYTES * read_s
    begin_ns, end_ns = survival.trace.span_ns
    passed = disk_s / 2 <= waited_s <= (end_ns - begin_ns) / 1e9
    detail = f"{duration(waited_s)} for {size(int(by_file.max()))}, the disk took {duration(disk_s)}"
    return Check(name, passed, detail)


def _state(survival: Survival) -> str:
    found = survival.held.progress
    share = UNKNOWN if found.lost_share is None else f"{100 * found.lost_share:.0f} %"
    return f"{found.state or UNKNOWN}, {share} of the tasks' time lost"


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
    return Check("no OOM kill", not reports, f"{len(reports)} in the trace")


def at_the_limit(survival: Survival) -> Check:
    """Check that usage reached the limit."""
    peak, hits = survival.held.peak_usage_bytes, survival.held.max_events
    near = peak is not None and survival.limit_bytes - peak <= _NEAR_LIMIT_BYTES
    passed = near and survival.held.limit_bytes == survival.limit_bytes and hits != 0  # None: not counted
    detail = f"usage reached {size(peak)} of {size(survival.limit_bytes)}, {count(hits)} hits"
    return Check("the work survives at its limit", passed, detail)


def cache_gave_way(survival: Survival) -> Check:
    """Check that most of the peak was page cache, and that it was evicted to make room."""
    cache, peak = survival.held.cache_at_peak_bytes, survival.held.peak_usage_bytes or 0
    passed = cache is not None and peak > 0 and cache >= _MOSTLY * peak and survival.held.evicted_bytes > 0
    detail = f"{size(cache)} of {size(peak)} was cache, {size(survival.held.evicted_bytes)} evicted"
    return Check("page cache made room", passed, detail)


def evictions_equal_pgsteal(survival: Survival) -> Check:
    """Check that the trace has an eviction for each page that the kernel counts as stolen from the cgroup."""
    counts = survival.samples()["pgsteal"].dropna()
    stolen = None if counts.empty else int(counts.iloc[-1]) * survival.page_size
    damons = damons_bytes(survival.trace, [survival.cgroup_id()])
    return equal_pgsteal(survival.held.evicted_bytes, stolen, damons)


def read_again(survival: Survival, file_bytes: int, times: int) -> Check:
    """Check that each reading adds nearly the whole file, and that the trace has all refaults."""
    rows, back = survival.trace.pagecache, survival.trace.refaults
    added = rows[(rows["op"] == "add") & (rows["cgroup_id"] == survival.cgroup_id())]
    by_file = added.groupby("inode_id")["nr_pages"].sum() * survival.page_size
    came_in = int(by_file.max()) if len(by_file) else 0
    came_back = int(back.loc[back["inode_id"] == by_file.idxmax(), "bytes"].sum()) if came_in else 0
    passed = 0.97 * times * file_bytes <= came_in <= times * file_bytes
    passed = passed and came_in - came_back == file_bytes
    detail = f"{size(came_in)} added, {size(came_back)} of it again; the file has {size(file_bytes)}"
    return Check(f"a file that is read {times} times is added {times} times", passed, detail)


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
    return Check("what was read again equals the kernel's count", passed, detail)


def thrash_is_seen(survival: Survival, file_bytes: int) -> Check:
    """Check that `thrash` finds at least one whole reading of the file."""
    from tracer.analysis.views.thrash import thrash

    found = thrash(survival.trace)
    found = found[found["cgroup_id"] == survival.cgroup_id()]
    evicted, back = int(found["evicted_bytes"].sum()), int(found["refaulted_bytes"].sum())
    detail = f"{len(found)} intervals, {size(evicted)} evicted, {size(back)} of it read again"
    return Check("cache that is read again soon is found", not found.empty and back >= file_bytes, detail)


def is_slowed_above(survival: Survival, high_bytes: int) -> Check:
    """Check that usage exceeded memory.high, by the kernel's count, and stayed far below the limit."""
    samples, peak = survival.samples(), survival.held.peak_usage_bytes or 0
    bounds, counts = (samples[name].dropna() for name in ("high_bytes", "high_events"))
    events = 0 if counts.empty else int(counts.iloc[-1])
    is_set = not bounds.empty and int(bounds.iloc[-1]) == high_bytes
    passed = is_set and events > 0 and high_bytes < peak < survival.limit_bytes
    detail = f"usage reached {size(peak)}, {count(events)} events at {size(high_bytes)}"
    return Check("the work is slowed above memory.high", passed, detail)
