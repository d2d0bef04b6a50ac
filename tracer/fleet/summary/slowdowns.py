"""The completeness of a life's peaks: they show all of its need if its work went on and came to an end.

A life that was slowed down, or that is only partly in the trace, needed at least what it had. `state` is the
one that `explain` reports (docs/states.md). `work` is how the work ended, as far as the trace shows it:

* "complete": the command that was recorded ended with status 0;
* "failed": it ended with another status;
* "cut": a signal ended it, the recording ended before it, or the recording broke off;
* "growing": the trace ends before the life does, and memory that reclaim cannot free had a new peak in the
  last third of the time.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import Int64s, integers, known, times_ns
from tracer.analysis.core.ledger import Steps
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import breaks_off, end_ns
from tracer.analysis.explain.sizing import completeness
from tracer.analysis.explain.sizing.margins import cache_to_spare, why_no_curve, with_margin
from tracer.analysis.explain.slowed.progress import progress
from tracer.analysis.views import miss_curve
from tracer.analysis.views.lost_time import Spending

COMPLETE: Final = "complete"
_IN_USE: Final = ("usage_bytes", "inactive_file_bytes", "file_mapped_bytes", "shmem_bytes")


def slowdowns(
    subtree: Subtree, spending: Spending, unreclaimable: Steps | None, *, is_end_seen: bool
) -> dict[str, Any]:
    """Return the columns of `lives` that show whether its peaks are all of its need; sizes in bytes."""
    going = progress(subtree, spending)
    swapped = None if unreclaimable is None else ledger.level(subtree, {"swap": 1})
    held = None if unreclaimable is None or swapped is None else ledger.total([unreclaimable, swapped])
    return {
        "state": going.state,
        "lost_share": going.lost_share,
        "work": _work(subtree, unreclaimable if held is None else held, is_end_seen=is_end_seen),
        "peak_with_swap_bytes": None if held is None else held.peak(),
        "comfortable_bytes": _comfortable(subtree, is_thrashing=going.state == "thrashing"),
    }


def _comfortable(subtree: Subtree, *, is_thrashing: bool) -> int | None:
    """Return a limit that holds the page cache in use, in bytes; None: not known.

    If its tasks were thrashing, that is usage plus the memory with which nearly all that they read again
    would have stayed, as for the upper end of `explain.sizing.survivor_range`.
    """
    found = _in_use(subtree).peak()
    if is_thrashing:
        usage, end = ledger.usage(subtree).peak(), end_ns(subtree.whole)
        if usage is None or why_no_curve(subtree, subtree.start_ns, end) is not None:
            return None
        found = usage + cache_to_spare(subtree, miss_curve.reuse_of(subtree)).room_bytes()
    return None if found is None else with_margin(subtree.whole, 0, found)[1]


def _work(subtree: Subtree, held: Steps | None, *, is_end_seen: bool) -> str | None:
    """Return how the work ended; None: the trace does not show it, or the life went on without growth."""
    trace = subtree.whole
    if breaks_off(trace) and not is_end_seen:
        return "cut"
    if completeness.cut_off(trace.meta) is not None:
        return "cut"
    status = completeness.exit_status(trace.meta)
    if status is not None:
        return "failed" if status else COMPLETE
    if is_end_seen or held is None:
        return None
    return None if completeness.why_growing(subtree, held) is None else "growing"


def _in_use(subtree: Subtree) -> Steps:
    """Return usage without the page cache that was used once, by the cgroup's own samples: the pages of the
    inactive list that no process has mapped.

    A page that is used again goes to the active list, but a mapped page does so only when reclaim looks at it
    (mm/vmscan.c, folio_check_references). The mapped pages less shmem are a lower bound of the mapped file
    pages.
    """
    samples = subtree.samples
    own = samples.loc[integers(samples["cgroup_id"]) == subtree.cgroup_id, list(_IN_USE)]
    own = own[np.logical_and.reduce([known(own[name]) for name in _IN_USE])]
    usage, inactive, mapped, shmem = (integers(own[name]) for name in _IN_USE)
    used_once: Int64s = np.maximum(inactive - np.maximum(mapped - shmem, 0), 0)
    return Steps(times_ns(own), np.maximum(usage - used_once, 0), None)
