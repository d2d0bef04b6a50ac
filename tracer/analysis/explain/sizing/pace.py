"""The pace of the growth before a kill: by how much memory grew since its last minimum, and in what time."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from tracer.analysis.core.columns import utc_time
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.explain.measure import growth
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.results.quality import resolution_s

_MOST_COVERED: Final = 10
"""Growth within fewer rows than this may have begun noticeably earlier than its first row was sent."""


def measured_pace(subtree: Subtree, findings: Findings) -> dict[str, Any] | None:
    """Return the numbers of a pace: `grown_bytes` in `span_s`, known to `resolution_s`, without the `lost_s`
    in which memory did not grow, for a reason `lost_to`; None if nothing grew."""
    if findings.window is None:
        return None
    end_ns = findings.window.end
    grown = growth.held(subtree, findings.window.begin, end_ns)
    least, last = grown.least(), grown.at(end_ns)
    if least is None or last is None or last <= least:
        return None
    lowest = np.flatnonzero(grown.values == least)
    rises = int(lowest[-1]) + 1 if len(lowest) else 0
    first_ns = int(grown.times[rises])
    since_ns = subtree.whole.fineness.since(first_ns)
    inexact_s = resolution_s(findings.thinned, utc_time(since_ns))
    lost_ns, lost_to = growth.lost(subtree, grown, since_ns, end_ns)
    span_ns = end_ns - since_ns - lost_ns
    covered_ns = growth.covered_ns(subtree, first_ns, end_ns, last - least)
    if not inexact_s and span_ns < _MOST_COVERED * covered_ns:
        span_ns += covered_ns
        inexact_s = covered_ns / 1e9
    if span_ns <= 0:
        return None
    return {
        "grown_bytes": last - least,
        "span_s": span_ns / 1e9,
        "lost_s": lost_ns / 1e9,
        "lost_to": lost_to,
        "resolution_s": inexact_s,
    }
