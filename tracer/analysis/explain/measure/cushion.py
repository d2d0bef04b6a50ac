"""The page cache as the cushion between a limit and the OOM killer.

A cgroup at its limit lives as long as reclaim finds memory to free, and that is page cache first.
`measure.window` defines the moments `at_limit` and `end`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import utc_time
from tracer.analysis.core.ledger import Steps
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import page_size
from tracer.analysis.explain.measure.window import Window
from tracer.analysis.results.memory import Cushion
from tracer.analysis.results.quality import Unknown
from tracer.schema import UNLIMITED_BYTES

_EXHAUSTED_PERCENT: Final = 2


def measure(
    subtree: Subtree,
    *,
    limit_bytes: int,
    window: Window,
    cache_end_bytes: int | None,
    locked_bytes: int = 0,
    unknown: Unknown,
) -> Cushion:
    """Return the cushion of a kill; `cache` is page cache without shmem, and without what was locked (mlock)
    at the kill.

    `cache_start_bytes` is the peak of the cache from `at_limit` to the kill. `evicted_bytes` counts all pages
    that reclaim deleted from the cache of the subtree since `at_limit`, with those that later came back.
    `absorbed_bytes` is the growth of other memory (anon, shmem, kernel, sock) since `at_limit`, at most
    `evicted_bytes`, because only evictions made room for it; 0 if it shrank. `limit_reached_at` is
    `at_limit`; None if no limit is set, or if nothing before the kill shows that moment. `exhausted_at` is
    the moment from which the cache stayed under 2 % of the limit (of its peak if no limit is set); where rows
    are thinned, the begin of the interval in which that moment is. None if nothing was evicted: its files
    were truncated or removed, and it was no cushion. `refaulted_bytes` is the part of `evicted_bytes` that
    the subtree read again before the kill, and `kernel_refaulted_bytes` the kernel's count for the same time,
    which includes what was evicted before it. `evicted_after_bytes` is the part of `evicted_bytes` since
    `exhausted_at`: cache that came back for moments only.

    The argument `cache_end_bytes` is the level in the sample at the kill; None: the ledger's is taken.
    `locked_bytes` is the part of it that is locked, which is in neither level of the result.
    Reasons for unknown values go to `unknown`.
    """
    cache = ledger.level(subtree, ledger.CACHE)
    evicted = subtree.evicted.pages_between(window.at_limit, window.end) * page_size(subtree.whole)
    start_bytes = exhausted_at = after_bytes = None
    if cache is None:
        reason = "the trace holds no start sample of this cgroup's file and shmem"
        unknown |= dict.fromkeys(
            ("cushion.cache_start_bytes", "cushion.exhausted_at", "cushion.evicted_after_bytes"), reason
        )
    else:
        in_window = cache.within(window.at_limit, window.end)
        start_bytes = in_window.peak()
        reference = (start_bytes or 0) if limit_bytes >= UNLIMITED_BYTES else limit_bytes
        least = locked_bytes + reference * _EXHAUSTED_PERCENT // 100
        exhausted_ns = _exhausted_ns(in_window, least, cache_end_bytes)
        if exhausted_ns is not None and evicted:
            exhausted_ns = min(exhausted_ns, _evicted_ns(subtree, window, least, in_window.at(window.end)))
            since_ns = subtree.whole.fineness.since(exhausted_ns)
            exhausted_at = utc_time(max(since_ns, min(window.at_limit, exhausted_ns)))
            after = subtree.evicted.pages_between(exhausted_ns + 1, window.end)
            after_bytes = after * page_size(subtree.whole)
        if cache_end_bytes is None:
            cache_end_bytes = in_window.at(window.end)
    if cache_end_bytes is None:
        unknown["cushion.cache_end_bytes"] = "neither a sample at the kill nor a start sample is there"
    refaulted, why_not = refaulted_bytes(subtree, window.at_limit, window.end)
    if why_not is not None:
        unknown["cushion.refaulted_bytes"] = why_not
    counted = kernel_refaulted_bytes(subtree, window.at_limit, window.end)
    if counted is None:
        reason = "the kernel's count was not sampled twice in the window"
        unknown["cushion.kernel_refaulted_bytes"] = reason
    is_limited = limit_bytes < UNLIMITED_BYTES
    other = ledger.change(subtree, ledger.NOT_CACHE)
    absorbed = (other.at(window.end) or 0) - (other.at(window.at_limit) or 0)
    return Cushion(
        cache_start_bytes=None if start_bytes is None else max(start_bytes - locked_bytes, 0),
        cache_end_bytes=None if cache_end_bytes is None else max(cache_end_bytes - locked_bytes, 0),
        evicted_bytes=evicted,
        absorbed_bytes=min(max(absorbed, 0), evicted),
        limit_reached_at=utc_time(window.at_limit) if is_limited and window.at_limit < window.end else None,
        exhausted_at=exhausted_at,
        refaulted_bytes=refaulted,
        kernel_refaulted_bytes=counted,
        evicted_after_bytes=after_bytes,
    )


def cache_bytes(sizes: Mapping[str, int | None]) -> int | None:
    """Return the page cache without shmem in bytes, from the sizes of memory.stat; None if either is not
    known."""
    file, shmem = sizes["file"], sizes["shmem"]
    return None if file is None or shmem is None else file - shmem


def why_not_followed(subtree: Subtree, begin_ns: int, end_ns: int) -> str | None:
    """Return the reason why the refaults of an interval are not known; None if all of them are."""
    is_summed = subtree.whole.summed_intervals.near(begin_ns, end_ns)
    if not is_summed or not subtree.evicted.pages_between(begin_ns, end_ns):
        return None
    return "page cache was evicted while its events were summed: which of it was read again is not known"


def refaulted_bytes(subtree: Subtree, begin_ns: int, end_ns: int) -> tuple[int | None, str | None]:
    """Return the page cache that was evicted from the subtree and read again by it in an interval.

    It is in bytes; None, with the reason, if it is not known. What another cgroup or a later life of the same
    name reads does not count (`core.evicted.Refaulted.within`).
    """
    why_not = why_not_followed(subtree, begin_ns, end_ns)
    if why_not is not None:
        return None, why_not
    pages = subtree.refaulted.between(begin_ns, end_ns).pages.sum(dtype=np.int64)
    return int(pages) * page_size(subtree.whole), None


def kernel_refaulted_bytes(subtree: Subtree, begin_ns: int, end_ns: int) -> int | None:
    """Return the refaults of file pages that the kernel counted, in bytes (workingset_refault_file).

    The kernel also counts pages that were evicted before the interval or from another cgroup
    (workingset_refault in mm/workingset.c). The count is from the last reading before the interval, or else
    the first in it, to the last in it. With a single reading there were none if its value held
    (`ledger.held`), else the number is not known.
    """
    refaults = ledger.count(subtree, "workingset_refault_file")
    inside = refaults.within(begin_ns, end_ns)
    values = [*([] if inside.before is None else [inside.before]), *inside.values[:1], *inside.values[-1:]]
    is_read_twice = len(inside.values) > (inside.before is None)
    if not is_read_twice and not ledger.held(subtree, refaults, end_ns):
        return None
    return (int(values[-1]) - int(values[0])) * page_size(subtree.whole)


def _evicted_ns(subtree: Subtree, window: Window, least: int, cache_end_bytes: int | None) -> int:
    """Return the time of the eviction after which the cache stayed below `least` bytes; the end of the window
    if the evictions do not show it.

    The ledger finds up to 200 ms later what a task of one cgroup evicts from another.
    """
    evicted = subtree.evicted
    inside = slice(*np.searchsorted(evicted.time, [window.at_limit, window.end + 1]))
    pages = np.asarray(evicted.pages[inside], np.int64)
    left = (cache_end_bytes or 0) + (pages.sum() - np.cumsum(pages)) * page_size(subtree.whole)
    gone = np.flatnonzero(left < least)
    return int(evicted.time[inside][gone[0]]) if len(gone) else window.end


def _exhausted_ns(cache: Steps, least: int, cache_end_bytes: int | None) -> int | None:
    """Return the time of the row from which the cache stayed below `least` bytes; None if it was never above,
    or was above at the end."""
    enough = np.flatnonzero(cache.values >= least)
    after = int(enough[-1]) + 1 if len(enough) else 0
    never_above = not len(enough) and (cache.before is None or cache.before < least)
    left_at_end = after == len(cache.times) or (cache_end_bytes is not None and cache_end_bytes >= least)
    return None if never_above or left_at_end else int(cache.times[after])
