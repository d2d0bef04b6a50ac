"""The page cache as a cushion before a synthetic kill with known numbers."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from synthetic.memcg_kill import LIMIT, only_report, record_kill

from tracer.render.words import kill_facts

MIB = 1 << 20


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
