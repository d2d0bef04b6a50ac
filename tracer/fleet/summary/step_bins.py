"""The greatest value and the mean of a step function in each of several intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tracer.analysis.core.ledger import Steps


def greatest_and_mean(
    steps: Steps | None, edges_ns: Sequence[int]
) -> list[tuple[int, int] | tuple[None, None]]:
    """Return (greatest value, mean over time) for each interval between two edges, in order.

    Nothing is known before the first known value of `steps`: both numbers then cover the rest of the
    interval, or are None if it has no rest. `steps` None: nothing is known. A change at the last edge counts
    for the last interval, and one at another edge for the interval that begins there.
    """
    bins = len(edges_ns) - 1
    if steps is None:
        return [(None, None)] * bins
    edges = np.array(edges_ns, dtype=np.int64)
    inside = slice(*np.searchsorted(steps.times, [edges[0], edges[-1] + 1]).tolist())
    times = np.concatenate([edges[:-1], steps.times[inside]])
    values = np.concatenate([steps.at_each(edges[:-1]), steps.values[inside]])
    is_known = np.ones(len(times), dtype=np.bool_)
    if steps.before is None:
        first = steps.times[0] if len(steps.times) else edges[-1] + 1
        is_known = times >= first
    order = np.argsort(times, kind="stable")  # edges stand before changes at the same moment
    times, values, is_known = times[order], values[order], is_known[order]
    lasts_ns = np.diff(times, append=edges[-1]) * is_known
    starts = np.flatnonzero(order < bins)
    greatest = np.maximum.reduceat(np.where(is_known, values, np.iinfo(np.int64).min), starts)
    known_ns = np.add.reduceat(lasts_ns, starts)
    sums = np.add.reduceat(values.astype(np.float64) * lasts_ns, starts)
    some = np.add.reduceat(is_known.astype(np.int64), starts)
    rows = zip(greatest.tolist(), known_ns.tolist(), sums.tolist(), some.tolist(), strict=True)
    return [
        (None, None) if not count else (most, round(total / length) if length else most)
        for most, length, total, count in rows
    ]
