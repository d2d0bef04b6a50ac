"""Processes that share memory since a fork."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.evidence import numbers_of
from synthetic.findings import MIB, findings, grew, made_of
from synthetic.memcg_kill import LIMIT, only_report, record_kill

from tracer.analysis.explain.causes.registry import CAUSES
from tracer.analysis.explain.evidence.contributing import contributing
from tracer.analysis.explain.measure.findings import Findings, Fork
from tracer.analysis.explain.words.advice import advise
from tracer.analysis.results.kill import Candidate

FORK = Fork(7, "redis", 8, "rdb", 50 * MIB, 25 * MIB, 0, 3_000_000_000)
COPY = ("try_charge_memcg+0x1", "do_wp_page+0x2", "handle_mm_fault+0x3")


def weighed(pid: int, comm: str, anon_mib: int) -> Candidate:
    return Candidate(pid, comm, 9, 0, (anon_mib + 4) * MIB, False, anon_rss_bytes=anon_mib * MIB)


def forked(fork: Fork | None, stack: tuple[str, ...] | None = None) -> Findings:
    found = findings(made_of(anon=90), replace(grew(anon=40), fork=fork))
    return replace(
        found,
        candidates=(weighed(7, "redis", 70), weighed(8, "rdb", 60)),
        trigger=replace(found.trigger, stack=stack),
    )


def test_fork_whose_memory_is_mapped_twice_is_a_factor() -> None:
    pair = {"parent_comm": "redis", "parent_pid": 7, "child_comm": "rdb", "child_pid": 8}
    assert numbers_of(contributing(forked(FORK, COPY), CAUSES["anon_growth"]), "cow") == [
        pair | {"shared_bytes": 40 * MIB, "copied_bytes": 25 * MIB, "is_copying": True}
    ]
    assert numbers_of(contributing(forked(None, COPY), CAUSES["anon_growth"]), "cow") == [
        {"shared_bytes": 40 * MIB, "is_copying": True}
    ]


@pytest.mark.parametrize("anon_mib", [None, 26])
def test_memory_that_is_not_mapped_twice_is_no_factor(anon_mib: int | None) -> None:
    found = forked(FORK, COPY)
    second = replace(weighed(8, "rdb", 24), anon_rss_bytes=None if anon_mib is None else 24 * MIB)
    found = replace(found, candidates=(weighed(7, "redis", 70), second))
    assert numbers_of(contributing(found, CAUSES["anon_growth"]), "cow") == []


def test_shared_memory_that_is_not_copied_is_no_factor() -> None:
    idle = replace(FORK, copied_bytes=4 * MIB)
    for found in (forked(None, ("do_anonymous_page+0x1",)), forked(idle), forked(None)):
        assert numbers_of(contributing(found, CAUSES["anon_growth"]), "cow") == []


def test_advice_on_copies_replaces_that_on_growth() -> None:
    lines = advise(forked(FORK), "anon_growth")
    (line,) = [line for line in lines if "copied" in line]
    assert "redis (pid 7) and its child rdb (pid 8) share memory since a fork 3 s before" in line
    assert "Leave room for the 40 MiB" in line
    assert not any("Look for growth" in line for line in lines)
    little = forked(replace(FORK, copied_bytes=5 * MIB))
    assert not any("was copied" in line for line in advise(little, "anon_growth"))


@pytest.mark.parametrize(
    ("allocated_mib", "copied_mib", "expected_copied_mib"), [(0, 20, 20), (14, 6, 6), (20, 0, 0)]
)
def test_copies_since_the_fork_are_told_from_new_memory(
    trace: Any, allocated_mib: int, copied_mib: int, expected_copied_mib: int
) -> None:
    """The parent holds 60 MiB when it forks; later, it writes to some of that, and allocates more.

    The child is seen late, when half of that has been done.
    """
    trace.add("cgroups", cgroup_id=1, path="/redis", created=trace.ns(0))
    trace.add("tasks", tgid=7, comm="redis", first_seen=trace.ns(0))
    trace.add("tasks", tgid=8, comm="rdb", ppid=7, start_ns=5_000_000_000, first_seen=trace.ns(7))
    trace.charged(1, 1, "anon", 60 * MIB, tgid=7, usage_bytes=60 * MIB)
    for seconds in (6, 8):
        trace.charged(seconds, 1, "anon", (allocated_mib + copied_mib) * MIB // 2, tgid=7, usage_bytes=LIMIT)
    row = {"kill_id": 1, "cgroup_id": 1}
    for pid, comm, held in ((7, "redis", 60 + allocated_mib), (8, "rdb", 60)):
        rss = {"anon_rss_bytes": held * MIB, "rss_bytes": held * MIB + pid}
        trace.add(
            "oom_candidates", 9, pid=pid, tgid=pid, comm=comm, chosen=pid == 7, badness=held, **rss, **row
        )
    record_kill(trace, 9, pid=7, tgid=7, comm="redis")
    found = numbers_of(only_report(trace).verdict.contributing, "cow")
    if not expected_copied_mib:
        assert found == []
        return
    (numbers,) = found
    assert (numbers["parent_pid"], numbers["child_pid"]) == (7, 8)
    assert numbers["copied_bytes"] == expected_copied_mib * MIB
    assert numbers["shared_bytes"] == (60 - copied_mib) * MIB


@pytest.mark.parametrize(("file_mib", "ended_s"), [(4, 9.01), (1, 9.01), (4, None)])
def test_child_of_vfork_is_no_other_process(trace: Any, file_mib: int, ended_s: float | None) -> None:
    """It has all sizes of its parent, and ends with it. One that was forked, or lives on, is another one."""
    trace.add("cgroups", cgroup_id=1, path="/make", created=trace.ns(0))
    trace.add("tasks", tgid=7, comm="make", first_seen=trace.ns(0), exited=trace.ns(9.01))
    ended = None if ended_s is None else trace.ns(ended_s)
    trace.add("tasks", tgid=8, comm="cc", ppid=7, start_ns=5, first_seen=trace.ns(2), exited=ended)
    trace.charged(1, 1, "anon", 30 * MIB, tgid=7, usage_bytes=30 * MIB)
    trace.charged(8, 1, "anon", 70 * MIB, tgid=8, usage_bytes=LIMIT)
    for pid, comm, file in ((7, "make", 4), (8, "cc", file_mib)):
        rss = {"anon_rss_bytes": LIMIT, "rss_bytes": LIMIT + file * MIB, "shmem_rss_bytes": 0}
        of_pid = {"pid": pid, "tgid": pid, "comm": comm, "chosen": pid == 7, "badness": 9}
        trace.add("oom_candidates", 9, kill_id=1, cgroup_id=1, **of_pid, **rss)
    sizes = {
        "total_vm_bytes": 2 * LIMIT,
        "data_vm_bytes": LIMIT + MIB,
        "exec_vm_bytes": 0,
        "stack_vm_bytes": 0,
    }
    sizes |= {"anon_rss_bytes": LIMIT, "shmem_rss_bytes": 0, "swap_bytes": 0, "threads": 1}
    at_kill = dict.fromkeys(("file_bytes", "shmem_bytes", "kernel_bytes", "unevictable_bytes"), 0)
    at_kill |= dict.fromkeys(("file_dirty_bytes", "file_writeback_bytes", "slab_reclaimable_bytes"), 0)
    trace.add(
        "samples", 9, cgroup_id=1, source="oom", kill_id=1, usage_bytes=LIMIT, anon_bytes=LIMIT, **at_kill
    )
    asked = {"trigger_pid": 8, "trigger_tgid": 8, "trigger_comm": "cc"}
    record_kill(trace, 9, pid=7, tgid=7, comm="make", **asked, **sizes)
    report = only_report(trace)
    is_one = file_mib == 4 and ended_s is not None
    assert report.verdict.summary.startswith("make (pid 7) asked for more") == is_one
    assert any("Do not look only at" in line for line in report.advice) != is_one
