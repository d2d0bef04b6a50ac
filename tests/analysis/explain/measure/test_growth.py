"""The memory that grew before a kill."""

from __future__ import annotations

from typing import Any

import pytest

from tracer.analysis.core.subtree import Subtrees
from tracer.analysis.explain.measure import growth

MIB = 1 << 20


@pytest.mark.parametrize(("version", "held_mib"), [(2, 50), (1, 80)])
def test_growth_counts_memory_in_the_swap_cache_once(trace: Any, version: int, held_mib: int) -> None:
    """40 of 50 MiB go to swap, and 30 of them are read again. On v2 they keep their place there."""
    trace.meta["cgroup_version"] = version
    trace.add("cgroups", cgroup_id=7, path="/work", created=trace.ns(0))
    for seconds, category, mib in ((1, "anon", 50), (2, "swap", 40), (2, "anon", -40), (3, "anon", 30)):
        trace.charged(seconds, 7, category, mib * MIB)
    none = dict.fromkeys(("anon_bytes", "shmem_bytes", "inactive_anon_bytes", "active_anon_bytes"), 0)
    for at_s, read_mib in ((0.5, 0), (3.1, 30)):
        read = none | {"swapcached_bytes": read_mib * MIB}
        trace.add("samples", at_s, cgroup_id=7, source="periodic", **read)
    subtree = Subtrees(trace).subtree_at(7)
    held = growth.held(subtree, trace.ns(0), trace.ns(4))
    assert held.at(trace.ns(4)) == held_mib * MIB
