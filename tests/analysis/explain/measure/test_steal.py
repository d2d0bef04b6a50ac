"""The pages that reclaim evicted before a synthetic kill, by the trace and by the kernel's count."""

from __future__ import annotations

from typing import Any

from support.evidence import numbers_of
from synthetic.memcg_kill import only_report

MIB = 1 << 20


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
