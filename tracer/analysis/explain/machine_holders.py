"""The traced cgroups at a kill of the whole machine: what each held, and what it charged lately.

A cgroup counts with its own memory: what is charged to the cgroups below it counts for them.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tracer.analysis.core import hierarchy, ledger, naming
from tracer.analysis.core.columns import Int64s
from tracer.analysis.core.tables import TraceTables, unrecorded_categories
from tracer.analysis.explain.measure.findings import LATELY_NS, MachineHolder

_MOST: Final = 10


def at_kill(trace: TraceTables, kill_ns: int) -> tuple[MachineHolder, ...]:
    """Return up to ten cgroups, those first that held most, and among them that which charged most lately.

    Cgroups whose memory at the start of the trace is not known are left out.
    """
    ids = naming.with_data(trace)
    if not ids:
        return ()
    above = hierarchy.positions_above(trace.cgroups, ids)
    base, is_known = ledger.base_levels(
        trace.samples, trace.cgroups, ids, ledger.CHARGED, unrecorded_categories(trace)
    )
    held = _own(base, above, ids) + _charged(trace, ids, 0, kill_ns)
    lately = _charged(trace, ids, kill_ns - LATELY_NS, kill_ns)
    order = [position for position in np.argsort(-held, kind="stable").tolist() if is_known[position]]
    first = order[:_MOST]
    growing = max(order, key=lately.__getitem__, default=None)
    if growing is not None and growing not in first and lately[growing] > 0:
        first[-1] = growing
    return tuple(
        MachineHolder(
            cgroup=trace.places.label_of(ids[position]),
            container=trace.places.container_of(ids[position])[0],
            held_bytes=int(held[position]),
            charged_bytes=int(lately[position]),
        )
        for position in first
        if held[position] > 0
    )


def _own(levels: Int64s, above: dict[int, list[int]], ids: list[int]) -> Int64s:
    """Return the levels, which include those of cgroups below, without these."""
    own = levels.copy()
    for position, number in enumerate(ids):
        parents = above[number][1:]
        if parents:
            nearest = max(parents, key=lambda one: len(above[ids[one]]))
            own[nearest] -= levels[position]
    return own


def _charged(trace: TraceTables, ids: list[int], begin_ns: int, end_ns: int) -> Int64s:
    """Return what was charged to each cgroup after `begin_ns` until `end_ns`, less what was freed."""
    counted, bytes_ = trace.charges.weighted(ledger.CHARGED)
    rows = counted & (trace.charges.time > begin_ns) & (trace.charges.time <= end_ns)
    numbers = np.array(ids, dtype=np.int64)
    order = np.argsort(numbers)
    position = order[np.searchsorted(numbers[order], trace.charges.cgroup_id[rows])]
    summed = np.zeros(len(ids), dtype=np.int64)
    np.add.at(summed, position, bytes_[rows])
    return summed
