"""The page cache as a cushion, and the window before a kill, of synthetic kills with known numbers."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from support.evidence import numbers_of
from synthetic.memcg_kill import LIMIT, only_report, record_kill

from tracer.analysis.explain.postmortem import explain

MIB = 1 << 20


def test_cushion_of_the_page_cache_experiment_is_exact_to_the_byte(page_cache_experiment: Any) -> None:
    report = only_report(page_cache_experiment)
    cushion = report.cushion
    assert cushion.cache_start_bytes == LIMIT
    assert cushion.cache_end_bytes == MIB
    assert cushion.evicted_bytes == 116 * MIB
    assert cushion.absorbed_bytes == 99 * MIB
    assert cushion.refaulted_bytes == 5 * 4096
    # The 99th allocation of the second act took the cache below 2 MiB.
    assert cushion.exhausted_at == pd.Timestamp("2025-11-24T16:00:02.980000+00:00")
    assert report.time == pd.Timestamp("2025-11-24T16:00:03.600000+00:00")
    document = report.to_dict()
    assert document["time"] == "2025-11-24T16:00:03.600000+00:00"
    assert document["cushion"]["exhausted_at"] == "2025-11-24T16:00:02.980000+00:00"


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
