"""The range of limits for a cgroup without a kill, from synthetic work whose demand is known to the byte."""

from __future__ import annotations

from typing import Any

import pytest

from tracer.analysis.explain.survivors import held_cgroups
from tracer.analysis.results.survivor import Held

PAGE = 4096
MIB = 1 << 20
LIMIT = 100 * MIB
UNSEEN = 2 * (64 * PAGE + (256 << 10))
"""Room for memory that the ledger lacks on two CPUs: stocks of charges, and sums that are not yet sent."""
SLAB = MIB
"""The reclaimable slab of the work, for which `high` has room."""


def work(trace: Any, *, usage: int = 99 * MIB, **sample: int) -> None:
    """Record cgroup 7 with a limit of 100 MiB, 61 MiB of anon, 37 of file and 2 of kernel memory.

    Half of the kernel memory is reclaimable slab. At 0.2 s all of it is there, then 60 MiB of anon go.
    `sample`: columns of memory.stat at 0.2 s.
    """
    trace.add("cgroups", cgroup_id=7, path="/work", created=trace.ns(0))
    held_then = {"usage_bytes": usage, "limit_bytes": LIMIT}
    for category, amount in (("anon", 61), ("file", 37), ("kernel", 2), ("slab_reclaimable", 1)):
        trace.charged(0.1, 7, category, amount * MIB, **held_then)
    trace.add("samples", 0.2, cgroup_id=7, source="periodic", **held_then, **sample)
    trace.charged(0.3, 7, "anon", -60 * MIB, usage_bytes=usage - 60 * MIB, limit_bytes=LIMIT)


def only(trace: Any) -> Held:
    (one,) = held_cgroups(trace)
    return one


def why_not(one: Held) -> str:
    assert one.sizing.min_limit_bytes is None
    return one.quality.unknown["sizing.min_limit_bytes"]


def test_range_without_cache_in_use_is_unreclaimable_memory(trace: Any) -> None:
    work(trace)
    assert only(trace).sizing.min_limit_bytes == (62 * MIB, 62 * MIB + SLAB + UNSEEN)


def test_range_with_active_and_unwritten_cache_has_room_for_it(trace: Any) -> None:
    sizes = {"active_file_bytes": 20 * MIB, "file_dirty_bytes": 3 * MIB, "file_writeback_bytes": MIB}
    work(trace, **sizes)
    one = only(trace)
    assert one.sizing.min_limit_bytes == (62 * MIB, 86 * MIB + SLAB + UNSEEN)
    assert (
        "20 MiB of page cache in active use or read again and 4 MiB of page cache still to be written"
        in (one.sizing.basis[1])
    )


def test_range_is_at_most_the_peak_of_usage(trace: Any) -> None:
    work(trace, usage=70 * MIB, active_file_bytes=37 * MIB)
    assert only(trace).sizing.min_limit_bytes == (62 * MIB, 70 * MIB + UNSEEN)


def test_range_with_refaulted_cache_has_room_for_it_whenever_it_was_evicted(trace: Any) -> None:
    work(trace)
    page = {"cgroup_id": 7, "inode_id": 1, "tgid": 41}
    for seconds, index, nr_pages, op, cause in (
        (
            0.05,
            0,
            4096,
            "delete",
            "reclaim_memcg",
        ),  # 16 MiB are evicted at once; 12 come back, 4 of them twice
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


def test_range_with_reclaimable_slab_has_room_for_it(trace: Any) -> None:
    """Inodes and names of open files are counted as reclaimable."""
    work(trace)
    trace.charged(0.15, 7, "kernel", 14 * MIB, usage_bytes=99 * MIB, limit_bytes=LIMIT)
    trace.charged(0.15, 7, "slab_reclaimable", 14 * MIB, usage_bytes=99 * MIB, limit_bytes=LIMIT)
    one = only(trace)
    assert one.sizing.min_limit_bytes == (62 * MIB, 76 * MIB + SLAB + UNSEEN)
    assert "15 MiB of reclaimable slab (some may be in use)" in one.sizing.basis[1]


def test_range_with_swap_writeback_does_not_count_it_as_page_cache(trace: Any) -> None:
    work(trace, file_bytes=37 * MIB, shmem_bytes=36 * MIB, file_dirty_bytes=0, file_writeback_bytes=9 * MIB)
    assert only(trace).sizing.min_limit_bytes == (62 * MIB, 63 * MIB + SLAB + UNSEEN)


def test_range_of_a_stuck_or_empty_cgroup_is_null(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=8, path="/empty", created=trace.ns(0))
    trace.add("samples", 0.2, cgroup_id=8, source="periodic", usage_bytes=0, limit_bytes=LIMIT)
    work(trace, oom_kill_disable=1, under_oom=1)
    stuck, empty = held_cgroups(trace)
    assert why_not(stuck) == "its tasks wait at the limit: the work did not go on"
    assert why_not(empty) == "it held nothing"


def test_range_with_locked_files_counts_them_as_unreclaimable(trace: Any) -> None:
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
def test_range_with_swap_is_lower_by_the_available_swap(
    trace: Any, version: int, machine: int | None, sample: dict[str, int], expected: tuple[int, int] | None
) -> None:
    trace.meta |= {"cgroup_version": version, "memory": {"swap_total_bytes": machine}}
    work(trace, **sample)
    one = only(trace)
    assert one.sizing.min_limit_bytes == expected
    assert expected is not None or "swap" in why_not(one)


def test_range_without_a_start_sample_is_null(trace: Any) -> None:
    work(trace)
    trace.forget("cgroups")
    assert "when the trace began" in why_not(only(trace))
