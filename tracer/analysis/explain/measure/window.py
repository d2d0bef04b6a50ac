"""The window before a kill: the moments between which the memory of its limit was used up.

Three moments define the time before a kill:

* `begin`: when usage was last below half of the limit; at the earliest the start of the trace, the moment
  at which the cgroup was made, or the previous kill for this limit. A previous kill is no bound if it came
  less than 1 s before and usage was never below 90 % in between: its memory was not free yet, and both kills
  belong to one shortage.
* `at_limit`: when usage came within 1 % of the limit (at least 64 pages) or reclaim for the limit began,
  whichever was first after usage had last been below 90 % of it, and after the limit was lowered, if it was.
  From here on each new page needed another page to be freed.
* `end`: the kill.

`Steal` counts the pages that reclaim stole meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import Int64s, integers, is_one_of, times_ns
from tracer.analysis.core.evicted import DAMON_COMM, Evicted
from tracer.analysis.core.ledger import Steps
from tracer.analysis.core.lookup.fineness import Fineness
from tracer.analysis.core.lookup.processes import Processes
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import page_size
from tracer.analysis.views.reclaim import reclaimed_anon_pages
from tracer.schema import UNLIMITED_BYTES
from tracer.trace.value_ranges import LATEST_NS

_NEAR_PERCENT: Final = 1
_NEAR_PAGES: Final = 64  # a CPU's stock of charges: MEMCG_CHARGE_BATCH in mm/memcontrol.c
_LULL_PERCENT: Final = 90
_APPROACH_PERCENT: Final = 50
_SOON_NS: Final = 1_000_000_000


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
    near = int(_near_bytes(limit_bytes, subtree))
    fineness = subtree.whole.fineness
    half = limit_bytes * _APPROACH_PERCENT // 100
    begin = _last_below(usage, half, start, fineness)
    passed, share = _passing(usage, half)
    after_lull = _last_below(usage, limit_bytes * _LULL_PERCENT // 100, start, fineness)
    lowered = ledger.last_lowering(subtree, limit_bytes, kill_ns)
    if lowered is not None:
        after_lull = max(after_lull, lowered.since_ns)
    is_above = lowered is not None and (usage.at(after_lull) or 0) >= near
    usage = usage.within(after_lull, kill_ns)
    reached = usage.times[usage.values >= near]
    reclaim = times_ns(subtree.reclaim)
    first, last = np.searchsorted(reclaim, [after_lull, kill_ns + 1])
    firsts = [int(moments[0]) for moments in (reached, reclaim[first:last]) if len(moments)]
    firsts += [after_lull] if is_above else []
    at_limit = min(firsts, default=kill_ns)
    # Rows of reclaim are never thinned. In an interval without any, usage came near at its begin or later.
    is_read = last == first or reclaim[first] > at_limit
    at_limit = max(fineness.since(at_limit), after_lull) if is_read else at_limit
    return Window(begin, at_limit, kill_ns, passed, share)


def limit_reached_ns(subtree: Subtree) -> Int64s:
    """Return the moments at which the cgroup reached its limit, each as `at_limit` of a kill: there is one at
    first, and one after each time below 90 %.

    If memory.high is set, reclaim may be for that, and only usage counts.
    """
    usage = ledger.usage(subtree)
    limits = ledger.counter(subtree, "limit_bytes").at_each(usage.times, missing=UNLIMITED_BYTES)
    is_near = usage.values >= _near_bytes(limits, subtree)
    row = np.arange(len(usage.times))
    below = np.maximum.accumulate(np.where(usage.values < limits // 100 * _LULL_PERCENT, row, -1))
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


def _near_bytes(limit_bytes: int | Int64s, subtree: Subtree) -> Int64s:
    """Return the usage at which a limit counts as reached."""
    limits = np.asarray(limit_bytes, np.int64)
    return limits - np.maximum(limits * _NEAR_PERCENT // 100, _NEAR_PAGES * page_size(subtree.whole))


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
