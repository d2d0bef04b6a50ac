"""The choice of the victim, compared with the arithmetic of mm/oom_kill.c."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tracer.analysis.core.columns import optional, records, times_ns
from tracer.analysis.core.subtree import Subtree, Subtrees
from tracer.analysis.explain import victim_selection
from tracer.analysis.explain.postmortem import explain
from tracer.analysis.explain.victim_selection import (
    OOM_SCORE_ADJ_MIN,
    TODAY,
    Selection,
    badness,
    held_pages,
    rules_of,
)
from tracer.analysis.kernel_log import comparison
from tracer.analysis.trace import AnalysedTrace
from tracer.kernel.kmsg.report.log_report import Chosen, Counter, Invoker, Kill, LogReport, MemInfo, TaskRow
from tracer.kernel.kmsg.text.styles import Stamp
from tracer.schema import UNLIMITED_BYTES

RECORDED = Path(__file__).parents[3] / "traces"
PAGE = 4096
MIB = 1 << 20
LIMIT = 100 * MIB
MEMORY = {"total_bytes": 8192 * MIB, "swap_total_bytes": 0, "swappiness": 60}


def record_kill(trace: Any, **row: Any) -> Any:
    """Record a kill of pid 41 for the limit of cgroup 7, at 2 s."""
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


def weighed(trace: Any, seconds: float, pid: int, badness: int | None, adj: int = 0) -> None:
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


def test_selection_from_a_hooks_records_has_its_badness(trace: Any) -> None:
    record_kill(trace, total_bytes=LIMIT)
    weighed(trace, 1.90, 43, 4000, adj=100)
    weighed(trace, 1.91, 44, None, adj=-1000)
    weighed(trace, 1.92, 41, 9000)
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


def test_selection_with_equal_badness_begins_with_the_last_weighed(trace: Any) -> None:
    record_kill(trace, total_bytes=LIMIT)
    weighed(trace, 1.90, 43, 9000)
    weighed(trace, 1.92, 41, 9000)
    (report,) = explain(trace)
    assert [one.pid for one in report.candidates] == [41, 43]
    assert report.quality.disagreements == ()


def test_selection_of_a_task_with_less_badness_is_a_disagreement(trace: Any) -> None:
    record_kill(trace, total_bytes=LIMIT)
    weighed(trace, 1.90, 43, 9001)
    weighed(trace, 1.92, 41, 9000)
    (report,) = explain(trace)
    (disagreement,) = report.quality.disagreements
    assert "task43 (pid 43) with a badness of 9001 pages would have been killed" in disagreement
    assert report.what_if == ()


def test_selection_with_lost_records_is_from_the_log(trace: Any) -> None:
    record_kill(trace)
    weighed(trace, 1.9, 43, 9001)
    trace.add("loss", 1.95, begin=trace.ns(1.85), stream="pagecache", lost=1)
    assert selected(trace, trace.oom, LOG, {}).is_contradicted
    trace.add("loss", 1.95, begin=trace.ns(1.85), stream="candidate", lost=1)
    unknown: dict[str, str] = {}
    found = selected(trace, trace.oom, None, unknown)
    assert ([one.pid for one in found.candidates], found.is_contradicted) == ([43], False)
    assert "lost" in unknown["what_if"]
    found = selected(trace, trace.oom, LOG, {})
    assert [one.pid for one in found.candidates] == [41, 43]


def test_selection_without_candidates_says_why(trace: Any) -> None:
    record_kill(trace)
    (report,) = explain(trace)
    assert "can be hooked" in report.quality.unknown["candidates"]
    trace.meta["probes"] = {"OOM candidates": {"hook": "fentry oom_badness"}}
    (report,) = explain(trace)
    assert report.quality.unknown["candidates"] == "records of weighed tasks were lost"


def test_selection_without_candidates_is_of_the_task_that_asked(trace: Any) -> None:
    record_kill(trace, trigger_tgid=41)
    trace.meta["probes"] = {"OOM candidates": {"hook": "fentry oom_badness"}}
    (report,) = explain(trace)
    assert report.quality.unknown["candidates"].startswith("the kernel weighed no task")
    trace.add("loss", 2.05, begin=trace.ns(1.95), stream="candidate", lost=1)
    (report,) = explain(trace)
    assert report.quality.unknown["candidates"] == "records of weighed tasks were lost"


def test_selection_of_a_group_kill_has_no_what_if(trace: Any) -> None:
    record_kill(trace, total_bytes=LIMIT)
    trace.add(
        "oom", 2.001, kill_id=1, constraint="memcg", limit_owner_cgroup_id=7, pid=43, tgid=43, cgroup_id=7
    )
    weighed(trace, 1.90, 43, 4000)
    weighed(trace, 1.92, 41, 9000)
    (report,) = explain(trace)
    assert report.what_if == ()
    assert "memory.oom.group" in report.quality.unknown["what_if"]


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
OTHER = ROW._replace(pid=43, tgid=43, rss_pages=1400, oom_score_adj=100, comm="small")
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

ONE_RSS = dict.fromkeys(
    ("candidates.anon_rss_bytes", "candidates.shmem_rss_bytes"),
    "the table of a kernel before 6.8 does not distinguish kinds of RSS",
)


def test_selection_from_a_log_computes_badness() -> None:
    unknown: dict[str, str] = {}
    found = victim_selection.from_log(LOG, victim_selection.logged_total_pages(LOG, PAGE), PAGE, unknown)
    assert found.total_pages == 25600
    assert [(one.pid, one.badness, one.chosen) for one in found.candidates] == [
        (41, 9000 + 11 + 25, True),
        (43, 1400 + 11 + 25 + 2500, False),
    ]
    assert [(one.pid, one.instead) for one in found.what_if] == [(41, -205), (43, 305)]
    assert (found.is_contradicted, unknown) == (False, ONE_RSS)


def test_selection_without_a_total_has_badness_where_adj_is_0() -> None:
    unknown: dict[str, str] = {}
    found = victim_selection.from_log(LOG, None, PAGE, unknown)
    assert [(one.pid, one.badness) for one in found.candidates] == [(41, 9036), (43, None)]
    assert (found.what_if, found.is_contradicted) == ((), False)
    assert set(unknown) == {"badness_total_pages", "candidates.badness", "what_if", *ONE_RSS}


def test_selection_from_a_log_without_a_table_is_empty() -> None:
    unknown: dict[str, str] = {}
    assert victim_selection.from_log(replace(LOG, tasks=()), 25600, PAGE, unknown).candidates == ()
    assert set(unknown) == {"candidates"}


def test_selection_with_oom_kill_allocating_task_has_no_what_if() -> None:
    unknown: dict[str, str] = {}
    kill = LOG.kills[0]._replace(pid=43, reason="Out of memory (oom_kill_allocating_task)")
    found = victim_selection.from_log(
        replace(LOG, chosen=Chosen("small", 43, 0), kills=(kill,)), 25600, PAGE, unknown
    )
    assert [one.pid for one in found.candidates] == [41, 43]
    assert (found.what_if, found.is_contradicted) == ((), False)
    assert "oom_kill_allocating_task" in unknown["what_if"]


def test_selection_on_an_old_kernel_that_killed_a_child_has_the_parent_chosen() -> None:
    kill = LOG.kills[0]._replace(pid=43, comm="small")
    chosen = Chosen("big", 41)
    log = replace(LOG, invoker=Invoker(kernel_release="4.19.0"), chosen=chosen, kills=(kill,))
    found = victim_selection.from_log(log, 25600, PAGE, {})
    assert [one.pid for one in found.candidates if one.chosen] == [41]
    assert not found.is_contradicted


def test_selection_with_a_thread_in_the_table_finds_it_by_its_process() -> None:
    log = replace(LOG, tasks=(ROW._replace(pid=42), OTHER))
    assert not victim_selection.from_log(log, 25600, PAGE, {}).is_contradicted


def test_selection_with_no_killable_task_has_no_disagreement() -> None:
    log = replace(
        LOG, chosen=None, kills=(), is_no_task_killable=True, tasks=(ROW._replace(oom_score_adj=-1000),)
    )
    found = victim_selection.from_log(log, 25600, PAGE, {})
    assert [one.badness for one in found.candidates] == [None]
    assert not found.is_contradicted


@pytest.mark.parametrize("recorded", ["fork", "parent-limit", "group-kill"])
def test_selection_from_the_log_of_a_trace_equals_the_kernels_own(recorded: str) -> None:
    """The traces are of kernels 6.12 and 7.3, which have both sources."""
    trace = AnalysedTrace(RECORDED / recorded)
    log = comparison.complete(trace).told(1).report
    assert log is not None
    rows = trace.oom[trace.oom["kill_id"] == 1]
    without = records(rows.assign(total_bytes=None))[0]
    kernels = selected(trace, rows, None, {})
    ours = victim_selection.from_log(log, victim_selection.logged_total_pages(log, PAGE), PAGE, {})
    assert len(kernels.candidates) > 1
    assert (
        kernels.total_pages
        == ours.total_pages
        == victim_selection.recorded_total_pages(owners_subtree(trace), int(times_ns(rows)[0]), without)
    )
    assert badness_of(kernels) == badness_of(ours)
    assert not kernels.is_contradicted


def owners_subtree(trace: Any) -> Subtree:
    owner_id = optional(trace.oom["limit_owner_cgroup_id"].iloc[0])
    return Subtrees(trace).machine() if owner_id is None else Subtrees(trace).subtree_at(owner_id)


def selected(trace: Any, rows: Any, log: LogReport | None, unknown: dict[str, str]) -> Selection:
    subtree, time_ns = owners_subtree(trace), int(times_ns(rows)[0])
    candidates = trace.oom_candidates
    weighed = records(candidates.assign(time_ns=times_ns(candidates)))
    return victim_selection.from_trace(
        subtree, time_ns, rows=records(rows), weighed=weighed, read_log=lambda: log, unknown=unknown
    )


def badness_of(found: Selection) -> list[tuple[int, int | None, bool]]:
    return [(one.pid, one.badness, one.chosen) for one in found.candidates]


TOTAL = 25600  # pages: 100 MiB, of which a thousandth is 25 whole pages


def test_badness_is_held_pages_and_a_share_of_the_total() -> None:
    assert held_pages(1000, 200, 30, uid=0, rules=TODAY) == 1230
    assert badness(1230, 0, TOTAL, TODAY) == 1230
    assert badness(1230, 500, TOTAL, TODAY) == 1230 + 500 * 25, "the quotient is cut before it is multiplied"
    assert badness(1230, -500, TOTAL, TODAY) == 1230 - 500 * 25, "badness can be negative"
    assert badness(1230, 1000, 999, TODAY) == 1230, "a thousandth of less than 1000 pages is 0"
    assert badness(1230, OOM_SCORE_ADJ_MIN, TOTAL, TODAY) is None


def test_badness_without_an_input_is_none() -> None:
    assert badness(1230, 0, None, TODAY) == 1230, "an oom_score_adj of 0 needs no total"
    assert badness(1230, 1, None, TODAY) is None
    assert held_pages(1000, 200, None, uid=0, rules=TODAY) is None
    assert badness(None, 0, TOTAL, TODAY) is None


@pytest.mark.parametrize(
    ("release", "held", "adj", "expected"),
    [
        ("3.10.0-1160.el7.x86_64", 1000, 0, 970),  # root's bonus
        ("4.16.7", 1000, -1, 970 - 25),
        ("4.17.0", 1000, 0, 1000),
        ("4.19.0-21-amd64", 1000, -500, 1),  # never less
        ("5.4.0-190-generic", 1000, -500, 1000 - 12500),
        ("6.18.44", 1000, -500, 1000 - 12500),
        (None, 1000, -500, 1000 - 12500),
    ],
)
def test_badness_by_release_follows_its_rules(
    release: str | None, held: int, adj: int, expected: int
) -> None:
    rules = rules_of(release)
    assert badness(held_pages(held, 0, 0, uid=0, rules=rules), adj, TOTAL, rules) == expected


def test_root_bonus_of_another_user_is_zero() -> None:
    assert held_pages(1000, 0, 0, uid=1000, rules=rules_of("4.4.0")) == 1000


LIMIT_PAGES = LIMIT // PAGE
MACHINE = {"total_bytes": 8192 * MIB, "swap_total_bytes": 0, "swappiness": 60}


def record_kill_for(trace: Any, constraint: str, owner_id: int | None) -> None:
    trace.add("cgroups", cgroup_id=7, path="/crowd")
    trace.add(
        "oom",
        2,
        kill_id=1,
        constraint=constraint,
        limit_owner_cgroup_id=owner_id,
        limit_bytes=LIMIT,
        usage_bytes=LIMIT,
        pid=41,
        tgid=41,
        cgroup_id=7,
    )


@pytest.mark.parametrize(
    ("swap_room", "swap_total", "swappiness", "expected"),
    [
        (500, 900, 60, LIMIT_PAGES + 500),
        (900, 500, 60, LIMIT_PAGES + 500),
        (0, None, None, LIMIT_PAGES),  # no swap is allowed, whatever the machine has
        (None, 0, None, LIMIT_PAGES),  # the machine has none, whatever is allowed
        (None, None, 0, LIMIT_PAGES),
        (None, 500, 60, None),
        (500, None, 60, None),
        (500, 500, None, None),
    ],
)
def test_memcg_total_of_limit_and_swap_counts_the_lesser_swap(
    swap_room: int | None, swap_total: int | None, swappiness: int | None, expected: int | None
) -> None:
    found = victim_selection.total_pages(
        "memcg",
        ram=None,
        swap=swap_total,
        limit=LIMIT_PAGES,
        swap_limit=swap_room,
        is_of_both=False,
        swappiness=swappiness,
    )
    assert found == expected


@pytest.mark.parametrize(
    ("version", "swap", "machine", "expected"),
    [
        (2, (UNLIMITED_BYTES, None), MACHINE, LIMIT_PAGES),  # the machine has no swap
        (2, (7 * MIB, None), MACHINE | {"swap_total_bytes": 30 * MIB}, LIMIT_PAGES + 7 * 256),
        (2, (UNLIMITED_BYTES, None), MACHINE | {"swap_total_bytes": 30 * MIB}, LIMIT_PAGES + 30 * 256),
        (2, (7 * MIB, None), MACHINE | {"swap_total_bytes": 30 * MIB, "swappiness": 0}, LIMIT_PAGES),
        (
            *(1, (LIMIT + 7 * MIB, 60), MACHINE | {"swap_total_bytes": 30 * MIB, "swappiness": 0}),
            LIMIT_PAGES + 7 * 256,
        ),
        (1, (LIMIT + 7 * MIB, 0), MACHINE | {"swap_total_bytes": 30 * MIB}, LIMIT_PAGES),
        (1, (LIMIT, None), None, LIMIT_PAGES),
        (2, (7 * MIB, None), None, None),  # a trace older than this part of meta.json
    ],
)
def test_recorded_total_without_the_kernels_number_follows_from_the_last_sample_before(
    trace: Any, version: int, swap: tuple[int, int | None], machine: Any, expected: int | None
) -> None:
    swap_limit, swappiness = swap
    record_kill_for(trace, "memcg", 7)
    trace.meta |= {"cgroup_version": version, "memory": machine}
    trace.add("samples", 1, cgroup_id=7, swap_limit_bytes=swap_limit, swappiness=swappiness)
    trace.add("samples", 2, cgroup_id=7, source="oom", kill_id=1)
    trace.add("samples", 3, cgroup_id=7, swap_limit_bytes=0, swappiness=0)
    assert recorded_total(Subtrees(trace).subtree_at(7), trace.oom) == expected


def recorded_total(subtree: Subtree, oom: pd.DataFrame) -> int | None:
    return victim_selection.recorded_total_pages(subtree, int(times_ns(oom)[0]), records(oom)[0])


def test_recorded_total_of_a_global_kill_is_the_machines(trace: Any) -> None:
    record_kill_for(trace, "global", None)
    trace.meta |= {"cgroup_version": 2, "memory": MACHINE | {"swap_total_bytes": 3 * PAGE}}
    nobody = Subtrees(trace).machine()
    assert recorded_total(nobody, trace.oom) == 8192 * 256 + 3
    assert recorded_total(nobody, trace.oom.assign(constraint="cpuset")) is None


@pytest.mark.parametrize(
    ("counters", "expected"),
    [
        ({"swap": Counter(0, 0, 0)}, LIMIT_PAGES),
        ({"swap": Counter(0, UNLIMITED_BYTES, 0)}, None),  # a log does not have the machine's swap
        ({"memory+swap": Counter(LIMIT, LIMIT, 0)}, LIMIT_PAGES),
        ({"memory+swap": Counter(LIMIT, 2 * LIMIT, 0)}, None),
        ({}, None),
    ],
)
def test_logged_total_of_a_memcg_kill_needs_a_bound_on_swap(counters: Any, expected: int | None) -> None:
    log = LogReport(
        stamp=Stamp(1),
        last_line=9,
        invoker=Invoker(),
        constraint="memcg",
        counters={"memory": Counter(LIMIT, LIMIT, 7)} | counters,
    )
    assert victim_selection.logged_total_pages(log, PAGE) == expected


@pytest.mark.parametrize(
    ("mem_info", "expected"),
    [(MemInfo(ram_pages=5000, reserved_pages=300, total_swap_bytes=8 * PAGE), 4708), (None, None)],
)
def test_logged_total_of_a_global_kill_is_in_mem_info(mem_info: MemInfo | None, expected: int | None) -> None:
    log = LogReport(stamp=Stamp(1), last_line=9, invoker=Invoker(), constraint="global", mem_info=mem_info)
    assert victim_selection.logged_total_pages(log, PAGE) == expected
