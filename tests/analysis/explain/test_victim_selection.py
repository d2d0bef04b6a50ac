"""The candidates of synthetic kills, from the records of a hook and from a kernel log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tracer
from tracer.analysis.core.columns import optional, records, times_ns
from tracer.analysis.core.subtree import Subtree, Subtrees
from tracer.analysis.explain import victim_selection
from tracer.analysis.explain.postmortem import explain
from tracer.analysis.explain.victim_selection import Selection
from tracer.analysis.kernel_log import comparison
from tracer.kernel.kmsg.report.log_report import Chosen, Counter, Invoker, Kill, LogReport, TaskRow
from tracer.kernel.kmsg.text.log_record import Stamp

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
    assert selected(trace, trace.oom, LOG, {}).disagreement is not None
    trace.add("loss", 1.95, begin=trace.ns(1.85), stream="candidate", lost=1)
    unknown: dict[str, str] = {}
    found = selected(trace, trace.oom, None, unknown)
    assert ([one.pid for one in found.candidates], found.disagreement) == ([43], None)
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
    assert (found.disagreement, unknown) == (None, ONE_RSS)


def test_selection_without_a_total_has_badness_where_adj_is_0() -> None:
    unknown: dict[str, str] = {}
    found = victim_selection.from_log(LOG, None, PAGE, unknown)
    assert [(one.pid, one.badness) for one in found.candidates] == [(41, 9036), (43, None)]
    assert (found.what_if, found.disagreement) == ((), None)
    assert set(unknown) == {"badness_total_pages", "candidates.badness", "what_if", *ONE_RSS}


def test_selection_from_a_log_without_a_table_is_empty() -> None:
    unknown: dict[str, str] = {}
    assert victim_selection.from_log(replace(LOG, tasks=()), 25600, PAGE, unknown).candidates == ()
    assert set(unknown) == {"candidates"}


def test_selection_with_oom_kill_allocating_task_has_no_what_if() -> None:
    unknown: dict[str, str] = {}
    kill = replace(LOG.kills[0], pid=43, reason="Out of memory (oom_kill_allocating_task)")
    found = victim_selection.from_log(
        replace(LOG, chosen=Chosen("small", 43, 0), kills=(kill,)), 25600, PAGE, unknown
    )
    assert [one.pid for one in found.candidates] == [41, 43]
    assert (found.what_if, found.disagreement) == ((), None)
    assert "oom_kill_allocating_task" in unknown["what_if"]


def test_selection_on_an_old_kernel_that_killed_a_child_has_the_parent_chosen() -> None:
    kill = replace(LOG.kills[0], pid=43, comm="small")
    chosen = Chosen("big", 41)
    log = replace(LOG, invoker=Invoker(kernel_release="4.19.0"), chosen=chosen, kills=(kill,))
    found = victim_selection.from_log(log, 25600, PAGE, {})
    assert [one.pid for one in found.candidates if one.chosen] == [41]
    assert found.disagreement is None


def test_selection_with_a_thread_in_the_table_finds_it_by_its_process() -> None:
    log = replace(LOG, tasks=(replace(ROW, pid=42), OTHER))
    assert victim_selection.from_log(log, 25600, PAGE, {}).disagreement is None


def test_selection_with_no_killable_task_has_no_disagreement() -> None:
    log = replace(
        LOG, chosen=None, kills=(), is_no_task_killable=True, tasks=(replace(ROW, oom_score_adj=-1000),)
    )
    found = victim_selection.from_log(log, 25600, PAGE, {})
    assert [one.badness for one in found.candidates] == [None]
    assert found.disagreement is None


@pytest.mark.parametrize("recorded", ["fork", "parent-limit", "group-kill"])
def test_selection_from_the_log_of_a_trace_equals_the_kernels_own(recorded: str) -> None:
    """The traces are of kernels 6.12 and 7.3, which have both sources."""
    trace = tracer.open(RECORDED / recorded)
    logged = comparison.complete(trace).told
    log = logged[1].report
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
    assert kernels.disagreement is None


def owners_subtree(trace: Any) -> Subtree:
    owner_id = optional(trace.oom["limit_owner_cgroup_id"].iloc[0])
    return Subtrees(trace).machine() if owner_id is None else Subtrees(trace).subtree_at(owner_id)


def selected(trace: Any, rows: Any, log: LogReport | None, unknown: dict[str, str]) -> Selection:
    subtree, time_ns = owners_subtree(trace), int(times_ns(rows)[0])
    return victim_selection.from_trace(
        subtree, time_ns, rows=records(rows), weighed=trace.oom_candidates, log=log, unknown=unknown
    )


def badness_of(found: Selection) -> list[tuple[int, int | None, bool]]:
    return [(one.pid, one.badness, one.chosen) for one in found.candidates]
