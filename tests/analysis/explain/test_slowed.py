"""Whether the work of a cgroup went on."""

from __future__ import annotations

import json
import math
from typing import Any

import pandas as pd
import pytest
from support.evidence import numbers_of
from synthetic.crawling import DATA, MIB, PROGRAM, livelock, throttled
from synthetic.memcg_kill import only_report, record_kill

from tracer.analysis.explain import slowed
from tracer.analysis.explain.survivors import held_cgroups
from tracer.analysis.results.kill import Sizing
from tracer.analysis.results.memory import Reclaim
from tracer.analysis.results.quality import Quality
from tracer.analysis.results.survivor import Crawl, Held, Progress
from tracer.render.words import survivor_facts
from tracer.schema import UNLIMITED_BYTES


def only(trace: Any) -> Any:
    (one,) = held_cgroups(trace)
    return one


def test_tasks_that_read_their_program_again_are_thrashing(trace: Any) -> None:
    livelock(trace)
    one = only(trace)
    assert one.progress.state == "thrashing"
    assert one.progress.lost.reread_ms == pytest.approx(18 * 3600)
    assert (one.progress.lost.work_ms, one.progress.lost.cpu_ms) == pytest.approx(
        (18 * 400 + 4000, 18 * 400 + 4000)
    )
    assert one.progress.lost_share == pytest.approx(18 * 3600 / (18 * 4000 + 4000))
    assert one.progress.crawl.begin.value == trace.ns(2)
    assert one.progress.crawl.lost_share == pytest.approx(0.9)
    assert one.progress.crawl.lasts
    (names,) = one.progress.delayed
    assert (names.comm, names.processes) == ("cc1plus", 4)
    (file,) = one.progress.files
    assert (file.path, file.refaulted_bytes, file.executable) == ("/usr/lib/gcc/cc1plus", 72 * MIB, True)
    assert json.loads(json.dumps(one.to_dict())) == one.to_dict()
    assert one.to_dict()["high_bytes"] is None


@pytest.mark.parametrize("born_s", [1, 7, 30])
def test_cgroup_that_is_made_during_the_trace_is_thrashing(trace: Any, born_s: int) -> None:
    """Its evictions and its lost time are in the same seconds, however old the trace is."""
    trace.add("cgroups", cgroup_id=3, path="/older", created=trace.ns(0))
    trace.charged(0, 3, "anon", MIB)
    livelock(trace, seconds=8, born_s=born_s)
    (one,) = (held for held in held_cgroups(trace) if held.cgroup == "/build")
    assert one.progress.state == "thrashing"
    assert one.progress.crawl is not None
    assert one.progress.crawl.begin.value == trace.ns(born_s + 2)
    assert one.progress.crawl.lost_share == pytest.approx(0.9)


def test_memory_that_creeps_up_beside_a_livelock_is_measured_against_the_room(trace: Any) -> None:
    """Nothing kills tasks that only read their program again; a leak beside them does."""
    livelock(trace)
    crawl = only(trace).progress.crawl
    assert (crawl.grown_bytes, crawl.room_bytes) == (0, 40 * MIB)
    assert crawl.is_flat()
    for second in range(2, 20):
        trace.charged(second + 0.5, 7, "anon", MIB, tgid=40)
    crawl = only(trace).progress.crawl
    # 18 MiB in 18 s; the peaks of the first and the last 6 s are 12 s apart.
    assert (crawl.grown_bytes, crawl.room_bytes) == (12 * MIB, 22 * MIB)
    assert crawl.grown_per_minute() == pytest.approx(60 * MIB, rel=0.05)
    assert not crawl.is_flat()


def test_tasks_above_memory_high_are_throttled(trace: Any) -> None:
    throttled(trace)
    one = only(trace)
    assert (one.progress.state, one.high_bytes, one.high_events) == ("throttled", 28 * MIB, 10)
    assert one.psi_some_share == pytest.approx(0.9)
    assert one.progress.lost.throttled_ms == pytest.approx(9000)
    assert one.to_dict()["high_bytes"] == 28 * MIB
    assert one.to_dict()["is_high_limited"] is True
    assert one.to_dict()["limit_bytes"] == 64 * MIB


@pytest.mark.parametrize(
    ("wait_s", "cpu_s", "state"),
    [(0.9, 0.1, "thrashing"), (0.5, 0.95, "thrashing"), (0.4, 0.9, "held"), (0.02, 0.001, "held")],
)
def test_state_begins_at_a_third_of_the_time_and_a_tenth_of_a_task(
    trace: Any, wait_s: float, cpu_s: float, state: str
) -> None:
    livelock(trace, wait_s=wait_s, cpu_s=cpu_s)
    one = only(trace)
    assert one.progress.state == state
    assert (one.progress.crawl is None) is (state == "held")
    assert one.progress.files


def test_crawl_is_the_worst_stretch_and_does_not_last_after_the_tasks_recovered(trace: Any) -> None:
    livelock(trace, seconds=20)
    for second in range(20, 60):
        begin, end = trace.ns(second), trace.ns(second + 1)
        trace.add("task_time", begin=begin, time=end, cgroup_id=7, cpu_ns=2_000_000_000)
    trace.charged(60, 7, "anon", 4096)
    one = only(trace)
    assert one.progress.state == "thrashing"
    assert one.progress.lost_share == pytest.approx(18 * 3600 / (18 * 4000 + 4000 + 80_000))
    assert one.progress.crawl.end.value == trace.ns(20)
    assert not one.progress.crawl.lasts


def test_reclaim_without_refaults_is_no_thrash(trace: Any) -> None:
    """A program that reads a large file once is delayed by reclaim, and held."""
    trace.add("cgroups", cgroup_id=7, path="/a", created=trace.ns(0))
    trace.charged(0, 7, "file", 4096)
    for second in range(8):
        row = {"cgroup_id": 7, "inode_id": DATA, "index": 256 * second, "nr_pages": 256}
        trace.add("pagecache", second, op="add", cause="readahead", **row)
        trace.add("pagecache", second + 0.5, op="delete", cause="reclaim_memcg", **row)
        reclaim = {"cgroup_id": 7, "task_cgroup_id": 7, "pid": 4, "tgid": 4, "duration_ns": 800_000_000}
        trace.add("reclaim", second, kind="memcg", **reclaim)
        begin, end = trace.ns(second), trace.ns(second + 1)
        trace.add("task_time", begin=begin, time=end, cgroup_id=7, cpu_ns=900_000_000)
    one = only(trace)
    assert one.progress.lost_share == pytest.approx(8 / 9)
    assert (one.progress.state, one.progress.crawl, one.progress.files) == ("held", None, ())


def test_state_of_an_older_trace_is_not_known(trace: Any) -> None:
    livelock(trace)
    trace.forget("task_time")
    trace.forget("tasks")
    one = only(trace)
    assert (one.progress.state, one.progress.lost_share, one.progress.lost) == (None, None, None)
    assert "older version" in one.quality.unknown["state"]
    assert [(file.path, file.executable) for file in one.progress.files] == [("/usr/lib/gcc/cc1plus", None)]


def test_file_that_no_task_executes_is_no_program(trace: Any) -> None:
    livelock(trace)
    trace.add("tasks", tgid=99, comm="other", cgroup_id=9, first_seen=trace.ns(0), exe_inode_id=DATA)
    row = {"cgroup_id": 7, "inode_id": DATA, "nr_pages": 9}
    trace.add("pagecache", 3, op="delete", cause="reclaim_memcg", **row)
    trace.add("pagecache", 3.5, op="add", cause="read", **row)
    found = {(file.refaulted_bytes, file.executable) for file in only(trace).progress.files}
    assert found == {(72 * MIB, True), (9 * 4096, False)}
    assert PROGRAM != DATA


NOT_EXCEEDED: dict[str, Any] = {"high_bytes": 50 * MIB, "high_events": 0, "peak_bytes": 31 * MIB}


def sampled(trace: Any, number: int, path: str, *, high_mib: int | None, peak_mib: int, events: int) -> None:
    """Add a cgroup whose count of events grows to `events`."""
    trace.add("cgroups", cgroup_id=number, path=path, created=trace.ns(0))
    high_bytes = UNLIMITED_BYTES if high_mib is None else high_mib * MIB
    read = {"high_bytes": high_bytes, "peak_bytes": peak_mib * MIB, "limit_bytes": UNLIMITED_BYTES}
    for second, count in ((0, 0), (9, events)):
        trace.add("samples", second, cgroup_id=number, source="periodic", high_events=count, **read)


def held(trace: Any, path: str = "/api") -> Held:
    (one,) = (one for one in held_cgroups(trace) if one.cgroup == path)
    return one


def test_own_memory_high_that_was_exceeded_is_the_owner(trace: Any) -> None:
    throttled(trace, effective_high_bytes=28 * MIB, peak_bytes=30 * MIB)
    sampled(trace, 1, "/", high_mib=None, peak_mib=90, events=10)
    one = held(trace)
    assert one.to_dict()["high_owner"] == {
        "cgroup": "/api",
        "container": None,
        "high_bytes": 28 * MIB,
        "is_high_limited": True,
        "high_events": 10,
        "is_ancestor": False,
        "file": "memory.high",
    }
    assert one.effective_high_bytes == 28 * MIB
    above = held(trace, "/").high_owner
    assert above is not None
    assert (above.cgroup, above.is_ancestor) == ("/api", False)


def test_ancestor_that_was_exceeded_is_the_owner_though_its_value_is_greater(trace: Any) -> None:
    throttled(trace, effective_high_bytes=50 * MIB, **NOT_EXCEEDED)
    sampled(trace, 1, "/", high_mib=70, peak_mib=71, events=6)
    one = held(trace)
    owner = one.high_owner
    assert owner is not None
    assert (owner.cgroup, owner.high_bytes, owner.high_events, owner.is_ancestor) == ("/", 70 * MIB, 6, True)
    assert "/, an ancestor of /api, was above its memory.high of 70 MiB" in survivor_facts.summary([one])


@pytest.mark.parametrize(("effective_mib", "known_mib"), [(40, 40), (50, None)])
def test_ancestor_that_was_not_traced_is_the_owner_without_a_name(
    trace: Any, effective_mib: int, known_mib: int | None
) -> None:
    """Its value is known only if it is the least one of all."""
    throttled(trace, effective_high_bytes=effective_mib * MIB, **NOT_EXCEEDED)
    one = held(trace)
    assert one.progress.state == "throttled"
    assert one.high_owner is not None
    assert one.high_owner.cgroup is None
    assert one.high_owner.high_bytes == (None if known_mib is None else known_mib * MIB)
    assert one.high_owner.is_ancestor
    assert one.quality.unknown["high_owner.cgroup"] == "the cgroup above was not traced"
    assert ("high_owner.high_bytes" in one.quality.unknown) == (known_mib is None)
    assert "a cgroup that was not traced, an ancestor of /api, was above" in survivor_facts.summary([one])


def test_own_memory_swap_high_that_was_exceeded_is_the_owner(trace: Any) -> None:
    """No memory.high is set: tasks wait above both in the same function."""
    unlimited = {"high_bytes": UNLIMITED_BYTES, "high_events": 0, "effective_high_bytes": UNLIMITED_BYTES}
    throttled(trace, swap_high_bytes=20 * MIB, swap_high_events=170, **unlimited)
    one = held(trace)
    owner = one.high_owner
    assert owner is not None
    assert (owner.file, owner.cgroup, owner.high_bytes) == ("memory.swap.high", "/api", 20 * MIB)
    assert owner.high_events == 170
    assert "/api was above its memory.swap.high of 20 MiB" in survivor_facts.summary([one])
    facts = dict(survivor_facts.in_brief(one))
    assert (
        facts["memory.swap.high"] == "20 MiB, exceeded 170 times: above it, tasks are throttled, never killed"
    )
    assert "memory.high" not in str(facts)


def test_count_of_a_cgroup_below_is_not_its_parents(trace: Any) -> None:
    """Both counts grew, and the parent never used more than its memory.high."""
    throttled(trace, effective_high_bytes=28 * MIB, peak_bytes=30 * MIB)
    sampled(trace, 1, "/", high_mib=60, peak_mib=59, events=10)
    above = held(trace, "/").high_owner
    assert above is not None
    assert (above.cgroup, above.high_bytes) == ("/api", 28 * MIB)


def test_least_memory_high_is_the_owner_where_none_was_exceeded(trace: Any) -> None:
    sampled(trace, 1, "/a", high_mib=60, peak_mib=9, events=0)
    sampled(trace, 2, "/a/b", high_mib=70, peak_mib=9, events=0)
    sampled(trace, 3, "/c", high_mib=None, peak_mib=9, events=0)
    owner = held(trace, "/a/b").high_owner
    assert owner is not None
    assert (owner.cgroup, owner.high_bytes, owner.is_ancestor) == ("/a", 60 * MIB, True)
    none = held(trace, "/c")
    assert none.high_owner is None
    assert "no memory.high is set" in none.quality.unknown["high_owner"]


BEGIN = pd.Timestamp("2025-11-24 23:40:01", tz="UTC")


def survivor(
    cgroup: str, *, lost_share: float | None = None, room_mib: int | None = 50, **changes: Any
) -> Held:
    """Return a cgroup with a limit of 100 MiB that came so near to it, and lost this share of its time."""
    crawl = None if lost_share is None else Crawl(BEGIN, BEGIN + pd.Timedelta("6s"), lost_share, True)
    fields: dict[str, Any] = {
        "container": None,
        "limit_bytes": UNLIMITED_BYTES if room_mib is None else 100 * MIB,
        "peak_usage_bytes": 50 * MIB,
        "peak_time": BEGIN,
        "headroom_bytes": None if room_mib is None else room_mib * MIB,
        "peak_anon_bytes": None,
        "cache_at_peak_bytes": None,
        "evicted_bytes": 0,
        "refaulted_bytes": None,
        "kernel_refaulted_bytes": None,
        "max_events": None,
        "reclaim": Reclaim(0, 0, 0, 0.0, ()),
        "sizing": Sizing(None),
        "quality": Quality(0, "missing", {}),
        "progress": Progress(state=None if crawl is None else "thrashing", crawl=crawl),
    }
    return Held(cgroup, **(fields | changes))


def test_slowest_cgroup_is_the_deepest_with_a_limit() -> None:
    root, pod = (survivor(path, lost_share=0.85, room_mib=None) for path in ("/", "/pod/a/b"))
    container, held = survivor("/pod/a", lost_share=0.86), survivor("/held")
    stuck = survivor("/x/y/z", lost_share=0.99, stuck_since=BEGIN)
    assert slowed.slowest([root, pod, container, stuck, held]) is container
    assert slowed.slowest([held, stuck]) is None


def test_room_is_a_share_of_the_limit() -> None:
    assert slowed.room_left(survivor("/a", room_mib=25)) == 0.25
    assert slowed.room_left(survivor("/a", room_mib=None)) == math.inf


def test_slowest_cgroup_comes_first_and_then_the_nearest_to_its_limit() -> None:
    free, far, near = survivor("/free", room_mib=None), survivor("/far"), survivor("/near", room_mib=1)
    slow = survivor("/slow", lost_share=0.8, room_mib=90)
    assert slowed.foremost_first([free, far, near]) == [near, far, free]
    assert slowed.foremost_first([free, far, slow, near]) == [slow, near, far, free]
    assert slowed.foremost_first([]) == []


def test_waits_above_memory_high_before_a_kill_are_told_and_left_out_of_its_pace(trace: Any) -> None:
    """From 30 MiB to the limit of 64 MiB it took 10 s, of which the task waited 9 s."""
    throttled(trace, seconds=10, usage_bytes=60 * MIB, high_bytes=40 * MIB, peak_bytes=64 * MIB)
    for second in range(1, 10):
        usage = (30 + 34 * second // 9) * MIB
        grown = 34 * MIB // 9
        trace.charged(second, 8, "anon", grown, tgid=60, usage_bytes=usage, limit_bytes=64 * MIB)
    killed = {"limit_owner_cgroup_id": 8, "cgroup_id": 8, "trigger_cgroup_id": 8, "tgid": 60, "pid": 60}
    record_kill(trace, 10, usage_bytes=64 * MIB, limit_bytes=64 * MIB, **killed)
    report = only_report(trace)
    (told,) = numbers_of(report.verdict.contributing, "throttled")
    assert told["file"] == "memory.high"
    assert told["high_bytes"] == 40 * MIB
    assert told["waited_ns"] == 9_000_000_000
    assert "without 9.09 s in which tasks hardly ran" in report.sizing.pace
    assert report.advice[-1] == (
        "Raise the memory.high of 40 MiB with the limit, or remove it: above it, tasks are throttled."
    )
