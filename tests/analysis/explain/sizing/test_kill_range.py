"""The least limit of synthetic work whose demand is known to the byte."""

from __future__ import annotations

from typing import Any

import pytest

from tracer.analysis.explain.postmortem import explain
from tracer.analysis.explain.survivors import held_cgroups
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.survivor import Held

PAGE = 4096
MIB = 1 << 20
LIMIT = 100 * MIB
UNSEEN = 2 * (64 * PAGE + (256 << 10))
"""Two CPUs, each with a batch of charges and a sum that it has not handed over."""
SLAB = MIB
"""Reclaimable slab of the work: `high` has room for it, since it may be in use."""


def work(trace: Any, *, usage: int = 99 * MIB, **sample: int) -> None:
    """Cgroup 7 at a limit of 100 MiB: 61 MiB of anon, 37 of file, 2 of kernel memory, half of it reclaimable
    slab, all there at 0.2 s; then it gives up 60 MiB of anon. `sample`: what memory.stat says in between."""
    trace.add("cgroups", cgroup_id=7, path="/work", created=trace.ns(0))
    held_then = {"usage_bytes": usage, "limit_bytes": LIMIT}
    for category, amount in (("anon", 61), ("file", 37), ("kernel", 2), ("slab_reclaimable", 1)):
        trace.charged(0.1, 7, category, amount * MIB, **held_then)
    trace.add("samples", 0.2, cgroup_id=7, source="periodic", **held_then, **sample)
    trace.charged(0.3, 7, "anon", -60 * MIB, usage_bytes=usage - 60 * MIB, limit_bytes=LIMIT)


def only(trace: Any) -> Held:
    (one,) = held_cgroups(trace)
    return one


def why_not(one: Held | OomReport) -> str:
    assert one.sizing.min_limit_bytes is None
    return one.quality.unknown["sizing.min_limit_bytes"]


def test_without_need_of_cache_it_is_what_cannot_be_given_back(trace: Any) -> None:
    work(trace)
    assert only(trace).sizing.min_limit_bytes == (62 * MIB, 62 * MIB + SLAB + UNSEEN)


def test_cache_in_use_and_to_be_written_has_room(trace: Any) -> None:
    sizes = {"active_file_bytes": 20 * MIB, "file_dirty_bytes": 3 * MIB, "file_writeback_bytes": MIB}
    work(trace, **sizes)
    one = only(trace)
    assert one.sizing.min_limit_bytes == (62 * MIB, 86 * MIB + SLAB + UNSEEN)
    assert (
        "20 MiB of page cache in active use or read again and 4 MiB of page cache to be written"
        in (one.sizing.basis[1])
    )


def test_it_is_never_more_than_what_was_used(trace: Any) -> None:
    work(trace, usage=70 * MIB, active_file_bytes=37 * MIB)
    assert only(trace).sizing.min_limit_bytes == (62 * MIB, 70 * MIB + UNSEEN)


def test_what_came_back_has_room_whenever_it_went(trace: Any) -> None:
    work(trace)
    page = {"cgroup_id": 7, "inode_id": 1, "tgid": 41}
    for seconds, index, nr_pages, op, cause in (
        (0.05, 0, 4096, "delete", "reclaim_memcg"),  # 16 MiB go at once, and 12 come back, 4 of them twice
        (0.15, 0, 2048, "add", "read"),
        (0.16, 0, 1024, "delete", "reclaim_memcg"),
        (0.25, 0, 1024, "add", "read"),
        (0.26, 2048, 1024, "add", "readahead"),
    ):
        trace.add("pagecache", seconds, index=index, nr_pages=nr_pages, op=op, cause=cause, **page)
    elsewhere = page | {"cgroup_id": 8, "inode_id": 2, "index": 0, "nr_pages": 4096}
    trace.add("pagecache", 0.1, op="delete", cause="reclaim_memcg", **elsewhere)
    trace.add("pagecache", 0.2, op="add", cause="read", **elsewhere)
    trace.add("cgroups", cgroup_id=8, path="/other", created=trace.ns(0))
    (of_work,) = (one for one in held_cgroups(trace) if one.cgroup == "/work")
    # All 12 MiB are away or needed at 0.15 s; at 0.25 s the anonymous memory is still there.
    assert of_work.sizing.min_limit_bytes == (62 * MIB, 74 * MIB + SLAB + UNSEEN)


def test_slab_that_may_be_in_use_has_room(trace: Any) -> None:
    """Names and inodes of open files are counted as reclaimable."""
    work(trace)
    trace.charged(0.15, 7, "kernel", 14 * MIB, usage_bytes=99 * MIB, limit_bytes=LIMIT)
    trace.charged(0.15, 7, "slab_reclaimable", 14 * MIB, usage_bytes=99 * MIB, limit_bytes=LIMIT)
    one = only(trace)
    assert one.sizing.min_limit_bytes == (62 * MIB, 76 * MIB + SLAB + UNSEEN)
    assert "15 MiB of reclaimable slab (some may be in use)" in one.sizing.basis[1]


def test_what_is_swapped_out_is_no_page_cache_to_be_written(trace: Any) -> None:
    work(trace, file_bytes=37 * MIB, shmem_bytes=36 * MIB, file_dirty_bytes=0, file_writeback_bytes=9 * MIB)
    assert only(trace).sizing.min_limit_bytes == (62 * MIB, 63 * MIB + SLAB + UNSEEN)


def test_of_what_is_stuck_or_empty_there_is_none(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=8, path="/empty", created=trace.ns(0))
    trace.add("samples", 0.2, cgroup_id=8, source="periodic", usage_bytes=0, limit_bytes=LIMIT)
    work(trace, oom_kill_disable=1, under_oom=1)
    stuck, empty = held_cgroups(trace)
    assert why_not(stuck) == "its tasks wait at the limit: the work did not go on"
    assert why_not(empty) == "it held nothing"


def test_locked_files_cannot_be_given_back(trace: Any) -> None:
    lists = {"anon_bytes": 61 * MIB, "shmem_bytes": 0, "inactive_anon_bytes": 50 * MIB}
    work(trace, **lists, active_anon_bytes=9 * MIB, unevictable_bytes=12 * MIB)  # 2 MiB of it are anon
    low, high = only(trace).sizing.min_limit_bytes or (0, 0)
    assert (low, high) == (72 * MIB, 72 * MIB + SLAB + UNSEEN)


@pytest.mark.parametrize(
    ("version", "machine", "sample", "expected"),
    [
        (2, 30 * MIB, {}, (32 * MIB, 62 * MIB + SLAB + UNSEEN)),
        (2, 30 * MIB, {"swap_limit_bytes": 10 * MIB}, (52 * MIB, 62 * MIB + SLAB + UNSEEN)),
        (
            1,
            30 * MIB,
            {"swap_limit_bytes": LIMIT},
            (62 * MIB, 62 * MIB + SLAB + UNSEEN),
        ),  # memsw: both together
        (1, 30 * MIB, {"swap_limit_bytes": 110 * MIB}, (52 * MIB, 62 * MIB + SLAB + UNSEEN)),
        (2, 900 * MIB, {}, (MIB, 62 * MIB + SLAB + UNSEEN)),  # kernel memory stays
        (2, None, {"swap_limit_bytes": 0}, (62 * MIB, 62 * MIB + SLAB + UNSEEN)),
        (2, None, {}, None),
    ],
)
def test_swap_takes_what_may_go_there(
    trace: Any, version: int, machine: int | None, sample: dict[str, int], expected: tuple[int, int] | None
) -> None:
    trace.meta |= {"cgroup_version": version, "memory": {"swap_total_bytes": machine}}
    work(trace, **sample)
    one = only(trace)
    assert one.sizing.min_limit_bytes == expected
    assert expected is not None or "swap" in why_not(one)


def test_what_was_there_before_must_be_known(trace: Any) -> None:
    work(trace)
    trace.forget("cgroups")
    assert "when the trace began" in why_not(only(trace))


def killed(trace: Any, **columns: int) -> OomReport:
    """The kill of the page-cache experiment, with these columns in its row of `oom`."""
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


def test_a_kill_is_bounded_by_what_was_mapped(page_cache_experiment: Any) -> None:
    sizing = killed(page_cache_experiment, **MAPPED).sizing
    untouched = (308 + 1 - 98) * MIB
    beside = untouched * 2 // 448  # page tables, and the index of what may be shared
    high = LIMIT + PAGE + untouched + beside + UNSEEN
    assert sizing.min_limit_bytes == (LIMIT + PAGE, -(-high // PAGE) * PAGE)
    assert "211 MiB mapped that it had not touched" in sizing.basis[1]
    # A MiB each 10 ms from 2 s on, the kill at 3.6 s.
    assert "grew by 99 MiB in 1.60 s: at this rate, each extra 100 MiB of limit buys" in sizing.pace


def test_locked_files_are_bounded_by_what_is_mapped_too(page_cache_experiment: Any) -> None:
    page_cache_experiment.recorded()["samples"][0] |= {
        **{"anon_bytes": 60 * MIB, "file_bytes": 40 * MIB, "unevictable_bytes": 40 * MIB},
        **{"inactive_anon_bytes": 60 * MIB, "active_anon_bytes": 0},
    }
    report = killed(page_cache_experiment, **MAPPED)
    assert report.composition.unevictable == 40 * MIB
    private, others = 308 + 1 - 98, 340 - 308 - 5 - 1
    assert f"{private + others - 40} MiB mapped that it had not touched" in report.sizing.basis[1]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({}, "was not recorded"),
        (MAPPED | {"data_vm_bytes": 110 * MIB}, "step by step|mapped little more"),
        # 24 further threads have 8 MiB of stack each that they never touch.
        (MAPPED | {"threads": 25}, "mapped little more"),
        (MAPPED | {"tgid": 99}, "others grew"),
        (MAPPED | {"kernel_stack_id": 4}, "not a touch of what was mapped"),
    ],
)
def test_without_a_bound_it_is_said_what_a_greater_limit_buys(
    page_cache_experiment: Any, columns: dict[str, int], reason: str
) -> None:
    page_cache_experiment.add("stacks", stack_id=4, frames=["out_of_memory+0x1", "shmem_write_begin+0x6"])
    report = killed(page_cache_experiment, **columns)
    assert any(word in why_not(report) for word in reason.split("|"))
    assert report.sizing.basis[0] == "100 MiB did not hold."
    assert "each extra 100 MiB of limit buys" in report.sizing.pace


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ({"anon_bytes": 60 * MIB, "file_bytes": 40 * MIB}, "40 MiB could have been given back, given time"),
        # Files in memory that nobody has mapped.
        ({"anon_bytes": 60 * MIB, "file_bytes": 40 * MIB, "shmem_bytes": 40 * MIB}, "40 MiB of shmem"),
    ],
)
def test_where_the_size_is_not_what_failed_there_is_none(
    page_cache_experiment: Any, counts: dict[str, int], reason: str
) -> None:
    page_cache_experiment.forget("stacks")
    (sample,) = page_cache_experiment.recorded()["samples"]
    sample |= counts
    assert reason in why_not(killed(page_cache_experiment, **MAPPED))
