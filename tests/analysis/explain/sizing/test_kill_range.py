"""The range of limits after a kill, from synthetic kills whose mappings are known to the byte."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic.findings import findings, grew, made_of

import tracer
from tracer.analysis.core import ledger
from tracer.analysis.core.subtree import Subtrees
from tracer.analysis.explain.measure import shared_memory
from tracer.analysis.explain.measure.findings import Fork
from tracer.analysis.explain.postmortem import explain
from tracer.analysis.explain.sizing import kill_range
from tracer.analysis.explain.sizing.kill_range import (
    why_elastic,
    why_none_after_kill,
    why_too_far,
    why_unfinished,
)
from tracer.analysis.results.kill import Candidate, OomReport
from tracer.analysis.results.memory import SharedFile
from tracer.analysis.views import miss_curve
from tracer.units import the

MIB = 1 << 20
OF_COMMAND: dict[str, Any] = {"filters": {"asked": [], "command": ["work"]}}


def why(trace: Any, state: str | None = None, **meta: Any) -> str | None:
    trace.meta |= meta
    subtree = Subtrees(trace).subtree_at(7)
    held = ledger.level(subtree, ledger.ANON)
    assert held is not None
    return why_unfinished(subtree, held, state) or why_elastic(subtree)


def grown(trace: Any, *steps: tuple[float, int]) -> Any:
    """Record cgroup 7 from 0 s to 9 s, which grows by so many MiB at these seconds."""
    trace.add("cgroups", cgroup_id=7, path="/work", created=trace.ns(0))
    trace.add("samples", 9, cgroup_id=7, source="end", usage_bytes=0)
    for seconds, mib in steps:
        trace.charged(seconds, 7, "anon", mib * MIB)
    return trace


def early(trace: Any) -> Any:
    return grown(trace, (1, 70), (5, -30), (8, 29))


def late(trace: Any) -> Any:
    return grown(trace, (1, 70), (8, 5))


@pytest.mark.parametrize("grow", [early, late])
def test_work_is_complete_if_its_command_succeeded(trace: Any, grow: Any) -> None:
    assert why(grow(trace), **OF_COMMAND, end_reason="command_ended", command_status=0) is None


@pytest.mark.parametrize(
    ("meta", "reason"),
    [
        ({"end_reason": "command_ended", "command_status": 2}, "ended with status 2"),
        ({"end_reason": "command_ended", "command_status": -9}, "was ended by SIGKILL"),
        ({"end_reason": "SIGINT", "command_status": 0}, "ended before its command"),
        ({"end_reason": "duration", "command_status": -15}, "ended before its command"),
        ({"ended": None}, "broke off"),
    ],
)
def test_work_is_not_complete_without_the_success_of_its_command(
    trace: Any, meta: dict[str, Any], reason: str
) -> None:
    assert reason in (why(early(trace), **OF_COMMAND, **meta) or "")


@pytest.mark.parametrize(
    "meta",
    [
        {"end_reason": "SIGINT", "filters": {"asked": ["web"], "command": None}},
        OF_COMMAND | {"end_reason": "command_ended"},  # a trace without the status
    ],
)
def test_work_without_a_known_end_must_not_grow_in_its_last_third(trace: Any, meta: dict[str, Any]) -> None:
    assert why(early(trace), **meta) is None
    trace.charged(8.5, 7, "anon", 7 * MIB)
    assert "still grew (by 6 MiB in the last third" in (why(trace) or "")


@pytest.mark.parametrize("state", ["thrashing", "throttled"])
def test_work_that_crawls_is_complete_only_if_its_command_succeeded(trace: Any, state: str) -> None:
    assert why(early(trace), "held") is None
    assert f"its tasks were {state}" in (why(trace, state) or "")
    assert why(trace, state, **OF_COMMAND, end_reason="command_ended", command_status=0) is None


def test_work_that_sigkill_cut_off_is_complete_only_if_its_command_succeeded(trace: Any) -> None:
    trace.add("sigkills", 6, cgroup_id=8, tgid=50, comm="other", way="kill")
    assert why(early(trace)) is None
    trace.add("sigkills", 8.5, cgroup_id=7, tgid=41, comm="work", way="cgroup_kill")
    assert "SIGKILL ended a process of it" in (why(trace) or "")
    assert why(trace, **OF_COMMAND, end_reason="command_ended", command_status=0) is None


def test_the_last_third_is_that_of_the_life_of_the_cgroup(trace: Any) -> None:
    grown(trace, (1, 70), (2.2, 9), (2.5, -79))
    assert why(trace) is None
    trace.forget("cgroups")
    trace.add("cgroups", cgroup_id=7, path="/work", created=trace.ns(0), removed=trace.ns(2.6))
    assert "still grew" in (why(trace) or "")


@pytest.mark.parametrize(
    ("comm", "cmdline", "bound"),
    [
        (
            "java",
            "/usr/bin/java -Xms64m -Xmx512m -jar a.jar",
            "java lets its heap grow up to its bound (-Xmx512m)",
        ),
        ("main", "java -jar a.jar", "(a part of the limit)"),
        ("node", "node --max-old-space-size=300 a.js", "(--max-old-space-size=300)"),
        ("java", None, "(a part of the limit)"),
        ("dotnet", "/usr/bin/dotnet shop.dll", "dotnet lets its heap grow up to its bound (a part of the"),
        ("javac-like", "python3 java", None),
    ],
)
def test_a_heap_that_grows_to_its_bound_is_no_demand(
    trace: Any, comm: str, cmdline: str | None, bound: str | None
) -> None:
    early(trace).add("tasks", tgid=41, comm=comm, cmdline=cmdline, cgroup_id=7, first_seen=trace.ns(1))
    found = why(trace, **OF_COMMAND, end_reason="command_ended", command_status=0)
    assert found is None if bound is None else bound in (found or "")


@pytest.mark.parametrize(
    ("file", "bound"),
    [
        ("/venv/duckdb/_duckdb.cpython-311-x86_64-linux-gnu.so", "DuckDB"),
        ("/usr/lib/libduckdb.so.1", "DuckDB"),
        ("/usr/bin/duckdb", "DuckDB"),
        ("/data/duckdb.parquet", None),
        ("/usr/lib/libduckdb_of_others.so", None),
        ("duckdb.so", None),
        ("/srv/shop/libcoreclr.so", ".NET"),
        ("/usr/lib/jvm/java-21/lib/server/libjvm.so", "Java"),
    ],
)
def test_library_that_bounds_its_memory_by_the_limit_is_no_demand(
    trace: Any, file: str, bound: str | None
) -> None:
    early(trace).add(
        "mappings", 2, tgid=41, cgroup_id=7, kind="file", name=file, count=1, rss_bytes=4096, anon_bytes=0
    )
    found = why(trace, **OF_COMMAND, end_reason="command_ended", command_status=0)
    assert (
        found is None if bound is None else f"{bound} lets its heap grow up to its bound (" in (found or "")
    )


@pytest.mark.parametrize(
    ("command", "outside"),
    [
        ("java -Xmx9m", "at least 61 MiB of 70 MiB of anonymous memory was outside that heap"),
        ("java -Xmx99m -Xmx9m", "at least 61 MiB of 70 MiB"),
        ("java -Xmx9m -XX:MaxHeapSize=67m", None),
        ("java -Xmx1g", None),
        ("java", None),
        ("node --max-old-space-size=9", None),  # and 192 MiB of young objects
        ("node --max-old-space-size=9 --max-semi-space-size=15", "at least 13 MiB of 70 MiB"),  # 3 x 16
        ("node --max-old-space-size=9 --max-semi-space-size=64", None),
    ],
)
def test_memory_that_the_heap_cannot_hold_is_outside_of_it(
    trace: Any, command: str, outside: str | None
) -> None:
    program = command.partition(" ")[0]
    early(trace).add(
        "tasks", tgid=41, comm=program, cmdline=f"{command} Main", cgroup_id=7, first_seen=trace.ns(1)
    )
    found = why(trace, **OF_COMMAND, end_reason="command_ended", command_status=0) or ""
    assert "no demand" in found
    assert outside in found if outside is not None else "outside" not in found


@pytest.mark.parametrize("seconds", [0.09, 0.9, 9])
@pytest.mark.parametrize(("mib_each", "is_growing"), [(0.05, True), (0.0005, False)])
def test_slow_growth_in_each_part_of_a_short_trace_has_no_end(
    trace: Any, seconds: float, mib_each: float, *, is_growing: bool
) -> None:
    """A leak that was seen for a moment only is as endless as one that was seen for an hour."""
    trace.add("cgroups", cgroup_id=7, path="/work", created=trace.ns(0))
    trace.add("samples", seconds, cgroup_id=7, source="end", usage_bytes=0)
    trace.charged(0, 7, "anon", 70 * MIB)
    for step in range(1, 18):
        trace.charged(seconds * step / 18, 7, "anon", round(mib_each * MIB))
    assert ("still grew" in (why(trace) or "")) == is_growing


def test_growth_that_pauses_is_judged_by_its_last_third(trace: Any) -> None:
    grown(trace, (0, 70), (1, 1), (3, 1), (7, 1), (8.5, -1))
    assert why(trace) is None


@pytest.mark.parametrize(
    ("sizes_mib", "held_mib", "reason"),
    [
        ([150], [90], None),
        ([90, 64], [30, 60], None),
        ([8, 150], [8, 82], None),
        ([30, 30, 60], [30, 30, 30], "in one file after the other"),
        ([90], [90], "in one file after the other"),
        ([30, 150], [30, 40], "in files of no known size"),
    ],
)
def test_shared_memory_has_an_end_unless_files_are_filled_in_turn(
    sizes_mib: list[int], held_mib: list[int], reason: str | None
) -> None:
    files = tuple(
        SharedFile("anonymous", "/dev/zero", held * MIB, size * MIB, True)
        for size, held in zip(sizes_mib, held_mib, strict=True)
    )
    found = why_none_after_kill(findings(made_of(shmem=90, anon=8), grew(shmem=60), shared_files=files))
    assert found is None if reason is None else reason in (found or "")


@pytest.mark.parametrize(
    ("anon_mib", "size_mib", "reason"), [(0, 90, "file after the other"), (0, 150, None), (300, 90, None)]
)
def test_copies_of_a_fork_are_no_end_of_shared_memory_that_grew(
    anon_mib: int, size_mib: int, reason: str | None
) -> None:
    """Each of two processes has all anonymous memory in its RSS, so they share it since the fork."""
    members = tuple(
        Candidate(pid, "python", 0, 0, 0, chosen=pid == 41, anon_rss_bytes=8 * MIB) for pid in (41, 42)
    )
    around = replace(grew(shmem=60, anon=anon_mib), fork=Fork(41, "python", 42, "python", 8 * MIB, MIB, 0, 1))
    files = (SharedFile("anonymous", "/dev/zero", 90 * MIB, size_mib * MIB, True),)
    made = made_of(shmem=90, anon=8)
    found = why_none_after_kill(findings(made, around, candidates=members, shared_files=files))
    assert found is None if reason is None else reason in (found or "")


def test_upper_end_of_four_times_the_lower_is_no_answer() -> None:
    assert why_too_far(100 * MIB, 399 * MIB) is None
    assert "up to 300 MiB more can be touched" in (why_too_far(100 * MIB, 400 * MIB) or "")


RECORDED = Path(__file__).parents[4] / "traces"
PAGE = 4096
LIMIT = 100 * MIB


def why_not(report: OomReport) -> str:
    assert report.sizing.min_limit_bytes is None
    return report.quality.unknown["sizing.min_limit_bytes"]


def report_with(trace: Any, **columns: int) -> OomReport:
    """Return the report on the page-cache experiment with these columns in its row of `oom`."""
    (row,) = trace.recorded()["oom"]
    trace.forget("oom")
    trace.add("oom", **row | columns)
    (report,) = explain(trace)
    return report


MAPPED = {
    "total_vm_bytes": 340 * MIB,
    "data_vm_bytes": 308 * MIB,
    "exec_vm_bytes": 5 * MIB,
    "stack_vm_bytes": MIB,
    "anon_rss_bytes": 98 * MIB,
    "shmem_rss_bytes": 0,
    "swap_bytes": 0,
    "threads": 1,
}


def test_range_of_growing_private_memory_has_no_upper_end(page_cache_experiment: Any) -> None:
    """What is mapped is no bound: a program may fill it, and map more."""
    report = report_with(page_cache_experiment, **MAPPED)
    assert report.sizing.min_limit_bytes == (LIMIT + PAGE, None)
    assert "to no known end" in report.quality.unknown["sizing.min_limit_bytes"]
    assert "211 MiB mapped that they had not touched" in report.sizing.basis[0]
    # 1 MiB each 10 ms from 2 s on; the kill is at 3.6 s.
    assert report.sizing.pace.startswith(
        "At this growth (99 MiB in 1.60 s), each extra 100 MiB of limit buys"
    )


def test_pace_without_the_time_in_which_the_oom_killer_was_disabled(page_cache_experiment: Any) -> None:
    trace = page_cache_experiment
    for seconds, under_oom in ((2, 0), (2.4, 1), (3.3, 0)):
        flags = {"oom_kill_disable": 1, "under_oom": under_oom}
        trace.add("samples", seconds, cgroup_id=7, source="periodic", usage_bytes=90 * MIB, **flags)
    assert report_with(trace, **MAPPED).sizing.pace.startswith(
        "At this growth (99 MiB in 700 ms, without 900 ms in which tasks waited with the OOM killer disabled)"
    )


def test_range_with_locked_files_counts_shared_mappings(page_cache_experiment: Any) -> None:
    page_cache_experiment.recorded()["samples"][0] |= {
        **{"anon_bytes": 60 * MIB, "file_bytes": 40 * MIB, "unevictable_bytes": 40 * MIB},
        **{"inactive_anon_bytes": 60 * MIB, "active_anon_bytes": 0},
    }
    report = report_with(page_cache_experiment, **MAPPED)
    assert report.composition.unevictable == 40 * MIB
    private, others = 308 + 1 - 98, 340 - 308 - 5 - 1
    assert f"{private + others - 40} MiB mapped that they had not touched" in report.sizing.basis[0]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({}, "to no known end"),
        (MAPPED | {"data_vm_bytes": 110 * MIB}, "to no known end"),
        (MAPPED | {"tgid": 99}, "to no known end"),
        (MAPPED | {"kernel_stack_id": 4}, "not an access to mapped memory"),
    ],
)
def test_range_without_a_known_end_has_a_lower_end_and_a_pace(
    page_cache_experiment: Any, columns: dict[str, int], reason: str
) -> None:
    page_cache_experiment.add("stacks", stack_id=4, frames=["out_of_memory+0x1", "shmem_write_begin+0x6"])
    report = report_with(page_cache_experiment, **columns)
    assert report.sizing.min_limit_bytes == (LIMIT + PAGE, None)
    assert reason in report.quality.unknown["sizing.min_limit_bytes"]
    assert "each extra 100 MiB of limit buys" in report.sizing.pace


@pytest.mark.parametrize(
    ("before_kill_s", "pace"),
    [(0.001, "about 10 ms"), (0.05, "about 60 ms"), (0.1, "100 ms")],
)
def test_pace_of_growth_within_a_few_sums_is_no_finer_than_they_are(
    page_cache_experiment: Any, before_kill_s: float, pace: str
) -> None:
    """The kill is at 3.6 s. A sum of charges has the time at which it was sent, up to 10 ms later."""
    page_cache_experiment.forget("charge")
    row = {"tgid": 41, "limit_bytes": LIMIT}
    page_cache_experiment.charged(3, 7, "file", 60 * MIB, usage_bytes=60 * MIB, **row)
    page_cache_experiment.charged(3.6 - before_kill_s, 7, "anon", 40 * MIB, usage_bytes=LIMIT, **row)
    report = report_with(page_cache_experiment, **MAPPED)
    assert f"(40 MiB in {pace})" in report.sizing.pace
    assert f"40 MiB of anonymous memory in {the(pace)} before the kill" in " ".join(report.advice)


def test_memory_that_was_freed_before_it_grew_has_the_time_of_its_charges(page_cache_experiment: Any) -> None:
    """The process was charged 60 MiB in the window of 0.7 s, and 40 MiB grew since the last minimum."""
    page_cache_experiment.forget("charge")
    row = {"tgid": 41, "limit_bytes": LIMIT}
    page_cache_experiment.charged(2.9, 7, "file", 49 * MIB, usage_bytes=49 * MIB, **row)
    page_cache_experiment.charged(3, 7, "file", 11 * MIB, usage_bytes=60 * MIB, **row)
    page_cache_experiment.charged(3.2, 7, "anon", 20 * MIB, usage_bytes=80 * MIB, **row)
    page_cache_experiment.charged(3.3, 7, "anon", -20 * MIB, usage_bytes=60 * MIB, tgid=42, limit_bytes=LIMIT)
    page_cache_experiment.charged(3.5, 7, "anon", 40 * MIB, usage_bytes=LIMIT, **row)
    report = report_with(page_cache_experiment, **MAPPED)
    assert "(40 MiB in 100 ms)" in report.sizing.pace
    assert "of anonymous memory in the 700 ms before the kill" in " ".join(report.advice)


def test_pace_of_growth_that_others_made_is_no_finer_than_looks(page_cache_experiment: Any) -> None:
    """process_vm_writev from another cgroup: the recorder sees the growth when it looks, each 200 ms."""
    page_cache_experiment.forget("charge")
    row = {"limit_bytes": LIMIT}
    page_cache_experiment.charged(3, 7, "file", 60 * MIB, usage_bytes=60 * MIB, tgid=41, **row)
    page_cache_experiment.charged(3.59, 7, "anon", 40 * MIB, usage_bytes=LIMIT, **row)
    assert "(40 MiB in about 200 ms)" in report_with(page_cache_experiment, **MAPPED).sizing.pace


def test_pace_without_slab_that_reclaim_took_at_the_limit(page_cache_experiment: Any) -> None:
    """Anonymous memory grows by 60 MiB in 1.5 s, of which 30 MiB take the place of dentries."""
    page_cache_experiment.forget("charge")
    row = {"tgid": 41, "limit_bytes": LIMIT}
    for category in ("kernel", "slab_reclaimable"):
        page_cache_experiment.charged(1, 7, category, 70 * MIB, usage_bytes=40 * MIB, **row)
    page_cache_experiment.charged(2, 7, "file", MIB, usage_bytes=40 * MIB, **row)
    for step in range(60):
        at = 2.1 + step / 40
        page_cache_experiment.charged(at, 7, "anon", MIB, usage_bytes=min(71 + step, 100) * MIB, **row)
        for category in ("kernel", "slab_reclaimable") if step >= 30 else ():
            page_cache_experiment.charged(at, 7, category, -MIB, usage_bytes=LIMIT, **row)
    assert "(60 MiB in 1.50 s)" in report_with(page_cache_experiment, **MAPPED).sizing.pace


def test_pace_counts_memory_in_zswap_once(page_cache_experiment: Any) -> None:
    """40 MiB go to swap, and zswap holds them in 10 MiB of kernel memory."""
    page_cache_experiment.forget("charge")
    row = {"tgid": 41, "limit_bytes": LIMIT}
    page_cache_experiment.charged(1, 7, "anon", 49 * MIB, usage_bytes=49 * MIB, **row)
    page_cache_experiment.charged(2, 7, "anon", MIB, usage_bytes=49 * MIB, **row)
    for category, amount in (("anon", 40), ("anon", -40), ("swap", 40), ("kernel", 10)):
        page_cache_experiment.charged(2.5, 7, category, amount * MIB, usage_bytes=60 * MIB, **row)
    for seconds, size in ((0.5, 0), (2.5, 10 * MIB)):
        page_cache_experiment.add("samples", seconds, cgroup_id=7, source="periodic", zswap_bytes=size)
    page_cache_experiment.charged(3.5, 7, "anon", 10 * MIB, usage_bytes=LIMIT, **row)
    assert "(51 MiB in 600 ms" in report_with(page_cache_experiment, **MAPPED).sizing.pace


def test_pace_leaves_out_memory_that_was_freed_lazily(page_cache_experiment: Any) -> None:
    """A program freed 40 MiB by MADV_FREE; `anon` counts them until 31 of the next 91 MiB need room."""
    page_cache_experiment.forget("charge")
    row = {"tgid": 41, "limit_bytes": LIMIT}
    page_cache_experiment.charged(1, 7, "anon", 40 * MIB, usage_bytes=40 * MIB, **row)
    files = dict.fromkeys(("file_bytes", "active_file_bytes", "shmem_bytes"), 0)
    for seconds, size in ((1.2, 40 * MIB), (3.3, 9 * MIB)):
        read = files | {"inactive_file_bytes": size}
        page_cache_experiment.add("samples", seconds, cgroup_id=7, source="periodic", **read)
    page_cache_experiment.charged(2, 7, "file", 0, usage_bytes=40 * MIB, **row)
    for step in range(91):
        at, usage, stays = 2.1 + step / 75, min(41 + step, 100) * MIB, step < 60
        page_cache_experiment.charged(at, 7, "anon", MIB * stays, usage_bytes=usage, **row)
    assert "(83 MiB in " in report_with(page_cache_experiment, **MAPPED).sizing.pace


def test_pace_leaves_out_pauses_of_the_growth(page_cache_experiment: Any) -> None:
    """40 MiB in 0.4 s, a pause with a page each 0.1 s, and 10 MiB in 0.1 s; the kill is at 3.6 s."""
    page_cache_experiment.forget("charge")
    row = {"tgid": 41, "limit_bytes": LIMIT}
    page_cache_experiment.charged(0.9, 7, "file", 49 * MIB, usage_bytes=49 * MIB, **row)
    steps = [(1 + step / 100, MIB) for step in range(40)]
    steps += [(1.5 + step / 10, PAGE) for step in range(20)]
    steps += [(3.5 + step / 100, MIB) for step in range(10)]
    for at, size in steps:
        page_cache_experiment.charged(at, 7, "anon", size, usage_bytes=90 * MIB, **row)
    pace = report_with(page_cache_experiment, **MAPPED).sizing.pace
    assert "(50.1 MiB in 490 ms, without 2.11 s in which next to nothing grew)" in pace


def test_range_with_shared_memory_in_files_of_no_known_size_has_no_upper_end(
    page_cache_experiment: Any,
) -> None:
    """It is in no mapping of the victim; nearly all that grew is shared memory."""
    page_cache_experiment.forget("stacks")
    (sample,) = page_cache_experiment.recorded()["samples"]
    sample |= {"anon_bytes": MIB, "file_bytes": 99 * MIB, "shmem_bytes": 99 * MIB}
    report = report_with(page_cache_experiment, **MAPPED)
    assert report.sizing.min_limit_bytes == (LIMIT + PAGE, None)
    assert "files of no known size" in report.quality.unknown["sizing.min_limit_bytes"]


def test_range_of_a_kill_with_reclaimable_memory_is_null(page_cache_experiment: Any) -> None:
    page_cache_experiment.forget("stacks")
    (sample,) = page_cache_experiment.recorded()["samples"]
    sample |= {"anon_bytes": 60 * MIB, "file_bytes": 40 * MIB}
    assert "with more time, 40 MiB could have been" in why_not(report_with(page_cache_experiment, **MAPPED))


@pytest.mark.parametrize(("seconds", "late_bytes"), [(0.2, 0), (2.5, 8 * MIB)])
def test_range_has_room_for_late_evictions_of_its_window_alone(
    page_cache_experiment: Any, monkeypatch: pytest.MonkeyPatch, seconds: float, late_bytes: int
) -> None:
    """Usage passes half of the limit at 0.6 s, and the kill is at 3.6 s. What grew has an end here."""
    monkeypatch.setattr(kill_range, "why_none_after_kill", lambda _: None)
    read = {"cgroup_id": 7, "tgid": 41, "op": "add", "cause": "read", "inode_id": 1}
    page_cache_experiment.add("pagecache", 2.9, index=17 * 256, nr_pages=512, **read)
    sample = {"cgroup_id": 7, "source": "periodic", "file_writeback_bytes": 0}
    highs = []
    for dirty_bytes in (0, 8 * MIB):
        page_cache_experiment.add("samples", seconds, file_dirty_bytes=dirty_bytes, **sample)
        page_cache_experiment.add("samples", seconds + 0.1, file_dirty_bytes=0, **sample)
        report = report_with(page_cache_experiment, **MAPPED | {"data_vm_bytes": 110 * MIB})
        assert "page cache, since some was read again" in report.sizing.basis[0]
        assert report.sizing.min_limit_bytes is not None and report.sizing.min_limit_bytes[1] is not None
        highs.append(report.sizing.min_limit_bytes[1])
    assert highs[1] - highs[0] == late_bytes + late_bytes // kill_range.LISTS_DIVISOR


@pytest.mark.parametrize(("seconds", "late_mib", "run_mib"), [(0.12, 0, 1), (0.25, 5, 3)])
def test_refaults_of_a_window_have_room_for_what_reclaim_passed_over_in_their_turn(
    trace: Any, seconds: float, late_mib: int, run_mib: int
) -> None:
    """A page is evicted at 0.3 s. Reclaim began its round of 10 MiB at 0.2 s, before the window of 0.45 s."""
    trace = grown(trace)
    trace.charged(0, 7, "file", 10 * MIB)
    row = {"cgroup_id": 7, "op": "delete", "cause": "reclaim_memcg"}
    for step in range(31):
        trace.add("pagecache", 0.1 + step / 100, inode_id=1, index=step * 256, nr_pages=256, **row)
    for at_seconds, mib in ((0.05, 9), (seconds, run_mib)):
        trace.add("pagecache", at_seconds, inode_id=2, index=int(at_seconds * 1e6), nr_pages=mib * 256, **row)
    trace.add(
        "pagecache", 0.5, **row | {"op": "add", "cause": "read"}, inode_id=1, index=20 * 256, nr_pages=256
    )
    sample = {"cgroup_id": 7, "source": "periodic", "file_writeback_bytes": 0}
    trace.add("samples", seconds, file_dirty_bytes=5 * MIB, **sample)
    trace.add("samples", seconds + 0.01, file_dirty_bytes=0, **sample)
    subtree = Subtrees(trace).subtree_at(7)
    again = miss_curve.reuse_of(subtree).within(trace.ns(0.45), trace.ns(0.6))
    begin_ns = kill_range.turn_ns(subtree, again)
    spared = kill_range.cache_to_spare(subtree, again, begin_ns, trace.ns(0.6))
    assert (spared.late_bytes, spared.run_bytes) == (late_mib * MIB, run_mib * MIB)


@pytest.mark.parametrize(
    ("name", "kill", "beside_bytes"),
    [
        ("cow", 0, 24 * MIB),  # pages of the parent that are not yet copied
        ("sharedbuffers", 0, 117 * MIB - 77_479_936),  # the rest of the segment
        ("sharedbuffers", 2, 117 * MIB - 79_302_656),
    ],
)
def test_range_has_room_for_copies_and_the_rest_of_segments(name: str, kill: int, beside_bytes: int) -> None:
    report = tracer.open(RECORDED / name).explain()[kill]
    low, high = report.sizing.min_limit_bytes or (0, None)
    assert high is not None
    assert low > (report.limit_owner.limit_bytes or 0)
    assert low + beside_bytes <= high < low + beside_bytes + 24 * MIB


def test_range_of_copies_beside_new_memory_has_no_upper_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The growth of a process that also allocates does not end with the copies."""
    report = tracer.open(RECORDED / "cow").explain()[0]
    assert (report.sizing.min_limit_bytes or (0, None))[1] is not None
    fork_at_kill = shared_memory.fork_at_kill

    def with_new_memory(*given: Any) -> Fork | None:
        fork = fork_at_kill(*given)
        return fork and replace(fork, new_bytes=fork.copied_bytes // 9)

    monkeypatch.setattr(shared_memory, "fork_at_kill", with_new_memory)
    report = tracer.open(RECORDED / "cow").explain()[0]
    assert (report.sizing.min_limit_bytes or (0, 0))[1] is None
