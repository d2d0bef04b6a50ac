"""The page cache as the cushion between a limit and the OOM killer, and the window in which it was used up.

A cgroup at its limit lives as long as reclaim finds memory to free, and that is page cache first. Three
moments bound the story of a kill:

* `begin`: when usage was last below half of the limit; at the earliest the start of the trace, or the
  previous kill for this limit. A previous kill is no bound if it came less than 1 s before and usage was
  never below 90 % in between: its memory was not free yet, and both kills are of one story.
* `at_limit`: when usage came within 1 % of the limit (at least 64 pages) or reclaim for the limit began,
  whichever was first after usage had last been below 90 % of it. From here on each new page needed another
  page to be freed.
* `end`: the kill.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import Int64s, integers, is_one_of, times_ns, utc_time
from tracer.analysis.core.ledger import Steps
from tracer.analysis.core.lookup.processes import Processes
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import page_size
from tracer.analysis.results.memory import Cushion
from tracer.analysis.views.reclaim import reclaimed_anon_pages
from tracer.schema import UNLIMITED_BYTES

NEAR_LIMIT_PERCENT: Final = 1
NEAR_LIMIT_PAGES: Final = 64  # a CPU's stock of charges: MEMCG_CHARGE_BATCH in mm/memcontrol.c
_LULL_PERCENT: Final = 90
_APPROACH_PERCENT: Final = 50
_SOON_NS: Final = 1_000_000_000
_EXHAUSTED_PERCENT: Final = 2


@dataclass(frozen=True, slots=True)
class Window:
    """The three moments of a kill, in nanoseconds since the epoch; the module has their definitions."""

    begin: int
    at_limit: int
    end: int


@dataclass(frozen=True, slots=True)
class Steal:
    """The pages that reclaim took from the cgroup in one interval, as traced and as the kernel counts them.

    `evicted_pages` are page-cache deletions without those by DAMON, `pgsteal_pages` is the kernel's count of
    evicted and swapped pages together (PGSTEAL_*).
    """

    evicted_pages: int
    swapped_pages: int
    pgsteal_pages: int


def find_window(subtree: Subtree, *, limit_bytes: int, earlier: Int64s, kill_ns: int) -> Window:
    """Return the window before the kill at `kill_ns`; `earlier` are the times of kills for the same limit.

    If no limit is set, the window begins after the previous kill.
    """
    if limit_bytes >= UNLIMITED_BYTES:
        start = after(subtree, earlier)
        return Window(start, start, kill_ns)
    usage = ledger.usage(subtree)
    start = _begin_of_story(subtree, usage, earlier, limit_bytes * _LULL_PERCENT // 100, kill_ns)
    usage = usage.within(start, kill_ns)
    near = limit_bytes - max(
        limit_bytes * NEAR_LIMIT_PERCENT // 100, NEAR_LIMIT_PAGES * page_size(subtree.whole)
    )
    begin = _last_below(usage, limit_bytes * _APPROACH_PERCENT // 100, start)
    after_lull = _last_below(usage, limit_bytes * _LULL_PERCENT // 100, start)
    usage = usage.within(after_lull, kill_ns)
    reached = usage.times[usage.values >= near]
    reclaim = times_ns(subtree.reclaim)
    first, last = np.searchsorted(reclaim, [after_lull, kill_ns + 1])
    firsts = [int(moments[0]) for moments in (reached, reclaim[first:last]) if len(moments)]
    return Window(begin, min(firsts, default=kill_ns), kill_ns)


def after(subtree: Subtree, earlier: Int64s) -> int:
    """Return the moment after the last of these kills, or the start of the trace."""
    return int(earlier[-1]) + 1 if len(earlier) else subtree.start_ns


def _begin_of_story(subtree: Subtree, usage: Steps, earlier: Int64s, lull: int, kill_ns: int) -> int:
    """Return the earliest possible `begin`: after the last kill of another story, or the trace's start.

    It is found once for each kill. A kill of one story with the kill before it shares that kill's begin.
    """
    begins: dict[int, int] = subtree.once(("cushion.begin_of_story", lull), dict)
    moments = [kill_ns]
    while moments[-1] not in begins:
        last, position = moments[-1], len(earlier) - len(moments)
        if position < 0:
            begins[last] = subtree.start_ns
            break
        previous = int(earlier[position])
        seen = usage.within(previous + 1, last).values
        if last - previous >= _SOON_NS or (seen < lull).any():
            begins[last] = previous + 1
        else:
            moments.append(previous)
    return begins.setdefault(kill_ns, begins[moments[-1]])


def measure(
    subtree: Subtree,
    *,
    limit_bytes: int,
    window: Window,
    cache_end_bytes: int | None,
    unknown: dict[str, str],
) -> Cushion:
    """Return the cushion of a kill; `cache` is page cache without shmem.

    `cache_start_bytes` is the peak of the cache from `at_limit` to the kill. `evicted_bytes` counts all pages
    that reclaim deleted from the cache of the subtree since `at_limit`, with those that later came back.
    `absorbed_bytes` is the growth of other memory (anon, shmem, kernel, sock) since `at_limit`, at most
    `evicted_bytes`, since it fitted only in place of cache; 0 if it shrank. `exhausted_at` is the moment from
    which the cache stayed under 2 % of the limit (of its peak if no limit is set). `refaulted_bytes` are
    pages that were evicted and read again, to the resolution of the samples.

    The argument `cache_end_bytes` is the level in the sample at the kill; None: the ledger's is taken.
    Reasons for what is not known go to `unknown`.
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
    """Return the page cache without shmem, from the sizes of memory.stat; None if either is not known."""
    file, shmem = sizes["file"], sizes["shmem"]
    return None if file is None or shmem is None else file - shmem


def evicted_pages(subtree: Subtree, begin_ns: int, end_ns: int) -> int:
    """Return the pages that reclaim took from the page cache of the subtree, both ends included."""

    def find() -> Steps:
        evicted = subtree.evictions
        return Steps(times_ns(evicted), np.cumsum(integers(evicted["nr_pages"])), 0)

    taken = subtree.once("cushion.evicted_pages", find)
    return (taken.at(end_ns) or 0) - (taken.at(begin_ns - 1) or 0)


def damons_pages(processes: Processes, evicted: pd.DataFrame) -> int:
    """Return the pages among these evictions that DAMON's threads reclaimed because they were idle.

    The kernel does not count them as stolen (reclaim_pages in mm/vmscan.c). kdamond_fn in mm/damon/core.c
    names the threads.
    """
    behind = evicted[is_one_of(evicted["cause"], ["reclaim_kswapd"])]
    tgids, moments = integers(behind["tgid"]), times_ns(behind)
    damons = [
        tgid
        for tgid in np.unique(tgids).tolist()
        if (processes.comm_at(tgid, int(moments[0]), int(moments[-1])) or "").startswith("kdamond")
    ]
    return int(integers(behind["nr_pages"])[np.isin(tgids, damons)].sum())


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


def compare_with_kernel(subtree: Subtree, window: Window) -> Steal | None:
    """Return the traced evictions beside the kernel's count; None without two readings of the count.

    The interval is the longest that both cover: from the first reading of pgsteal (for a cgroup that was made
    during the trace, from zero) to the last reading before the kill. A reading in between could fall into the
    middle of an attempt.
    """
    steal = ledger.count(subtree, "pgsteal").within(subtree.start_ns, window.end)
    if steal.before is not None:
        first, since = steal.before, subtree.start_ns
    elif len(steal.times) > 1:
        first, since = int(steal.values[0]), int(steal.times[0]) + 1
    else:
        return None
    if not len(steal.times):
        return None
    until = int(steal.times[-1])
    evicted = subtree.evictions
    first_row, end_row = np.searchsorted(times_ns(evicted), [since, until + 1])
    return Steal(
        evicted_pages(subtree, since, until)
        - damons_pages(subtree.whole.processes, evicted.iloc[first_row:end_row]),
        reclaimed_anon_pages(subtree, since, until),
        int(steal.values[-1]) - first,
    )


def _last_below(usage: Steps, bytes_: int, otherwise: int) -> int:
    """Return the last moment at which usage was read below a level; `otherwise` if it never was."""
    below = usage.times[usage.values < bytes_]
    return int(below[-1]) if len(below) else otherwise


def _exhausted_at(cache: Steps, least: int, cache_end_bytes: int | None) -> pd.Timestamp | None:
    """Return the moment from which the cache stayed below `least` bytes; None if it was never above, or was
    above at the end."""
    enough = np.flatnonzero(cache.values >= least)
    after = int(enough[-1]) + 1 if len(enough) else 0
    never_above = not len(enough) and (cache.before is None or cache.before < least)
    left_at_end = after == len(cache.times) or (cache_end_bytes is not None and cache_end_bytes >= least)
    return None if never_above or left_at_end else utc_time(int(cache.times[after]))
