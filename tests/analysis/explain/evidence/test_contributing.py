"""Factors beside the cause of a kill."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from support.evidence import kinds_of, numbers_of
from synthetic.findings import GFP_NOFS, LIMIT, MIB, SECOND, findings, grew, made_of, trigger, victim
from synthetic.memcg_kill import only_report, record_kill

from tracer.analysis.explain.causes.registry import CAUSES
from tracer.analysis.explain.evidence.contributing import contributing, who_grew
from tracer.analysis.explain.measure import composition
from tracer.analysis.explain.measure.findings import Circumstances, Findings, Fork, Holder, Rise, Swap
from tracer.analysis.explain.measure.window import Window
from tracer.analysis.explain.words.advice import advise
from tracer.analysis.results.kill import Candidate, Cause, LimitOwner
from tracer.analysis.results.memory import Allocator, Cushion


def weighed(pid: int, held: int, adj: int = 0, *, chosen: bool = False) -> Candidate:
    return Candidate(pid, "sh", held, adj, held * 4096, chosen, held, 0)


@pytest.mark.parametrize(
    ("killed_adj", "larger_adj", "is_found"), [(500, 0, True), (0, -900, True), (0, 0, False)]
)
def test_larger_process_spared_by_oom_score_adj_is_found(
    killed_adj: int, larger_adj: int, is_found: bool
) -> None:
    candidates = (weighed(41, 10, killed_adj, chosen=True), weighed(42, 20, larger_adj))
    found = findings(made_of(anon=97), grew(anon=97), candidates=candidates)
    expected = {
        **{"killed_comm": "sh", "killed_pid": 41, "killed_oom_score_adj": killed_adj},
        **{"larger_comm": "sh", "larger_pid": 42, "larger_oom_score_adj": larger_adj},
        **{"killed_held_bytes": 40 << 10, "larger_held_bytes": 80 << 10},
    }
    items = numbers_of(contributing(found, CAUSES["anon_growth"]), "larger_process_lived")
    assert items == ([expected] if is_found else [])


def test_larger_process_when_a_group_was_killed_is_not_found() -> None:
    candidates = (weighed(41, 10, 500, chosen=True), weighed(42, 20))
    several = [victim(41, "sh"), victim(43, "sh")]
    found = findings(made_of(anon=97), grew(anon=97), candidates=candidates, victims=several)
    assert "larger_process_lived" not in kinds_of(contributing(found, CAUSES["anon_growth"]))


def test_many_small_processes_are_counted_together() -> None:
    many = tuple(weighed(100 + number, 500, chosen=not number) for number in range(50))
    found = findings(made_of(anon=97), grew(anon=97), candidates=many)
    assert numbers_of(contributing(found, CAUSES["anon_growth"]), "many_processes") == [
        {"processes": 50, "largest_bytes": 500 * 4096}
    ]
    assert any("what starts so many processes (50)" in line for line in advise(found, "anon_growth"))
    few = replace(found, candidates=many[:9])
    assert "many_processes" not in kinds_of(contributing(few, CAUSES["anon_growth"]))


def alike(comm: str, *mib: int) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(200 + at, comm, None, 0, size * MIB, False, anon_rss_bytes=size * MIB)
        for at, size in enumerate(mib)
    )


def test_processes_of_one_command_are_told_together() -> None:
    jobs = alike("cc1plus", 25, 21, 17, 3)  # the last one has only begun
    found = findings(made_of(anon=90), grew(anon=90), candidates=(*jobs, *alike("make", 2)))
    assert numbers_of(contributing(found, CAUSES["anon_growth"]), "same_command") == [
        {"comm": "cc1plus", "processes": 3, "held_bytes": 63 * MIB, "largest_bytes": 25 * MIB}
    ]
    (line,) = (line for line in advise(found, "anon_growth") if "cc1plus" in line)
    assert line == (
        "Run fewer cc1plus processes at a time, or leave room for all: 3 of them held 63 MiB together, at "
        "most 25 MiB each."
    )


def test_processes_whose_names_differ_by_a_number_are_told_together() -> None:
    jobs = tuple(alike(f"worker-{number}", 20 + number)[0] for number in range(3))
    found = findings(made_of(anon=90), grew(anon=90), candidates=jobs)
    assert numbers_of(contributing(found, CAUSES["anon_growth"]), "same_command") == [
        {"comm": "worker-*", "processes": 3, "held_bytes": 63 * MIB, "largest_bytes": 22 * MIB}
    ]


@pytest.mark.parametrize(
    ("composition", "candidates"),
    [
        ({"anon": 90}, alike("cc1plus", 85)),
        ({"anon": 90}, (*alike("cc1plus", 45), *alike("ld", 40))),
        ({"anon": 90}, alike("cc1plus", 55, 20)),  # one holds most
        ({"anon": 90}, alike("cc1plus", 25, 20)),  # less than half of usage
        ({"anon": 60}, alike("python3", 50, 48)),  # shared since a fork
    ],
)
def test_processes_of_one_command_that_are_not_the_reason_are_not_told(
    composition: dict[str, int], candidates: tuple[Candidate, ...]
) -> None:
    found = findings(made_of(**composition), grew(**composition), candidates=candidates)
    assert "same_command" not in kinds_of(contributing(found, CAUSES["anon_growth"]))


@pytest.mark.parametrize(
    ("cmdline", "outside"), [("java -Xmx64m A", 26), ("java -Xmx89m A", None), ("java A", None)]
)
def test_memory_outside_of_the_heap_is_found(cmdline: str, outside: int | None) -> None:
    killed = replace(victim(41, "java"), anon_rss_bytes=90 * MIB, cmdline=cmdline)
    found = findings(made_of(anon=92), grew(anon=92), victims=[killed])
    numbers = numbers_of(contributing(found, CAUSES["anon_growth"]), "outside_heap")
    assert [one["outside_bytes"] for one in numbers] == ([] if outside is None else [outside * MIB])


@pytest.mark.parametrize("threads", [None, 31, 32])
def test_many_threads_of_the_killed_process_are_found(threads: int | None) -> None:
    killed = replace(victim(41, "work"), anon_rss_bytes=35 * MIB, threads=threads)
    found = findings(made_of(anon=92), grew(anon=92), victims=[killed])
    assert ("many_threads" in kinds_of(contributing(found, CAUSES["anon_growth"]))) == (threads == 32)


def test_every_factor_of_a_mixed_kill_is_found() -> None:
    around = Circumstances(
        grown_bytes={"anon": 60 * MIB, "shmem": 0, "kernel": 0, "sock": 0},
        rise=Rise(60 * MIB, SECOND),
        swap=Swap(0, 0, False),
        protected_bytes=3 * MIB,
        holders=(Holder("big", 61 * MIB, False), Holder("small", 37 * MIB, True), Holder(None, MIB, False)),
        dying_bytes=7 * MIB,
        dirty_wait_ms=1250.0,
    )
    found = findings(
        made_of(anon=68, page_tables=6, shmem=8, file_dirty=9, file_clean=9),
        around,
        owner=LimitOwner("/a", None, None, LIMIT, LIMIT, True),
        trigger=trigger(GFP_NOFS),
        cushion=Cushion(0, 0, 5 * MIB, 0, refaulted_bytes=2 * MIB),
    )
    items = contributing(found, CAUSES["anon_growth"])
    assert [(item.kind, dict(item.numbers)) for item in items] == [
        (
            "shared_limit",
            {
                "holders": (
                    {"cgroup": "big", "held_bytes": 61 * MIB, "is_triggers": False},
                    {"cgroup": "small", "held_bytes": 37 * MIB, "is_triggers": True},
                    {"held_bytes": MIB, "is_triggers": False},
                )
            },
        ),
        ("also_in_usage", {"part": "shmem", "held_bytes": 8 * MIB, "usage_bytes": LIMIT}),
        ("also_in_usage", {"part": "page_tables", "held_bytes": 6 * MIB, "usage_bytes": LIMIT}),
        ("also_in_usage", {"part": "unwritten", "held_bytes": 9 * MIB, "usage_bytes": LIMIT}),
        ("burst", {"grown_bytes": 60 * MIB, "rise_ns": SECOND, "calm_ns": 9 * SECOND}),
        ("refaulted_cache", {"refaulted_bytes": 2 * MIB, "evicted_bytes": 5 * MIB}),
        ("no_swap", {}),
        ("protected_memory", {"protected_bytes": 3 * MIB}),
        ("writer_waits", {"waited_ms": 1250.0}),
        ("restricted_request", {"gfp": GFP_NOFS}),
        ("dying_cgroups", {"held_bytes": 7 * MIB}),
        ("clean_cache_left", {"held_bytes": 6 * MIB}),
    ]


def test_factors_that_the_cause_states_are_left_out() -> None:
    around = replace(grew(anon=40), protected_bytes=55 * MIB, swap=Swap(MIB, None, False))
    found = findings(made_of(anon=10, shmem=20, file_clean=57), around, trigger=trigger(GFP_NOFS))
    kinds = {
        cause: kinds_of(contributing(found, CAUSES[cause]))
        for cause in ("shmem", "protected_cache", "gfp_constrained", "swap_exhausted")
    }
    assert "also_in_usage" not in kinds["shmem"] and "unmapped_shmem" in kinds["shmem"]
    assert not {"protected_memory", "clean_cache_left"} & set(kinds["protected_cache"])
    assert not {"restricted_request", "clean_cache_left"} & set(kinds["gfp_constrained"])
    assert "swap_in_use" not in kinds["swap_exhausted"]
    for cause, others in (("shmem", "protected_memory"), ("protected_cache", "restricted_request")):
        assert others in kinds[cause]


def test_growth_over_an_hour_is_slow() -> None:
    around = replace(grew(anon=90), rise=Rise(90 * MIB, 3600 * SECOND))
    found = findings(made_of(anon=97), around, window=Window(0, 0, 4500 * SECOND))
    (slow,) = numbers_of(contributing(found, CAUSES["anon_growth"]), "slow_growth")
    assert slow == {
        "grown_bytes": 90 * MIB,
        "rise_ns": 3600 * SECOND,
        "bytes_per_minute": 72 * MIB // 60,
    }


@pytest.mark.parametrize(("lost_s", "calm_s"), [(0, 9), (5, 4), (8, None)])
def test_time_that_tasks_lost_is_no_calm_before_a_burst(lost_s: int, calm_s: int | None) -> None:
    around = replace(grew(anon=90), rise=Rise(90 * MIB, SECOND, lost_s * SECOND))
    bursts = numbers_of(contributing(findings(made_of(anon=97), around), CAUSES["anon_growth"]), "burst")
    assert [one["calm_ns"] // SECOND for one in bursts] == ([] if calm_s is None else [calm_s])


def test_kill_of_the_whole_machine_has_no_factors() -> None:
    found = findings(made_of(anon=97), grew(anon=97), constraint="global")
    assert contributing(found, CAUSES["global_pressure"]) == ()


def test_memory_in_transit_is_not_kernel_memory() -> None:
    """The count of all kernel memory bounds the part of the rest that the kernel holds."""
    made = made_of(anon=55, slab_unreclaimable=2, zswap=3)
    counted = findings(made, replace(grew(anon=60), kernel_bytes=9 * MIB))
    assert composition.kernel_bytes(counted) == 6 * MIB, "zswap holds pages of processes"
    assert composition.largest_kernel_part(counted) == ("other", 4 * MIB)
    (found,) = [
        item for item in contributing(counted, CAUSES["anon_growth"]) if item.kind == "memory_in_transit"
    ]
    assert dict(found.numbers) == {"held_bytes": 36 * MIB}
    uncounted = findings(made, grew(anon=60))
    assert composition.kernel_bytes(uncounted) == 42 * MIB
    assert "memory_in_transit" not in {item.kind for item in contributing(uncounted, CAUSES["anon_growth"])}


FORK = Fork(7, "redis", 8, "rdb", 50 * MIB, 25 * MIB, 0, 3_000_000_000)
COPY = ("try_charge_memcg+0x1", "do_wp_page+0x2", "handle_mm_fault+0x3")


def forking(pid: int, comm: str, anon_mib: int) -> Candidate:
    return Candidate(pid, comm, 9, 0, (anon_mib + 4) * MIB, False, anon_rss_bytes=anon_mib * MIB)


def forked(fork: Fork | None, stack: tuple[str, ...] | None = None) -> Findings:
    found = findings(made_of(anon=90), replace(grew(anon=40), fork=fork))
    return replace(
        found,
        candidates=(forking(7, "redis", 70), forking(8, "rdb", 60)),
        trigger=replace(found.trigger, stack=stack),
    )


def test_children_that_share_with_one_parent_are_counted() -> None:
    found = forked(replace(FORK, children=4), COPY)
    (numbers,) = numbers_of(contributing(found, CAUSES["anon_growth"]), "cow")
    assert numbers["children"] == 4
    (line,) = [line for line in advise(found, "anon_growth") if "copied" in line]
    assert "redis (pid 7) and its 4 children share memory since their forks, rdb (pid 8) 3 s before" in line


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
    second = replace(forking(8, "rdb", 24), anon_rss_bytes=None if anon_mib is None else 24 * MIB)
    found = replace(found, candidates=(forking(7, "redis", 70), second))
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

    The child is seen late, when half of that has been done. A sum of what the parent was charged before the
    fork comes 8 ms after that.
    """
    trace.add("cgroups", cgroup_id=1, path="/redis", created=trace.ns(0))
    trace.add("tasks", tgid=7, comm="redis", first_seen=trace.ns(0))
    trace.add("tasks", tgid=8, comm="rdb", ppid=7, start_ns=5_000_000_000, first_seen=trace.ns(7))
    for seconds, mib in ((1, 50), (5.008, 10)):
        trace.charged(seconds, 1, "anon", mib * MIB, tgid=7, usage_bytes=60 * MIB)
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


def test_copies_of_all_children_of_a_parent_count(trace: Any) -> None:
    """One child copies 10 MiB, the other one 25 MiB, and allocates 5 MiB."""
    trace.add("cgroups", cgroup_id=1, path="/store", created=trace.ns(0))
    trace.add("tasks", tgid=7, comm="redis", first_seen=trace.ns(0))
    trace.charged(1, 1, "anon", 60 * MIB, tgid=7, usage_bytes=60 * MIB)
    held = {7: 60, 8: 60, 9: 65}
    for pid, charged_mib in ((8, 10), (9, 30)):
        trace.add("tasks", tgid=pid, comm="rdb", ppid=7, start_ns=5_000_000_000, first_seen=trace.ns(7))
        trace.charged(pid, 1, "anon", charged_mib * MIB, tgid=pid, usage_bytes=LIMIT)
    for pid, held_mib in held.items():
        sizes = {"anon_rss_bytes": held_mib * MIB, "rss_bytes": held_mib * MIB + pid, "badness": held_mib}
        of_pid = {"pid": pid, "tgid": pid, "comm": "redis" if pid == 7 else "rdb", "chosen": pid == 7}
        trace.add("oom_candidates", 9.5, kill_id=1, cgroup_id=1, **of_pid, **sizes)
    record_kill(trace, 9.5, pid=7, tgid=7, comm="redis")
    (numbers,) = numbers_of(only_report(trace).verdict.contributing, "cow")
    assert (numbers["parent_pid"], numbers["children"]) == (7, 2)
    assert numbers["copied_bytes"] == 35 * MIB


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


ENDED = pd.Timestamp("2026-01-31T11:59:52+00:00")
DD = Allocator(60, "dd", 94 * MIB, shmem_bytes=54 * MIB, file_bytes=40 * MIB, exited=ENDED)
SORT = Allocator(41, "sort", 29 * MIB, anon_bytes=28 * MIB, kernel_bytes=MIB)
GONE = Allocator(70, "gone", 50 * MIB, anon_bytes=45 * MIB, kernel_bytes=5 * MIB, exited=ENDED)


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        ("anon_growth", ("sort", 28 * MIB, "anon")),
        ("shmem", None),
        ("swap_exhausted", ("sort", 28 * MIB, "anon")),
        ("dirty_writeback", ("dd", 40 * MIB, "file")),
        ("unknown", ("dd", 40 * MIB, "file")),
    ],
)
def test_process_whose_memory_is_still_there_is_named_for_its_kind(
    cause: Cause, expected: tuple[str, int, str] | None
) -> None:
    found = findings(made_of(anon=30, shmem=60), grew(anon=28, shmem=54), allocators=(DD, GONE, SORT))
    named = who_grew(found, CAUSES[cause].grows)
    assert (named and (named.process.comm, named.bytes_, named.kind)) == expected


def test_process_that_grew_by_less_than_a_hundredth_is_not_named() -> None:
    small = Allocator(41, "sort", 90 * MIB, anon_bytes=MIB // 2, file_bytes=89 * MIB)
    assert who_grew(findings(made_of(anon=97), grew(), allocators=(small,)), ("anon",)) is None


def test_advice_names_a_process_that_ended_as_such() -> None:
    found = findings(made_of(anon=30, file_dirty=60), grew(anon=28), allocators=(DD, SORT))
    (line,) = [line for line in advise(found, "dirty_writeback") if "dd (pid 60)" in line]
    assert line.startswith(
        "Look at dd (pid 60), although it had ended: it charged 40 MiB of page cache in the 10 s"
    )
    (line,) = [line for line in advise(found, "anon_growth") if "Look for growth" in line]
    assert line.startswith(
        "Look for growth in sort (pid 41): it charged 28 MiB of anonymous memory in the 10 s"
    )
