"""Kills that the probe missed, taken from the kernel log in the trace."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest
from synthetic.oom_log import MIB, Dump, log

from tracer.analysis.explain.postmortem import allocated_before, explain
from tracer.analysis.explain.survivors import held_cgroups
from tracer.analysis.explain.words import sentence_parts
from tracer.analysis.kernel_log import decisions
from tracer.analysis.views.focus import ranked
from tracer.analysis.views.timeline import timeline
from tracer.errors import UsageError

DUMP = Dump(pid=50)


def record_lives(trace: Any, count: int) -> None:
    """Record lives of /box, one second each, numbered from 1, with 1 MiB charged in each."""
    trace.meta |= {"kernel_log": "read", "cpus": 1}
    for run in range(count):
        ends = {"created": trace.ns(run), "removed": trace.ns(run + 1)}
        trace.add("cgroups", cgroup_id=run + 1, path="/box", container="crasher", **ends)
        trace.charged(run + 0.1, run + 1, "anon", MIB, usage_bytes=MIB, limit_bytes=100 * MIB)


def record_kill(trace: Any, seconds: float, pid: int, cgroup_id: int) -> None:
    trace.add(
        "oom",
        seconds,
        kill_id=len(trace.oom) + 1,
        constraint="memcg",
        limit_owner_cgroup_id=cgroup_id,
        trigger_cgroup_id=cgroup_id,
        usage_bytes=DUMP.usage,
        limit_bytes=DUMP.limit,
        pid=pid,
        tgid=pid,
        comm="hog",
        cgroup_id=cgroup_id,
    )


def test_kill_after_the_end_of_the_recording_was_not_missed(trace: Any) -> None:
    record_lives(trace, 2)
    for run in range(2):
        log(trace, run + 0.9, *replace(DUMP, pid=50 + run).lines())
    trace.meta["ended"] = "2025-11-24T16:00:01.5+00:00"
    differs = [report.quality.disagreements for report in explain(trace)]
    assert differs == [(sentence_parts.MISSED,), (sentence_parts.AFTER_THE_END,)]


def test_explain_with_missed_kills_has_them_from_the_log(trace: Any) -> None:
    record_lives(trace, 4)
    record_kill(trace, 0.9, 50, 1)
    for run in range(4):
        log(trace, run + 0.9, *replace(DUMP, pid=50 + run).lines())
    reports = explain(trace)
    assert [report.kill_id for report in reports] == [1, 2, 3, 4]
    assert [report.victims[0].pid for report in reports] == [50, 51, 52, 53]
    assert [report.quality.kmsg for report in reports] == ["matched", "only", "only", "only"]
    assert [report.limit_owner.cgroup_id for report in reports] == [1, 2, 3, 4]
    assert [(report.limit_owner.run, report.limit_owner.runs) for report in reports] == [
        (run, 4) for run in range(1, 5)
    ]
    missed = reports[2]
    assert missed.limit_owner.container == "crasher"
    assert missed.limit_owner.limit_bytes == 100 * MIB
    assert missed.to_dict()["time"].startswith("2025-11-24T16:00:02.9")
    assert sentence_parts.MISSED in missed.quality.disagreements
    assert sentence_parts.MISSED not in reports[0].quality.disagreements
    assert missed.victims[0].cgroup_id == 3 and missed.verdict.cause == reports[0].verdict.cause
    # Other views count the same kills.
    assert ranked(trace)["kills"].to_dict() == {1: 1, 2: 1, 3: 1, 4: 1}
    assert timeline(trace, "crasher", every="1s").groupby("run")["oom_kills"].sum().tolist() == [1] * 4
    with pytest.raises(UsageError, match="kill 3 is known from the kernel log alone"):
        allocated_before(trace, 3)


def test_missed_kills_are_found_once_for_all_answers(trace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    record_lives(trace, 2)
    log(trace, 1.9, *replace(DUMP, pid=51).lines())
    find = Mock(wraps=decisions.missed)
    monkeypatch.setattr(decisions, "missed", find)
    (report,) = explain(trace)
    assert report.limit_owner.cgroup_id == 2
    assert ranked(trace)["kills"].to_dict() == {1: 0, 2: 1}
    assert timeline(trace, "crasher", every="1s")["oom_kills"].sum() == 1
    find.assert_called_once_with(trace)


@pytest.mark.parametrize("late_s", [0.066, -0.066])
@pytest.mark.parametrize("gap_s", [0.02, 0.5])
def test_missed_kill_whose_report_has_a_time_outside_the_victims_life_is_of_that_life(
    trace: Any, late_s: float, gap_s: float
) -> None:
    """Seen under load: the report's time was 66 ms late, and the cgroup had been removed before it.

    With a short gap between the lives, the report's time is in the life after or before that of the victim.
    """
    trace.meta |= {"kernel_log": "read", "cpus": 1, "filters": {"cgroups": ["/box"]}}
    for run in range(3):
        made, removed = trace.ns(run + gap_s / 2), trace.ns(run + 1 - gap_s / 2)
        trace.add("cgroups", cgroup_id=run + 1, path="/box", container="x", created=made, removed=removed)
        trace.add("tasks", tgid=50 + run, comm="hog", cgroup_id=run + 1, first_seen=made, exited=removed)
        trace.charged(run + 0.5, run + 1, "anon", MIB, usage_bytes=MIB, limit_bytes=100 * MIB)
    end = 2 - gap_s / 2 if late_s > 0 else 1 + gap_s / 2
    log(trace, end + late_s, *replace(DUMP, pid=51).lines())
    (report,) = explain(trace)
    owner = report.limit_owner
    assert (owner.cgroup_id, owner.run, owner.runs) == (2, 2, 3)
    assert report.victims[0].cgroup_id == 2
    assert timeline(trace, "/box", every="1s").groupby("run")["oom_kills"].sum().tolist() == [0, 1, 0]


def test_missed_kill_of_an_unknown_life_has_the_names_of_its_path(trace: Any) -> None:
    """This happens if only the first life of a container was traced."""
    record_lives(trace, 1)
    trace.meta["filters"] = {"cgroups": ["/box"]}
    log(trace, 2.5, *DUMP.lines())
    (report,) = explain(trace)
    owner = report.limit_owner
    assert (owner.cgroup, owner.container, owner.cgroup_id) == ("/box", "crasher", None)
    assert "limit_owner.cgroup_id" in report.quality.unknown


def test_missed_kills_are_numbered_after_recorded_ones_and_sorted_by_time(trace: Any) -> None:
    record_lives(trace, 3)
    record_kill(trace, 2.9, 52, 3)
    for run in range(3):
        log(trace, run + 0.9, *replace(DUMP, pid=50 + run).lines())
    reports = explain(trace)
    assert [(report.kill_id, report.victims[0].pid) for report in reports] == [(2, 50), (3, 51), (1, 52)]


@pytest.mark.parametrize(
    ("filters", "dump", "is_there"),
    [
        ({}, replace(DUMP, oom_memcg="/other", task_memcg="/other"), True),
        ({"cgroups": []}, replace(DUMP, oom_memcg="/other", task_memcg="/other"), True),
        ({"cgroups": ["/box"]}, replace(DUMP, oom_memcg="/other", task_memcg="/other"), False),
        ({"cgroups": ["/box"]}, replace(DUMP, oom_memcg="/boxer", task_memcg="/boxer"), False),
        ({"cgroups": ["/box"]}, replace(DUMP, oom_memcg="/box/in", task_memcg="/box/in"), True),
        ({"cgroups": ["/box"]}, replace(DUMP, oom_memcg="/", task_memcg="/box"), True),
        ({"cgroups": ["/web*"]}, DUMP, True),  # /box was traced, whatever the pattern was
        (
            {"cgroups": ["/box"]},
            replace(DUMP, constraint="CONSTRAINT_NONE", oom_memcg="/", task_memcg="/other"),
            True,
        ),
    ],
)
def test_missed_kill_outside_the_traced_cgroups_is_left_out(
    trace: Any, filters: dict[str, Any], dump: Dump, is_there: bool
) -> None:
    record_lives(trace, 1)
    trace.meta["filters"] = filters
    lines = list(dump.lines())
    if dump.constraint == "CONSTRAINT_NONE":
        counters = set(dump.counters())
        lines = [
            line.replace(f"oom_memcg={dump.oom_memcg},", "global_oom,")
            .replace("Memory cgroup out of memory", "Out of memory")
            .replace("try_charge_memcg", "__alloc_pages_may_oom")
            for line in lines
            if line not in counters
        ]
    log(trace, 0.5, *lines)
    assert len(explain(trace)) == is_there


def test_missed_kill_with_a_single_line_is_of_its_tasks_cgroup(trace: Any) -> None:
    """The kernel prints at most 10 reports in 5 s, and further kills as single lines."""
    record_lives(trace, 2)
    trace.meta["filters"] = {"cgroups": ["/box"]}
    trace.add("tasks", tgid=60, start_ns=1, comm="hog", cgroup_id=2, first_seen=trace.ns(1.1))
    trace.add("tasks", tgid=61, start_ns=1, comm="stranger", cgroup_id=9, first_seen=trace.ns(1.1))
    for pid in (60, 61, 62):
        log(trace, 1.5, replace(DUMP, pid=pid).kill())
    (report,) = explain(trace)
    assert (report.victims[0].pid, report.victims[0].cgroup_id) == (60, 2)
    assert report.victims[0].cgroup == "/box"


def test_group_kill_with_separate_lines_in_the_log_is_one_decision(trace: Any) -> None:
    record_lives(trace, 1)
    record_kill(trace, 0.9, 50, 1)
    trace.add(
        "oom", 0.9, kill_id=1, constraint="memcg", limit_owner_cgroup_id=1, pid=51, tgid=51, cgroup_id=1
    )
    for pid in (50, 51):
        log(trace, 0.9, replace(DUMP, pid=pid).kill())
    assert len(explain(trace)) == 1


def test_report_cut_before_its_kill_is_no_kill(trace: Any) -> None:
    record_lives(trace, 1)
    log(trace, 0.9, *list(DUMP.lines())[:-1])
    assert explain(trace) == []
    assert held_cgroups(trace)
