"""The window before a kill, the pages stolen in it, and the cushion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.evidence import numbers_of
from synthetic.memcg_kill import LIMIT, only_report, record_kill

from tracer.analysis.core.subtree import Subtrees
from tracer.analysis.explain.measure.window import find_window, limit_reached_ns
from tracer.analysis.explain.postmortem import explain
from tracer.render.words import kill_facts
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


@pytest.mark.parametrize(
    ("levels", "evicted"),
    [
        pytest.param(((1, 100, 7), (2, 89, 0), (3, 95, 1), (4, 100, 20), (5, 91, 30)), 50, id="a second"),
        # From 2 to 2.5 s, usage is below 90 % of the limit. So it is at first, which is no dip.
        pytest.param(((0.8, 60, 3), (1, 100, 7), (2, 85, 0), (2.5, 95, 1), (3, 100, 20)), 28, id="a dip"),
    ],
)
def test_window_begins_after_a_lull_of_a_second(
    trace: Any, levels: Sequence[tuple[float, int, int]], evicted: int
) -> None:
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    for seconds, usage, nr_pages in levels:
        trace.charged(seconds, 1, "anon", 0, usage_bytes=usage * MIB)
        trace.add("pagecache", seconds, cgroup_id=1, op="delete", cause="reclaim_memcg", nr_pages=nr_pages)
    record_kill(trace, 6)
    assert only_report(trace).cushion.evicted_bytes == evicted * 4096


def test_window_of_a_young_cgroup_begins_when_it_was_made(trace: Any) -> None:
    """The calm before it was made is no part of its growth."""
    trace.add("cgroups", cgroup_id=2, path="/old", created=trace.ns(0))
    trace.charged(1, 2, "anon", 0, usage_bytes=0)
    trace.add("cgroups", cgroup_id=1, path="/young", created=trace.ns(143))
    trace.charged(143.5, 1, "anon", 60 * MIB, usage_bytes=60 * MIB)
    trace.charged(143.8, 1, "anon", LIMIT - 60 * MIB, usage_bytes=LIMIT)
    record_kill(trace, 143.9)
    kill_ns, none = int(trace.ns(143.9)), np.empty(0, np.int64)
    window = find_window(Subtrees(trace).subtree_at(1), limit_bytes=LIMIT, earlier=none, kill_ns=kill_ns)
    assert window.end - window.begin == 900_000_000
    verdict = only_report(trace).verdict
    assert numbers_of(verdict.evidence, "growth")[0]["span_ns"] == 600_000_000, "0.4 s, and a look of 0.2 s"
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


def test_limit_is_not_reached_again_after_a_dip_of_less_than_a_second(trace: Any) -> None:
    """As at a kill: what is evicted across a short dip is evicted at one time at the limit."""
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    levels = ((1, 60), (2, 99), (3, 80), (3.9, 99), (5, 80), (6, 99), (6.5, 70), (7.4, 99))
    for seconds, usage in levels:
        trace.charged(seconds, 1, "anon", MIB, usage_bytes=usage * MIB, limit_bytes=LIMIT)
    assert reached_s(trace) == [2, 6]


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


@pytest.mark.parametrize(("last_s", "counted"), [(2.85, None), (2.98, 5 * 4096)])
def test_kernels_count_that_was_not_read_near_the_kill_is_not_known(
    trace: Any, last_s: float, counted: int | None
) -> None:
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    trace.charged(2.5, 1, "anon", 100 * MIB, usage_bytes=LIMIT)
    for seconds, pages in ((2.6, 0), (last_s, 5), (3.05, 9)):
        trace.add("samples", seconds, cgroup_id=1, source="periodic", workingset_refault_file=pages)
    record_kill(trace, 3)
    assert only_report(trace).cushion.kernel_refaulted_bytes == counted


def test_evictions_by_damon_count_but_are_not_compared_with_pgsteal(
    page_cache_experiment: Any,
) -> None:
    trace = page_cache_experiment
    trace.add("tasks", tgid=77, start_ns=1, comm="kdamond.0", first_seen=trace.ns(2.95))
    trace.add("tasks", tgid=78, start_ns=1, comm="kswapd0", first_seen=trace.ns(2.95))
    for tgid, pages in ((77, 9), (78, 4)):
        trace.add(
            "pagecache", 2.9, cgroup_id=7, tgid=tgid, op="delete", cause="reclaim_kswapd", nr_pages=pages
        )
    report = only_report(trace)
    assert report.cushion.evicted_bytes == 116 * MIB + 13 * 4096
    (compared,) = numbers_of(report.verdict.evidence, "steal_count")
    assert (compared["evicted_pages"], compared["pgsteal_pages"]) == (116 * 256 + 4, 116 * 256)


def test_cushion_of_the_page_cache_experiment_is_exact_to_the_byte(page_cache_experiment: Any) -> None:
    report = only_report(page_cache_experiment)
    cushion = report.cushion
    assert cushion.cache_start_bytes == LIMIT
    assert cushion.cache_end_bytes == MIB
    assert cushion.evicted_bytes == 116 * MIB
    assert cushion.absorbed_bytes == 99 * MIB
    assert (cushion.refaulted_bytes, cushion.kernel_refaulted_bytes) == (0, 5 * 4096)
    # The 99th allocation of the second act took the cache below 2 MiB.
    assert cushion.exhausted_at == pd.Timestamp("2025-11-24T16:00:02.980000+00:00")
    assert report.time == pd.Timestamp("2025-11-24T16:00:03.600000+00:00")
    document = report.to_dict()
    assert document["time"] == "2025-11-24T16:00:03.600000+00:00"
    assert document["cushion"]["exhausted_at"] == "2025-11-24T16:00:02.980000+00:00"


@pytest.mark.parametrize(
    ("evicted_pages", "clause"),
    [
        (0, "no page cache was left to reclaim"),
        (3, "the page cache had given back 12 KiB, and nothing of it was left"),
        (5 * MIB // 4096, "the page cache had already given back 5 MiB and was used up 100 ms before"),
    ],
)
def test_cache_that_gave_nothing_back_was_not_used_up(trace: Any, evicted_pages: int, clause: str) -> None:
    """The files of 5 MiB of cache are removed, or evicted, at the limit."""
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    full = {"usage_bytes": LIMIT, "limit_bytes": LIMIT}
    trace.charged(1.0, 1, "anon", 95 * MIB, tgid=50, **full)
    trace.charged(1.1, 1, "file", 5 * MIB, tgid=50, **full)
    trace.charged(1.9, 1, "file", -5 * MIB, tgid=50, **full)
    trace.charged(1.95, 1, "anon", 5 * MIB, tgid=50, **full)
    if evicted_pages:
        trace.add("pagecache", 1.9, cgroup_id=1, op="delete", cause="reclaim_memcg", nr_pages=evicted_pages)
    record_kill(trace, 2.0)
    report = only_report(trace)
    assert (report.cushion.exhausted_at is None) == (not evicted_pages)
    assert report.verdict.summary.endswith(f"; {clause}.")
    assert ("used up" in dict(kill_facts.cushion(report))) == bool(evicted_pages)


def test_cushion_of_a_sibling_is_that_of_its_evictions(trace: Any) -> None:
    """The ledger finds 150 ms later what a task of /a/grower evicts from /a/cache. The usage that was read
    in between has it already: it is no lull, and the cache was used up when it was evicted."""
    for number, path in ((1, "/a"), (2, "/a/cache"), (3, "/a/grower")):
        trace.add(
            "cgroups", cgroup_id=number, path=path, created=trace.ns(0), parent_id=1 if number > 1 else None
        )
    trace.charged(1, 2, "file", 60 * MIB, tgid=4, usage_bytes=60 * MIB, limit_bytes=LIMIT)
    trace.charged(2, 3, "anon", 40 * MIB, tgid=50, usage_bytes=40 * MIB, limit_bytes=LIMIT)
    for step in range(6):
        row = {"cgroup_id": 2, "op": "delete", "cause": "reclaim_memcg", "nr_pages": 10 * MIB // 4096}
        trace.add("pagecache", 2.1 + step / 10, tgid=50, index=step * 2560, **row)
        trace.charged(2.11 + step / 10, 3, "anon", 10 * MIB, tgid=50)
        reading = {"usage_bytes": LIMIT, "limit_bytes": LIMIT}
        trace.add("samples", 2.05 + step / 10, cgroup_id=1, source="periodic", **reading)
    for late, part in ((2.45, 30 * MIB), (2.75, 30 * MIB)):
        trace.charged(late, 2, "file", -part)
    record_kill(trace, 2.8, trigger_cgroup_id=3, cgroup_id=3)
    cushion = only_report(trace).cushion
    assert cushion.evicted_bytes == 60 * MIB
    assert (cushion.cache_start_bytes, cushion.cache_end_bytes) == (60 * MIB, 0)
    assert cushion.exhausted_at is not None
    assert cushion.exhausted_at.value == trace.ns(2.6)
