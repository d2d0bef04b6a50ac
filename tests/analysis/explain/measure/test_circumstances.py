"""Circumstances of synthetic kills: swap, protection, and processes that moved away."""

from __future__ import annotations

from typing import Any

import pytest
from synthetic.memcg_kill import LIMIT, only_report, record_kill

from tracer.analysis.core.columns import utc_time
from tracer.schema import UNLIMITED_BYTES

MIB = 1 << 20
WEIGHED = {"OOM candidates": {"hook": "fentry oom_badness"}}


def limited(trace: Any, swap_limit: int = UNLIMITED_BYTES, **at_kill: Any) -> None:
    """Record a kill at 4 s of a cgroup that holds 90 MiB of anonymous memory, charged by pid 50."""
    trace.meta |= {"cgroup_version": 2, "memory": {"total_bytes": 8 << 30, "swap_total_bytes": 1 << 30}}
    trace.add("cgroups", cgroup_id=1, path="/pod", created=trace.ns(0))
    trace.add("cgroups", cgroup_id=2, path="/pod/child", created=trace.ns(0))
    trace.add("tasks", tgid=50, start_ns=5, comm="sh", cgroup_id=1, first_seen=trace.ns(1))
    trace.add("charge", 2, cgroup_id=1, tgid=50, category="anon", pages=1, bytes=90 * MIB, updates=1)
    limits = {"limit_bytes": LIMIT, "swap_limit_bytes": swap_limit}
    trace.add("samples", 1, cgroup_id=1, source="periodic", usage_bytes=MIB, **limits)
    trace.add(
        "samples", 4, cgroup_id=1, source="oom", kill_id=1, usage_bytes=LIMIT, anon_bytes=90 * MIB, **at_kill
    )
    record_kill(trace, 4)


def contributing(trace: Any) -> dict[str, dict[str, Any]]:
    return {one.kind: dict(one.numbers) for one in only_report(trace).verdict.contributing}


def test_locked_shared_memory_grew_once(trace: Any) -> None:
    """90 MiB of a shared mapping that is locked (mlockall) are `shmem` and `unevictable`."""
    trace.add("cgroups", cgroup_id=1, path="/pod", created=trace.ns(0))
    trace.charged(2, 1, "shmem", 90 * MIB, tgid=50, usage_bytes=LIMIT)
    sizes = dict.fromkeys(("file_bytes", "shmem_bytes", "unevictable_bytes"), 90 * MIB)
    lists = ("inactive_anon_bytes", "active_anon_bytes", "inactive_file_bytes", "active_file_bytes")
    none = dict.fromkeys(
        ("anon_bytes", "kernel_bytes", "file_dirty_bytes", "file_writeback_bytes", *lists), 0
    )
    at_kill = {"usage_bytes": LIMIT, "limit_bytes": LIMIT, **sizes, **none}
    trace.add("samples", 4, cgroup_id=1, source="oom", kill_id=1, **at_kill)
    record_kill(trace, 4)
    (suspect,) = only_report(trace).verdict.suspects
    assert suspect.cause == "unevictable"
    assert suspect.evidence.numbers["grown_bytes"] == suspect.evidence.numbers["all_grown_bytes"] == 90 * MIB


@pytest.mark.parametrize(("anon_mib", "held_mib"), [(60, 30), (80, 20), (98, None)])
def test_cache_of_a_removed_cgroup_that_was_freed_is_not_held(
    trace: Any, anon_mib: int, held_mib: int | None
) -> None:
    """A removed cgroup has left 30 MiB of cache. Reclaim takes it for anonymous memory beside it, and the
    rows of that come after the kill at a usage of 100 MiB."""
    trace.meta |= {"cgroup_version": 1}
    trace.add("cgroups", cgroup_id=1, path="/pod", created=trace.ns(0))
    trace.add("cgroups", cgroup_id=2, path="/pod/job/gone", created=trace.ns(0), removed=trace.ns(2))
    trace.add("cgroups", cgroup_id=3, path="/pod/job", created=trace.ns(0))
    trace.charged(1, 2, "file", 30 * MIB)
    trace.charged(3, 1, "anon", anon_mib * MIB, usage_bytes=LIMIT)
    trace.add(
        "samples", 4, cgroup_id=1, source="oom", kill_id=1, usage_bytes=LIMIT, anon_bytes=anon_mib * MIB
    )
    record_kill(trace, 4)
    trace.charged(4.5, 2, "file", -30 * MIB)
    dying = contributing(trace).get("dying_cgroups")
    assert (dying and dying["held_bytes"]) == (held_mib and held_mib * MIB)


@pytest.mark.parametrize(
    ("own", "at_kill", "numbers"),
    [
        (0, {}, {}),
        (0, {"effective_swap_limit_bytes": 0, "swap_room_bytes": 0}, {}),
        (
            UNLIMITED_BYTES,
            {"effective_swap_limit_bytes": 0, "swap_room_bytes": 0},
            {"bounded_above": True},
        ),
        (
            UNLIMITED_BYTES,
            {"effective_swap_limit_bytes": 9 * MIB, "swap_room_bytes": 0},
            {"bounded_above": True},
        ),
        (UNLIMITED_BYTES, {"effective_swap_limit_bytes": 9 * MIB, "swap_room_bytes": MIB}, None),
        (UNLIMITED_BYTES, {}, None),
    ],
)
def test_swap_that_a_cgroup_above_does_not_allow_is_off(
    trace: Any, own: int, at_kill: dict[str, int], numbers: dict[str, Any] | None
) -> None:
    limited(trace, own, **at_kill)
    assert contributing(trace).get("no_swap") == numbers


NO_SWAP_ABOVE = {"effective_swap_limit_bytes": 9 * MIB, "swap_room_bytes": 0}


@pytest.mark.parametrize(
    ("levels", "numbers"),
    [(0, {}), (1, {"bounded_above": True, "cgroup": "/a/b"}), (2, {"bounded_above": True, "cgroup": "/a"})],
)
def test_cgroup_above_that_leaves_no_swap_is_named(trace: Any, levels: int, numbers: dict[str, Any]) -> None:
    limited(trace, 0 if levels == 0 else UNLIMITED_BYTES, swap_bound_levels=levels, **NO_SWAP_ABOVE)
    trace.recorded()["cgroups"][0]["path"] = "/a/b/pod"
    assert contributing(trace)["no_swap"] == numbers


def test_fresh_cgroup_without_a_sample_before_the_kill_has_its_bound(trace: Any) -> None:
    limited(trace, swap_bound_levels=0, **NO_SWAP_ABOVE)
    samples = trace.recorded()["samples"]
    samples[:] = [row for row in samples if row["source"] == "oom"]
    assert contributing(trace)["no_swap"] == {}


@pytest.mark.parametrize(
    ("at_kill", "events", "advice"),
    [
        ({"swap_bound_levels": 0}, "swap_max", "Give the cgroup /a/pod more swap (memory.swap.max"),
        ({"swap_bound_levels": 1}, "swap_max", "Give the cgroup /a, above the cgroup /a/pod, more swap: its"),
        ({}, "swap_max", "Give a cgroup above more swap: its limit is the bound"),
        ({"swap_bound_levels": 1}, "swap_fail", "Give the machine more swap: no cgroup's limit of swap was"),
    ],
)
def test_advice_on_full_swap_names_what_bounds_it(
    trace: Any, at_kill: dict[str, int], events: str, advice: str
) -> None:
    """The limit of the killed cgroup itself is not set, but in the first case."""
    allowed = {"effective_swap_limit_bytes": 9 * MIB, "swap_room_bytes": 0}
    limited(trace, **allowed | at_kill, file_bytes=0, shmem_bytes=0)
    trace.recorded()["cgroups"][0]["path"] = "/a/pod"
    trace.charged(3, 1, "swap", 9 * MIB, tgid=50)
    for seconds, counted in ((1.5, 0), (3.5, 7)):
        row = {"usage_bytes": LIMIT, f"{events}_events": counted, "swap_limit_bytes": UNLIMITED_BYTES}
        trace.add("samples", seconds, cgroup_id=1, source="periodic", limit_bytes=LIMIT, **row)
    report = only_report(trace)
    assert report.verdict.cause == "swap_exhausted"
    assert report.advice[0].startswith(advice)


UID = "1d65f9b6-7e8d-4a6c-9a0c-7a6c2f1b9e11"
POD = f"/kubepods/burstable/pod{UID}"
ID = "4f" * 32


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        (f"{POD}/{ID}", f"Give pod {UID}, above the cgroup {POD}/{ID}, more swap: its"),
        (f"/kubepods/burstable/{ID}", "Give the cgroup /kubepods/burstable, above the cgroup"),
        (f"{POD}/{ID}/init.scope", f"Give container {ID[:12]}, above the cgroup {POD}"),
    ],
)
def test_advice_on_full_swap_in_a_pod_names_who_sets_it(trace: Any, path: str, advice: str) -> None:
    allowed = {"effective_swap_limit_bytes": 9 * MIB, "swap_room_bytes": 0, "swap_bound_levels": 1}
    limited(trace, **allowed, file_bytes=0, shmem_bytes=0)
    trace.recorded()["cgroups"][0]["path"] = path
    trace.charged(3, 1, "swap", 9 * MIB, tgid=50)
    for seconds, counted in ((1.5, 0), (3.5, 7)):
        row = {"usage_bytes": LIMIT, "swap_max_events": counted, "swap_limit_bytes": UNLIMITED_BYTES}
        trace.add("samples", seconds, cgroup_id=1, source="periodic", limit_bytes=LIMIT, **row)
    (said, *_) = only_report(trace).advice
    assert said.startswith(advice)
    assert ("LimitedSwap" in said) == path.endswith(f"pod{UID}/{ID}")


@pytest.mark.parametrize("path", [POD, f"{POD}/{ID}", "/pod"])
def test_limit_of_a_pod_is_told_from_one_of_a_container(trace: Any, path: str) -> None:
    limited(trace, file_bytes=0, shmem_bytes=0)
    trace.recorded()["cgroups"][0]["path"] = path
    advice = " ".join(only_report(trace).advice)
    assert ("The limit is the pod's, not a container's" in advice) == (path == POD)


def test_protection_at_the_kill_is_the_kernels_sum_and_not_a_late_sample(trace: Any) -> None:
    late = {"cgroup_id": 2, "source": "periodic", "usage_bytes": 60 * MIB, "min_bytes": 50 * MIB}
    limited(trace, protected_bytes=41 * MIB, file_bytes=8 * MIB, shmem_bytes=0)
    trace.add("samples", 11.6, **late)
    assert contributing(trace)["protected_memory"] == {"protected_bytes": 41 * MIB}


def test_protection_of_an_older_trace_is_by_the_last_samples(trace: Any) -> None:
    limited(trace)
    trace.add("samples", 3, cgroup_id=2, source="periodic", usage_bytes=60 * MIB, min_bytes=50 * MIB)
    assert contributing(trace)["protected_memory"] == {"protected_bytes": 50 * MIB}


@pytest.mark.parametrize("exited", [None, 4.5])
def test_process_that_moved_away_left_its_memory(trace: Any, exited: float | None) -> None:
    limited(trace)
    trace.meta["probes"] = WEIGHED
    trace.add(
        "tasks",
        tgid=60,
        start_ns=6,
        comm="mover",
        cgroup_id=1,
        first_seen=trace.ns(1),
        exited=None if exited is None else trace.ns(exited),
    )
    trace.add("charge", 3, cgroup_id=1, tgid=60, category="anon", pages=1, bytes=30 * MIB, updates=1)
    trace.add("charge", 3.5, cgroup_id=1, tgid=60, category="anon", pages=1, bytes=-9 * MIB, updates=1)
    assert "left_by_moved" not in contributing(trace), "it is not known which processes were weighed"
    trace.add("oom_candidates", 3.9, kill_id=1, pid=50, tgid=50, comm="sh", badness=1, chosen=True)
    left = {"processes": 1, "comm": "mover", "pid": 60, "held_bytes": 21 * MIB}
    assert contributing(trace).get("left_by_moved") == (left if exited is None else None)


@pytest.mark.parametrize("step_mib", [60, 30, 12, 5, 1])
def test_growth_does_not_depend_on_when_usage_was_read(trace: Any, step_mib: int) -> None:
    """60 MiB of tmpfs pass half of the limit of 100 MiB: 10 MiB of them are above it, as are 40 of anon."""
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    trace.charged(0.5, 1, "kernel", 0, usage_bytes=0, limit_bytes=LIMIT)
    for number in range(60 // step_mib):
        held = {"usage_bytes": (number + 1) * step_mib * MIB, "limit_bytes": LIMIT}
        trace.charged(1 + number / 100, 1, "file", step_mib * MIB, tgid=40, **held)
        trace.charged(1 + number / 100, 1, "shmem", step_mib * MIB, tgid=40, **held)
    for number in range(40):
        held = {"usage_bytes": (61 + number) * MIB, "limit_bytes": LIMIT}
        trace.charged(3 + number / 100, 1, "anon", MIB, tgid=50, **held)
    record_kill(trace, 4)
    suspects = {one.cause: one.evidence.numbers for one in only_report(trace).verdict.suspects}
    assert suspects["shmem"]["grown_bytes"] == 10 * MIB
    assert suspects["anon_growth"]["grown_bytes"] == 40 * MIB


def test_cache_that_was_reclaimed_on_request_is_told_from_what_the_limit_took(trace: Any) -> None:
    """The limit is reached when usage is near it, not when memory.reclaim is written."""
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    trace.charged(0.5, 1, "file", 95 * MIB, usage_bytes=95 * MIB, limit_bytes=LIMIT)
    taken = {"cgroup_id": 1, "task_cgroup_id": 1, "tgid": 50, "pid": 50, "duration_ns": 10**6}
    for at_s, kind, pages in ((1, "proactive", 2560), (3, "proactive", 1280), (3.5, "memcg", 1024)):
        trace.add("reclaim", at_s, kind=kind, scanned=pages, reclaimed=pages, reclaimed_file=pages, **taken)
        trace.add("pagecache", at_s, cgroup_id=1, op="delete", cause="reclaim_memcg", nr_pages=pages)
    trace.charged(2, 1, "anon", 15 * MIB, tgid=50, usage_bytes=LIMIT, limit_bytes=LIMIT)
    record_kill(trace, 4)
    report = only_report(trace)
    assert report.cushion.limit_reached_at == utc_time(trace.ns(2))
    assert report.cushion.evicted_bytes == 9 * MIB
    assert "given back 9 MiB (5 MiB of it on request)" in report.verdict.summary
    assert contributing(trace)["requested_reclaim"] == {"cache_bytes": 15 * MIB, "anon_bytes": 0}


def test_swapped_pages_that_zswap_keeps_are_memory_of_processes(trace: Any) -> None:
    """90 MiB grew, of which 88 MiB went to swap and stays in memory: kernel memory did not grow."""
    trace.meta |= {"cgroup_version": 2, "memory": {"total_bytes": 8 << 30, "swap_total_bytes": 1 << 30}}
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    for at_s, zswap in ((0.5, 0), (3, 80)):
        trace.add("samples", at_s, cgroup_id=1, source="periodic", zswap_bytes=zswap * MIB)
    trace.charged(1, 1, "anon", 45 * MIB, tgid=50, usage_bytes=45 * MIB, limit_bytes=LIMIT)
    trace.charged(2, 1, "anon", 45 * MIB, tgid=50, usage_bytes=90 * MIB, limit_bytes=LIMIT)
    for kind, mib in (("anon", -88), ("kernel", 98), ("page_tables", 1), ("swap", 88)):
        trace.charged(3, 1, kind, mib * MIB, tgid=50, usage_bytes=LIMIT, limit_bytes=LIMIT)
    kinds = {"anon": 2, "kernel": 98, "zswap": 97, "page_tables": 1, "file": 0, "shmem": 0, "swap": 88}
    kinds |= dict.fromkeys(("slab_reclaimable", "slab_unreclaimable", "kernel_stack", "percpu", "vmalloc"), 0)
    at_kill = {f"{kind}_bytes": mib * MIB for kind, mib in kinds.items()}
    trace.add("samples", 4, cgroup_id=1, source="oom", kill_id=1, usage_bytes=LIMIT, **at_kill)
    record_kill(trace, 4)
    report = only_report(trace)
    assert report.verdict.cause == "anon_growth"
    assert "99 MiB of it anonymous memory (97 MiB of that swapped out" in report.verdict.summary
    assert report.sizing.pace.startswith("At this growth (91 MiB in ")
    assert "97 MiB of it was swapped out, but zswap keeps that in memory" in report.advice[0]
    assert "memory.zswap.max" in report.advice[1]
    (process,) = report.allocators
    assert (process.anon_bytes, process.kernel_bytes) == (90 * MIB, MIB)


@pytest.mark.parametrize("is_read_back", [True, False])
def test_memory_that_is_read_back_from_swap_is_no_growth(trace: Any, is_read_back: bool) -> None:
    """40 of 50 MiB go to swap, and page cache takes the room. Anonymous memory grows by 40 MiB from swap, or
    by new memory while a process that has as much in swap ends, and by 41 MiB more."""
    trace.meta |= {"cgroup_version": 2, "memory": {"total_bytes": 8 << 30, "swap_total_bytes": 1 << 30}}
    trace.add("cgroups", cgroup_id=1, path="/pod", created=trace.ns(0))
    trace.meta["probes"]["swap IO"] = {"hook": "raw_tracepoint block_bio_queue"}
    steps = [(1, 50, 0, 0, 50), (2, -40, 40, 0, 10), (2.2, 0, 0, 49, 59), (3, 40, -40, 0, 99)]
    steps.append((3.5, 41, 0, -49, 91))
    for at_s, *of_each, usage in steps:
        for category, mib in zip(("anon", "swap", "file"), of_each, strict=True):
            trace.charged(at_s, 1, category, mib * MIB, tgid=50, usage_bytes=usage * MIB, limit_bytes=LIMIT)
    if is_read_back:
        trace.add("swap_io", 3, cgroup_id=1, op="read", nr_pages=40 * MIB // 4096, duration_ns=10**6)
    sizes = {"anon_bytes": 91 * MIB, "shmem_bytes": 0, "file_bytes": 0, "kernel_bytes": 9 * MIB}
    read = {"usage_bytes": LIMIT, "limit_bytes": LIMIT}
    trace.add("samples", 4, cgroup_id=1, source="oom", kill_id=1, **read, **sizes)
    record_kill(trace, 4)
    grown = [one.numbers for one in only_report(trace).verdict.evidence if one.kind == "growth"]
    assert grown[0]["part"] == "anon"
    assert grown[0]["grown_bytes"] == (41 if is_read_back else 81) * MIB
