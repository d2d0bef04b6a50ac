"""The cgroups without a kill: their figures, which include those of cgroups below, and of no others."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from synthetic.memcg_kill import record_kill

from tracer.analysis.core.columns import utc_time
from tracer.analysis.explain.kill_filter import with_kills
from tracer.analysis.explain.postmortem import explain
from tracer.analysis.explain.survivors import held_cgroups
from tracer.analysis.results.survivor import LoweredLimit
from tracer.analysis.views.cache_flow import cache_flow
from tracer.analysis.views.evictions import moves
from tracer.analysis.views.timeline import timeline
from tracer.render.words import survivor_facts
from tracer.schema import UNLIMITED_BYTES

MIB = 1 << 20
PATHS = {1: "/", 2: "/a", 3: "/a/b", 4: "/ab", 5: "/a"}  # 5 was made after 2 was removed, and before 3


def test_held_figures_of_nested_cgroups_are_of_the_subtree(trace: Any) -> None:
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
    within = {1: (1, 2, 3, 4, 5), 2: (2,), 3: (3,), 4: (4,), 5: (5, 3)}
    found = held_cgroups(trace)
    assert len(found) == len(PATHS)
    # Without a limit the largest comes first; usage is no less than the anonymous memory of the subtree.
    of_subtrees = {number: sum(MIB << member for member in members) for number, members in within.items()}
    for one, number in zip(found, sorted(PATHS, key=lambda number: -of_subtrees[number]), strict=True):
        members, most = within[number], of_subtrees[number]
        assert (one.cgroup, one.peak_usage_bytes, one.peak_anon_bytes) == (PATHS[number], most, most)
        assert one.evicted_bytes == sum(1 << member for member in members) * 4096
        assert (one.reclaim.attempts, one.reclaim.scanned_pages) == (sum(members), 3 * sum(members))
        assert sorted(waiter.tgid for waiter in one.reclaim.waiters) == sorted(members)
        assert {attempt.cgroup for attempt in one.reclaim.transcript} <= {PATHS[member] for member in members}


def test_held_at_the_peak_has_cache_anon_shmem_kernel_and_swap(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=7, path="/a", created=trace.ns(0))
    read = {"usage_bytes": 30 * MIB, "limit_bytes": 40 * MIB}
    for category, amount in (
        ("anon", 21),
        ("file", 6),
        ("shmem", 5),
        ("kernel", 2),
        ("sock", 1),
        ("swap", 9),
    ):
        trace.charged(0.1, 7, category, amount * MIB, **read)
    trace.charged(0.2, 7, "swap", -4 * MIB, **read | {"usage_bytes": 29 * MIB})
    (one,) = held_cgroups(trace)
    kinds = (one.cache_at_peak_bytes, one.shmem_at_peak_bytes, one.kernel_at_peak_bytes)
    assert kinds == (MIB, 5 * MIB, 3 * MIB)
    assert (one.anon_at_peak_bytes, one.peak_anon_bytes) == (21 * MIB, 21 * MIB)
    assert one.peak_swap_bytes == 9 * MIB
    assert one.stuck_since is None


@pytest.mark.parametrize(("seconds", "usage_mib"), [(5, 99), (4, 98.9)])
def test_held_peak_is_where_reclaim_could_free_least(trace: Any, seconds: int, usage_mib: float) -> None:
    """Cache fills the limit at 2 s; anon takes its place until 5 s, and cache that of anon at 6 s.

    At 5 s, usage is at or below 99 % of its peak, as reclaim has just freed more than it had to.
    """
    trace.add("cgroups", cgroup_id=7, path="/a", created=trace.ns(0))
    usages = {1: 83, 2: 100, 3: 99.5, 4: 100, 5: usage_mib, 6: 100}
    cache_and_anon = {1: (83, 0), 2: (6, 11), 3: (-20, 20), 4: (-13, 13), 5: (-9, 8), 6: (51, -50)}
    for time, (cache, anon) in cache_and_anon.items():
        read = {"usage_bytes": int(usages[time] * MIB), "limit_bytes": 100 * MIB}
        trace.charged(time, 7, "file", cache * MIB, tgid=41, **read)
        trace.charged(time, 7, "anon", anon * MIB, tgid=42, **read)
    (one,) = held_cgroups(trace)
    cache, anon = (sum(pair[kind] for pair in list(cache_and_anon.values())[:seconds]) for kind in (0, 1))
    assert (one.peak_usage_bytes, one.peak_time) == (100 * MIB, utc_time(trace.ns(seconds)))
    assert (one.cache_at_peak_bytes, one.anon_at_peak_bytes) == (cache * MIB, anon * MIB)
    assert one.peak_anon_bytes == 52 * MIB
    left = [(each.tgid, each.anon_bytes, each.file_bytes) for each in one.allocators]
    assert sorted(left) == [(41, 0, cache * MIB), (42, anon * MIB, 0)]


@pytest.mark.parametrize(
    ("readings", "since"), [("0011", 0.2), ("1101", 0.3), ("1110", None), ("0000", None), ("1111", 0.0)]
)
def test_held_with_waiting_tasks_and_no_oom_killer_is_stuck(
    trace: Any, readings: str, since: float | None
) -> None:
    trace.add("cgroups", cgroup_id=7, path="/a", created=trace.ns(0))
    for number, under_oom in enumerate(map(int, readings)):
        flags = {"oom_kill_disable": 1, "under_oom": under_oom}
        trace.add("samples", number / 10, cgroup_id=7, source="periodic", usage_bytes=MIB, **flags)
    (one,) = held_cgroups(trace)
    assert one.stuck_since == (None if since is None else utc_time(trace.ns(since)))


def test_held_peak_of_a_parent_counts_the_ledger_between_readings(trace: Any) -> None:
    """The parent's counter is read in samples and at the end of reclaim for it; the ledger fills the gaps."""
    limit = {"limit_bytes": 50 * MIB}
    for number, path in ((1, "/a"), (2, "/a/b")):
        trace.add("cgroups", cgroup_id=number, path=path, created=trace.ns(0))
    trace.add("samples", 0.1, cgroup_id=1, source="periodic", usage_bytes=2 * MIB, **limit)
    trace.charged(0.11, 2, "anon", 30 * MIB, usage_bytes=30 * MIB)
    trace.charged(0.12, 2, "anon", -30 * MIB, usage_bytes=0)
    trace.add("samples", 0.2, cgroup_id=1, source="periodic", usage_bytes=3 * MIB, **limit)
    (of_parent,) = (one for one in held_cgroups(trace) if one.cgroup == "/a")
    assert of_parent.peak_usage_bytes == 32 * MIB
    assert of_parent.peak_time == utc_time(trace.ns(0.11))
    line = timeline(trace, 1, every="10ms")["usage_bytes"]
    assert [line.iloc[-1], *line.loc[line > 3 * MIB]] == [3 * MIB, 32 * MIB]
    # An attempt's usage is read when it ends; the limit bounds charges that reach the ledger late.
    counters = {"usage_bytes": 49 * MIB, "limit_bytes": 50 * MIB}
    trace.add("reclaim", 0.13, kind="memcg", cgroup_id=1, duration_ns=10_000_000, **counters)
    trace.charged(0.15, 2, "anon", 9 * MIB, usage_bytes=9 * MIB)
    (of_parent,) = (one for one in held_cgroups(trace) if one.cgroup == "/a")
    assert (of_parent.peak_usage_bytes, of_parent.peak_time) == (50 * MIB, utc_time(trace.ns(0.15)))


def test_held_headroom_above_the_limit_is_0(trace: Any) -> None:
    """The kernel lets some charges pass (GFP_NOFAIL, __GFP_MEMALLOC), and a limit may be lowered."""
    trace.add("cgroups", cgroup_id=7, path="/a", created=trace.ns(0))
    trace.charged(0.1, 7, "anon", 40 * MIB, usage_bytes=40 * MIB + 4096, limit_bytes=40 * MIB)
    (one,) = held_cgroups(trace)
    assert one.headroom_bytes == 0


@pytest.mark.parametrize(("usage_mib", "headroom_mib"), [(20, 4), (40, 0)])
def test_held_headroom_of_a_lowered_limit_is_since_then(
    trace: Any, usage_mib: int, headroom_mib: int
) -> None:
    """The limit is lowered from 64 to 24 MiB at 4 s, and usage is at its peak of 40 MiB before."""
    trace.add("cgroups", cgroup_id=7, path="/a", created=trace.ns(0))
    for seconds, usage, limit in ((1, 40, 64), (3, usage_mib, 64), (4, min(usage_mib, 24), 24), (5, 9, 24)):
        read = {"usage_bytes": usage * MIB, "limit_bytes": limit * MIB}
        trace.add("samples", seconds, cgroup_id=7, source="periodic", **read)
    (one,) = held_cgroups(trace)
    assert one.headroom_bytes == headroom_mib * MIB
    why = "it was lowered later" + (", or a charge that cannot fail was let through" if headroom_mib else "")
    assert dict(survivor_facts.held(one))["peak usage"] == f"40 MiB, above the limit: {why}"


def test_held_summary_of_an_interrupted_recording_does_not_exclude_a_kill(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=7, path="/a", created=trace.ns(0))
    trace.charged(0.1, 7, "anon", 40 * MIB, usage_bytes=40 * MIB, limit_bytes=50 * MIB)
    whole = survivor_facts.summary(held_cgroups(trace))
    assert whole.startswith("No OOM kill: ")
    trace.meta["ended"] = None
    trace.meta["recorder_cgroup"] = "/a\x1b"
    text = survivor_facts.summary(held_cgroups(trace))
    assert not text.startswith("No OOM kill: ")
    assert "a kill after that cannot be excluded, and is likely: the recorder ran in /a\\x1b" in text


@pytest.mark.parametrize(
    ("meta", "cut_off"),
    [
        ({"end_reason": "SIGTERM"}, "the recording ended before its command"),
        ({"end_reason": "command_ended", "command_status": -9}, "its command was ended by SIGKILL"),
        ({"end_reason": "command_ended", "command_status": 0}, None),
    ],
)
def test_held_summary_says_that_the_work_was_cut_off(
    trace: Any, meta: dict[str, Any], cut_off: str | None
) -> None:
    trace.meta |= {"filters": {"asked": [], "command": ["work"]}} | meta
    trace.add("cgroups", cgroup_id=1, path="/work", created=trace.ns(0))
    trace.charged(1, 1, "anon", MIB, tgid=7, usage_bytes=MIB, limit_bytes=8 * MIB)
    (one,) = held_cgroups(trace)
    assert one.cut_off == cut_off
    sentence = f" The work was not complete: {cut_off}."
    assert (sentence in survivor_facts.summary([one])) is (cut_off is not None)


def test_held_has_the_processes_that_were_charged_until_the_peak(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/work", created=trace.ns(0))
    trace.add("tasks", tgid=7, comm="early", first_seen=trace.ns(0), exited=trace.ns(2))
    trace.charged(1, 1, "file", 3 * MIB, tgid=7, usage_bytes=3 * MIB)
    trace.charged(3, 1, "anon", 5 * MIB, tgid=8, usage_bytes=8 * MIB)
    trace.charged(4, 1, "anon", -5 * MIB, tgid=8, usage_bytes=3 * MIB)
    trace.charged(5, 1, "anon", 2 * MIB, tgid=9, usage_bytes=5 * MIB)
    (one,) = held_cgroups(trace)
    assert [(each.tgid, each.anon_bytes, each.file_bytes) for each in one.allocators] == [
        (8, 5 * MIB, 0),
        (7, 0, 3 * MIB),
    ]
    assert [each.exited is not None for each in one.allocators] == [False, True]


def test_what_the_kernel_had_counted_before_the_trace_is_no_event_of_it(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/old")
    trace.add("cgroups", cgroup_id=2, path="/once")
    read = {"usage_bytes": MIB, "limit_bytes": 9 * MIB, "high_bytes": 8 * MIB, "peak_bytes": 9 * MIB}
    for second, hits, above in ((0, 4756, 311), (3, 4773, 314)):
        counts = {"max_events": hits, "high_events": above}
        trace.add("samples", second, cgroup_id=1, source="periodic", **counts, **read)
    trace.add("samples", 3, cgroup_id=2, source="end", max_events=4756, high_events=311, **read)
    old, once = sorted(held_cgroups(trace), key=lambda one: one.cgroup)
    assert (old.max_events, old.high_events) == (17, 3)
    assert old.high_owner is not None and old.high_owner.high_events == 3
    assert (once.max_events, once.high_events) == (None, None)
    assert {"max_events", "high_events"} <= set(once.quality.unknown)
    assert once.high_owner is not None and once.high_owner.high_events is None
    assert "17 times" in dict(survivor_facts.held(old))["limit hit"]
    assert "once" in dict(survivor_facts.held(replace(old, max_events=1)))["limit hit"]


def test_held_without_a_kill_has_peak_and_headroom(trace: Any) -> None:
    limit = 100 * MIB
    trace.add("cgroups", cgroup_id=1, path="/near", created=trace.ns(0))
    trace.add("cgroups", cgroup_id=2, path="/free")
    trace.charged(1, 1, "anon", 40 * MIB, usage_bytes=40 * MIB, limit_bytes=limit)
    trace.charged(2, 1, "file", 58 * MIB, usage_bytes=98 * MIB, limit_bytes=limit)
    trace.charged(3, 1, "anon", -10 * MIB, usage_bytes=88 * MIB, limit_bytes=limit)
    trace.add("pagecache", 2.5, cgroup_id=1, op="delete", cause="reclaim_memcg", nr_pages=3)
    trace.add("reclaim", 2.5, kind="memcg", cgroup_id=1, reclaimed=3)
    trace.add("samples", 3, cgroup_id=1, source="end", max_events=12, peak_bytes=99 * MIB)
    trace.add("samples", 3, cgroup_id=2, source="end", usage_bytes=1, limit_bytes=0x7FFF_FFFF_FFFF_F000)
    assert explain(trace) == []
    near, free = held_cgroups(trace)
    assert (near.cgroup, near.limit_bytes, near.peak_usage_bytes, near.headroom_bytes) == (
        "/near",
        limit,
        99 * MIB,  # between two readings
        MIB,
    )
    assert near.peak_time == pd.Timestamp("2025-11-24T16:00:02.000000+00:00")
    assert (near.peak_anon_bytes, near.cache_at_peak_bytes) == (40 * MIB, 58 * MIB)
    assert (near.kernel_peak_bytes, free.kernel_peak_bytes) == (99 * MIB, None)
    assert (near.evicted_bytes, near.reclaim.reclaimed_pages, near.max_events) == (3 * 4096, 3, 12)
    assert (free.cgroup, free.headroom_bytes, free.peak_anon_bytes) == ("/free", None, None)
    assert free.quality.unknown["headroom_bytes"] == "no limit is set"
    assert json.loads(json.dumps(near.to_dict())) == near.to_dict()


@pytest.mark.parametrize(
    ("peaks", "most"),
    [
        ((97, 97), 90),  # from before the trace
        ((91, 97), 97),
        ((None, None), 90),
    ],
)
def test_held_peak_is_that_of_the_kernel_if_it_is_of_the_trace(
    trace: Any, peaks: tuple[int | None, int | None], most: int
) -> None:
    """The cgroup is older than the trace. Its anonymous memory was at 93 MiB for the ledger."""
    limit = 100 * MIB
    at_start = {"usage_bytes": 60 * MIB, "anon_bytes": 60 * MIB}
    for seconds, source, peak, usage in ((0, "start", peaks[0], 60), (3, "end", peaks[1], 80)):
        read = at_start if source == "start" else {"usage_bytes": usage * MIB}
        peak_bytes = None if peak is None else peak * MIB
        trace.add(
            "samples", seconds, cgroup_id=1, source=source, limit_bytes=limit, peak_bytes=peak_bytes, **read
        )
    trace.add("cgroups", cgroup_id=1, path="/a")
    trace.charged(1, 1, "anon", 30 * MIB, usage_bytes=90 * MIB, limit_bytes=limit)
    trace.charged(2, 1, "anon", 3 * MIB)
    trace.charged(2.1, 1, "anon", -9 * MIB)
    (one,) = held_cgroups(trace)
    least = max(most, 93)
    assert (one.peak_usage_bytes, one.headroom_bytes) == (least * MIB, (100 - least) * MIB)
    assert one.peak_anon_bytes == 93 * MIB
    assert f"came within {100 - least} MiB of its limit" in survivor_facts.summary([one])


def test_held_kernel_memory_is_split(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=7, path="/a", created=trace.ns(0))
    read = {"usage_bytes": 40 * MIB, "limit_bytes": 50 * MIB}
    parts = {"slab_reclaimable": 11, "slab_unreclaimable": 2, "kernel_stack": 3, "page_tables": 5}
    for category, mib in {"anon": 10, "kernel": 23, "sock": 7, **parts}.items():
        trace.charged(1, 7, category, mib * MIB, **read)
    (one,) = held_cgroups(trace)
    zeros = {"percpu": 0, "vmalloc": 0}
    assert one.kernel_at_peak_bytes == 30 * MIB
    assert one.kernel_parts_at_peak_bytes == {
        name: mib * MIB for name, mib in {**parts, "sock": 7, **zeros, "other": 2}.items()
    }
    split = (
        "kernel memory (11 MiB reclaimable slab, 7 MiB socket buffers, 5 MiB page tables, "
        "3 MiB kernel stacks, 2 MiB unreclaimable slab, 2 MiB other)"
    )
    assert f"30 MiB {split}" in dict(survivor_facts.in_brief(one))["made of"]


def test_held_processes_of_one_command_are_one_line_in_brief(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=7, path="/a", created=trace.ns(0))
    trace.add("tasks", tgid=9, comm="sh", cgroup_id=7, first_seen=trace.ns(0))
    for tgid, mib in ((3, 31), (4, 33), (5, 35), (6, 37)):
        trace.add("tasks", tgid=tgid, comm="worker", cgroup_id=7, first_seen=trace.ns(0))
        trace.charged(1 + tgid, 7, "anon", mib * MIB, tgid=tgid, usage_bytes=20 * tgid * MIB)
    trace.charged(8, 7, "anon", 40 * MIB, tgid=9, usage_bytes=200 * MIB)
    (one,) = held_cgroups(trace)
    lines = [text for label, text in survivor_facts.in_brief(one) if label == "allocated"]
    assert [line.partition(",")[0] for line in lines] == ["4 worker processes 136 MiB"]
    assert "at most 37 MiB each (136 MiB anonymous)" in lines[0]
    each = [text for label, text in survivor_facts.held(one) if " MiB (" in text and "anonymous)" in text]
    assert [line.split()[0] for line in each] == ["sh", *["worker"] * 4]


def test_zswap_of_a_survivor_is_memory_of_processes(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=7, path="/work", created=trace.ns(0))
    trace.charged(0.5, 7, "anon", 15 * MIB, tgid=9, usage_bytes=15 * MIB, limit_bytes=40 * MIB)
    trace.charged(1, 7, "kernel", 25 * MIB, usage_bytes=40 * MIB, limit_bytes=40 * MIB)
    trace.add("samples", 0.9, cgroup_id=7, source="periodic", zswap_bytes=24 * MIB)
    trace.meta["filters"] = {"stacks_bytes": MIB}
    for number, kind in enumerate(("anon", "slab")):
        trace.add("armed", 0.9, begin=trace.ns(0), kind=kind)
        trace.add("stacks", stack_id=number, frames=[f"{kind} [web]", "main [web]"])
        sample = {"cgroup_id": 7, "tgid": 9, "category": kind, "stack_id": number}
        for moment in range(9):
            trace.add("code_samples", 0.5 + moment / 100, bytes=MIB, **sample)
    (one,) = held_cgroups(trace)
    assert one.kernel_parts_at_peak_bytes["zswap"] == 24 * MIB
    assert one.kernel_parts_at_peak_bytes["other"] == MIB
    made_of = dict(survivor_facts.in_brief(one))["made of"]
    assert made_of.endswith("25 MiB kernel memory (24 MiB zswap, 1 MiB other)")
    assert {code.of for code in one.code} == {"anon"}


def test_spared_cgroups_are_those_without_a_kill(trace: Any) -> None:
    for number, path in enumerate(("/killed", "/lived", "/logged"), 1):
        trace.add("cgroups", cgroup_id=number, path=path, created=trace.ns(0))
        trace.charged(1, number, "anon", MIB, usage_bytes=MIB, limit_bytes=100 * MIB)
    record_kill(trace, 2)
    (report,) = explain(trace)
    from_the_log = replace(report, limit_owner=replace(report.limit_owner, cgroup="/logged", cgroup_id=None))
    for reports, spared in (
        ([], "killed lived logged"),
        ([report], "lived logged"),
        ([report, from_the_log], "lived"),
    ):
        found = held_cgroups(trace, without=with_kills(trace, reports))
        assert sorted(one.cgroup for one in found) == [f"/{name}" for name in spared.split()]


def test_cache_that_was_evicted_on_request_made_no_room_at_a_limit(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=7, path="/work", created=trace.ns(0))
    read = {"usage_bytes": 40 * MIB, "limit_bytes": 80 * MIB}
    trace.charged(0.1, 7, "file", 40 * MIB, **read)
    trace.add("samples", 0.2, cgroup_id=7, source="periodic", **read)
    row = {"cgroup_id": 7, "inode_id": 1, "index": 0, "nr_pages": 2560}
    trace.add("pagecache", 0.1, op="add", cause="read", tgid=41, **row)
    trace.add("pagecache", 1, op="delete", cause="reclaim_memcg", tgid=1, **row)
    taken = {"scanned": 2560, "reclaimed": 2560, "reclaimed_file": 2560, "duration_ns": 10**6}
    trace.add("reclaim", 1, kind="proactive", cgroup_id=7, task_cgroup_id=1, tgid=1, pid=1, **taken)
    (one,) = held_cgroups(trace)
    assert one.reclaim.requested_cache_pages == 2560
    facts = dict(survivor_facts.in_brief(one))
    assert facts["evicted"].startswith("10 MiB of page cache, on request (memory.reclaim, memory.force_")
    assert "10 MiB of page cache was evicted on request (memory.reclaim," in survivor_facts.summary([one])
    asked = cache_flow(trace, moves(trace, 7), 7)
    assert asked.evicted_on_request_bytes == asked.evicted_bytes == 10 * MIB
    trace.add("reclaim", 1, kind="memcg", cgroup_id=7, task_cgroup_id=7, tgid=41, pid=41, **taken)
    trace.add("pagecache", 1, op="delete", cause="reclaim_memcg", tgid=41, **row | {"index": 2560})
    (one,) = held_cgroups(trace)
    part = "20 MiB of page cache was evicted to make room (10 MiB of it on request)"
    assert part in survivor_facts.summary([one])
    assert dict(survivor_facts.in_brief(one))["evicted"].endswith("; 10 MiB of it on request")
    assert one.evicted_on_request_bytes == 10 * MIB


@pytest.mark.parametrize("old_mib", [64, None])
def test_limit_that_was_lowered_below_usage_is_told_of_a_survivor(trace: Any, old_mib: int | None) -> None:
    """At 1 s memory.max is lowered to 24 MiB, which takes 17 of 41 MiB. Reclaim reads it first."""
    trace.add("cgroups", cgroup_id=7, path="/work", created=trace.ns(0))
    old = UNLIMITED_BYTES if old_mib is None else old_mib * MIB
    trace.charged(0.1, 7, "file", 41 * MIB, usage_bytes=41 * MIB, limit_bytes=old)
    taken = {"scanned": 4352, "reclaimed": 4352, "reclaimed_file": 4352, "duration_ns": 10**6}
    at = {"usage_bytes": 24 * MIB, "limit_bytes": 24 * MIB}
    by = {"cgroup_id": 7, "task_cgroup_id": 1, "tgid": 1, "pid": 1}
    trace.add("reclaim", 1, kind="proactive", **by, **taken, **at)
    row = {"cgroup_id": 7, "inode_id": 1, "index": 0, "nr_pages": 4352}
    trace.add("pagecache", 0.1, op="add", cause="read", tgid=41, **row)
    trace.add("pagecache", 1, op="delete", cause="reclaim_memcg", tgid=1, **row)
    trace.charged(1.001, 7, "file", -17 * MIB, **at)
    trace.add("samples", 1.1, cgroup_id=7, source="periodic", **at)
    (one,) = held_cgroups(trace)
    (lowered,) = one.lowered
    assert lowered == LoweredLimit("memory.max", old, 24 * MIB, 41 * MIB, utc_time(trace.ns(1)))
    how = "lowered from 64 MiB while 41 MiB was in use" if old_mib else "set while 41 MiB was in use"
    assert dict(survivor_facts.in_brief(one))["limit"] == f"24 MiB, {how}"
    summary = survivor_facts.summary([one])
    assert f"reached its limit of 24 MiB ({how}); 17 MiB of page cache was evicted on request (" in summary
    assert one.to_dict()["lowered"][0]["is_limited"] is (old_mib is not None)


def test_usage_when_a_limit_of_v1_was_lowered_is_that_before_its_reclaim(trace: Any) -> None:
    """v1 lowers the limit when reclaim has made room; an earlier request took 9 MiB."""
    trace.add("cgroups", cgroup_id=7, path="/work", created=trace.ns(0))
    trace.charged(0.1, 7, "file", 50 * MIB, usage_bytes=50 * MIB, limit_bytes=64 * MIB)
    by = {"cgroup_id": 7, "tgid": 1, "pid": 1, "kind": "proactive", "limit_bytes": 64 * MIB}
    for at_s, left in ((0.5, 41), (1, 35), (1.03, 30), (1.06, 24)):
        trace.add("reclaim", at_s, duration_ns=2 * 10**7, usage_bytes=left * MIB, **by)
        trace.charged(at_s + 0.02, 7, "file", 0, usage_bytes=left * MIB, limit_bytes=64 * MIB)
    trace.charged(1.1, 7, "file", 0, usage_bytes=24 * MIB, limit_bytes=24 * MIB)
    (one,) = held_cgroups(trace)
    assert [(it.limit_bytes, it.usage_bytes) for it in one.lowered] == [(64 * MIB, 41 * MIB)]


def test_memory_high_that_was_lowered_below_usage_is_told_of_a_survivor(trace: Any) -> None:
    """At 1 s memory.high is lowered from 64 to 24 MiB; samples read it, the second after its reclaim."""
    trace.add("cgroups", cgroup_id=7, path="/work", created=trace.ns(0))
    for at_s, usage, high in ((0.5, 30, 64), (1.1, 24, 24), (1.2, 24, 24)):
        read = {"usage_bytes": usage * MIB, "limit_bytes": 90 * MIB, "high_bytes": high * MIB}
        trace.add("samples", at_s, cgroup_id=7, source="periodic", high_events=0, **read)
    for at_s, mib in ((0.1, 30), (0.6, 41), (1.05, 24)):
        trace.charged(at_s, 7, "file", 0, usage_bytes=mib * MIB, limit_bytes=90 * MIB)
    (one,) = held_cgroups(trace)
    assert one.lowered == (
        LoweredLimit("memory.high", 64 * MIB, 24 * MIB, 41 * MIB, utc_time(trace.ns(1.1))),
    )
    said = dict(survivor_facts.in_brief(one))
    assert said["memory.high"].startswith("24 MiB, lowered from 64 MiB while 41 MiB was in use, exceeded 0")
    assert said["limit"] == "90 MiB"


def test_request_that_also_swapped_evicted_cache_on_request(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=7, path="/work", created=trace.ns(0))
    trace.charged(0.1, 7, "file", 40 * MIB, usage_bytes=40 * MIB, limit_bytes=80 * MIB)
    row = {"cgroup_id": 7, "inode_id": 1, "index": 0, "nr_pages": 2560}
    trace.add("pagecache", 0.1, op="add", cause="read", tgid=41, **row)
    trace.add("pagecache", 1, op="delete", cause="reclaim_memcg", tgid=1, **row)
    taken = {"scanned": 3000, "reclaimed": 3000, "reclaimed_file": 2560, "reclaimed_anon": 440}
    trace.add("reclaim", 1, kind="proactive", cgroup_id=7, tgid=1, pid=1, duration_ns=10**6, **taken)
    assert "10 MiB of page cache was evicted on request" in survivor_facts.summary(held_cgroups(trace))
