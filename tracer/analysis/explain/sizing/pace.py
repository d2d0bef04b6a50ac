"""The pace of the growth before a kill: by how much memory grew since its last minimum, and in what time.

Memory that went to swap grew as well. zswap holds such pages a second time, compressed, and reclaimable slab
that reclaim took at the limit only made room. A row of the ledger is known by its end: changes that a process
made are up to 10 ms older, and those that others made (process_vm_writev) up to a look of the recorder.

Time in which tasks could not grow at the limit does not count, since a greater limit spares it. Other time
without growth does not count either: the pace is that of the time in which memory grew.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import NO_ID, utc_time
from tracer.analysis.core.gaps import LOOKED_NS
from tracer.analysis.core.ledger import Steps
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import unrecorded_categories
from tracer.analysis.explain.measure.findings import Findings, oom_disabled_ns, thrashed_ns
from tracer.analysis.results.quality import resolution_s

_MOST_COVERED: Final = 10
"""Growth within fewer rows than this may have begun noticeably earlier than its first row was sent."""
_FROM_OUTSIDE_DIVISOR: Final = 10
_PAUSE_DIVISOR: Final = 4
_LEAST_PAUSE_NS: Final = 1_000_000_000
_PAUSED_DIVISOR: Final = 100
"""Memory paused in a time in which it grew by less than a hundredth, if that is a quarter of the whole."""


def measured_pace(subtree: Subtree, findings: Findings) -> dict[str, Any] | None:
    """Return the numbers of a pace: `grown_bytes` in `span_s`, known to `resolution_s`, without the `lost_s`
    in which memory did not grow, for a reason `lost_to`; None if nothing grew."""
    if findings.window is None:
        return None
    end_ns = findings.window.end
    grown = _held(subtree, end_ns).within(findings.window.begin, end_ns)
    least, last = grown.least(), grown.at(end_ns)
    if least is None or last is None or last <= least:
        return None
    lowest = np.flatnonzero(grown.values == least)
    rises = int(lowest[-1]) + 1 if len(lowest) else 0
    first_ns = int(grown.times[rises])
    since_ns = subtree.whole.fineness.since(first_ns)
    inexact_s = resolution_s(findings.thinned, utc_time(since_ns))
    lost = {
        "thrashing": thrashed_ns(subtree, since_ns, end_ns),
        "oom_disabled": oom_disabled_ns(subtree, since_ns, end_ns),
    }
    if not any(lost.values()) and not inexact_s:
        lost = {"pause": _paused_ns(grown, first_ns, end_ns)}
    lost_to = max(lost, key=lambda name: lost[name])
    span_ns = end_ns - since_ns - lost[lost_to]
    covered_ns = _covered_ns(subtree, first_ns, end_ns, last - least)
    if not inexact_s and span_ns < _MOST_COVERED * covered_ns:
        span_ns += covered_ns
        inexact_s = covered_ns / 1e9
    if span_ns <= 0:
        return None
    return {
        "grown_bytes": last - least,
        "span_s": span_ns / 1e9,
        "lost_s": lost[lost_to] / 1e9,
        "lost_to": lost_to,
        "resolution_s": inexact_s,
    }


def _held(subtree: Subtree, end_ns: int) -> Steps:
    """Return the change of the memory that grew, and of what was in swap, since the start of the trace.

    Only slab beyond what was left at the end is left out: the rest may be what filled the limit.
    """
    parts = [ledger.change(subtree, ledger.own_weights(subtree))]
    swapped, slab = (ledger.change(subtree, {name: 1}) for name in ("swap", "slab_reclaimable"))
    if len(swapped.times):
        parts.append(swapped)
    left = slab.at(end_ns) or 0
    if slab.peak() != left and "kernel" not in unrecorded_categories(subtree.whole):
        parts.append(
            Steps(slab.times, -np.maximum(slab.values - left, 0), -max((slab.before or 0) - left, 0))
        )
    return ledger.total(parts) if len(parts) > 1 else parts[0]


def _covered_ns(subtree: Subtree, begin_ns: int, end_ns: int, grown_bytes: int) -> int:
    """Return how old the changes in a row may be: a look if much of the growth was made from outside."""
    outside = subtree.once("pace.from_outside", lambda: _from_outside(subtree))
    grown_from_outside = (outside.at(end_ns) or 0) - (outside.at(begin_ns - 1) or 0)
    return LOOKED_NS if _FROM_OUTSIDE_DIVISOR * grown_from_outside >= grown_bytes else ledger.SUMMED_NS


def _from_outside(subtree: Subtree) -> Steps:
    """Return the sum of all growth that no known process made."""
    charges = subtree.charges
    picked, bytes_ = charges.weighted(ledger.NOT_CACHE)
    rows = np.flatnonzero(picked & (charges.tgid == NO_ID) & (bytes_ > 0))
    return Steps(charges.time[rows], np.cumsum(bytes_[rows]), 0)


def _paused_ns(grown: Steps, begin_ns: int, end_ns: int) -> int:
    """Return the sum of the pauses of the growth."""
    rises = np.cumsum(np.diff(grown.values, prepend=grown.before or 0).clip(min=0))
    first = int(grown.times.searchsorted(begin_ns))
    times, rises = np.append(grown.times[first:], end_ns), rises[first:]
    after = rises.searchsorted(rises + max(int(rises[-1] - rises[0]) // _PAUSED_DIVISOR, 1))
    lasted = times[after] - times[:-1]
    least_ns = max((end_ns - begin_ns) // _PAUSE_DIVISOR, _LEAST_PAUSE_NS)
    paused_ns, until_ns = 0, 0
    for row in np.flatnonzero(lasted >= least_ns).tolist():
        if times[row] >= until_ns:
            paused_ns += int(lasted[row])
            until_ns = int(times[after[row]])
    return paused_ns
