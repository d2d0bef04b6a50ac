"""Candidates of synthetic kills: as a hook told them, and as the kernel log has them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tracer
from tracer.analysis.core.columns import optional
from tracer.analysis.core.subtree import Subtree, Subtrees
from tracer.analysis.explain.postmortem import explain
from tracer.analysis.explain.victim import victim_selection
from tracer.analysis.kernel_log import comparison
from tracer.kernel.kmsg.report.log_report import (
    Chosen,
    Counter,
    Invoker,
    Kill,
    LogReport,
    MemInfo,
    Stamp,
    TaskRow,
)
from tracer.schema import UNLIMITED_BYTES

RECORDED = Path(__file__).parents[4] / "traces"
PAGE = 4096
MIB = 1 << 20
LIMIT = 100 * MIB
MEMORY = {"total_bytes": 8192 * MIB, "swap_total_bytes": 0, "swappiness": 60}


def killed(trace: Any, **row: Any) -> Any:
    """A decision of cgroup 7 to kill 41, at 2 s."""
    trace.meta |= {"cgroup_version": 2, "memory": MEMORY}
    trace.add("cgroups", cgroup_id=7, path="/crowd")
    trace.add(
        "oom",
        2,
        **{"kill_id": 1, "constraint": "memcg", "limit_owner_cgroup_id": 7, "limit_bytes": LIMIT} | row,
        pid=41,
        tgid=41,
        comm="big",
        cgroup_id=7,
        usage_bytes=LIMIT,
    )
    return trace


def told(trace: Any, seconds: float, pid: int, badness: int | None, adj: int = 0) -> None:
    trace.add(
        "oom_candidates",
        seconds,
        kill_id=1,
        pid=pid,
        tgid=pid,
        comm=f"task{pid}",
        badness=badness,
        oom_score_adj=adj,
        rss_bytes=MIB,
        chosen=pid == 41,
    )


def test_as_a_hook_told(trace: Any) -> None:
    killed(trace, total_bytes=LIMIT)
    told(trace, 1.90, 43, 4000, adj=100)
    told(trace, 1.91, 44, None, adj=-1000)
    told(trace, 1.92, 41, 9000)
    (report,) = explain(trace)
    assert report.badness_total_pages == 25600
    assert [(one.pid, one.held_pages, one.adj_pages) for one in report.candidates] == [
        (41, 9000, 0),
        (43, 1500, 2500),
        (44, None, -25000),
    ]
    assert [(one.pid, one.instead, one.victim_pid) for one in report.what_if] == [
        (41, -201, 43),
        (43, 301, 43),
    ]
    assert report.quality.disagreements == ()
    assert not {"candidates", "what_if"} & set(report.quality.unknown)


def test_of_equals_the_last_that_came_by_is_the_kernels_choice(trace: Any) -> None:
    killed(trace, total_bytes=LIMIT)
    told(trace, 1.90, 43, 9000)
    told(trace, 1.92, 41, 9000)
    (report,) = explain(trace)
    assert [one.pid for one in report.candidates] == [41, 43]
    assert report.quality.disagreements == ()


def test_a_choice_that_the_numbers_do_not_explain_is_said(trace: Any) -> None:
    killed(trace, total_bytes=LIMIT)
    told(trace, 1.90, 43, 9001)
    told(trace, 1.92, 41, 9000)
    (report,) = explain(trace)
    (said,) = report.quality.disagreements
    assert "task43 (pid 43) with a badness of 9001 pages would have been killed" in said
    assert report.what_if == ()


def test_where_the_log_is_whole_it_stands_in_for_what_was_lost(trace: Any) -> None:
    killed(trace)
    told(trace, 1.9, 43, 9001)
    trace.add("loss", 1.95, begin=trace.ns(1.85), stream="pagecache", lost=1)
    assert chosen(trace, trace.oom, LOG, {}).disagreement is not None
    trace.add("loss", 1.95, begin=trace.ns(1.85), stream="candidate", lost=1)
    unknown: dict[str, str] = {}
    found = chosen(trace, trace.oom, None, unknown)
    assert ([one.pid for one in found.candidates], found.disagreement) == ([43], None)
    assert "lost" in unknown["what_if"]
    found = chosen(trace, trace.oom, LOG, {})
    assert [one.pid for one in found.candidates] == [41, 43]


def test_nobody_was_weighed(trace: Any) -> None:
    killed(trace)
    (report,) = explain(trace)
    assert "can be hooked" in report.quality.unknown["candidates"]
    trace.meta["probes"] = {"OOM candidates": {"hook": "fentry oom_badness"}}
    (report,) = explain(trace)
    assert report.quality.unknown["candidates"].startswith("the kernel weighed nobody")


def test_a_group_kill_has_no_other_outcome(trace: Any) -> None:
    killed(trace, total_bytes=LIMIT)
    trace.add(
        "oom", 2.001, kill_id=1, constraint="memcg", limit_owner_cgroup_id=7, pid=43, tgid=43, cgroup_id=7
    )
    told(trace, 1.90, 43, 4000)
    told(trace, 1.92, 41, 9000)
    (report,) = explain(trace)
    assert report.what_if == ()
    assert "memory.oom.group" in report.quality.unknown["what_if"]


@pytest.mark.parametrize(
    ("version", "swap", "memory", "expected"),
    [
        (2, (UNLIMITED_BYTES, None), MEMORY, 25600),  # no swap is there
        (2, (7 * MIB, None), MEMORY | {"swap_total_bytes": 30 * MIB}, 25600 + 7 * 256),
        (2, (UNLIMITED_BYTES, None), MEMORY | {"swap_total_bytes": 30 * MIB}, 25600 + 30 * 256),
        (2, (7 * MIB, None), MEMORY | {"swap_total_bytes": 30 * MIB, "swappiness": 0}, 25600),
        (1, (LIMIT + 7 * MIB, 60), MEMORY | {"swap_total_bytes": 30 * MIB, "swappiness": 0}, 25600 + 7 * 256),
        (1, (LIMIT + 7 * MIB, 0), MEMORY | {"swap_total_bytes": 30 * MIB}, 25600),
        (1, (LIMIT, None), None, 25600),
        (2, (7 * MIB, None), None, None),  # a trace from before meta.json had it
    ],
)
def test_the_total_from_limits(
    trace: Any, version: int, swap: tuple[int, int | None], memory: Any, expected: int | None
) -> None:
    """`swap`: its limit and swappiness."""
    killed(trace)
    trace.meta |= {"cgroup_version": version, "memory": memory}
    trace.add("samples", 1, cgroup_id=7, swap_limit_bytes=swap[0], swappiness=swap[1])
    trace.add("samples", 2, cgroup_id=7, source="oom", kill_id=1)
    trace.add("samples", 3, cgroup_id=7, swap_limit_bytes=0, swappiness=0)
    assert victim_selection.total_pages(of_owner(trace), trace.oom) == expected


def test_the_total_of_the_machine(trace: Any) -> None:
    killed(trace, constraint="global", limit_owner_cgroup_id=None)
    trace.meta["memory"] = MEMORY | {"swap_total_bytes": 3 * PAGE}
    assert victim_selection.total_pages(of_owner(trace), trace.oom) == 8192 * 256 + 3
    assert victim_selection.total_pages(of_owner(trace), trace.oom.assign(constraint="cpuset")) is None


# The kernel log

ROW = TaskRow(
    pid=41,
    uid=0,
    tgid=41,
    total_vm_pages=20000,
    rss_pages=9000,
    rss_anon_pages=None,
    rss_file_pages=None,
    rss_shmem_pages=None,
    pgtables_bytes=25 * PAGE + 1,
    swapents_pages=11,
    oom_score_adj=0,
    comm="big",
)
OTHER = replace(ROW, pid=43, tgid=43, rss_pages=1400, oom_score_adj=100, comm="small")
LOG = LogReport(
    stamp=Stamp(1),
    last_line=9,
    invoker=Invoker(kernel_release="6.18.44"),
    constraint="memcg",
    chosen=Chosen("big", 41, 0),
    counters={"memory": Counter(LIMIT, LIMIT, 7), "memory+swap": Counter(LIMIT, LIMIT, 7)},
    tasks=(ROW, OTHER),
    kills=(Kill(Stamp(9), 41, "big", reason="Memory cgroup out of memory"),),
)


def test_as_the_log_has_them() -> None:
    unknown: dict[str, str] = {}
    found = victim_selection.of_log(LOG, victim_selection.log_total_pages(LOG, PAGE), PAGE, unknown)
    assert found.total_pages == 25600
    assert [(one.pid, one.badness, one.chosen) for one in found.candidates] == [
        (41, 9000 + 11 + 25, True),
        (43, 1400 + 11 + 25 + 2500, False),
    ]
    assert [(one.pid, one.instead) for one in found.what_if] == [(41, -205), (43, 305)]
    assert (found.disagreement, unknown) == (None, {})


def test_without_a_total_what_needs_none_is_told() -> None:
    unknown: dict[str, str] = {}
    found = victim_selection.of_log(LOG, None, PAGE, unknown)
    assert [(one.pid, one.badness) for one in found.candidates] == [(41, 9036), (43, None)]
    assert (found.what_if, found.disagreement) == ((), None)
    assert set(unknown) == {"badness_total_pages", "candidates.badness", "what_if"}


def test_a_log_without_a_table() -> None:
    unknown: dict[str, str] = {}
    assert victim_selection.of_log(replace(LOG, tasks=()), 25600, PAGE, unknown).candidates == ()
    assert set(unknown) == {"candidates"}


def test_whoever_asks_is_killed() -> None:
    unknown: dict[str, str] = {}
    kill = replace(LOG.kills[0], pid=43, reason="Out of memory (oom_kill_allocating_task)")
    found = victim_selection.of_log(
        replace(LOG, chosen=Chosen("small", 43, 0), kills=(kill,)), 25600, PAGE, unknown
    )
    assert [one.pid for one in found.candidates] == [41, 43]
    assert (found.what_if, found.disagreement) == ((), None)
    assert "oom_kill_allocating_task" in unknown["what_if"]


def test_an_old_kernel_kills_a_child_of_the_one_that_it_chose() -> None:
    kill = replace(LOG.kills[0], pid=43, comm="small")
    chosen = Chosen("big", 41, score=353)
    log = replace(LOG, invoker=Invoker(kernel_release="4.19.0"), chosen=chosen, kills=(kill,))
    found = victim_selection.of_log(log, 25600, PAGE, {})
    assert [one.pid for one in found.candidates if one.chosen] == [41]
    assert found.disagreement is None


def test_a_thread_of_a_process_whose_leader_is_gone_is_known_by_its_process() -> None:
    log = replace(LOG, tasks=(replace(ROW, pid=42), OTHER))
    assert victim_selection.of_log(log, 25600, PAGE, {}).disagreement is None


def test_nobody_could_be_killed() -> None:
    log = replace(
        LOG, chosen=None, kills=(), is_no_task_killable=True, tasks=(replace(ROW, oom_score_adj=-1000),)
    )
    found = victim_selection.of_log(log, 25600, PAGE, {})
    assert [one.badness for one in found.candidates] == [None]
    assert found.disagreement is None


@pytest.mark.parametrize(
    ("counters", "expected"),
    [
        ({"swap": Counter(0, 0, 0)}, 25600),
        ({"swap": Counter(0, UNLIMITED_BYTES, 0)}, None),  # how much there is, is not said
        ({"memory+swap": Counter(LIMIT, LIMIT, 0)}, 25600),
        ({"memory+swap": Counter(LIMIT, 2 * LIMIT, 0)}, None),
        ({}, None),
    ],
)
def test_the_total_by_a_log(counters: Any, expected: int | None) -> None:
    log = replace(LOG, counters={"memory": Counter(LIMIT, LIMIT, 7)} | counters)
    assert victim_selection.log_total_pages(log, PAGE) == expected


def test_the_total_of_the_machine_by_a_log() -> None:
    machine = MemInfo(ram_pages=5000, reserved_pages=300, total_swap_bytes=8 * PAGE)
    log = replace(LOG, constraint="global", counters={}, mem_info=machine)
    assert victim_selection.log_total_pages(log, PAGE) == 4708
    assert victim_selection.log_total_pages(replace(log, mem_info=None), PAGE) is None


@pytest.mark.parametrize("recorded", ["fork", "parent-limit", "group-kill"])
def test_what_is_computed_from_the_log_is_what_the_kernel_said(recorded: str) -> None:
    """Traces of kernels 6.12 and 7.3, which have both."""
    trace = tracer.open(RECORDED / recorded)
    _, told_by_log = comparison.complete(trace)
    log = told_by_log[1].report
    assert log is not None
    rows = trace.oom[trace.oom["kill_id"] == 1]
    kernels = chosen(trace, rows, None, {})
    ours = victim_selection.of_log(log, victim_selection.log_total_pages(log, PAGE), PAGE, {})
    assert len(kernels.candidates) > 1
    assert (
        kernels.total_pages
        == ours.total_pages
        == victim_selection.total_pages(of_owner(trace), rows.assign(total_bytes=None))
    )
    assert badness_of(kernels) == badness_of(ours)
    assert kernels.disagreement is None


def of_owner(trace: Any) -> Subtree:
    owner_id = optional(trace.oom["limit_owner_cgroup_id"].iloc[0])
    return Subtrees(trace).of_nobody() if owner_id is None else Subtrees(trace).of(owner_id)


def chosen(trace: Any, rows: Any, log: LogReport | None, unknown: dict[str, str]) -> victim_selection.Choice:
    return victim_selection.of_trace(of_owner(trace), rows, trace.oom_candidates, log, unknown)


def badness_of(found: victim_selection.Choice) -> list[tuple[int, int | None, bool]]:
    return [(one.pid, one.badness, one.chosen) for one in found.candidates]
