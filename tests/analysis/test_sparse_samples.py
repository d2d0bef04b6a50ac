"""Samples of cgroups that did not change: they may be missing, and every analysis says the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.costly import COSTLY

from tracer.analysis.core import ledger
from tracer.analysis.core.subtree import Subtrees
from tracer.analysis.explain.postmortem import explain
from tracer.analysis.explain.survivors import held_cgroups
from tracer.analysis.views.cache_flow import cache_flow
from tracer.analysis.views.evictions import moves
from tracer.analysis.views.focus import ranked
from tracer.analysis.views.thrash import thrash
from tracer.analysis.views.timeline import timeline

MIB = 1 << 20
LIMIT = 100 * MIB
LOOKS = 30
SIZES = ("anon", "file", "shmem", "kernel", "sock", "slab_reclaimable", "swap", "active_file", "file_dirty")


def write(trace: Any, growth: list[int], *, is_sparse: bool, is_killed: bool) -> None:
    """Add a look every 100 ms at cgroup 7; its counters grow by `growth`, from look to look."""
    trace.add("cgroups", cgroup_id=7, path="/a")
    trace.add("tasks", tgid=41, start_ns=5, comm="worker", first_seen=trace.ns(0))
    state: dict[str, int] = {}
    for look, step in enumerate([0, *growth]):
        before, state = state, _sample(state, step)
        source = "start" if look == 0 else "end" if look == len(growth) else "periodic"
        if is_sparse and source == "periodic" and state == before:
            continue
        trace.add("samples", look / 10, cgroup_id=7, source=source, **state)
        if step:
            trace.charged(look / 10, 7, "anon", step * MIB, tgid=41, usage_bytes=state["usage_bytes"])
    if is_killed:
        seconds = len(growth) / 10
        trace.add("samples", seconds, cgroup_id=7, source="oom", kill_id=1, **state)
        trace.add("oom", seconds, kill_id=1, constraint="memcg", limit_owner_cgroup_id=7, cgroup_id=7, pid=41)


def _sample(state: dict[str, int], step: int) -> dict[str, int]:
    grown = state.get("usage_bytes", 0) + step * MIB
    return {
        **{f"{name}_bytes": 0 for name in SIZES},
        "usage_bytes": grown,
        "anon_bytes": grown,
        "limit_bytes": LIMIT,
        "swap_limit_bytes": 0,
        "workingset_refault_file": state.get("workingset_refault_file", 0) + step * 3,
        "pgsteal": state.get("pgsteal", 0) + step * 5,
        "max_events": state.get("max_events", 0) + step,
        "psi_some_total_us": state.get("psi_some_total_us", 0) + step * 1000,
        "psi_full_total_us": 0,
    }


@settings(COSTLY, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    growth=st.lists(st.sampled_from([0, 0, 0, 0, 1, 2]), min_size=3, max_size=LOOKS), is_killed=st.booleans()
)
def test_sparse_samples_mean_the_same(growth: list[int], is_killed: bool, new_trace: Any) -> None:
    dense, sparse = new_trace(), new_trace()
    write(dense, growth, is_sparse=False, is_killed=is_killed)
    write(sparse, growth, is_sparse=True, is_killed=is_killed)
    assert len(sparse.samples) <= len(dense.samples)
    pd.testing.assert_frame_equal(timeline(sparse), timeline(dense))
    pd.testing.assert_frame_equal(ranked(sparse), ranked(dense))
    assert [one.to_dict() for one in explain(sparse)] == [one.to_dict() for one in explain(dense)]
    assert [one.to_dict() for one in held_cgroups(sparse)] == [one.to_dict() for one in held_cgroups(dense)]


@pytest.mark.parametrize(
    ("last_s", "lost_s", "refaulted"),
    [(2.0, None, 0), (0.15, None, None), (2.0, 1.0, None), (2.0, -5.0, 0)],
)
def test_refaults_without_a_further_sample_are_none_unless_lost(
    last_s: float, lost_s: float | None, refaulted: int | None, trace: Any
) -> None:
    """The only sample is at the start; the trace goes on until `last_s`."""
    trace.add("cgroups", cgroup_id=7, path="/a")
    trace.add("samples", 0, cgroup_id=7, source="start", usage_bytes=MIB, workingset_refault_file=900)
    trace.charged(last_s, 7, "anon", MIB)
    if lost_s is not None:
        trace.add("loss", lost_s, begin=trace.ns(lost_s - 0.1), stream="samples", lost=1)
    (held,) = held_cgroups(trace)
    assert held.kernel_refaulted_bytes == refaulted
    assert ("kernel_refaulted_bytes" in held.quality.unknown) is (refaulted is None)


def test_a_gap_of_all_cgroups_is_unknown_where_each_look_gives_a_sample(trace: Any) -> None:
    """Cgroup 7 is sampled once; cgroup 8 at each look until 1 s, although it does not change."""
    for number, path in ((7, "/a"), (8, "/b")):
        trace.add("cgroups", cgroup_id=number, path=path)
        trace.add("samples", 0, cgroup_id=number, source="start", usage_bytes=MIB, workingset_refault_file=9)
    for look in range(1, 11):
        trace.add(
            "samples",
            look / 10,
            cgroup_id=8,
            source="periodic",
            usage_bytes=MIB,
            workingset_refault_file=9,
        )
    trace.charged(1.05, 7, "anon", MIB)
    assert {one.cgroup_id: one.kernel_refaulted_bytes for one in held_cgroups(trace)} == {7: 0, 8: 0}
    trace.charged(2, 7, "anon", MIB)
    assert {one.cgroup_id: one.kernel_refaulted_bytes for one in held_cgroups(trace)} == {7: None, 8: 0}


@pytest.mark.parametrize(
    ("stalled_us", "share"),
    [
        ({0: 7}, 0.0),
        ({0: 7, 2.0: 100_007}, 0.2),
        ({0: 7, 2.0: 100_007, 9: 900_007}, 0.2),
        ({0: 7, 2.0: 100_007, 2.4: 400_007, 9: 900_007}, 0.2),
        ({0: 7, 2.45: 400_007, 9: 900_007}, 0.0),
        ({2.0: 100_007, 2.1: 150_007}, 0.5),
    ],
)
def test_pressure_holds_between_samples(stalled_us: dict[float, int], share: float, trace: Any) -> None:
    """Cgroup 7 thrashes from 1.8 to 2.3 s; it is sampled when the pressure changed."""
    trace.add("cgroups", cgroup_id=7, path="/a")
    row = {"inode_id": 5, "cgroup_id": 7, "nr_pages": 256}
    for begin in (1.8, 2.3):
        trace.add("pagecache", begin, index=0, op="delete", cause="reclaim_memcg", **row)
        trace.add("pagecache", begin + 0.1, index=0, op="add", cause="read", **row)
    trace.charged(10, 7, "anon", MIB)
    for seconds, total in stalled_us.items():
        trace.add("samples", seconds, cgroup_id=7, source="periodic", psi_some_total_us=total)
    (found,) = thrash(trace)["psi_some_share"]
    assert found == pytest.approx(share)


def test_the_kernel_counts_until_the_end_of_the_trace_if_nothing_changed(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=7, path="/a")
    trace.add("samples", 0, cgroup_id=7, source="start", workingset_refault_file=900)
    trace.charged(2, 7, "anon", MIB)
    (count,) = cache_flow(trace, moves(trace)).refaults.kernel
    assert (count.begin.value, count.end.value, count.kernel_bytes) == (trace.ns(0), trace.ns(2), 0)


@pytest.mark.parametrize(
    ("read_s", "lost_s", "looks_s", "time_s", "is_held"),
    [
        ([], None, [], 2, False),
        ([3], None, [], 2, False),
        ([0], None, [], 0.2, False),
        ([0], None, [], 0.200000001, True),
        ([0, 2], None, [], 2, False),
        ([0, 2], None, [], 2.1, False),
        ([0, 2], None, [], 2.3, True),
        ([0, 2], 1, [], 2.3, True),
        ([0], 1, [], 2, False),
        ([0], 3, [], 2, True),
        ([0, 2], None, [1.9, 2.1, 2.3, 2.5], 2.5, True),
        ([0, 2], None, [1.9, 2.1, 2.4, 2.5], 2.5, False),
        ([0, 2], None, [1.9, 2.1, 2.3, 9.0], 2.5, True),
    ],
)
def test_reading_holds_if_a_look_is_over_and_none_was_missed_since(
    *,
    read_s: list[float],
    lost_s: float | None,
    looks_s: list[float],
    time_s: float,
    is_held: bool,
    trace: Any,
) -> None:
    """Each look at cgroup 8 gives a sample; cgroup 7 is sampled when it changed. A loss lasts for 0.1 s."""
    for number in (7, 8):
        trace.add("cgroups", cgroup_id=number, path=f"/{number}")
    for seconds in read_s:
        trace.add("samples", seconds, cgroup_id=7, source="periodic", high_events=round(seconds) + 5)
    for seconds in looks_s:
        trace.add("samples", seconds, cgroup_id=8, source="periodic", usage_bytes=MIB)
    if lost_s is not None:
        trace.add("loss", lost_s, begin=trace.ns(lost_s - 0.1), stream="samples", lost=1)
    subtree = Subtrees(trace).subtree_at(7, np.array([7]))
    assert ledger.held(subtree, ledger.reading(subtree, "high_events"), trace.ns(time_s)) is is_held
