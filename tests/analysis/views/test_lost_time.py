"""The time that tasks lose: exact on synthetic tables, and of nobody else's memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from synthetic.crawling import DATA, PROGRAM, livelock, throttled

from tracer.analysis.core.subtree import Subtrees
from tracer.analysis.views.lost_time import Spending, lost_time, total_lost_share


def test_lost_time_of_a_livelock_is_that_of_its_reads(trace: Any) -> None:
    livelock(trace, seconds=5)
    found = lost_time(trace)
    assert found["cgroup"].unique().tolist() == ["/build"]
    assert found["reread_ms"].tolist() == [0, 0, 3600, 3600, 3600]
    assert found["cpu_ms"].tolist() == pytest.approx([2000, 2000, 400, 400, 400])
    assert found["work_ms"].tolist() == pytest.approx(found["cpu_ms"].tolist())
    assert found["first_read_ms"].tolist() == [0] * 5
    assert found["lost_share"].tolist() == pytest.approx([0, 0, 0.9, 0.9, 0.9])


@pytest.mark.parametrize(("first", "again", "share"), [(300, 100, 0.25), (0, 7, 1.0), (50, 0, 0.0)])
def test_wait_for_a_file_counts_by_the_pages_that_came_back_in_that_second(
    trace: Any, first: int, again: int, share: float
) -> None:
    trace.add("cgroups", cgroup_id=7, path="/a", created=trace.ns(0))
    trace.charged(0, 7, "file", 4096)
    trace.add("task_time", begin=trace.ns(0), time=trace.ns(4), cgroup_id=7, cpu_ns=4_000_000)
    row = {"cgroup_id": 7, "inode_id": DATA}
    trace.add("pagecache", 0.5, op="delete", cause="reclaim_memcg", nr_pages=1000, **row)
    if again:
        trace.add("pagecache", 2.1, op="add", cause="read", nr_pages=again, **row)
    if first:
        trace.add("pagecache", 2.2, op="add", cause="readahead", index=1000, nr_pages=first, **row)
    trace.add("pagecache", 3.2, op="add", cause="readahead", index=2000, nr_pages=999, **row)
    trace.add("file_waits", 2.3, cgroup_id=7, tgid=4, inode_id=DATA, waits=1, wait_ns=80_000_000)
    trace.add("file_waits", 2.3, cgroup_id=7, tgid=4, inode_id=None, waits=1, wait_ns=70_000_000)
    found = lost_time(trace).iloc[2]
    assert found["reread_ms"] == pytest.approx(80 * share)
    assert found["first_read_ms"] == pytest.approx(80 * (1 - share))
    assert found["cpu_ms"] == pytest.approx(1)


def test_wait_without_additions_in_its_second_has_the_share_of_the_file(trace: Any) -> None:
    livelock(trace, seconds=4)
    trace.add("file_waits", 1.5, cgroup_id=7, tgid=40, inode_id=PROGRAM, waits=1, wait_ns=90_000_000)
    trace.add("file_waits", 1.5, cgroup_id=7, tgid=40, inode_id=999, waits=1, wait_ns=90_000_000)
    # It was added three times, and had been evicted before two of these.
    assert lost_time(trace)["reread_ms"].tolist() == pytest.approx([0, 60, 3600, 3600])


def test_wait_after_the_last_event_has_the_share_of_its_own_file(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=7, path="/a", created=trace.ns(0))
    trace.charged(0, 7, "file", 4096)
    row = {"cgroup_id": 7, "nr_pages": 10}
    for inode_id in (PROGRAM, DATA):
        trace.add("pagecache", 0.1, op="add", cause="read", inode_id=inode_id, **row)
    trace.add("pagecache", 0.5, op="delete", cause="reclaim_memcg", inode_id=PROGRAM, **row)
    trace.add("pagecache", 0.9, op="add", cause="read", inode_id=PROGRAM, **row)
    for inode_id in (PROGRAM, DATA):
        trace.add("file_waits", 1.1, cgroup_id=7, tgid=4, inode_id=inode_id, waits=1, wait_ns=80_000_000)
    assert Spending(trace).reread_ns(Subtrees(trace).subtree_at(7)).tolist() == [40_000_000, 0]


def test_what_another_cgroup_had_lost_is_a_first_read(trace: Any) -> None:
    for number, path in ((7, "/a"), (8, "/b")):
        trace.add("cgroups", cgroup_id=number, path=path, created=trace.ns(0))
        trace.charged(0, number, "file", 4096)
    row = {"inode_id": DATA, "nr_pages": 10}
    trace.add("pagecache", 1, op="delete", cause="reclaim_memcg", cgroup_id=7, **row)
    trace.add("pagecache", 2, op="add", cause="read", cgroup_id=8, **row)
    trace.add("file_waits", 2, cgroup_id=8, tgid=4, inode_id=DATA, waits=1, wait_ns=80_000_000)
    trace.add("task_time", begin=trace.ns(2), time=trace.ns(3), cgroup_id=8, cpu_ns=20_000_000)
    (found,) = lost_time(trace, "/b")[["reread_ms", "first_read_ms", "lost_share"]].to_numpy().tolist()
    assert found == [0, 80, 0]


@pytest.mark.parametrize(
    ("cpu_ms", "reclaim_ms", "work_ms"),
    [(None, [100, 300], [400, 450]), (80, [20, 310], [480, 440])],
)
def test_reclaim_is_lost_and_no_work_and_its_waits_use_no_cpu(
    trace: Any, cpu_ms: int | None, reclaim_ms: list[float], work_ms: list[float]
) -> None:
    """400 ms of reclaim, 250 ms of it throttled; of the rest, `cpu_ms` on a CPU and not waiting for one."""
    trace.add("cgroups", cgroup_id=7, path="/a", created=trace.ns(0))
    trace.charged(0, 7, "anon", 4096)
    ms = 1_000_000
    task = {"task_cgroup_id": 7, "pid": 4, "tgid": 4, "duration_ns": 400 * ms}
    cpu_ns = None if cpu_ms is None else cpu_ms * ms
    trace.add("reclaim", 0.9, kind="memcg", cgroup_id=9, cpu_ns=cpu_ns, **task)
    trace.add("reclaim", 1.5, kind="kswapd", cgroup_id=7, cpu_ns=cpu_ns, **task | {"pid": 9, "tgid": 9})
    trace.add("stalls", 1.0, kind="writeback", cgroup_id=7, pid=4, tgid=4, duration_ns=250 * ms)
    trace.add("stalls", 1.6, kind="swap_in", cgroup_id=7, pid=4, tgid=4, duration_ns=30 * ms)
    trace.add("stalls", 1.7, kind="dirty", cgroup_id=7, pid=4, tgid=4, duration_ns=70 * ms)
    trace.add("task_time", begin=trace.ns(0), time=trace.ns(2), cgroup_id=7, cpu_ns=1000 * ms)
    found = lost_time(trace)
    assert found["reclaim_ms"].tolist() == pytest.approx(reclaim_ms)
    assert found["swap_in_ms"].tolist() == pytest.approx([0, 30])
    assert found["work_ms"].tolist() == pytest.approx(work_ms)
    lost = np.add(reclaim_ms, [0, 30])
    assert found["lost_share"].tolist() == pytest.approx((lost / (lost + work_ms)).tolist())


def test_time_above_memory_high_is_lost(trace: Any) -> None:
    throttled(trace, seconds=4)
    found = lost_time(trace, "/api")
    assert found["throttled_ms"].tolist() == pytest.approx([900] * 4)
    assert found["lost_share"].tolist() == pytest.approx([900 / 990] * 4)


def test_lost_time_of_a_parent_is_that_of_all_below_it(trace: Any) -> None:
    livelock(trace, seconds=4)
    throttled(trace, seconds=4)
    trace.add("cgroups", cgroup_id=1, path="/", created=trace.ns(0))
    found = lost_time(trace, 1)
    assert found["cpu_ms"].tolist() == pytest.approx([2090, 2090, 490, 490])
    assert found["reread_ms"].tolist() == [0, 0, 3600, 3600]
    assert found["throttled_ms"].tolist() == pytest.approx([900] * 4)


def test_total_lost_share_is_that_of_the_cgroup_and_those_below_it(trace: Any) -> None:
    livelock(trace, seconds=4)
    trace.add("cgroups", cgroup_id=1, path="/", created=trace.ns(0))
    lost, all_of_it = 7200, 7200 + 4800
    assert total_lost_share(trace, 1) == total_lost_share(trace, 7) == pytest.approx(lost / all_of_it)
    trace.forget("task_time")
    assert total_lost_share(trace, 7) is None


def test_trace_without_task_times_does_not_know_the_share(trace: Any) -> None:
    livelock(trace, seconds=4)
    trace.forget("task_time")
    found = lost_time(trace)
    assert found[["cpu_ms", "work_ms", "reread_ms", "lost_share"]].isna().all(axis=None)
    trace.forget("cgroups")
    assert list(lost_time(type(trace)()).columns) == list(found.columns)
    assert lost_time(type(trace)())["cgroup_id"].dtype == np.int64
