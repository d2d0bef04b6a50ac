"""Writes to swap and reads from it: owners, times, durations."""

from __future__ import annotations

from typing import Any

import pytest

from tracer.analysis.core.subtree import Subtrees
from tracer.analysis.explain.survivors import held_cgroups
from tracer.analysis.results.memory import SwapIo
from tracer.analysis.views import reclaim

OURS, THEIRS = 7, 8
PROBED = {"swap IO": {"hook": "raw_tracepoint block_bio_queue", "meaning": "exact"}}


def written_in(trace: Any, owner: int | None, begin: float, end: float) -> SwapIo | None:
    subtree = Subtrees(trace).machine() if owner is None else Subtrees(trace).subtree_at(owner)
    return reclaim.swapped(subtree, "write", trace.ns(begin), trace.ns(end))


@pytest.fixture
def written(trace: Any) -> Any:
    """Return a trace in which pages of two cgroups are written to swap at 1, 2, 3 and 4 s."""
    trace.meta["probes"] = PROBED
    trace.add("swap_io", 1, cgroup_id=OURS, op="write", nr_pages=1, duration_ns=3_000_000)
    trace.add("swap_io", 2, cgroup_id=OURS, op="write", nr_pages=32, duration_ns=1_000_000)
    trace.add("swap_io", 3, cgroup_id=THEIRS, op="write", nr_pages=5, duration_ns=90_000_000)
    trace.add("swap_io", 4, cgroup_id=OURS, op="write", nr_pages=2)
    trace.add("swap_io", 2.5, cgroup_id=OURS, op="read", nr_pages=8, duration_ns=500_000)
    return trace


def test_swapped_by_owner_and_interval_leaves_others_out(written: Any) -> None:
    assert written_in(written, OURS, 1, 4) == SwapIo(3, 35 * 4096, {"median": 2.0, "longest": 3.0})
    assert written_in(written, OURS, 1.5, 2) == SwapIo(1, 32 * 4096, {"median": 1.0, "longest": 1.0})
    assert written_in(written, OURS, 4, 5) == SwapIo(1, 2 * 4096, {})
    assert written_in(written, None, 0, 5) == SwapIo(4, 40 * 4096, {"median": 3.0, "longest": 90.0})
    assert written_in(written, THEIRS, 0, 2) == SwapIo(0, 0, {})


def test_swapped_of_survivors_has_all_of_the_trace(written: Any) -> None:
    for number, path in ((OURS, "/a"), (THEIRS, "/b")):
        written.add("cgroups", cgroup_id=number, path=path)
        for seconds in (0, 5):
            written.add("samples", seconds, cgroup_id=number, source="periodic", usage_bytes=1)
    found = held_cgroups(written)
    pages = {one.cgroup: one.reclaim.swap_writes for one in found}
    assert pages["/a"] == SwapIo(3, 35 * 4096, {"median": 2.0, "longest": 3.0})
    assert pages["/b"] == SwapIo(1, 5 * 4096, {"median": 90.0, "longest": 90.0})
    back = {one.cgroup: one.reclaim.swap_reads for one in found}
    assert back == {"/a": SwapIo(1, 8 * 4096, {"median": 0.5, "longest": 0.5}), "/b": SwapIo(0, 0, {})}


def test_swapped_without_the_probe_is_unknown_if_there_was_swapping(trace: Any) -> None:
    nothing = SwapIo(0, 0, {})
    assert written_in(trace, None, 0, 9) == nothing
    trace.add("cgroups", cgroup_id=OURS, path="/a")
    trace.charged(1, OURS, "swap", 4096)
    assert written_in(trace, None, 0, 9) is None
    (one,) = held_cgroups(trace)
    assert one.reclaim.swap_writes is None
    assert one.quality.unknown.items() >= reclaim.SWAP_NOT_KNOWN.items()
    trace.meta["probes"] = PROBED
    assert written_in(trace, None, 0, 9) == nothing
