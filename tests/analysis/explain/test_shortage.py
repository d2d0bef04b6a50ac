"""Kills for which no limit was full."""

from __future__ import annotations

from typing import Any

import pytest
from support.evidence import numbers_of
from synthetic.memcg_kill import only_report, record_kill

from tracer.analysis.explain import logged_kills
from tracer.analysis.results.kill import OomReport
from tracer.kernel.kmsg.parser import reports

MEM_INFO = """Mem-Info:
active_anon:{anon} inactive_anon:0 isolated_anon:0
 active_file:10 inactive_file:10 isolated_file:0
 unevictable:0 dirty:0 writeback:0
 slab_reclaimable:100 slab_unreclaimable:{slab}
 mapped:0 shmem:0 pagetables:10
 free:{free} free_pcp:0 free_cma:0
Node 0 active_anon:0kB all_unreclaimable? no Balloon:0kB gpu_active:{gpu}kB gpu_reclaim:{pool}kB
Normal free:{normal}kB min:4000kB low:5000kB high:6000kB active_anon:0kB present:190000kB managed:190000kB
HighMem free:{high}kB min:500kB low:700kB high:900kB active_anon:0kB present:210000kB managed:210000kB
Node 0 hugepages_total={huge} hugepages_free={unused} hugepages_surp=0 hugepages_size=2048kB
100000 pages RAM
0 pages reserved"""
OF_MACHINE = {
    **{"gfp": "0xcc0(GFP_KERNEL)", "order": 0, "function": "__alloc_pages", "constraint": "CONSTRAINT_NONE"},
    **{"anon": 90_000, "slab": 1000, "free": 2000, "normal": 3000, "high": 400},
    **{"huge": 0, "unused": 0, "gpu": 0, "pool": 0},
}
PANICKED = "a asked for memory, and the kernel panicked, because vm.panic_on_oom is set: the whole machine"
KILL = "Out of memory: Killed process 9 (hog) total-vm:9000kB, anon-rss:8000kB, file-rss:0kB, shmem-rss:0kB"


def machine_kill(**changed: Any) -> OomReport:
    """Return the report on a kill of the whole machine, with these numbers changed."""
    values = OF_MACHINE | changed
    log = [
        f"asker invoked oom-killer: gfp_mask={values['gfp']}, order={values['order']}, oom_score_adj=0",
        "CPU: 0 PID: 8 Comm: asker Not tainted 6.6.0 #1",
        "Call Trace:",
        " out_of_memory+0x1/0x2",
        f" {values['function']}+0x1/0x2",
        *MEM_INFO.format(**values).split("\n"),
        f"oom-kill:constraint={values['constraint']},nodemask=(null),cpuset=/,mems_allowed=4,global_oom,"
        "task_memcg=/,task=hog,pid=9,uid=0",
        KILL,
    ]
    (report,) = logged_kills.explain(reports(log))
    return report


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "the whole machine had none left; 7.8 MiB of the machine's 390.6 MiB was free"),
        ({"order": -1, "function": "moom_callback"}, "by hand (SysRq-F)"),
        ({"gfp": "0x0()", "function": "pagefault_out_of_memory"}, "pagefault_out_of_memory, gfp 0x0"),
        ({"gfp": "0x0()"}, "pagefault_out_of_memory, gfp 0x0"),  # its call trace was cut out
        ({"order": 3, "normal": 90_000}, "not in one piece of 32 KiB (order 3): it is fragmented"),
        ({"high": 90_000}, "low memory (zone Normal) was exhausted"),
        ({"high": 90_000, "order": 1, "gfp": "0xd0"}, "low memory (zone Normal) was exhausted"),
        ({"high": 90_000, "order": 1, "gfp": "0x200d2"}, "not in one piece of 8 KiB (order 1)"),
        ({"high": 90_000, "gfp": "0x201da"}, "the whole machine had none left"),
        (
            {"constraint": "CONSTRAINT_CPUSET"},
            "its cpuset allows (node 4) had none left; 3.3 MiB of 390.6 MiB",
        ),
        ({"constraint": "CONSTRAINT_MEMORY_POLICY"}, "its memory policy allows (node 4) had"),
        ({"constraint": "CONSTRAINT_BPF_OURS"}, "a BPF policy had it killed (CONSTRAINT_BPF_OURS)"),
        ({"slab": 70_000, "anon": 100}, "273.8 MiB of its 390.6 MiB was slab"),
        ({"anon": 100}, "was memory that no counter names: pages of drivers, or a leak"),
        ({"anon": 9000, "gpu": 200_000, "pool": 4800}, "200 MiB of its 390.6 MiB was memory of GPU drivers"),
        # Not much of the machine, but known: the rest is not.
        (
            {"anon": 100, "gpu": 80_000},
            "299.9 MiB of its 390.6 MiB (76.8 %) was memory that no counter names",
        ),
        # 160 huge pages of 2 MiB are 81,920 pages of 4 KiB.
        (
            {"anon": 9000, "huge": 160, "unused": 7},
            "320 MiB of its 390.6 MiB was kept for huge pages (hugetlb), and 14 MiB of that was not in use",
        ),
    ],
)
def test_summary_of_a_global_kill_names_the_shortage(changed: dict[str, Any], expected: str) -> None:
    assert expected in machine_kill(**changed).verdict.summary


_ALL = "the whole machine had none left"
_ANY = "the whole machine, or the nodes that a cpuset or a memory policy allowed, had none left"


@pytest.mark.parametrize(
    ("lacks", "expected"),
    [
        ((), _ALL),
        (("oom-kill:",), _ALL),  # all nodes are shown
        (("oom-kill:", "pages RAM"), _ANY),
        (("oom-kill:", "Normal", "HighMem", "Mem-Info", "active", "free:", "pages"), _ANY),
    ],
)
def test_whole_machine_is_named_only_if_a_line_shows_it(lacks: tuple[str, ...], expected: str) -> None:
    log = [
        "asker invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        *MEM_INFO.format(**OF_MACHINE).split("\n"),
        "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=4,global_oom,"
        "task_memcg=/,task=hog,pid=9,uid=0",
        KILL,
    ]
    (report,) = logged_kills.explain(
        reports([line for line in log if not any(map(line.__contains__, lacks))])
    )
    assert report.constraint == "global"
    assert expected in report.verdict.summary


def test_cpuset_in_the_line_of_older_kernels_shows_the_whole_machine() -> None:
    log = [
        "asker invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        "asker cpuset=/ mems_allowed=0",
        KILL,
    ]
    (report,) = logged_kills.explain(reports(log))
    assert _ALL in report.verdict.summary


@pytest.mark.parametrize(
    ("dma32", "expected"), [(1000, "not in one piece of 16 KiB"), (15_000, "allowed, had none left")]
)
def test_memory_that_a_lower_zone_keeps_is_not_fragmented(dma32: int, expected: str) -> None:
    log = [
        "asker invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=2, oom_score_adj=0",
        "Mem-Info:",
        "active_anon:200000 inactive_anon:0 isolated_anon:0",
        " free:10600 free_pcp:0 free_cma:0",
        "Node 0 DMA32 free:40000kB min:400kB low:500kB high:600kB present:90000kB managed:90000kB",
        f"lowmem_reserve[]: 0 0 {dma32} {dma32}",
        "Node 0 Normal free:2400kB min:4000kB low:5000kB high:6000kB present:330000kB managed:330000kB",
        "lowmem_reserve[]: 0 0 0 0",
        "Out of memory: Killed process 9 (hog) total-vm:9000kB, anon-rss:8000kB, file-rss:0kB",
    ]
    (report,) = logged_kills.explain(reports(log))
    assert expected in report.verdict.summary


@pytest.mark.parametrize(
    ("changed", "cause", "advised"),
    [
        ({}, "global_pressure", "what filled the machine"),
        ({"order": -1, "function": "moom_callback"}, "unknown", "/proc/sysrq-trigger"),
        ({"gfp": "0x0()", "function": "pagefault_out_of_memory"}, "unknown", None),
        ({"order": 3, "normal": 90_000}, "global_pressure", "More memory may not help"),
        ({"high": 90_000}, "global_pressure", "More memory does not help"),
        ({"anon": 9000, "huge": 160, "unused": 19}, "global_pressure", "find what filled the machine"),
        ({"anon": 9000, "huge": 160, "unused": 20}, "global_pressure", "vm.nr_hugepages: 40 MiB of huge"),
        ({"constraint": "CONSTRAINT_CPUSET"}, "global_pressure", "cpuset.mems"),
        ({"constraint": "CONSTRAINT_BPF_OURS"}, "unknown", None),
    ],
)
def test_cause_and_advice_of_a_global_kill_follow_from_the_shortage(
    changed: dict[str, Any], cause: str, advised: str | None
) -> None:
    report = machine_kill(**changed)
    assert report.verdict.cause == cause
    assert (report.advice == ()) if advised is None else (advised in report.advice[0])


def test_cause_with_usage_far_below_the_limit_is_unknown() -> None:
    log = [
        "memory: usage 53192kB, limit 262144kB, failcnt 99902",
        "memory+swap: usage 53192kB, limit 524288kB, failcnt 0",
        "kmem: usage 0kB, limit 9007199254740991kB, failcnt 0",
        "Memory cgroup stats for /lxc/a: cache:18092KB rss:34988KB inactive_anon:4344KB active_anon:48720KB",
    ]
    (report,) = logged_kills.explain(reports(log))
    assert report.verdict.cause == "unknown"
    assert "the limit was not reached: usage was 51.9 MiB, and the limit 256 MiB" in report.verdict.summary
    (full,) = logged_kills.explain(reports([log[0].replace("53192", "261000"), *log[1:]]))
    assert full.verdict.cause != "unknown" or "not reached" not in full.verdict.summary
    # The limit of memory and swap together, or of kernel memory, may be the one that was hit.
    (swap,) = logged_kills.explain(reports([log[0], log[1].replace("53192", "524280"), *log[2:]]))
    assert "not reached" not in swap.verdict.summary


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Kernel panic - not syncing: Out of memory: system-wide panic_on_oom is enabled", PANICKED),
        (
            "Kernel panic - not syncing: System is deadlocked on memory",
            "and the kernel panicked, because it found no process that it could kill: the whole machine,",
        ),
        ("Out of memory and no killable processes...", "no process that the kernel could kill"),
    ],
)
def test_panic_of_the_kernel_has_no_victim(line: str, expected: str) -> None:
    log = ["a invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0", "Mem-Info:", line]
    (report,) = logged_kills.explain(reports(log))
    assert report.victims == ()
    assert expected in report.verdict.summary


@pytest.mark.parametrize("line", [KILL, "Kernel panic - not syncing: Out of memory: panic_on_oom is enabled"])
def test_kill_after_sysrq_is_by_hand_without_its_report(line: str) -> None:
    (report,) = logged_kills.explain(reports(["sysrq: Manual OOM execution", line]))
    assert "by hand (SysRq-F)" in report.verdict.summary and report.verdict.cause == "unknown"


def test_only_the_first_kill_after_sysrq_is_by_hand() -> None:
    log = ["sysrq: Manual OOM execution", KILL, KILL.replace("9 ", "10 ", 1)]
    first, later = logged_kills.explain(reports(log))
    assert "by hand" in first.verdict.summary and "by hand" not in later.verdict.summary


MIB = 1 << 20


def holders_of(trace: Any) -> dict[str, tuple[int, int]]:
    """Kill at 30 s for lack of memory, and return cgroup -> (held, charged lately) in MiB, in the order."""
    record_kill(
        trace, 30, constraint="global", limit_owner_cgroup_id=None, usage_bytes=None, limit_bytes=None
    )
    found = numbers_of(only_report(trace).verdict.evidence, "machine_holders")
    return {
        one["cgroup"]: (one["held_bytes"] // MIB, one["charged_bytes"] // MIB)
        for numbers in found
        for one in numbers["cgroups"]
    }


def made(trace: Any, number: int, path: str, *charges: tuple[float, int]) -> None:
    trace.add("cgroups", cgroup_id=number, path=path, created=trace.ns(0))
    for seconds, mib in charges:
        trace.charged(seconds, number, "anon", mib * MIB)


def test_holders_are_ranked_by_what_they_held(trace: Any) -> None:
    made(trace, 1, "/steady", (1, 70))
    made(trace, 2, "/growing", (1, 7), (25, 40), (31, 500))
    made(trace, 3, "/freeing", (1, 90), (26, -13))
    made(trace, 4, "/empty", (1, 5), (2, -5))
    assert holders_of(trace) == {"/freeing": (77, -13), "/steady": (70, 0), "/growing": (47, 40)}


def test_memory_of_a_lower_cgroup_is_not_its_parents(trace: Any) -> None:
    made(trace, 1, "/pods", (25, 3))
    made(trace, 2, "/pods/one", (1, 20))
    made(trace, 3, "/pods/one/deep", (25, 11))
    assert holders_of(trace) == {"/pods/one": (20, 0), "/pods/one/deep": (11, 11), "/pods": (3, 3)}


def test_start_sample_of_a_parent_includes_lower_cgroups(trace: Any) -> None:
    for number, path, mib in ((1, "/a", 30), (2, "/a/b", 23)):
        trace.add("cgroups", cgroup_id=number, path=path)
        sizes = dict.fromkeys(("file", "shmem", "kernel", "sock"), 0)
        trace.add(
            "samples",
            0,
            cgroup_id=number,
            source="start",
            anon_bytes=mib * MIB,
            **{f"{name}_bytes": value for name, value in sizes.items()},
        )
    assert holders_of(trace) == {"/a/b": (23, 0), "/a": (7, 0)}


def test_cgroup_that_charged_most_lately_is_always_among_them(trace: Any) -> None:
    for number in range(1, 15):
        made(trace, number, f"/{number}", (1, 100 + number))
    made(trace, 20, "/late", (29, 50))
    found = holders_of(trace)
    assert list(found) == [*(f"/{number}" for number in range(14, 5, -1)), "/late"]


def test_kill_in_a_trace_without_cgroups_has_no_holders(trace: Any) -> None:
    assert holders_of(trace) == {}


def test_sysrq_is_by_hand_without_the_line_about_a_kill() -> None:
    log = ["kworker/1:0 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=-1, oom_score_adj=0"]
    (report,) = logged_kills.explain(reports(log))
    assert "by hand (SysRq-F)" in report.verdict.summary


@pytest.mark.parametrize(("anon_kb", "first"), [(90_000, "hog"), (3000, "small")])
def test_victim_without_a_row_is_among_the_largest_processes(anon_kb: int, first: str) -> None:
    log = [
        "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name",
        "[      7]     0     7     2000     1000    45056        0             0 small",
        f"Out of memory: Killed process 9 (hog) total-vm:95000kB, anon-rss:{anon_kb}kB, file-rss:0kB",
    ]
    (report,) = logged_kills.explain(reports(log))
    (found,) = numbers_of(report.verdict.evidence, "largest_processes")
    assert found["largest"][0]["comm"] == first


@pytest.mark.parametrize(
    ("grown", "first"),
    [
        (20, "No cgroup's limit was hit. Look first at hog (pid 50), which was killed: it held 900 MiB."),
        (800, "Look at /a first: of the traced cgroups, it charged most just before the kill (800 MiB)."),
    ],
)
def test_larger_process_comes_before_a_traced_cgroup_that_grew_little(
    trace: Any, grown: int, first: str
) -> None:
    made(trace, 1, "/a", (25, grown))
    for pid, comm, mib in ((50, "hog", 900), (51, "sh", 3)):
        sizes = {"rss_bytes": mib * MIB, "anon_rss_bytes": mib * MIB, "file_rss_bytes": 0, "swap_bytes": 0}
        row = {"kill_id": 1, "pid": pid, "tgid": pid, "comm": comm, "oom_score_adj": 0, "chosen": pid == 50}
        trace.add("oom_candidates", 30, cgroup_id=9, badness=mib * 256, **sizes, **row)
    of_machine = {"limit_owner_cgroup_id": None, "usage_bytes": None, "limit_bytes": None, "cgroup_id": 9}
    record_kill(trace, 30, constraint="global", comm="hog", **of_machine)
    report = only_report(trace)
    assert report.advice[0] == first
    (found,) = numbers_of(report.verdict.evidence, "largest_processes")
    assert [(one["comm"], one["held_bytes"]) for one in found["largest"]] == [
        ("hog", 900 * MIB),
        ("sh", 3 * MIB),
    ]


@pytest.mark.parametrize(
    ("killed_in", "first"),
    [
        (1, "Look at /a first: of the traced cgroups, it charged most just before the kill (300 MiB)."),
        (9, "No cgroup's limit was hit. Look first at the 3 processes app: together they held 850 MiB."),
    ],
)
def test_processes_of_the_cgroup_that_grew_do_not_come_before_it(
    trace: Any, killed_in: int, first: str
) -> None:
    """The other processes of the name of the killed one held 550 MiB, the cgroup 300."""
    made(trace, 1, "/a", (25, 300))
    for pid, mib in ((50, 300), (51, 275), (52, 275)):
        sizes = {"rss_bytes": mib * MIB, "anon_rss_bytes": mib * MIB, "file_rss_bytes": 0, "swap_bytes": 0}
        row = {"kill_id": 1, "pid": pid, "tgid": pid, "comm": "app", "oom_score_adj": 0, "chosen": pid == 50}
        trace.add("oom_candidates", 30, cgroup_id=9, badness=mib * 256, **sizes, **row)
    of_machine = {"limit_owner_cgroup_id": None, "usage_bytes": None, "limit_bytes": None}
    sizes = {"anon_rss_bytes": 300 * MIB, "file_rss_bytes": 0, "shmem_rss_bytes": 0}
    record_kill(trace, 30, constraint="global", comm="app", cgroup_id=killed_in, **of_machine, **sizes)
    assert only_report(trace).advice[0] == first


@pytest.mark.parametrize(
    ("order", "words"), [(2, "had no 4 contiguous pages left (order 2)"), (0, "had none left")]
)
def test_large_request_without_the_state_of_the_machine_is_named(order: int, words: str) -> None:
    log = [
        f"java invoked oom-killer: gfp_mask=0x26142c0, order={order}, oom_score_adj=0",
        "java cpuset=/ mems_allowed=0",
        "CPU: 5 PID: 22114 Comm: java Not tainted 4.4.0-59-generic #80-Ubuntu",
        "Call Trace:",
        " dump_header+0x5a/0x1c5",
        " __alloc_pages_slowpath+0x8fd/0xa70",
        " __alloc_pages_nodemask+0x286/0x2a0",
    ]
    (report,) = logged_kills.explain(reports(log))
    assert f"the whole machine {words}" in report.verdict.summary
    assert any("contiguous pages" in advice for advice in report.advice) == (order > 0)
