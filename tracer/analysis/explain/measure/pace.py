"""The pace of the growth before a kill: by how much memory grew since its last minimum, and in what time.

Each sentence on growth has its time from here, so that a report names one pace. The window may begin earlier:
with the passing of half of the limit, or with the trace.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tracer.analysis.core.columns import utc_time
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.explain.measure import growth
from tracer.analysis.explain.measure.findings import Findings, Pace
from tracer.analysis.explain.measure.window import Window
from tracer.analysis.results.quality import resolution_s

_MOST_COVERED: Final = 10
"""Growth within fewer rows than this may have begun noticeably earlier than its first row was sent."""
_NOTABLE_DIVISOR: Final = 50


def measured_pace(subtree: Subtree, window: Window) -> Pace | None:
    """Return the pace of the growth in a window; None if nothing grew."""
    end_ns = window.end
    grown = growth.held(subtree, window.begin, end_ns)
    least, last = grown.least(), grown.at(end_ns)
    if least is None or last is None or last <= least:
        return None
    lowest = np.flatnonzero(grown.values == least)
    rises = int(lowest[-1]) + 1 if len(lowest) else 0
    first_ns = int(grown.times[rises])
    fineness = subtree.whole.fineness
    since_ns = fineness.since(first_ns)
    inexact_s = resolution_s(fineness.thinned(window.begin, end_ns), utc_time(since_ns))
    lost_ns, lost_to = growth.lost(subtree, grown, since_ns, end_ns)
    span_ns = end_ns - since_ns - lost_ns
    covered_ns = growth.covered_ns(subtree, first_ns, end_ns, last - least)
    if not inexact_s and span_ns < _MOST_COVERED * covered_ns:
        span_ns += covered_ns
        inexact_s = covered_ns / 1e9
    if span_ns <= 0:
        return None
    earlier = np.diff(grown.values[:rises], prepend=grown.before or 0).clip(min=0).sum()
    is_all = int(earlier) * _NOTABLE_DIVISOR < last - least
    return Pace(last - least, span_ns / 1e9, lost_ns / 1e9, lost_to, inexact_s, is_all)


def growth_span_s(findings: Findings, grown_bytes: int) -> tuple[float, float]:
    """Return the time before a kill in which so much memory other than page cache grew, and how coarse that
    is, in seconds: the time of the pace, or else the window, if more had grown and was freed before."""
    window, pace = findings.window, findings.circumstances.pace
    assert window is not None
    if pace is not None and pace.is_all and grown_bytes <= pace.grown_bytes * (1 + 1 / _NOTABLE_DIVISOR):
        return pace.span_s + pace.lost_s, pace.resolution_s
    return (window.end - window.begin) / 1e9, resolution_s(findings.thinned, utc_time(window.begin))
