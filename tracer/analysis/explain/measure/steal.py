"""The pages that reclaim stole from a cgroup: as traced, and by the kernel's own count."""

from __future__ import annotations

from dataclasses import dataclass

from tracer.analysis.core import ledger
from tracer.analysis.core.evicted import DAMON_COMM, Evicted
from tracer.analysis.core.lookup.processes import Processes
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.explain.measure.window import Window
from tracer.analysis.views.reclaim import reclaimed_anon_pages


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
