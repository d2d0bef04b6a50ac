"""A trace played again has at each moment what its tables have up to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tracer.analysis.core.columns import times_ns
from tracer.analysis.replay import knows_cushions, moments
from tracer.analysis.trace import AnalysedTrace
from tracer.analysis.views.evictions import evictions

RECORDED = Path(__file__).parents[2] / "traces"
MIB = 1 << 20


def test_moments_are_evenly_spaced_and_the_last_is_the_end() -> None:
    trace = AnalysedTrace(RECORDED / "page-cache")
    times = [moment_ns for moment_ns, _ in moments(trace, "100ms")]
    first_ns, last_ns = trace.span_ns
    assert times == [*range(first_ns + 100_000_000, last_ns, 100_000_000), last_ns]


@pytest.mark.parametrize("name", ["page-cache", "dirty", "thrash", "parent-limit"])
def test_state_at_the_end_has_all_rows(name: str) -> None:
    trace = AnalysedTrace(RECORDED / name)
    *_, (_, cgroups) = moments(trace, "250ms")
    evicted = evictions(trace, by="cgroup").groupby("cgroup_id")["evicted_bytes"].sum()
    assert cgroups
    for cgroup in cgroups:
        below = trace.places.descendants(cgroup.cgroup_id)
        rows = trace.reclaim[trace.reclaim["cgroup_id"].isin(below)]
        assert sum(cgroup.attempts.values()) == len(rows)
        assert cgroup.attempts["freed"] == (rows["reclaimed"] > 0).sum()
        cache = trace.pagecache[trace.pagecache["cgroup_id"].isin(below)]
        added = cache[cache["op"] == "add"]["nr_pages"].sum() * trace.meta["page_size"]
        assert sum(cgroup.added_bytes.values()) == added
        assert sum(cgroup.evicted_bytes.values()) == sum(evicted.get(one, 0) for one in below.tolist())


def test_state_at_a_moment_is_that_of_the_last_sample_before_it() -> None:
    trace = AnalysedTrace(RECORDED / "page-cache")
    samples = trace.samples[trace.samples["source"] != "oom"]
    for moment_ns, cgroups in moments(trace, "100ms"):
        for cgroup in cgroups:
            before = samples[(samples["cgroup_id"] == cgroup.cgroup_id) & (times_ns(samples) <= moment_ns)]
            assert cgroup.usage_bytes == before["usage_bytes"].iloc[-1]
            assert cgroup.time_ns == before.index[-1].value
            assert sum(size or 0 for size in cgroup.parts.values()) == cgroup.usage_bytes


def test_removed_cgroup_is_gone_and_its_parent_keeps_what_it_did(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/a")
    trace.add("cgroups", cgroup_id=2, parent_id=1, path="/a/b", created=trace.ns(1), removed=trace.ns(2))
    for number, seconds in ((1, 0), (2, 1.1), (1, 3)):
        trace.add("samples", seconds, cgroup_id=number, source="periodic", usage_bytes=MIB)
    row = {"op": "add", "cause": "read", "nr_pages": 3}
    trace.add("pagecache", 1.2, cgroup_id=2, **row)
    trace.add("pagecache", 0.4, cgroup_id=1, **row)  # recorded late
    found = {
        moment_ns - trace.ns(0): {one.path: one.added_bytes["read"] for one in cgroups}
        for moment_ns, cgroups in moments(trace, "500ms")
    }
    assert [*found.values()] == [
        {"/a": 0},
        {"/a": 0},
        {"/a": 6 * 4096, "/a/b": 3 * 4096},
        {"/a": 6 * 4096},
        {"/a": 6 * 4096},
        {"/a": 6 * 4096},
    ]


def test_empty_trace_has_one_moment_without_cgroups(trace: Any) -> None:
    assert list(moments(trace, "1s")) == [(0, [])]


def test_cushions_are_known_without_swap_only(trace: Any) -> None:
    assert knows_cushions(trace)
    for memory in ({"swap_total_bytes": 1}, {"swap_total_bytes": None}, {}, None):
        trace.meta["memory"] = memory
        assert not knows_cushions(trace)
