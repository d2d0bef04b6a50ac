"""The thrashing before a kill: time that tasks lost while page cache was evicted and read again.

A cgroup without page cache left may crawl for minutes before it is killed, since each page that a task gets
is taken from another. Memory hardly grows meanwhile, so this time is no part of its pace.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import page_size

LEAST_SHARE: Final = 1 / 3
LEAST_REREAD: Final = 0.25
_LEAST_NS: Final = 2_000_000_000
"""Lost time is known by the second: two of them are the least."""


@dataclass(frozen=True, slots=True)
class Thrashing:
    """The time until a kill in which tasks mostly read again what was evicted: how long it was, the part of
    it that they lost, and the page cache that was evicted and read again in it."""

    span_ns: int
    lost_ns: int
    evicted_bytes: int
    refaulted_bytes: int


def lost_ns(subtree: Subtree, begin_ns: int, end_ns: int) -> int:
    """Return the part of an interval that its tasks lost (`views.lost_time`), in ns; 0 if it is less than a
    third of the interval, or not known."""
    if end_ns - begin_ns < _LEAST_NS or not _is_evicting(subtree, begin_ns, end_ns):
        return 0
    origin_ns, bin_ns, share = _lost_shares(subtree)
    edges = origin_ns + np.arange(len(share) + 1, dtype=np.int64) * bin_ns
    overlap = np.diff(np.clip(edges, begin_ns, end_ns))
    lost = int((overlap * share).sum())
    return lost if lost >= LEAST_SHARE * (end_ns - begin_ns) else 0


def before_a_kill(subtree: Subtree, at_limit_ns: int, kill_ns: int) -> Thrashing | None:
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
    lost = lost_ns(subtree, begin_ns, kill_ns)
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
