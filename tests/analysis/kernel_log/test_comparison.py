"""The kernel log and the probes: matched, compared, and merged where the probes lack values."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from support.evidence import kinds_of
from synthetic.oom_log import MIB, Dump, log

from tracer.analysis.explain.postmortem import explain
from tracer.analysis.results.kill import OomReport

DUMP = Dump(pid=50)
RATE_LIMITED = "only the line of the kill is there"


def kill(trace: Any, seconds: float, dump: Dump = DUMP, **row: Any) -> None:
    """Add the kill of `dump` as the probes have it if they could only infer the decision."""
    if trace.cgroups.empty:
        trace.add("cgroups", cgroup_id=1, path="/box", created=trace.ns(0))
        trace.meta |= {"kernel_log": "read", "cpus": 1}
    trace.add(
        "oom",
        seconds,
        **{
            "kill_id": len(trace.oom) + 1,
            "constraint": "memcg",
            "limit_owner_cgroup_id": 1,
            "usage_bytes": dump.usage,
            "limit_bytes": dump.limit,
            "trigger_pid": dump.pid,
            "trigger_tgid": dump.pid,
            "trigger_comm": dump.comm,
            "trigger_cgroup_id": 1,
            "is_told": False,
            "gfp": 0x100,
            "pid": dump.pid,
            "tgid": dump.pid,
            "comm": dump.comm,
            "cgroup_id": 1,
            "anon_rss_bytes": dump.anon_rss,
            "file_rss_bytes": dump.file_rss,
            "shmem_rss_bytes": 0,
            "pgtables_bytes": dump.pgtables,
            "swap_bytes": 0,
            "oom_score_adj": dump.adj,
        }
        | row,
    )


def only(trace: Any) -> OomReport:
    (report,) = explain(trace)
    return report


def test_inferred_values_are_replaced_by_those_of_the_log(trace: Any) -> None:
    kill(trace, 1)
    log(trace, 1, *replace(DUMP, gfp="0x8c40(GFP_NOFS|__GFP_NOFAIL)", order=2).lines())
    report = only(trace)
    assert (report.quality.kmsg, report.quality.kmsg_missing, report.quality.disagreements) == (
        "matched",
        "",
        (),
    )
    asked = report.trigger
    assert (asked.gfp, asked.gfp_names, asked.order) == (0x8C40, "GFP_NOFS|__GFP_NOFAIL", 2)
    assert {"trigger.gfp", "trigger.order"} <= set(report.quality.kmsg_fields)
    assert not {"trigger.gfp", "trigger.order"} & set(report.quality.unknown)
    assert "doubt_inferred_limit" not in kinds_of(report.verdict.evidence)


def test_candidates_without_a_hook_are_those_of_the_log(trace: Any) -> None:
    """Without swap on the machine, badness is measured against the limit."""
    kill(trace, 1)
    trace.meta["memory"] = {"total_bytes": 1 << 40, "swap_total_bytes": 0, "swappiness": 60}
    log(trace, 1, *DUMP.lines())
    report = only(trace)
    first, second = report.candidates
    held = (DUMP.anon_rss + DUMP.file_rss + DUMP.pgtables) // 4096
    assert (first.pid, first.comm, first.badness, first.chosen) == (50, "hog", held, True)
    assert (second.pid, second.badness, second.chosen) == (1050, 50 + DUMP.pgtables // 4096, False)
    assert "candidates" in report.quality.kmsg_fields
    assert "candidates" not in report.quality.unknown


def test_candidates_of_a_hook_are_kept(trace: Any) -> None:
    kill(trace, 1)
    trace.add("oom_candidates", 1, kill_id=1, pid=50, tgid=50, badness=9, chosen=True)
    log(trace, 1, *DUMP.lines())
    report = only(trace)
    assert [candidate.badness for candidate in report.candidates] == [9]
    assert "candidates" not in report.quality.kmsg_fields


def test_values_read_from_the_kernel_are_kept(trace: Any) -> None:
    kill(trace, 1, is_told=True, gfp=0xCC0, order=0)
    log(trace, 1, *replace(DUMP, gfp="0x8c40(GFP_NOFS)", order=2).lines())
    report = only(trace)
    assert (report.trigger.gfp, report.trigger.gfp_names, report.trigger.order) == (0xCC0, "", 0)
    assert report.quality.disagreements == (
        "order: 0, in the kernel log 2",
        "gfp: 0xcc0, in the kernel log 0x8c40",
    )
    assert not {"trigger.gfp", "trigger.order"} & set(report.quality.kmsg_fields)


@pytest.mark.parametrize(
    ("logged", "says"),
    [
        (replace(DUMP, comm="cat"), ["the name of the trigger: hog, in the kernel log cat"]),
        (replace(DUMP, oom_memcg="/box/inner"), ["the limit owner: /box, in the kernel log /box/inner"]),
        (replace(DUMP, usage=90 * MIB), ["usage: 104857600 bytes, in the kernel log 94371840"]),
        (replace(DUMP, limit=101 * MIB), ["limit: 104857600 bytes, in the kernel log 105906176"]),
        (
            replace(DUMP, anon_rss=91 * MIB),
            ["anon RSS of pid 50: 94371840 bytes, in the kernel log 95420416"],
        ),
        (replace(DUMP, file_rss=0), ["file RSS of pid 50: 2097152 bytes, in the kernel log 0"]),
        (replace(DUMP, pgtables=MIB), ["page tables of pid 50: 204800 bytes, in the kernel log 1048576"]),
        (replace(DUMP, adj=7), ["oom_score_adj of pid 50: 0, in the kernel log 7"]),
    ],
)
def test_disagreements_have_both_numbers(trace: Any, logged: Dump, says: list[str]) -> None:
    kill(trace, 1)
    log(trace, 1, *logged.lines())
    report = only(trace)
    assert report.quality.kmsg == "matched"
    assert set(says) <= set(report.quality.disagreements)
    assert len(report.quality.disagreements) <= 2  # a name is compared twice


@pytest.mark.parametrize(("cpus", "agrees"), [(1, False), (2, True)])
def test_usage_within_the_batches_of_cpus_agrees(trace: Any, cpus: int, agrees: bool) -> None:
    kill(trace, 1)
    trace.meta["cpus"] = cpus
    log(trace, 1, *replace(DUMP, usage=DUMP.usage - 128 * 4096, anon_rss=DUMP.anon_rss + 64 * 4096).lines())
    assert (only(trace).quality.disagreements == ()) is agrees


def test_owner_of_the_log_replaces_an_inferred_one(trace: Any) -> None:
    kill(trace, 1)
    trace.add("cgroups", cgroup_id=2, path="/", created=trace.ns(0))
    trace.add("cgroups", cgroup_id=4, path="/pod", created=trace.ns(0), removed=trace.ns(0.5))
    trace.add("cgroups", cgroup_id=5, path="/pod", created=trace.ns(0.6))
    trace.add("cgroups", cgroup_id=6, path="/pod", created=trace.ns(1.5))
    trace.charged(0.9, 5, "anon", MIB, tgid=9)
    log(trace, 1, *replace(DUMP, oom_memcg="/pod", limit=300 * MIB, usage=300 * MIB).lines())
    report = only(trace)
    owner = report.limit_owner
    assert (owner.cgroup, owner.limit_bytes, owner.usage_bytes) == ("/pod", 300 * MIB, 300 * MIB)
    assert "limit_owner" in report.quality.kmsg_fields
    assert "the limit owner: /box, in the kernel log /pod" in report.quality.disagreements
    assert report.composition.total == 300 * MIB
    assert report.composition.anon == 295 * MIB
    assert [one.tgid for one in report.allocators] == [9]  # in the cgroup with this path at that time


def source_of(report: OomReport, kind: str, **numbers: Any) -> tuple[str, ...]:
    """Return the source of the one item of evidence of a kind with these numbers."""
    (item,) = (
        one for one in report.verdict.evidence if one.kind == kind and numbers.items() <= one.numbers.items()
    )
    return item.source


def test_owner_that_the_trace_lacks_keeps_the_inferred_one(trace: Any) -> None:
    kill(trace, 1)
    log(trace, 1, *replace(DUMP, oom_memcg="/elsewhere").lines())
    report = only(trace)
    assert report.limit_owner.cgroup == "/box"
    assert "the limit owner: /box, in the kernel log /elsewhere" in report.quality.disagreements


def test_composition_of_an_owner_with_children_is_that_of_the_log(trace: Any) -> None:
    """The BPF program sums up only the cgroup's own counters, and this ledger is empty."""
    kill(trace, 1)
    sample = {"cgroup_id": 1, "source": "oom", "kill_id": 1, "limit_bytes": DUMP.limit}
    trace.add("samples", 1, usage_bytes=DUMP.usage, **sample)
    log(trace, 1, *DUMP.lines())
    report = only(trace)
    made_of = report.composition
    assert (made_of.anon, made_of.shmem) == (DUMP.usage - 5 * MIB, MIB)
    assert (made_of.file_clean, made_of.file_dirty, made_of.writeback) == (2 * MIB - 8192, 8192, 0)
    assert made_of.total == DUMP.usage == sum(value or 0 for _, value in made_of.parts())
    assert report.working_set_bytes == DUMP.usage - MIB
    assert "composition" in report.quality.kmsg_fields


@pytest.mark.parametrize(("charged_mib", "anon_mib"), [(90, 90), (30, 50)])
def test_composition_explains_most_of_usage(trace: Any, charged_mib: int, anon_mib: int) -> None:
    """The log's memory.stat lags (50 MiB), and so may the ledger; the page counter does not."""
    kill(trace, 1)
    trace.add("samples", 0, cgroup_id=1, source="start", anon_bytes=0)
    trace.add("samples", 1, cgroup_id=1, source="oom", kill_id=1, usage_bytes=DUMP.usage)
    trace.charged(0.9, 1, "anon", charged_mib * MIB)
    lines = [re.sub(r"^(anon|total_rss) \d+", rf"\1 {50 * MIB}", line) for line in DUMP.lines()]
    log(trace, 1, *lines)
    report = only(trace)
    assert report.composition.anon == anon_mib * MIB
    held = source_of(report, "part_of_usage", part="anon")
    assert held == (("samples", "kernel_log") if anon_mib == 50 else ("charge", "samples"))


def test_sample_of_the_kill_is_kept(trace: Any) -> None:
    kill(trace, 1)
    trace.add("samples", 1, cgroup_id=1, source="oom", kill_id=1, usage_bytes=DUMP.usage, anon_bytes=7 * MIB)
    log(trace, 1, *DUMP.lines())
    report = only(trace)
    assert report.composition.anon == 7 * MIB
    assert "composition" not in report.quality.kmsg_fields


def test_counters_missed_by_calibration_are_those_of_the_log(trace: Any) -> None:
    """Without the LRU lists, the class of locked memory is not known (seen on 7.3)."""
    kill(trace, 1)
    locked = DUMP.usage - 17 * MIB
    sizes = {
        "anon": 15 * MIB,
        "file": locked,
        "shmem": 0,
        "unevictable": locked,
        "file_dirty": 0,
        "active_anon": MIB,
    }
    sampled = {f"{name}_bytes": value for name, value in sizes.items()} | {"usage_bytes": DUMP.usage}
    trace.add("samples", 1, cgroup_id=1, source="oom", kill_id=1, **sampled)
    assert only(trace).composition.unevictable is None
    log(trace, 1, *DUMP.lines())
    report = only(trace)
    assert (report.composition.unevictable, report.composition.file_clean) == (locked, 0)
    assert report.memory_stat_bytes["active_anon"] == MIB
    assert report.memory_stat_bytes["inactive_anon"] == DUMP.usage - 5 * MIB
    assert "memory_stat_bytes" in report.quality.kmsg_fields
    assert source_of(report, "part_of_usage", part="unevictable") == ("samples", "kernel_log")


def test_number_that_the_sample_has_is_not_cited_to_the_log_that_completed_others(trace: Any) -> None:
    """The log has another number of anon: a victim was freeing its memory meanwhile."""
    kill(trace, 1)
    anon = DUMP.usage - 17 * MIB
    trace.add(
        *("samples", 1),
        **{"cgroup_id": 1, "source": "oom", "kill_id": 1, "usage_bytes": DUMP.usage},
        **{"anon_bytes": anon, "file_bytes": 15 * MIB, "shmem_bytes": MIB, "unevictable_bytes": 0},
    )
    log(trace, 1, *DUMP.lines())
    report = only(trace)
    assert "memory_stat_bytes" in report.quality.kmsg_fields
    assert report.composition.anon == anon != DUMP.usage - 5 * MIB
    assert source_of(report, "part_of_usage", part="anon") == ("samples",)
    assert source_of(report, "part_of_usage", part="file_clean") == ("samples", "kernel_log")  # less dirty


def test_victim_that_had_exited_has_the_sizes_of_the_log(trace: Any) -> None:
    gone: dict[str, Any] = dict.fromkeys(
        ("anon_rss_bytes", "file_rss_bytes", "shmem_rss_bytes", "pgtables_bytes", "swap_bytes")
    )
    kill(trace, 1, **gone)
    log(trace, 1, *replace(DUMP, file_rss=0).lines())
    report = only(trace)
    (victim,) = report.victims
    assert (victim.anon_rss_bytes, victim.file_rss_bytes, victim.swap_bytes) == (DUMP.anon_rss, 0, 0)
    assert "victims.anon_rss_bytes" in report.quality.kmsg_fields
    assert "victims.anon_rss_bytes" not in report.quality.unknown


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (None, "did not read the kernel log"),
        ("/dev/kmsg: Operation not permitted", "it could not be read: /dev/kmsg: Operation not permitted"),
        ("read", "the kernel logged nothing on this kill"),
    ],
)
def test_quality_without_a_log_says_why(trace: Any, state: str | None, says: str) -> None:
    kill(trace, 1)
    log(trace, 1, *replace(DUMP, pid=51).lines())
    trace.meta["kernel_log"] = state
    report, other = explain(trace)
    assert other.victims[0].pid == 51
    assert report.quality.kmsg == "missing"
    assert says in report.quality.kmsg_missing
    assert report.trigger.gfp_names == ""
    assert "doubt_inferred_limit" in kinds_of(report.verdict.evidence)


def test_quality_of_an_overrun_log_counts_the_loss(trace: Any) -> None:
    kill(trace, 1)
    trace.add("loss", 1.2, begin=trace.ns(0.9), stream="kernel_log", lost=40)
    report = only(trace)
    assert (report.quality.kmsg, report.quality.lost_records) == ("missing", 0)
    assert "40 records" in report.quality.kmsg_missing
    log(trace, 1, DUMP.kill())
    report = only(trace)  # the missing parts were lost, not left out by the kernel
    assert report.quality.kmsg == "matched"
    assert "40 records" in report.quality.kmsg_missing


def test_quality_of_a_rate_limited_report_says_so(trace: Any) -> None:
    """The line of the kill follows a whole report and is not part of it."""
    kill(trace, 1)
    log(trace, 1, *DUMP.lines())
    later = replace(DUMP, pid=60, anon_rss=80 * MIB)
    kill(trace, 1.02, later)
    log(trace, 1.02, later.kill())
    first, second = explain(trace)
    assert (first.quality.kmsg, second.quality.kmsg) == ("matched", "rate_limited")
    assert RATE_LIMITED in second.quality.kmsg_missing
    assert (second.trigger.order, second.trigger.gfp, second.quality.disagreements) == (None, 0x100, ())
    assert first.quality.disagreements == ()
    log(trace, 1.04, replace(later, pid=60, anon_rss=MIB).kill())
    assert len(explain(trace)) == 2


def test_quality_without_a_table_of_tasks_is_not_rate_limited(trace: Any) -> None:
    kill(trace, 1)
    log(trace, 1, *replace(DUMP, has_tasks=False).lines())
    report = only(trace)
    assert report.quality.kmsg == "matched"
    assert "vm.oom_dump_tasks" in report.quality.kmsg_missing
    assert report.trigger.order == 0


def test_kills_50_ms_apart_match_their_own_reports(trace: Any) -> None:
    one, other = DUMP, replace(DUMP, pid=61, comm="other", oom_memcg="/b", usage=30 * MIB, limit=30 * MIB)
    trace.add("cgroups", cgroup_id=2, path="/b", created=trace.ns(0))
    kill(trace, 1, one)
    trace.add("cgroups", cgroup_id=1, path="/box", created=trace.ns(0))
    trace.meta |= {"kernel_log": "read", "cpus": 1}
    kill(trace, 1.05, other, limit_owner_cgroup_id=2)
    log(trace, 1, *one.lines())
    log(trace, 1.05, *other.lines())
    reports = explain(trace)
    assert [report.quality.disagreements for report in reports] == [(), ()]
    assert [report.quality.kmsg for report in reports] == ["matched", "matched"]


def test_kills_of_a_reused_pid_match_their_own_reports(trace: Any) -> None:
    """The report belongs to the kill near it; the other kill has none."""
    kill(trace, 1)
    kill(trace, 20, replace(DUMP, comm="later"))
    log(trace, 20, *replace(DUMP, comm="later").lines())
    first, second = explain(trace)
    assert (first.quality.kmsg, second.quality.kmsg) == ("missing", "matched")
    assert second.quality.disagreements == ()


def test_report_that_a_starved_recorder_read_late_matches(trace: Any) -> None:
    """Without an earlier record, the time of the report is that of its reading."""
    kill(trace, 1)
    log(trace, 20, *DUMP.lines())
    assert [report.quality.kmsg for report in explain(trace)] == ["matched"]


@pytest.mark.parametrize("after_s", [-3, 70])
def test_report_long_before_or_after_the_kill_does_not_match(trace: Any, after_s: int) -> None:
    kill(trace, 10)
    log(trace, 10 + after_s, *DUMP.lines())
    assert sorted(report.quality.kmsg for report in explain(trace)) == ["missing", "only"]


def test_report_matches_only_one_kill(trace: Any) -> None:
    kill(trace, 1)
    kill(trace, 1.5)
    log(trace, 1.5, *DUMP.lines())
    assert [report.quality.kmsg for report in explain(trace)] == ["missing", "matched"]


def test_lines_with_disordered_times_are_read_in_the_order_of_the_log(trace: Any) -> None:
    kill(trace, 1)
    log(trace, 1, *DUMP.lines(), gain=-1)
    report = only(trace)
    assert (report.quality.kmsg, report.quality.kmsg_missing) == ("matched", "")
    assert report.trigger.order == 0


def test_group_kill_matches_one_report(trace: Any) -> None:
    kill(trace, 1)
    kill(trace, 1.001, replace(DUMP, pid=51), kill_id=1, trigger_pid=50)
    lines = list(DUMP.lines())
    log(trace, 1, *lines, "Tasks in /box are going to be killed due to memory.oom.group set")
    log(trace, 1.001, replace(DUMP, pid=51).kill())
    report = only(trace)
    assert report.quality.disagreements == ()
    assert len(report.victims) == 2
    log(trace, 1.002, replace(DUMP, pid=52).kill())
    assert only(trace).quality.disagreements == (
        "the kernel log has a kill of pid 52, which was not marked as a victim",
    )


def test_names_that_are_not_utf_8_match(trace: Any) -> None:
    """Bytes that are not UTF-8 are escapes in a trace."""
    hostile = replace(DUMP, comm="a\n\udcffKilled p", oom_memcg="/bö\\x", task_memcg="/bö\\x")
    trace.add("cgroups", cgroup_id=1, path="/bö\\x", created=trace.ns(0))
    trace.meta |= {"kernel_log": "read", "cpus": 1}
    kill(trace, 1, replace(hostile, comm="a\n\\xffKilled p"))
    log(trace, 1, *hostile.lines())
    report = only(trace)
    assert (report.quality.kmsg, report.quality.disagreements) == ("matched", ())
    assert report.candidates[0].comm == "a\n\\xffKilled p"


def test_global_kill_of_the_log_replaces_an_inferred_memcg_kill(trace: Any) -> None:
    """The inference took a page counter that happened to be full; the log has the constraint."""
    kill(trace, 1)
    lines = [line for line in DUMP.lines() if "total_" not in line and "cgroup" not in line]
    lines = [line for line in lines if not line.startswith(("memory", "kmem", "oom-kill"))]
    lines.append(
        "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,"
        "task_memcg=/box,task=hog,pid=50,uid=0"
    )
    log(trace, 1, *lines, DUMP.kill().replace("Memory cgroup out", "Out"))
    report = only(trace)
    assert (report.constraint, report.limit_owner.cgroup) == ("global", None)
    assert "constraint" in report.quality.kmsg_fields
    assert "constraint: memcg, in the kernel log global" in report.quality.disagreements
