"""The window before synthetic kills with known times."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from support.evidence import numbers_of
from synthetic.memcg_kill import LIMIT, only_report, record_kill

from tracer.analysis.core.subtree import Subtrees
from tracer.analysis.explain.measure.window import limit_reached_ns
from tracer.analysis.explain.postmortem import explain
from tracer.schema import UNLIMITED_BYTES

MIB = 1 << 20


def test_window_of_the_second_kill_begins_after_the_first(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    trace.charged(1, 1, "file", LIMIT, usage_bytes=LIMIT)
    trace.add("pagecache", 1.5, cgroup_id=1, op="delete", cause="reclaim_memcg", nr_pages=100)
    record_kill(trace, 2)
    trace.charged(3, 1, "anon", 5, usage_bytes=LIMIT)
    trace.add("pagecache", 3.5, cgroup_id=1, op="delete", cause="reclaim_memcg", nr_pages=11)
    trace.add("pagecache", 3.5, cgroup_id=1, op="delete", cause="truncate", nr_pages=1000)
    trace.add("pagecache", 3.5, cgroup_id=9, op="delete", cause="reclaim_memcg", nr_pages=1000)
    record_kill(trace, 4, kill_id=2)
    assert [report.cushion.evicted_bytes for report in explain(trace)] == [100 * 4096, 11 * 4096]


@pytest.mark.parametrize(
    ("least", "soon", "is_one_story"), [(95, 0.2, True), (80, 0.2, False), (95, 2, False)]
)
def test_window_of_a_kill_before_the_first_ones_memory_is_free_is_shared(
    trace: Any, least: int, soon: float, is_one_story: bool
) -> None:
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    trace.charged(1, 1, "anon", 90 * MIB, usage_bytes=LIMIT)
    record_kill(trace, 2)
    trace.charged(2 + soon / 2, 1, "anon", -5 * MIB, usage_bytes=least * MIB)
    record_kill(trace, 2 + soon, kill_id=2)
    _, second = explain(trace)
    grown = [one["grown_bytes"] for one in numbers_of(second.verdict.evidence, "growth")]
    assert (grown == [85 * MIB]) is is_one_story, grown


def test_window_begins_after_a_lull(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    for seconds, usage, evicted in ((1, 100, 7), (2, 89, 0), (3, 95, 1), (4, 100, 20), (5, 91, 30)):
        trace.charged(seconds, 1, "anon", 0, usage_bytes=usage * MIB)
        trace.add("pagecache", seconds, cgroup_id=1, op="delete", cause="reclaim_memcg", nr_pages=evicted)
    record_kill(trace, 6)
    assert only_report(trace).cushion.evicted_bytes == 50 * 4096


def test_window_of_a_young_cgroup_begins_when_it_was_made(trace: Any) -> None:
    """The calm before it was made is no part of its growth."""
    trace.add("cgroups", cgroup_id=2, path="/old", created=trace.ns(0))
    trace.charged(1, 2, "anon", 0, usage_bytes=0)
    trace.add("cgroups", cgroup_id=1, path="/young", created=trace.ns(143))
    trace.charged(143.5, 1, "anon", 60 * MIB, usage_bytes=60 * MIB)
    trace.charged(143.8, 1, "anon", LIMIT - 60 * MIB, usage_bytes=LIMIT)
    record_kill(trace, 143.9)
    verdict = only_report(trace).verdict
    assert numbers_of(verdict.evidence, "growth")[0]["span_ns"] == pytest.approx(0.9e9)
    assert [found.kind for found in verdict.contributing if found.kind in ("burst", "slow_growth")] == []


def reached_s(trace: Any) -> list[float]:
    """Return the seconds at which cgroup 1 reached its limit."""
    found = limit_reached_ns(Subtrees(trace).subtree_at(1))
    return [(moment_ns - int(trace.ns(0))) / 1e9 for moment_ns in found.tolist()]


def test_limit_is_reached_again_after_a_lull_only(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    for seconds, usage in ((1, 60), (2, 99), (3, 91), (4, 100), (5, 100), (6, 89), (7, 98), (8, 99)):
        trace.charged(seconds, 1, "anon", MIB, usage_bytes=usage * MIB, limit_bytes=LIMIT)
    assert reached_s(trace) == [2, 8]


def test_limit_that_was_not_reached_has_no_moment(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    assert reached_s(trace) == []
    trace.charged(1, 1, "anon", MIB, usage_bytes=98 * MIB, limit_bytes=LIMIT)
    trace.charged(2, 1, "anon", MIB, usage_bytes=98 * MIB, limit_bytes=UNLIMITED_BYTES)
    assert reached_s(trace) == []


@pytest.mark.parametrize(
    ("kind", "high", "at"), [("memcg", None, 1.5), ("memcg", 50, 2), ("kswapd", None, 2)]
)
def test_limit_is_reached_by_reclaim_that_can_only_be_for_it(
    trace: Any, kind: str, high: int | None, at: float
) -> None:
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    trace.add("samples", 0.5, cgroup_id=1, high_bytes=None if high is None else high * MIB)
    trace.charged(1, 1, "anon", MIB, usage_bytes=60 * MIB, limit_bytes=LIMIT)
    trace.add("reclaim", 1.2, cgroup_id=7, kind="memcg")
    trace.add("reclaim", 1.5, cgroup_id=1, kind=kind)
    trace.charged(2, 1, "anon", MIB, usage_bytes=99 * MIB, limit_bytes=LIMIT)
    assert reached_s(trace) == [at]


def test_kill_has_the_moment_at_which_its_limit_was_reached(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    trace.charged(1, 1, "anon", 60 * MIB, usage_bytes=60 * MIB)
    trace.charged(3.25, 1, "anon", 40 * MIB, usage_bytes=LIMIT)
    record_kill(trace, 4)
    assert only_report(trace).cushion.limit_reached_at == pd.Timestamp(trace.ns(3.25), tz="UTC")


def test_kill_without_a_sign_of_its_limit_does_not_know_when_it_was_reached(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    record_kill(trace, 4)
    assert only_report(trace).cushion.limit_reached_at is None
