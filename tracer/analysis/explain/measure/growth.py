"""The growth before a kill: the memory that grew, the time in which it did not, and the pace that follows.

Memory that went to swap grew as well, and counts once where it is also in memory, mapped or not. zswap holds
such pages a second time, compressed, and reclaimable slab that reclaim took at the limit only made room. A
row of the ledger is known by its end: changes that a process made are up to 10 ms older, and those that
others made (process_vm_writev) up to a look of the recorder.

Time in which tasks could not grow at the limit does not count, since a greater limit spares it. Other time
without growth, such as that of a frozen cgroup, does not count either: growth is as quick as it is while
memory grows.

A cgroup without page cache left may crawl for minutes before it is killed, since each page that a task gets
is taken from another: it thrashes. This time is no part of the pace of its growth.

Each sentence on growth has its time from the pace, so that a report names one: by how much memory grew since
its last minimum, and in what time. The window may begin earlier: with the passing of half of the limit, or
with the trace.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import NO_ID, utc_time
from tracer.analysis.core.gaps import LOOKED_NS
from tracer.analysis.core.ledger import Steps
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import page_size, unrecorded_categories
from tracer.analysis.explain.measure.findings import Findings, LostTo, Pace, Thrashing
from tracer.analysis.explain.measure.window import Window
from tracer.analysis.results.quality import resolution_s
from tracer.analysis.views.reclaim import reclaimed_anon_pages, waited_ns

_LEAST_BYTES: Final = 1 << 20
"""Samples may differ by less between counters that no moment reads together."""
_FROM_OUTSIDE_DIVISOR: Final = 10
_PAUSE_DIVISOR: Final = 4
_LEAST_PAUSE_NS: Final = 1_000_000_000
_PAUSED_DIVISOR: Final = 100
"""Memory paused in a time in which it grew by less than a hundredth, if that is a quarter of the whole."""


def held(subtree: Subtree, begin_ns: int, end_ns: int) -> Steps:
    """Return the memory that grew, and what was in swap, within an interval, as a change since the start of
    the trace. Page cache that reclaim may not take, mlocked or on ramfs, grew as well.

    Memory that was given back by MADV_FREE does not count: reclaim takes it at the limit, while other memory
    grows. Only slab beyond what was left at the end is left out: the rest may be what filled the limit.
    """
    own = ledger.change(subtree, ledger.own_weights(subtree)).within(begin_ns, end_ns)
    swapped, slab = (
        ledger.change(subtree, {name: 1}).within(begin_ns, end_ns) for name in ("swap", "slab_reclaimable")
    )
    parts = [own, *([swapped] if len(swapped.times) or swapped.before else [])]
    freed, locked = ledger.lazily_freed(subtree).negative(), ledger.locked_files(subtree)
    parts += [
        one.within(begin_ns, end_ns)
        for one in (ledger.swap_cache(subtree).negative(), freed, locked)
        if max(one.peak() or 0, -(one.least() or 0)) >= _LEAST_BYTES
    ]
    left = slab.at(end_ns) or 0
    if slab.peak() != left and "kernel" not in unrecorded_categories(subtree.whole):
        parts.append(
            Steps(slab.times, -np.maximum(slab.values - left, 0), -max((slab.before or 0) - left, 0))
        )
    return ledger.total(parts) if len(parts) > 1 else own


def covered_ns(subtree: Subtree, begin_ns: int, end_ns: int, grown_bytes: int) -> int:
    """Return how old the changes in a row may be: a look if much of the growth was made from outside, or is
    known by samples."""
    outside = subtree.once("growth.from_outside", lambda: _from_outside(subtree))
    looked_bytes = sum(
        (one.at(end_ns) or 0) - (one.at(begin_ns - 1) or 0) for one in (outside, ledger.locked_files(subtree))
    )
    return LOOKED_NS if _FROM_OUTSIDE_DIVISOR * looked_bytes >= grown_bytes else ledger.SUMMED_NS


def _from_outside(subtree: Subtree) -> Steps:
    """Return the sum of all growth that no known process made."""
    charges = subtree.charges
    picked, bytes_ = charges.weighted(ledger.NOT_CACHE)
    rows = np.flatnonzero(picked & (charges.tgid == NO_ID) & (bytes_ > 0))
    return Steps(charges.time[rows], np.cumsum(bytes_[rows]), 0)


def lost(subtree: Subtree, grown: Steps, begin_ns: int, end_ns: int) -> tuple[int, LostTo]:
    """Return the part of an interval in which memory (`held`) did not grow, in ns, and the reason.

    Memory that pauses because tasks cannot grow has the reason of that, unless the pauses last far longer.
    """
    known: dict[LostTo, int] = {
        "thrashing": thrashed_ns(subtree, begin_ns, end_ns),
        "oom_disabled": oom_disabled_ns(subtree, begin_ns, end_ns),
    }
    longest = max(known, key=lambda name: known[name])
    paused_ns = _paused_ns(subtree, grown, begin_ns, end_ns)
    return (paused_ns, "pause") if paused_ns > 2 * known[longest] else (known[longest], longest)


def _paused_ns(subtree: Subtree, grown: Steps, begin_ns: int, end_ns: int) -> int:
    """Return the sum of the pauses of the growth. Where rows are thinned, a pause ends with the interval
    before the one in which memory grew again."""
    rises = np.cumsum(np.diff(grown.values, prepend=grown.before or 0).clip(min=0))
    first = int(grown.times.searchsorted(begin_ns))
    times, rises = np.append(grown.times[first:], end_ns), rises[first:]
    if not len(rises):
        return 0
    after = rises.searchsorted(rises + max(int(rises[-1] - rises[0]) // _PAUSED_DIVISOR, 1))
    least_ns = max((end_ns - begin_ns) // _PAUSE_DIVISOR, _LEAST_PAUSE_NS)
    paused_ns, until_ns = 0, 0
    for row in np.flatnonzero(times[after] - times[:-1] >= least_ns).tolist():
        lasted_ns = subtree.whole.fineness.since(int(times[after[row]])) - int(times[row])
        if times[row] >= until_ns and lasted_ns >= least_ns:
            paused_ns += lasted_ns
            until_ns = int(times[after[row]])
    return paused_ns


_MOST_COVERED: Final = 10
"""Growth within fewer rows than this may have begun noticeably earlier than its first row was sent."""
_NOTABLE_DIVISOR: Final = 50


def measured_pace(subtree: Subtree, window: Window) -> Pace | None:
    """Return the pace of the growth in a window; None if nothing grew."""
    end_ns = window.end
    grown = held(subtree, window.begin, end_ns)
    least, last = grown.least(), grown.at(end_ns)
    if least is None or last is None or last <= least:
        return None
    lowest = np.flatnonzero(grown.values == least)
    rises = int(lowest[-1]) + 1 if len(lowest) else 0
    first_ns = int(grown.times[rises])
    fineness = subtree.whole.fineness
    since_ns = fineness.since(first_ns)
    inexact_s = resolution_s(fineness.thinned(window.begin, end_ns), utc_time(since_ns))
    lost_ns, lost_to = lost(subtree, grown, since_ns, end_ns)
    span_ns = end_ns - since_ns - lost_ns
    inexact_ns = covered_ns(subtree, first_ns, end_ns, last - least)
    if not inexact_s and span_ns < _MOST_COVERED * inexact_ns:
        span_ns += inexact_ns
        inexact_s = inexact_ns / 1e9
    if span_ns <= 0:
        return None
    earlier = np.diff(grown.values[:rises], prepend=grown.before or 0).clip(min=0).sum()
    is_all = int(earlier) * _NOTABLE_DIVISOR < last - least
    return Pace(last - least, span_ns / 1e9, lost_ns / 1e9, lost_to, inexact_s, is_all)


def growth_span_s(findings: Findings, grown_bytes: int) -> tuple[float, float]:
    """Return the time before a kill in which so much memory other than page cache grew, and how coarse that
    is, in seconds: the time of the pace, or else the window, if more had grown and was freed before."""
    window, pace = findings.window, findings.circumstances.pace
    assert window is not None
    if pace is not None and pace.is_all and grown_bytes <= pace.grown_bytes * (1 + 1 / _NOTABLE_DIVISOR):
        return pace.span_s + pace.lost_s, pace.resolution_s
    return (window.end - window.begin) / 1e9, resolution_s(findings.thinned, utc_time(window.begin))


LEAST_SHARE: Final = 1 / 3
LEAST_REREAD: Final = 0.25
_LEAST_NS: Final = 2_000_000_000
"""Lost time is known by the second: two of them are the least."""


def thrashed_ns(subtree: Subtree, begin_ns: int, end_ns: int) -> int:
    """Return the part of an interval that its tasks lost (`views.lost_time`), in ns; 0 if it is less than a
    third of the interval, or not known."""
    is_slowed = (
        _is_evicting(subtree, begin_ns, end_ns)
        or reclaimed_anon_pages(subtree, begin_ns, end_ns)
        or waited_ns(subtree, "high", begin_ns, end_ns)
    )
    if end_ns - begin_ns < _LEAST_NS or not is_slowed:
        return 0
    origin_ns, bin_ns, share = _lost_shares(subtree)
    first, end = max((begin_ns - origin_ns) // bin_ns, 0), max(-(-(end_ns - origin_ns) // bin_ns), 0)
    share = share[first:end]
    edges = origin_ns + (first + np.arange(len(share) + 1, dtype=np.int64)) * bin_ns
    overlap = np.diff(np.clip(edges, begin_ns, end_ns))
    lost = int((overlap * share).sum())
    return lost if lost >= LEAST_SHARE * (end_ns - begin_ns) else 0


def oom_disabled_ns(subtree: Subtree, begin_ns: int, end_ns: int) -> int:
    """Return the part of an interval in which tasks waited with the OOM killer disabled, in ns."""
    waits = waits_at_limit(subtree).within(begin_ns, end_ns)
    edges = np.concatenate([[begin_ns], waits.times, [end_ns]])
    return int((np.diff(edges) * np.append(waits.before or 0, waits.values)).sum())


def waits_at_limit(subtree: Subtree) -> Steps:
    """Return 1 from each reading that found tasks waiting for memory with the OOM killer disabled (v1:
    memory.oom_control), 0 from each other one."""
    under_oom = ledger.reading(subtree, "under_oom")
    disabled = ledger.reading(subtree, "oom_kill_disable").at_each(under_oom.times)
    return Steps(under_oom.times, under_oom.values * disabled, None)


def thrashing_before_a_kill(subtree: Subtree, at_limit_ns: int, kill_ns: int) -> Thrashing | None:
    """Return the thrashing that lasted until a kill: the seconds at the limit, without a gap, in which tasks
    lost a third of their time or more.

    None if these are fewer than two, or little was read again in them.
    """
    if kill_ns - at_limit_ns < _LEAST_NS or not _is_evicting(subtree, at_limit_ns, kill_ns):
        return None
    origin_ns, bin_ns, share = _lost_shares(subtree)
    first = max(-(-(at_limit_ns - origin_ns) // bin_ns), 0)
    last = (kill_ns - origin_ns) // bin_ns  # the second of the kill counts in part
    calm = np.flatnonzero(share[first:last] < LEAST_SHARE)
    begin_ns = origin_ns + (first + (int(calm[-1]) + 1 if len(calm) else 0)) * bin_ns
    if kill_ns - begin_ns < _LEAST_NS:
        return None
    page = page_size(subtree.whole)
    evicted = subtree.evicted.pages_between(begin_ns, kill_ns)
    back = subtree.refaulted
    from_row, end_row = np.searchsorted(back.time, [begin_ns, kill_ns + 1])
    again = int(back.pages[from_row:end_row].sum(dtype=np.int64))
    if not again or again < LEAST_REREAD * evicted:
        return None
    lost = thrashed_ns(subtree, begin_ns, kill_ns)
    return Thrashing(
        span_ns=kill_ns - begin_ns,
        lost_ns=lost,
        evicted_bytes=evicted * page,
        refaulted_bytes=again * page,
    )


def _is_evicting(subtree: Subtree, begin_ns: int, end_ns: int) -> bool:
    return subtree.evicted.pages_between(begin_ns, end_ns) > 0


def _lost_shares(subtree: Subtree) -> tuple[int, int, npt.NDArray[np.float64]]:
    """Return the begin of the first bin, the width of all, and the share of each that tasks lost; 0 if not
    known."""

    def find() -> tuple[int, int, npt.NDArray[np.float64]]:
        from tracer.analysis.views.lost_time import BIN_NS, Spending  # noqa: PLC0415  few kills follow a crawl

        spending = subtree.once_for_all("thrashing.spending", lambda: Spending(subtree.whole))
        times = spending.of(subtree)
        whole = np.nan_to_num(times.all_ms)
        share = np.where(whole > 0, times.lost_ms / np.maximum(whole, 1e-9), 0)
        return times.begin_ns, BIN_NS, share

    return subtree.once("thrashing.lost_shares", find)
