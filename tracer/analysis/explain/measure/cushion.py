"""The page cache as the cushion between a limit and the OOM killer.

A cgroup at its limit lives as long as reclaim finds memory to free, and that is page cache first.
`measure.window` defines the moments `at_limit` and `end`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import pandas as pd

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import integers, times_ns, utc_time
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
    unknown: Unknown,
) -> Cushion:
    """Return the cushion of a kill; `cache` is page cache without shmem.

    `cache_start_bytes` is the peak of the cache from `at_limit` to the kill. `evicted_bytes` counts all pages
    that reclaim deleted from the cache of the subtree since `at_limit`, with those that later came back.
    `absorbed_bytes` is the growth of other memory (anon, shmem, kernel, sock) since `at_limit`, at most
    `evicted_bytes`, because only evictions made room for it; 0 if it shrank. `exhausted_at` is the moment
    from which the cache stayed under 2 % of the limit (of its peak if no limit is set). `refaulted_bytes` are
    pages that were evicted and read again, to the resolution of the samples.

    The argument `cache_end_bytes` is the level in the sample at the kill; None: the ledger's is taken.
    Reasons for unknown values go to `unknown`.
    """
    cache = ledger.level(subtree, ledger.CACHE)
    start_bytes = exhausted_at = None
    if cache is None:
        reason = "the trace holds no start sample of this cgroup's file and shmem"
        unknown |= dict.fromkeys(("cushion.cache_start_bytes", "cushion.exhausted_at"), reason)
    else:
        in_window = cache.within(window.at_limit, window.end)
        start_bytes = in_window.peak()
        reference = (start_bytes or 0) if limit_bytes >= UNLIMITED_BYTES else limit_bytes
        exhausted_at = _exhausted_at(in_window, reference * _EXHAUSTED_PERCENT // 100, cache_end_bytes)
        if cache_end_bytes is None:
            cache_end_bytes = in_window.at(window.end)
    if cache_end_bytes is None:
        unknown["cushion.cache_end_bytes"] = "neither a sample at the kill nor a start sample is there"
    refaulted = refaulted_bytes(subtree, window.at_limit, window.end)
    if refaulted is None:
        unknown["cushion.refaulted_bytes"] = "workingset_refault_file was not sampled twice in the window"
    other = ledger.change(subtree, ledger.NOT_CACHE)
    absorbed = (other.at(window.end) or 0) - (other.at(window.at_limit) or 0)
    evicted = evicted_pages(subtree, window.at_limit, window.end) * page_size(subtree.whole)
    return Cushion(
        cache_start_bytes=start_bytes,
        cache_end_bytes=cache_end_bytes,
        evicted_bytes=evicted,
        absorbed_bytes=min(max(absorbed, 0), evicted),
        exhausted_at=exhausted_at,
        refaulted_bytes=refaulted,
    )


def cache_bytes(sizes: Mapping[str, int | None]) -> int | None:
    """Return the page cache without shmem in bytes, from the sizes of memory.stat; None if either is not
    known."""
    file, shmem = sizes["file"], sizes["shmem"]
    return None if file is None or shmem is None else file - shmem


def evicted_pages(subtree: Subtree, begin_ns: int, end_ns: int) -> int:
    """Return the pages that reclaim took from the page cache of the subtree, both ends included."""

    def find() -> Steps:
        evicted = subtree.evictions
        return Steps(times_ns(evicted), np.cumsum(integers(evicted["nr_pages"])), 0)

    taken = subtree.once("cushion.evicted_pages", find)
    return (taken.at(end_ns) or 0) - (taken.at(begin_ns - 1) or 0)


def refaulted_bytes(subtree: Subtree, begin_ns: int, end_ns: int) -> int | None:
    """Return the file pages that were evicted and read again, in bytes, by memory.stat.

    They are counted from the last reading before the interval, or else the first in it, to the last in it.
    None without two such readings.
    """
    refaults = ledger.count(subtree, "workingset_refault_file")
    inside = refaults.within(begin_ns, end_ns)
    before = inside.before
    if before is None and len(inside.values) > 1:
        before = int(inside.values[0])
    if before is None or not len(inside.values):
        return None
    return (int(inside.values[-1]) - before) * page_size(subtree.whole)


def _exhausted_at(cache: Steps, least: int, cache_end_bytes: int | None) -> pd.Timestamp | None:
    """Return the moment from which the cache stayed below `least` bytes; None if it was never above, or was
    above at the end."""
    enough = np.flatnonzero(cache.values >= least)
    after = int(enough[-1]) + 1 if len(enough) else 0
    never_above = not len(enough) and (cache.before is None or cache.before < least)
    left_at_end = after == len(cache.times) or (cache_end_bytes is not None and cache_end_bytes >= least)
    return None if never_above or left_at_end else utc_time(int(cache.times[after]))
