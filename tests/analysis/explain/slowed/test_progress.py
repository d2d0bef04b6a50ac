"""The state of a cgroup: held, throttled or thrashing, and the stretch and processes that it is about."""

from __future__ import annotations

import json
from typing import Any

import pytest
from synthetic.crawling import DATA, MIB, PROGRAM, livelock, throttled

from tracer.analysis.explain.survivors import held_cgroups


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
