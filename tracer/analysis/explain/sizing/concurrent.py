"""How much more memory concurrent processes need if their peaks fall together.

In one run, each process was at its largest at some moment of its own. Another run of the same work overlaps
in other ways, so the peak of their sum in one run is no upper end.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tracer.analysis.core.columns import NO_ID, Int64s
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import end_ns

_LEAST_BYTES: Final = 1 << 20
"""A process that holds less does not count as one of several."""


def apart_bytes(subtree: Subtree) -> int:
    """Return by how much the anonymous memory of processes would have been more if their peaks had fallen
    together, in bytes: as many of the largest as there were at once, each at its own peak.

    0 if there was one at a time. Memory that was there when the trace began does not count.
    """
    charges = subtree.charges
    rows = np.flatnonzero(charges.is_of("anon") & (charges.tgid != NO_ID))
    order = rows[np.argsort(charges.tgid[rows], kind="stable")]
    if not len(order):
        return 0
    tgids, firsts = np.unique(charges.tgid[order], return_index=True)
    peaks: list[int] = []
    moments: list[Int64s] = []
    steps: list[Int64s] = []
    starts: list[Int64s] = []
    changes = (np.split(values[order], firsts[1:]) for values in (charges.time, charges.bytes))
    for tgid, changed, amounts in zip(tgids.tolist(), *changes, strict=True):
        level = np.maximum(np.cumsum(amounts), 0)
        peak = int(level.max())
        if peak < _LEAST_BYTES:
            continue
        ended_ns = subtree.whole.processes.exited_at(tgid, subtree.start_ns, end_ns(subtree.whole))
        if ended_ns is None:
            ended_ns = end_ns(subtree.whole)
        level[changed >= ended_ns] = 0
        level = np.append(level, 0)
        peaks.append(peak)
        moments.append(np.append(changed, max(ended_ns, int(changed[-1]))))
        steps.append(np.diff(level, prepend=0).astype(np.int64))
        starts.append(np.diff((level >= _LEAST_BYTES).astype(np.int64), prepend=0).astype(np.int64))
    at_once = _most(moments, starts)
    return max(sum(sorted(peaks)[-at_once:]) - _most(moments, steps), 0) if at_once > 1 else 0


def _most(moments: list[Int64s], steps: list[Int64s]) -> int:
    """Return the greatest sum of levels that change by `steps` at `moments`."""
    if not moments:
        return 0
    time, step = np.concatenate(moments), np.concatenate(steps)
    return int(np.cumsum(step[np.argsort(time, kind="stable")]).max())
