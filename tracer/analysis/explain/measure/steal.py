"""The pages that reclaim stole from a cgroup: as traced, and by the kernel's own count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import integers, is_one_of, times_ns
from tracer.analysis.core.lookup.processes import Processes
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.explain.measure.cushion import evicted_pages
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
    evicted = subtree.evictions
    first_row, end_row = np.searchsorted(times_ns(evicted), [since, until + 1])
    return Steal(
        evicted_pages(subtree, since, until)
        - damons_pages(subtree.whole.processes, evicted.iloc[first_row:end_row]),
        reclaimed_anon_pages(subtree, since, until),
        int(steal.values[-1]) - first,
    )


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
