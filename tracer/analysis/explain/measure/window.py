"""The window before a kill, and the page cache as the cushion between the limit and the OOM killer.

Three moments define the time before a kill:

* `begin`: when usage was last below half of the limit; at the earliest the start of the trace, the moment
  at which the cgroup was made, or the previous kill for this limit. A previous kill is no bound if it came
  less than 1 s before and usage was never below 90 % in between: its memory was not free yet, and both kills
  belong to one shortage.
* `at_limit`: when usage came within 1 % of the limit (at least 64 pages) or reclaim began that no write to
  memory.reclaim asked for, whichever was first after usage had last been below 90 % of it for a second (or
  first, if it never was so long), and after the limit was lowered, if it was. From here on each new page
  needed another page to be freed, but for short dips.
* `end`: the kill.

`Steal` counts the pages that reclaim stole meanwhile.

A cgroup at its limit lives as long as reclaim finds memory to free, and that is page cache first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import Bools, Int64s, integers, is_one_of, times_ns, utc_time
from tracer.analysis.core.evicted import DAMON_COMM, Evicted
from tracer.analysis.core.gaps import Fineness
from tracer.analysis.core.ledger import Steps
from tracer.analysis.core.lookups import Processes
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import CHARGE_BATCH_PAGES, page_size
from tracer.analysis.results.memory import Cushion
from tracer.analysis.results.quality import Unknown
from tracer.analysis.views.reclaim import begins_at_limits, reclaimed_anon_pages
from tracer.schema import LATEST_NS, UNLIMITED_BYTES

_NEAR_PERCENT: Final = 1
_LULL_PERCENT: Final = 90
_APPROACH_PERCENT: Final = 50
_SOON_NS: Final = 1_000_000_000
_LATE_DIVISOR: Final = 10


@dataclass(frozen=True, slots=True)
class Window:
    """The three moments of a kill, in nanoseconds since the epoch; the module has their definitions.

    Usage passes half of the limit between `begin` and the next reading of it, at `passed`. `share_above` is
    the part of that step that is above half. `passed` is None if usage was never read below half.
    """

    begin: int
    at_limit: int
    end: int
    passed: int | None = None
    share_above: float = 1.0


def find_window(subtree: Subtree, *, limit_bytes: int, earlier: Int64s, kill_ns: int) -> Window:
    """Return the window before the kill at `kill_ns`; `earlier` are the times of kills for the same limit.

    If no limit is set, the window begins after the previous kill.
    """
    if limit_bytes >= UNLIMITED_BYTES:
        start = start_after(subtree, earlier)
        return Window(start, start, kill_ns)
    usage = ledger.usage(subtree)
    start = _begin_of_shortage(subtree, usage, earlier, limit_bytes * _LULL_PERCENT // 100, kill_ns)
    usage = usage.within(start, kill_ns)
    near = limit_bytes - max(limit_bytes * _NEAR_PERCENT // 100, _least_near_bytes(subtree))
    fineness = subtree.whole.fineness
    half = limit_bytes * _APPROACH_PERCENT // 100
    begin = _last_below(usage, half, start, fineness)
    passed, share = _passing(usage, half)
    after_lull = _end_of_lull(usage, limit_bytes * _LULL_PERCENT // 100, start, fineness)
    lowered = ledger.last_lowering(subtree, limit_bytes, kill_ns)
    if lowered is not None:
        after_lull = max(after_lull, lowered.since_ns)
    is_above = lowered is not None and (usage.at(after_lull) or 0) >= near
    usage = usage.within(after_lull, kill_ns)
    reached = usage.times[usage.values >= near]
    reclaim = begins_at_limits(subtree)
    first, last = (int(reclaim.searchsorted(moment)) for moment in (after_lull, kill_ns + 1))
    firsts = [int(moments[0]) for moments in (reached, reclaim[first:last]) if len(moments)]
    firsts += [after_lull] if is_above else []
    at_limit = min(firsts, default=kill_ns)
    # Rows of reclaim are never thinned. In an interval without any, usage came near at its begin or later.
    is_read = last == first or reclaim[first] > at_limit
    at_limit = max(fineness.since(at_limit), after_lull) if is_read else at_limit
    return Window(begin, at_limit, kill_ns, passed, share)


def limit_reached_ns(subtree: Subtree) -> Int64s:
    """Return the moments at which the cgroup reached its limit, each as `at_limit` of a kill: there is one at
    first, and one after each time below 90 % that lasted for a second.

    If memory.high is set, reclaim may be for that, and only usage counts.
    """
    usage = ledger.usage(subtree)
    limits = ledger.counter(subtree, "limit_bytes").at_each(usage.times, missing=UNLIMITED_BYTES)
    is_near = usage.values >= limits - np.maximum(limits * _NEAR_PERCENT // 100, _least_near_bytes(subtree))
    row = np.arange(len(usage.times))
    lulls = _lulls(usage.times, usage.values < limits // 100 * _LULL_PERCENT)
    is_lull = np.zeros(len(row) + 1, np.int64)
    for bounds, step in zip(lulls, (1, -1), strict=True):
        is_lull[bounds] += step
    below = np.maximum.accumulate(np.where(np.cumsum(is_lull)[:-1] > 0, row, -1))
    before = np.append(-1, np.maximum.accumulate(np.where(is_near, row, -1)))[:-1]
    reached = np.flatnonzero(is_near & ((before < 0) | (below > before)))
    moments = usage.times[reached]
    if not (ledger.reading(subtree, "high_bytes").values < UNLIMITED_BYTES).any():
        attempts = subtree.reclaim
        is_own = is_one_of(attempts["kind"], ["memcg"]) & (
            integers(attempts["cgroup_id"]) == subtree.cgroup_id
        )
        begun = np.append(times_ns(attempts)[is_own], LATEST_NS)
        since = np.where(below[reached] < 0, subtree.start_ns, usage.times[below[reached]])
        moments = np.minimum(moments, begun[np.searchsorted(begun, since)])
    return np.array([subtree.whole.fineness.since(moment) for moment in moments.tolist()], np.int64)


def _least_near_bytes(subtree: Subtree) -> int:
    """Return the least distance from a limit at which it counts as reached."""
    return CHARGE_BATCH_PAGES * page_size(subtree.whole)


def start_after(subtree: Subtree, earlier: Int64s) -> int:
    """Return the moment after the last of these kills, or the start of the subtree, in ns since the epoch."""
    return int(earlier[-1]) + 1 if len(earlier) else subtree.start_ns


def _begin_of_shortage(subtree: Subtree, usage: Steps, earlier: Int64s, lull: int, kill_ns: int) -> int:
    """Return the earliest possible `begin`: after the last kill of an earlier shortage, or the start of the
    subtree.

    It is found once for each kill. Two kills of one shortage have the same begin.
    """
    begins: dict[int, int] = subtree.once(("window.begin_of_shortage", lull), dict)
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


def _passing(usage: Steps, bytes_: int) -> tuple[int | None, float]:
    """Return when usage was first read at a level or above it after it was last below, and the part of that
    step that is above the level."""
    below = np.flatnonzero(usage.values < bytes_)
    if not len(below) or int(below[-1]) + 1 >= len(usage.times):
        return None, 1.0
    last = int(below[-1])
    before, after = (int(value) for value in usage.values[last : last + 2])
    return int(usage.times[last + 1]), (after - bytes_) / (after - before)


def _last_below(usage: Steps, bytes_: int, otherwise: int, fineness: Fineness) -> int:
    """Return the last moment at which usage was read below a level; `otherwise` if there is none.

    Where readings are thinned, it is the begin of the interval in which that moment is.
    """
    below = np.flatnonzero(usage.values < bytes_)
    if not len(below):
        return otherwise
    last, *following = usage.times[int(below[-1]) : int(below[-1]) + 2].tolist()
    return fineness.held_until(last, *following) if following else int(last)


def _end_of_lull(usage: Steps, bytes_: int, otherwise: int, fineness: Fineness) -> int:
    """Return the last moment at which usage was read below a level in the last stretch that was that low for
    a second, or else in the first; `otherwise` if it never was.

    A shorter one between two times at the limit is a dip: what was evicted before it counts.
    """
    _, ends = _lulls(usage.times, usage.values < bytes_)
    if not len(ends):
        return otherwise
    end = int(ends[-1])
    return _last_below(
        Steps(usage.times[: end + 1], usage.values[: end + 1], None), bytes_, otherwise, fineness
    )


def _lulls(times: Int64s, is_below: Bools) -> tuple[Int64s, Int64s]:
    """Return the first row of each stretch of rows below a level that lasted for a second, and the first row
    after it. The first stretch counts in any case."""
    rows = np.append(np.flatnonzero(np.diff(is_below, prepend=False)), len(is_below))
    begins, ends = rows[:-1:2], rows[1::2]
    lasted = np.append(times, LATEST_NS)[ends] - times[begins]
    is_long = lasted >= _SOON_NS
    is_long[:1] = True
    return begins[is_long], ends[is_long]


@dataclass(frozen=True, slots=True)
class Steal:
    """The pages that reclaim took from the cgroup in one interval, as traced and as the kernel counts them.

    `evicted_pages` are page-cache deletions without those by DAMON, `pgsteal_pages` is the kernel's count of
    evicted and swapped pages together (PGSTEAL_*).
    """

    evicted_pages: int
    swapped_pages: int
    pgsteal_pages: int


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
    evicted = subtree.evicted.pages_between(since, until)
    idle = damons_pages(subtree.whole.processes, subtree.evicted, since, until)
    return Steal(evicted - idle, reclaimed_anon_pages(subtree, since, until), int(steal.values[-1]) - first)


def damons_pages(processes: Processes, evicted: Evicted, begin_ns: int, end_ns: int) -> int:
    """Return the pages that DAMON's threads reclaimed within an interval because they were idle.

    The kernel does not count them as stolen (reclaim_pages in mm/vmscan.c).
    """
    taken = evicted.damons_pages_between(begin_ns, end_ns)
    comms = {tgid: processes.comm_at(tgid, begin_ns, end_ns) for tgid in taken}
    return sum(pages for tgid, pages in taken.items() if (comms[tgid] or "").startswith(DAMON_COMM))


_EXHAUSTED_PERCENT: Final = 2


def measure_cushion(
    subtree: Subtree,
    *,
    limit_bytes: int,
    window: Window,
    cache_end_bytes: int | None,
    locked_bytes: int = 0,
    has_refaults: bool = True,
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
    `locked_bytes` is the part of it that is locked, which is in neither level of the result. Without
    `has_refaults`, `refaulted_bytes` is null, which saves sorting all refaults by time.
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
    refaulted = None
    if has_refaults:
        refaulted, why_not = refaulted_bytes(subtree, window.at_limit, window.end)
        if why_not is not None:
            unknown["cushion.refaulted_bytes"] = why_not
    counted = None
    if _is_counted_to_end(subtree, window):
        counted = kernel_refaulted_bytes(subtree, window.at_limit, window.end)
    if counted is None:
        reason = "the kernel's count was not sampled twice in the window, or not near its end"
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


def measure_start(subtree: Subtree, *, window: Window, locked_bytes: int, **_: Any) -> Cushion:
    """Return only `cache_start_bytes` of the cushion (`measure_cushion`). The verdict depends only on whether
    it is known (`gathering.doubts`)."""
    cache = ledger.level(subtree, ledger.CACHE)
    most = None if cache is None else cache.within(window.at_limit, window.end).peak()
    return Cushion(cache_start_bytes=None if most is None else max(most - locked_bytes, 0))


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


def _is_counted_to_end(subtree: Subtree, window: Window) -> bool:
    """Return whether the kernel's count of refaults was read in the last tenth of the time at the limit, or
    was the same there. What was read again after the last reading would lack."""
    read = ledger.count(subtree, "workingset_refault_file")
    seen = int(read.times.searchsorted(window.end, side="right"))
    late_ns = window.end - int(read.times[seen - 1]) if seen else window.end
    is_late = _LATE_DIVISOR * late_ns >= window.end - window.at_limit
    return not is_late or ledger.held(subtree, read, window.end)


def kernel_refaulted_bytes(subtree: Subtree, begin_ns: int, end_ns: int) -> int | None:
    """Return the refaults of file pages that the kernel counted in an interval, in bytes
    (workingset_refault_file); None: not known.

    The kernel also counts pages that were evicted before the interval or from another cgroup
    (workingset_refault in mm/workingset.c).
    """
    pages = ledger.counted(subtree, "workingset_refault_file", begin_ns, end_ns)
    return None if pages is None else pages * page_size(subtree.whole)


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
