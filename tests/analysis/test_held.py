"""What held, of cgroups within each other: a figure is of the cgroup and all below it, of nothing beside."""

from __future__ import annotations

from typing import Any

from tracer.analysis.held import held

MIB = 1 << 20
PATHS = {1: "/", 2: "/a", 3: "/a/b", 4: "/ab", 5: "/a"}  # 5: after 2 was removed


def test_figures_are_of_the_subtree(trace: Any) -> None:
    for number, path in PATHS.items():
        trace.add("cgroups", cgroup_id=number, path=path, created=trace.ns(0))
        trace.add(
            "pagecache", 0.1, cgroup_id=number, op="delete", cause="reclaim_memcg", nr_pages=1 << number
        )
        trace.charged(0.1, number, "anon", MIB << number, usage_bytes=MIB << number)
        trace.charged(0.2, number, "anon", -MIB, usage_bytes=0)
        for _ in range(number):
            trace.add("reclaim", 0.1, kind="memcg", cgroup_id=number, scanned=3, duration_ns=10**6)
        trace.add("stalls", 0.1, kind="dirty", cgroup_id=number, duration_ns=10**6, tgid=number, pid=number)
    within = {1: (1, 2, 3, 4, 5), 2: (2, 3), 3: (3,), 4: (4,), 5: (5, 3)}
    found = held(trace)
    assert len(found) == len(PATHS)
    # Without a limit the greatest comes first: by its own counter, here 2^number MiB.
    for one, number in zip(found, sorted(PATHS, reverse=True), strict=True):
        members = within[number]
        assert (one.cgroup, one.peak_usage_bytes) == (PATHS[number], MIB << number)
        assert one.peak_anon_bytes == sum(MIB << member for member in members)
        assert one.evicted_bytes == sum(1 << member for member in members) * 4096
        assert (one.reclaim.attempts, one.reclaim.scanned_pages) == (sum(members), 3 * sum(members))
        assert sorted(waiter.tgid for waiter in one.reclaim.waiters) == sorted(members)
        assert {attempt.cgroup for attempt in one.reclaim.transcript} <= {PATHS[member] for member in members}
