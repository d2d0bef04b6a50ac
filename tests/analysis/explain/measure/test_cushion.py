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
