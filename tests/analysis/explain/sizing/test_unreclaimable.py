"""The memory that reclaim cannot free, by kind: it decides when usage was at its peak."""

from __future__ import annotations

from typing import Any

import pytest

from tracer.analysis.core.columns import utc_time
from tracer.analysis.explain.survivors import held_cgroups

MIB = 1 << 20


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({}, 1),
        ({"anon": 3}, 2),
        ({"shmem": 3}, 2),
        ({"sock": 3}, 2),
        ({"kernel": 3}, 2),
        ({"kernel": 3, "slab_reclaimable": 3}, 1),
        ({"anon": -5, "swap": 5}, 1),
        ({"anon": -5, "swap": 6}, 2),
        ({"file": 3}, 1),
        ({"locked": 3}, 2),
    ],
)
def test_held_peak_counts_what_reclaim_cannot_free_and_what_was_swapped_out(
    trace: Any, changes: dict[str, int], seconds: int
) -> None:
    """Usage is the same at 1 and at 2 s. What the cgroup held before is not known."""
    trace.add("cgroups", cgroup_id=7, path="/a")
    trace.charged(1, 7, "anon", 9 * MIB, usage_bytes=50 * MIB)
    lists = {f"{name}_bytes": 0 for name in ("anon", "shmem", "inactive_anon", "active_anon")}
    locked = changes.pop("locked", 0) * MIB
    trace.add("samples", 2, cgroup_id=7, source="periodic", unevictable_bytes=locked, **lists)
    for category, mib in changes.items():
        trace.charged(2, 7, category, mib * MIB, usage_bytes=50 * MIB)
    trace.charged(2, 7, "file", 0, usage_bytes=50 * MIB)
    (one,) = held_cgroups(trace)
    assert one.peak_time == utc_time(trace.ns(seconds))
    assert one.anon_at_peak_bytes is None
    assert "anon_at_peak_bytes" in one.quality.unknown
