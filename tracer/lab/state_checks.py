"""Checks of the state of a cgroup that survived: held, thrashing or throttled (docs/states.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from tracer.lab.checks import Check
from tracer.lab.disks.fuse import READ_AHEAD_BYTES
from tracer.lab.survival import Survival
from tracer.units import UNKNOWN, duration, size

if TYPE_CHECKING:
    import pandas as pd

_LOST: Final = ["reclaim_ms", "reread_ms", "swap_in_ms", "throttled_ms"]
_WORK: Final = ["work_ms", "first_read_ms"]
_BIN_MS: Final = 1000


def state_is(label: str) -> Callable[[Survival], Check]:
    """Return the check that the state is the label of the experiment."""

    def check(survival: Survival) -> Check:
        detail = f"{_state(survival)}, label: {label}"
        return Check("the state is found", survival.held.progress.state == label, detail)

    return check


def state_is_as_defined(survival: Survival) -> Check:
    """Check, by plain sums over the trace, the state while a file is read again; the state depends on the
    disk.

    The state is thrashing if three conditions hold in any window: at least a third of the time was lost, the
    lost time is at least a tenth of the window, and at least a quarter of the evicted page cache was read
    again.
    """
    trace, own = survival.trace, survival.cgroup_id()
    times, rows, back = trace.lost_time(survival.held.cgroup), trace.pagecache, trace.refaults
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


def own_program_is_foremost(program: str) -> Callable[[Survival], Check]:
    """Return the check that the file of this name is read again most, and known to be executed."""

    def check(survival: Survival) -> Check:
        first = next(iter(survival.held.progress.files), None)
        passed = first is not None and (first.path or "").endswith(f"/{program}") and first.executable is True
        executed = "executed" if first is not None and first.executable else "not executed"
        detail = f"{first.path or UNKNOWN}, {executed}, {size(first.refaulted_bytes)}" if first else "none"
        return Check("its own program is read again most", passed, detail)

    return check


def waits_are_those_of_the_disk(read_s: float) -> Callable[[Survival], Check]:
    """Return the check that the waits for the most-read file fit a disk that takes this time for each part.

    The next part is read while the task works on the last one, so the task may wait for only half of the
    time. The task has one thread, so it cannot wait for longer than the trace lasts.
    """

    def check(survival: Survival) -> Check:
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

    return check


def _state(survival: Survival) -> str:
    found = survival.held.progress
    share = UNKNOWN if found.lost_share is None else f"{found.lost_share:.0%}"
    return f"{found.state or UNKNOWN}, {share} of the tasks' time lost"
