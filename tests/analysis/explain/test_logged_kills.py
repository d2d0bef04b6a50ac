"""Post-mortems of the logs in the corpus, and of short logs with known numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.evidence import numbers_of

from tracer.analysis.explain import logged_kills
from tracer.analysis.explain.logged_kills import LogKills
from tracer.analysis.explain.words.sentence_parts import trigger_name
from tracer.analysis.results.kill import OomReport
from tracer.kernel.kmsg.parser import reports
from tracer.kernel.kmsg.text.lines import split

CORPUS = Path(__file__).parents[2] / "kernel/kmsg/corpus"
LOGS = sorted(path for path in CORPUS.glob("*-*") if not path.name.endswith(".expected.json"))
MIB = 1 << 20


def explained(name: str) -> list[OomReport]:
    return list(logged_kills.explain(reports(split([(CORPUS / name).read_bytes()]))))


@pytest.mark.parametrize("log", LOGS, ids=lambda path: path.name)
def test_explain_of_each_log_adds_up_and_has_reasons_for_nulls(log: Path) -> None:
    for number, report in enumerate(explained(log.name), start=1):
        document = report.to_dict()
        assert json.loads(json.dumps(document)) == document
        assert report.kill_id == number
        assert report.quality.kmsg == "only"
        made_of = report.composition
        if made_of.total is not None:
            assert sum(part or 0 for _, part in made_of.parts()) == made_of.total
        assert made_of.total == report.limit_owner.usage_bytes
        assert min((part or 0 for name, part in made_of.parts() if name != "other"), default=0) >= 0
        nulls = {null for null in _nulls(document, "") if not null.startswith("kernel_log.")}
        unknown = set(report.quality.unknown)
        assert {null for null in nulls if not _is_covered(null, unknown)} <= _known_to_be_none(report)


def _nulls(value: Any, name: str) -> list[str]:
    if isinstance(value, dict):
        return [null for key, item in value.items() for null in _nulls(item, f"{name}.{key}".strip("."))]
    if isinstance(value, list):
        return [null for item in value for null in _nulls(item, name)]
    return [name] if value is None else []


def _is_covered(null: str, unknown: set[str]) -> bool:
    return null in unknown or null.partition(".")[0] in unknown


def _known_to_be_none(report: OomReport) -> set[str]:
    """Return the fields that are null without a reason: no container or pod, no badness of its own, no look
    at the page cache."""
    is_known = report.limit_owner.cgroup is not None
    # No log has titles and numbers of threads, and not each has the process of a thread.
    names = {"trigger.cmdline", "victims.cmdline", "candidates.cmdline", "trigger.tgid", "victims.threads"}
    names |= {"limit_owner.lowered", "cached"}
    names |= (
        {f"limit_owner.{name}" for name in ("container", "pod", "namespace", "image")} if is_known else set()
    )
    never = {"candidates.badness"} if any(one.oom_score_adj == -1000 for one in report.candidates) else set()
    badness = {"candidates.adj_pages", "candidates.held_pages"}
    return names | never | (badness if "candidates.badness" in report.quality.unknown else set())


def test_cause_with_full_swap_is_swap_exhausted() -> None:
    assert [one.verdict.cause for one in explained("captured-6.12-debian13-v2-dmesg-x.log")] == [
        "swap_exhausted",
        "shmem",
    ]
    _, full = explained("captured-6.1-debian12-v1-dmesg.log")
    assert full.verdict.cause == "swap_exhausted"
    assert full.composition.anon is not None
    assert full.composition.anon > 23 * MIB  # half of it is in the swap cache, which only this class has


def test_limit_owner_of_an_ancestors_limit_is_the_ancestor() -> None:
    report = explained("captured-6.1-debian12-v2-kmsg.log")[0]
    owner = report.limit_owner
    assert (owner.cgroup, owner.is_ancestor, owner.limit_bytes) == ("/web.slice", True, 48 * MIB)
    assert report.trigger.cgroup == report.victims[0].cgroup == "/web.slice/app.service"
    assert "(above the cgroup that asked)" in report.verdict.summary


def test_limit_owner_without_names_has_the_containers_id() -> None:
    (docker,) = explained("written-5.4-ubuntu20.04-v1-journal.log")
    assert docker.limit_owner.container is not None
    assert docker.limit_owner.container.startswith("9c1d0ec8a5f5")
    (pod,) = explained("written-5.10-debian11-v2-rfc3339.log")
    assert (pod.limit_owner.container, pod.limit_owner.pod) == (None, "5931aa75-4603-4e65-b552-7c71cf55cfb5")
    assert pod.verdict.cause == "shmem"


def test_composition_from_old_counters_is_summed_over_the_tree() -> None:
    (report,) = explained("written-4.19-debian10-v1-kern.log")
    made_of = report.composition
    assert made_of.anon == (1840 + 515836) << 10
    assert made_of.file_clean == (188 + 412 - 132) << 10
    assert made_of.writeback == 132 << 10
    assert "6156288 bytes" in report.quality.unknown["composition.page_tables"]
    assert [victim.pid for victim in report.victims] == [21931]
    assert [one.pid for one in report.candidates if one.chosen] == [21854]


def test_group_kill_has_a_victim_for_each_line() -> None:
    report = explained("captured-6.1-debian12-v2-kmsg.log")[1]
    assert [victim.pid for victim in report.victims] == [142, 139, 140, 141]
    assert all(victim.group_kill for victim in report.victims)
    assert [victim.cgroup for victim in report.victims] == ["/batch", None, None, None]


def test_time_of_a_log_with_a_time_zone_is_utc() -> None:
    def time_of(name: str) -> tuple[str | None, str]:
        report = explained(name)[0]
        return report.to_dict()["time"], report.quality.unknown.get("time", "")

    assert time_of("captured-6.18-debian13-v2-dmesg-iso.log")[0] == "2026-11-25T09:35:02.246273+00:00"
    assert time_of("written-5.10-debian11-v2-rfc3339.log")[0] == "2024-10-12T17:00:20.347274+00:00"
    assert time_of("written-6.8-ubuntu24.04-v2-journal.json")[0] == "2024-11-10T16:00:00.123456+00:00"
    assert "1367.841788 s" in time_of("captured-6.18-v1-kmsg.log")[1]
    assert "Nov 02 14:03:27" in time_of("written-5.4-ubuntu20.04-v1-journal.log")[1]
    assert "no times" in time_of("written-4.19-global-bare.log")[1]


def test_kill_without_a_report_has_a_short_summary() -> None:
    report = explained("written-6.6-cut.log")[1]
    assert report.verdict.summary.startswith("limited (pid 812) was killed because a cgroup was at its limit")
    assert (report.verdict.cause, report.trigger.pid, report.composition.total) == ("unknown", None, None)


def test_report_without_its_kill_has_no_victim() -> None:
    report = explained("written-6.6-cut.log")[2]
    assert report.victims == ()
    assert "ends before" in report.quality.unknown["victims"]


def test_report_without_a_killable_process_has_no_victim() -> None:
    report = next(one for one in explained("captured-7.3-debian13-v2-dmesg-T.log") if not one.victims)
    assert "no process" in report.quality.unknown["victims"]


def test_kill_of_the_machine_is_global_pressure() -> None:
    report = explained("captured-6.18-debian13-v2-dmesg-iso.log")[1]
    assert (report.constraint, report.verdict.cause) == ("global", "global_pressure")
    assert report.candidates[0].chosen
    assert report.badness_total_pages == 163707 - 18593


def test_page_size_follows_from_pages_and_kb_in_the_log() -> None:
    def size_of(name: str) -> int | None:
        place = explained(name)[0].kernel_log
        return None if place is None else place.page_size

    assert size_of("captured-6.18-v1-kmsg.log") == 4096
    assert size_of("written-6.6-cut.log") == 4096


def test_cause_by_the_victim_alone_needs_nearly_all_of_the_limit() -> None:
    log = [
        "memory: usage 10000kB, limit 10000kB, failcnt 7",
        "Memory cgroup out of memory: Killed process 9 (hog) total-vm:90000kB, anon-rss:9200kB, file-rss:0kB",
    ]
    (report,) = logged_kills.explain(reports(log))
    assert report.verdict.cause == "anon_growth"
    (held,) = numbers_of(report.verdict.evidence, "killed_held_limit")
    assert held == {"anon_rss_bytes": 9200 << 10, "limit_bytes": 10_000 << 10}
    (other,) = logged_kills.explain(reports([log[0], log[1].replace("9200kB", "8000kB")]))
    assert other.verdict.cause == "unknown"


def test_summary_with_a_full_limit_of_memory_and_swap_names_it() -> None:
    log = [
        "memory: usage 10000kB, limit 20000kB, failcnt 0",
        "memory+swap: usage 30000kB, limit 30000kB, failcnt 9",
        "Memory cgroup out of memory: Killed process 9 (hog) total-vm:90000kB, anon-rss:9200kB, file-rss:0kB",
    ]
    (report,) = logged_kills.explain(reports(log))
    assert "its limit of memory and swap together, 29.3 MiB" in report.verdict.summary


def test_limit_of_the_largest_number_is_no_limit() -> None:
    log = [
        "memory: usage 42240kB, limit 9007199254740988kB, failcnt 0",
        "swap: usage 0kB, limit 0kB, failcnt 0",
    ]
    (report,) = logged_kills.explain(reports(log))
    owner = report.to_dict()["limit_owner"]
    assert (owner["limit_bytes"], owner["is_limited"]) == (None, False)
    assert "no limit is set" in report.quality.unknown["limit_owner.limit_bytes"]


def test_numbers_that_are_impossible_are_not_known() -> None:
    """A number with kB in a broken line is no number of pages, and no part is larger than the whole."""
    log = [
        "a invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        "Mem-Info:",
        "active_anon:500 inactive_anon:900000 isolated_anon:0",
        "active_file:16696kB inactive_file:850072kB unevictable:0kB",
        "100000 pages RAM",
        "Killed process 9 (hog) total-vm:9000kB, anon-rss:8000kB, file-rss:0kB",
    ]
    (found,) = reports(log)
    assert found.mem_info is not None
    assert dict(found.mem_info.pages) == {"active_anon": 500, "isolated_anon": 0}
    (report,) = logged_kills.explain(
        reports(
            [
                "memory: usage 10000kB, limit 10000kB, failcnt 7",
                "Memory cgroup stats for /a:",
                "anon 9000000",
                "shmem 990000000000",
            ]
        )
    )
    assert report.composition.shmem is None


def test_trigger_tgid_is_known_only_from_another_line() -> None:
    """The header has the number of the thread; the line on a kill and the table of tasks have processes."""
    found, threads = 0, set()
    for log in LOGS:
        for report in explained(log.name):
            asked = report.trigger.pid
            if asked is not None and asked in {victim.pid for victim in report.victims}:
                assert report.trigger.tgid == asked
                found += 1
            elif asked is not None and report.trigger.tgid is None:
                assert asked not in {one.pid for one in report.candidates}
                threads.add(trigger_name(report.trigger))
    assert found
    assert "java (thread 21877)" in threads


def test_summary_with_a_thread_of_the_victim_as_trigger_has_one_process() -> None:
    log = (
        "worker invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        "CPU: 0 PID: 124 Comm: worker Not tainted 6.1.0",
        "memory: usage 102400kB, limit 102400kB, failcnt 5",
        "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name",
        "[    124]     0   123    30000    25000   245760        0             0 java",
        "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=a,mems_allowed=0,oom_memcg=/a,"
        "task_memcg=/a,task=java,pid=123,uid=0",
        "Memory cgroup out of memory: Killed process 123 (java) total-vm:120000kB, anon-rss:100000kB, "
        "file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:240kB oom_score_adj:0",
    )
    (report,) = logged_kills.explain(reports(log))
    assert (report.trigger.pid, report.trigger.tgid) == (124, 123)
    assert report.verdict.summary.startswith("java (pid 123) asked for more memory and was killed: ")


V1 = (
    "memory: usage 122880kB, limit 122880kB, failcnt 83",
    "memory+swap: usage 122880kB, limit 9007199254740988kB, failcnt 0",
    "kmem: usage {kmem}kB, limit 9007199254740988kB, failcnt 0",
    "Memory cgroup stats for /pod: cache:0KB rss:{rss}KB inactive_anon:0KB active_anon:{rss}KB",
)


@pytest.mark.parametrize(
    ("kmem", "rss", "cause"),
    [(0, 0, "unknown"), (120_000, 2000, "kernel_memory"), (100, 122_000, "anon_growth")],
)
def test_cause_with_counters_of_children_cut_off_is_not_kernel_memory(
    kmem: int, rss: int, cause: str
) -> None:
    """The kernel printed one line for each cgroup, and this log ends before the children."""
    (report,) = logged_kills.explain(reports([line.format(kmem=kmem, rss=rss) for line in V1]))
    assert report.verdict.cause == cause


@pytest.mark.parametrize("log", LOGS, ids=lambda path: path.name)
def test_judged_kills_have_the_parties_cause_and_confidence_of_whole_reports(log: Path) -> None:
    whole = LogKills(list(reports(split([log.read_bytes()]))))
    kills = zip(whole, whole.to_depth("causes"), whole.to_depth("parties"), strict=True)
    for at, (full, judged, outline) in enumerate(kills):
        assert judged.verdict.cause == full.verdict.cause
        assert judged.verdict.confidence == full.verdict.confidence
        for name in ("kill_id", "time", "constraint", "limit_owner", "victims", "kernel_log"):
            assert getattr(judged, name) == getattr(outline, name) == getattr(full, name)
        assert whole.to_depth("causes").explained(full.kill_id) == whole[at] == full


@pytest.mark.parametrize("log", LOGS, ids=lambda path: path.name)
def test_some_kills_of_a_log_keep_their_numbers_and_the_kill_before(log: Path) -> None:
    whole = LogKills(list(reports(split([log.read_bytes()] * 2))))
    some = whole.only(range(1, len(whole), 2))
    assert some.numbers() == [*range(2, len(whole) + 1, 2)]
    assert list(some) == some[:] == whole[1::2]
    assert list(some.only([0])) == list(some)[:1]


def test_report_without_a_kill_and_a_trigger_names_no_kill() -> None:
    title = "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name"
    row = "[    700]     0   700     4000     2100    61440        0             0 first"
    killed = "Out of memory: Killed process 700 (first) total-vm:16000kB, anon-rss:8000kB, file-rss:4kB"
    summaries = list[str]()
    for lines in ([title, row], [title, row, killed], [killed]):
        (report,) = logged_kills.explain(reports(lines))
        summaries.append(report.verdict.summary)
    assert "was killed" not in summaries[0] and "the kill itself" not in summaries[0]
    assert summaries[1].endswith("the kernel log has only a part of its report.")
    assert summaries[2].endswith("the kernel log has nothing but the kill itself.")


def test_limit_lowered_by_unknown_numbers_has_none_in_words() -> None:
    lines = [
        "[ 9.100000] sh invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        "[ 9.100001] CPU: 2 PID: 41 Comm: sh Not tainted 6.1.0 #1",
        "[ 9.100002] Call Trace:",
        "[ 9.100003]  mem_cgroup_out_of_memory+0x13f/0x160",
        "[ 9.100004]  memory_max_write+0x11b/0x1e0",
        "[ 9.100005] memory: usage 30720kB, limit 24576kB, failcnt 3",
    ]
    (cut,) = logged_kills.explain(reports(lines[:-1]))
    assert cut.verdict.summary.startswith("sh (thread 41) lowered the limit of the cgroup below its usage;")
    assert "not known" not in cut.verdict.summary.split("; ")[0]
    assert "these numbers" not in cut.verdict.summary
    assert cut.advice[0] == "Set the limit of the cgroup above what was in use when it was lowered."
    (whole,) = logged_kills.explain(reports(lines))
    assert " to 24 MiB while 30 MiB was in use;" in whole.verdict.summary
    assert whole.advice[0].endswith("above the 30 MiB that was in use when it was lowered to 24 MiB.")


@pytest.mark.parametrize(("page_kib", "shown"), [(4, 1), (8, 1), (64, 1), (4, 2)])
def test_page_size_follows_from_the_zones_of_the_whole_machine(page_kib: int, shown: int) -> None:
    managed = 1_000_000 * page_kib // shown
    lines = [
        "a invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        "Mem-Info:",
        "active_anon:500000 inactive_anon:0 isolated_anon:0",
        " slab_reclaimable:0 slab_unreclaimable:600000",
        " free:900 free_pcp:0 free_cma:0",
        f"Node 0 Normal free:90kB min:99kB low:100kB high:110kB present:{managed}kB managed:{managed}kB",
        "1010000 pages RAM",
        "10000 pages reserved",
    ]
    (report,) = logged_kills.explain(reports(lines))
    assert report.kernel_log is not None
    assert report.kernel_log.page_size == (page_kib * 1024 if shown == 1 else None)
    if shown == 1:
        assert f"{600_000 * page_kib / (1 << 20):.1f} GiB" in report.verdict.summary


def test_processes_of_one_name_without_pids_are_not_taken_for_one() -> None:
    log = [
        "java invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        "Memory cgroup out of memory: Killed process (java) total-vm:4096kB, anon-rss:1024kB, file-rss:0kB",
    ]
    (report,) = logged_kills.explain(reports(log))
    assert report.victims[0].pid is None
    assert "victims.pid" in report.quality.unknown
    assert "java asked for more memory, and java was killed for it" in report.verdict.summary


_GROUP = "Tasks in /a/b are going to be killed due to memory.oom.group set"
_KILL = "Memory cgroup out of memory: Killed process {} (w{}) total-vm:4096kB, anon-rss:1024kB"


def test_group_kill_without_its_trigger_names_the_group() -> None:
    log = [_GROUP, *(_KILL.format(pid, pid) for pid in range(100, 106))]
    (report,) = logged_kills.explain(reports(log))
    summary = report.verdict.summary
    assert "w102 (pid 102) and 3 more were killed together (memory.oom.group of the cgroup /a/b)" in summary
    (report,) = logged_kills.explain(reports(log[:2]))
    assert report.verdict.summary.startswith("w100 (pid 100) was killed because")
    (report,) = logged_kills.explain(reports(log[:1]))
    assert report.verdict.summary.startswith("every process of the cgroup /a/b was killed because")


def test_rule_that_kills_the_task_that_asks_is_named() -> None:
    kill = "Out of memory (oom_kill_allocating_task): Killed process 7 (w) total-vm:4kB, anon-rss:4kB"
    head = ["w invoked oom-killer: gfp_mask=0xcc0, order=0, oom_score_adj=0", "CPU: 0 PID: 7 Comm: w Not"]
    alone, whole = (
        next(iter(logged_kills.explain(reports(log)))).verdict.summary
        for log in ([kill], [head[0], f"{head[1]} tainted 5.10.0 #1", "Mem-Info:", kill])
    )
    assert "was killed (vm.oom_kill_allocating_task is set)" in alone
    assert "asked for memory and was killed (vm.oom_kill_allocating_task is set)" in whole


@pytest.mark.parametrize("prefix", ["[ 9.000001] ", "Jan  2 10:00:00 box kernel: ", ""])
def test_trigger_is_named_by_the_head_of_the_trace_alone(prefix: str) -> None:
    log = [
        "CPU: 2 PID: 22101 Comm: agent Kdump: loaded Tainted: G     T 3.10.0-957.el7.x86_64 #1",
        "Hardware name: none",
        "Call Trace:",
        " dump_stack+0x19/0x1b",
        " dump_header+0x90/0x229",
        " out_of_memory+0x4b6/0x4f0",
    ]
    (report,) = logged_kills.explain(reports([prefix + line for line in log]))
    trigger = report.trigger
    assert (trigger.pid, trigger.comm, trigger.stack) == (
        22101,
        "agent",
        ("dump_header+0x90/0x229", "out_of_memory+0x4b6/0x4f0"),
    )
    assert "agent (thread 22101) asked for memory" in report.verdict.summary
    assert {"trigger.gfp", "trigger.order"} <= {*report.quality.unknown}
    assert report.kernel_log is not None
    assert report.kernel_log.first_line == 1
    (other,) = logged_kills.explain(reports([prefix + line for line in log[1:]]))
    assert (other.trigger.pid, "trigger" in other.quality.unknown) == (None, True)
