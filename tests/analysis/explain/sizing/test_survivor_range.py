"""The range of limits for a cgroup that lived."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tracer.analysis.core.columns import utc_time
from tracer.analysis.core.subtree import Subtrees
from tracer.analysis.explain.sizing.unreclaimable import swapped_out, unreclaimable_growth
from tracer.analysis.explain.survivors import held_cgroups
from tracer.analysis.results.survivor import Held
from tracer.units import size

PAGE = 4096
MIB = 1 << 20
LIMIT = 100 * MIB
UNSEEN = 2 * (64 * PAGE + (256 << 10))
"""Room for memory that the ledger lacks on two CPUs: stocks of charges, and sums that are not yet sent."""
LISTS_SHARE = 8
"""The share of the extra memory that `high` adds for the kernel's choice of pages."""
LOW = 62 * MIB - UNSEEN
"""The limit below which `work` is killed."""


def work(trace: Any, *, usage: int = 99 * MIB, **sample: int) -> None:
    """Record cgroup 7 with a limit of 100 MiB, 61 MiB of anon, 37 of file and 2 of kernel memory.

    Half of the kernel memory is reclaimable slab. At 0.2 s all of it is there, then 60 MiB of anon go.
    `sample`: columns of memory.stat at 0.2 s.
    """
    trace.add("cgroups", cgroup_id=7, path="/work", created=trace.ns(0))
    held_then = {"usage_bytes": usage, "limit_bytes": LIMIT}
    for category, amount in (("anon", 61), ("file", 37), ("kernel", 2), ("slab_reclaimable", 1)):
        trace.charged(0.1, 7, category, amount * MIB, **held_then)
    sample = {"pgfault": 61 * MIB // PAGE} | sample
    trace.add("samples", 0, cgroup_id=7, source="periodic", usage_bytes=0, limit_bytes=LIMIT)
    trace.add("samples", 0.2, cgroup_id=7, source="periodic", **held_then, **sample)
    trace.charged(0.3, 7, "anon", -60 * MIB, usage_bytes=usage - 60 * MIB, limit_bytes=LIMIT)


def only(trace: Any) -> Held:
    (one,) = held_cgroups(trace)
    return one


def why_not(one: Held, low: int | None = None) -> str:
    """Return the reason for a range that is null, or that has only its lower end, in bytes."""
    assert one.sizing.min_limit_bytes == (None if low is None else (low, None))
    return one.quality.unknown["sizing.min_limit_bytes"]


def evicted_and_read(trace: Any, *steps: tuple[float, str, int, int]) -> None:
    """Add (seconds, operation, first page, pages) of a file of cgroup 7."""
    for seconds, op, index, nr_pages in steps:
        cause = "read" if op == "add" else "reclaim_memcg"
        row = {"cgroup_id": 7, "inode_id": 1, "tgid": 41, "index": index, "nr_pages": nr_pages}
        trace.add("pagecache", seconds, op=op, cause=cause, **row)
        if op == "delete":
            trace.add("reclaim", seconds, kind="memcg", cgroup_id=7, task_cgroup_id=7, reclaimed=nr_pages)


def test_range_without_evictions_ends_at_the_peak_of_usage(trace: Any) -> None:
    work(trace)
    one = only(trace)
    assert one.sizing.min_limit_bytes == (LOW, 99 * MIB + UNSEEN)
    assert one.sizing.basis[1] == "Usage was at most 99 MiB, and no page cache had to be evicted."
    assert one.miss_curve == ()


def test_range_from_nothing_names_no_limit_below_which_it_is_killed(trace: Any) -> None:
    """Less than what a CPU may have charged ahead is no demand."""
    trace.add("cgroups", cgroup_id=7, path="/work", created=trace.ns(0))
    small = {"usage_bytes": 20 * PAGE, "limit_bytes": LIMIT}
    trace.charged(0.1, 7, "anon", 4 * PAGE, **small)
    trace.charged(0.1, 7, "file", 16 * PAGE, **small)
    for seconds, usage in ((0, 0), (0.2, 20 * PAGE)):
        trace.add("samples", seconds, cgroup_id=7, source="periodic", usage_bytes=usage, limit_bytes=LIMIT)
    one = only(trace)
    assert one.sizing.min_limit_bytes is not None
    assert one.sizing.min_limit_bytes[0] == 0
    assert one.sizing.basis[0].startswith("Usage was at most 80 KiB")


def test_range_with_evictions_but_no_refault_ends_at_the_peak_of_usage(trace: Any) -> None:
    work(trace, usage=LIMIT)
    evicted_and_read(trace, (0.05, "delete", 0, 4096), (0.15, "add", 5000, 64))
    one = only(trace)
    assert one.sizing.min_limit_bytes == (LOW, LIMIT + UNSEEN)
    assert "no page cache that was evicted had to be read again" in one.sizing.basis[1]


@pytest.mark.parametrize("late", [0, 4 * MIB])
def test_range_with_refaults_has_room_for_what_would_have_spared_them(trace: Any, late: int) -> None:
    work(trace, usage=LIMIT, file_dirty_bytes=late, file_writeback_bytes=0)
    evicted_and_read(
        trace,
        (0.04, "delete", 8192, 40),
        (0.05, "delete", 0, 2048),
        (0.06, "delete", 2048, 2048),
        (0.14, "add", 8192, 40),  # few of all that come back: no room is needed for them
        (0.15, "add", 0, 2048),  # 16 MiB are out then
    )
    one = only(trace)
    extra, run = 16 * MIB, 8 * MIB
    lists = (extra + late) // LISTS_SHARE + run
    assert one.sizing.min_limit_bytes == (LOW, LIMIT + extra + lists + late + UNSEEN)
    assert "Of the 8.2 MiB of page cache that was read again, 16 MiB more memory" in one.sizing.basis[1]
    assert f"and {size(lists)} is room for the kernel's choice of pages." in one.sizing.basis[1]
    room = ["Another 4 MiB is room for files that were written shortly before."] if late else []
    assert [sentence for sentence in one.sizing.basis if "written" in sentence] == room
    assert [(point.extra_bytes, point.spared_share) for point in one.miss_curve or ()] == [
        (extra, pytest.approx(2048 / 2088)),
        (extra + 40 * PAGE, 1.0),
    ]


@pytest.mark.parametrize(("events", "at_the_upper_end"), [(0, 1), (3, 0)])
def test_outcomes_have_the_upper_end_unless_it_takes_another_memory_high(
    trace: Any, events: int, at_the_upper_end: int
) -> None:
    work(trace, usage=LIMIT, high_events=events)
    evicted_and_read(trace, (0.05, "delete", 0, 2048), (0.15, "add", 0, 2048))
    sizing = only(trace).sizing
    _, high = sizing.min_limit_bytes or (0, None)
    assert high is not None and high > LIMIT + 8 * MIB
    assert [one.limit_bytes for one in sizing.outcomes[1:]] == [high] * at_the_upper_end
    assert sizing.outcomes[0].limit_bytes <= LIMIT
    assert ("set that no lower than the upper end" in sizing.basis[-2]) is not bool(at_the_upper_end)


def read_once(trace: Any, reclaim_ms: int) -> None:
    """Evict 16 MiB that are not read again, by reclaim that runs so long, beside 1 s of other work."""
    work(trace, usage=LIMIT)
    evicted_and_read(trace, (0.05, "delete", 0, 4096))
    cpu_ns = reclaim_ms * 1_000_000
    trace.add(
        "reclaim", 0.05, kind="memcg", cgroup_id=7, task_cgroup_id=7, pid=41, tgid=41, duration_ns=cpu_ns,
        cpu_ns=cpu_ns,
    )  # fmt: skip
    begin, end = trace.ns(0.05), trace.ns(0.3)  # the trace begins at 0.05 s
    trace.add("task_time", begin=begin, time=end, cgroup_id=7, cpu_ns=1_000_000_000 + cpu_ns)


def test_range_where_reclaim_would_slow_the_work_down_has_no_upper_end(trace: Any) -> None:
    """A writer of a log has little in use, and pays for reclaim at any limit."""
    read_once(trace, reclaim_ms=250)
    one = only(trace)
    assert one.sizing.min_limit_bytes == (LOW, None)
    assert "took 20 % of the tasks' time" in one.quality.unknown["sizing.min_limit_bytes"]


def test_range_says_what_reclaim_costs_at_its_upper_end(trace: Any) -> None:
    read_once(trace, reclaim_ms=100)
    sizing = only(trace).sizing
    assert sizing.min_limit_bytes == (LOW, LIMIT + UNSEEN)
    assert sizing.basis[-1] == "At the upper end, reclaim still costs about 9 % of the tasks' time."


@pytest.mark.parametrize(("second_s", "apart_mib"), [(0.205, 9), (0.35, 0)])
def test_range_has_room_for_peaks_of_concurrent_processes_that_fall_together(
    trace: Any, second_s: float, apart_mib: int
) -> None:
    """One has 20 MiB and then 1; the other 10 MiB at most, beside it or after its end."""
    work(trace)
    changes = ((0.2, 41, 20), (0.204, 41, -9), (second_s, 42, 10), (second_s + 0.01, 42, -10))
    for seconds, tgid, mib in changes:
        trace.charged(seconds, 7, "anon", mib * MIB, tgid=tgid)
    trace.add("tasks", tgid=41, comm="a", cgroup_id=7, first_seen=trace.ns(0.1), exited=trace.ns(0.25))
    trace.add("tasks", tgid=42, comm="b", cgroup_id=7, first_seen=trace.ns(0.1), exited=trace.ns(0.4))
    _, high = only(trace).sizing.min_limit_bytes or (0, None)
    assert high == 99 * MIB + UNSEEN + apart_mib * MIB


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
    low, high = only(trace).sizing.min_limit_bytes or (0, None)
    assert (low, high) == (LOW + 10 * MIB, 99 * MIB + UNSEEN)


@pytest.mark.parametrize(
    ("version", "machine", "sample", "expected"),
    [
        (2, 30 * MIB, {}, (LOW - 30 * MIB, 99 * MIB + UNSEEN)),
        (2, 30 * MIB, {"swap_limit_bytes": 10 * MIB}, (LOW - 10 * MIB, 99 * MIB + UNSEEN)),
        (
            1,
            30 * MIB,
            {"swap_limit_bytes": LIMIT},
            (LOW, 99 * MIB + UNSEEN),
        ),  # memsw: both together
        (1, 30 * MIB, {"swap_limit_bytes": 110 * MIB}, (LOW - 10 * MIB, 99 * MIB + UNSEEN)),
        (2, 900 * MIB, {}, (0, 99 * MIB + UNSEEN)),  # kernel memory stays
        (2, None, {"swap_limit_bytes": 0}, (LOW, 99 * MIB + UNSEEN)),
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


@pytest.mark.parametrize(("table", "what"), [("summed", "were summed"), ("loss", "were lost")])
def test_range_has_no_upper_end_if_evicted_cache_cannot_be_followed(
    trace: Any, table: str, what: str
) -> None:
    work(trace)
    also = {"reason": "max_overhead"} if table == "summed" else {"lost": 3}
    trace.add(table, 0.25, begin=trace.ns(0.2), stream="pagecache", **also)
    assert only(trace).sizing.min_limit_bytes is not None
    evicted_and_read(trace, (0.22, "delete", 0, 9))
    one = only(trace)
    assert what in why_not(one, LOW)
    assert one.miss_curve is None
    assert one.quality.unknown["miss_curve"] == why_not(one, LOW)


def test_range_with_memory_in_swap_has_room_for_it(trace: Any) -> None:
    trace.meta |= {"cgroup_version": 2, "memory": {"swap_total_bytes": 30 * MIB}}
    work(trace)
    trace.charged(0.15, 7, "swap", 11 * MIB)
    assert only(trace).sizing.min_limit_bytes == (LOW + 11 * MIB - 30 * MIB, 110 * MIB + UNSEEN)


@pytest.mark.parametrize(
    ("version", "unmapped", "twice"), [(2, 0, 8), (2, 3, 5), (1, 0, 0)], ids=["v2", "v2 unmapped", "v1"]
)
def test_memory_in_swap_cache_counts_once(trace: Any, version: int, unmapped: int, twice: int) -> None:
    """8 of 11 MiB in swap are in memory as well, and anon lacks `unmapped` of these 8."""
    trace.meta |= {"cgroup_version": version, "memory": {"swap_total_bytes": 30 * MIB}}
    work(trace)
    trace.charged(0.15, 7, "swap", 11 * MIB)
    lists = {"anon_bytes": 9 * MIB, "shmem_bytes": 0, "active_anon_bytes": 0}
    lists |= {"inactive_anon_bytes": (9 + unmapped) * MIB, "swapcached_bytes": 8 * MIB}
    trace.add("samples", 0.12, cgroup_id=7, source="periodic", **lists)
    swapped = swapped_out(Subtrees(trace).subtree_at(7))
    assert swapped is not None and swapped.at(trace.ns(0.16)) == (11 - twice) * MIB
    least = LOW + (11 - 30 - twice) * MIB
    assert only(trace).sizing.min_limit_bytes == (least, (110 - twice) * MIB + UNSEEN)


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({}, 1),
        ({"anon": 3}, 2),
        ({"shmem": 3}, 2),
        ({"sock": 3}, 2),
        ({"kernel": 3}, 2),
        ({"kernel": 3, "slab_reclaimable": 3}, 1),
        ({"anon": -5, "swap": 5}, 1),
        ({"anon": -5, "swap": 6}, 2),
        ({"file": 3}, 1),
        ({"locked": 3}, 2),
    ],
)
def test_held_peak_counts_what_reclaim_cannot_free_and_what_was_swapped_out(
    trace: Any, changes: dict[str, int], seconds: int
) -> None:
    """Usage is the same at 1 and at 2 s. What the cgroup held before is not known."""
    trace.add("cgroups", cgroup_id=7, path="/a")
    trace.charged(1, 7, "anon", 9 * MIB, usage_bytes=50 * MIB)
    lists = {f"{name}_bytes": 0 for name in ("anon", "shmem", "inactive_anon", "active_anon")}
    locked = changes.pop("locked", 0) * MIB
    trace.add("samples", 2, cgroup_id=7, source="periodic", unevictable_bytes=locked, **lists)
    for category, mib in changes.items():
        trace.charged(2, 7, category, mib * MIB, usage_bytes=50 * MIB)
    trace.charged(2, 7, "file", 0, usage_bytes=50 * MIB)
    (one,) = held_cgroups(trace)
    assert one.peak_time == utc_time(trace.ns(seconds))
    assert one.anon_at_peak_bytes is None
    assert "anon_at_peak_bytes" in one.quality.unknown


def test_memory_that_zswap_compresses_does_not_grow(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=7, path="/work", created=trace.ns(0))
    for seconds, zswap in ((0, 0), (3, 30)):
        trace.add("samples", seconds, cgroup_id=7, source="periodic", zswap_bytes=zswap * MIB)
    for kind, mib in (("anon", 61), ("kernel", 2), ("slab_unreclaimable", 2)):
        trace.charged(1, 7, kind, mib * MIB)
    for kind, mib in (("anon", -31), ("swap", 31), ("kernel", 30)):
        trace.charged(2, 7, kind, mib * MIB)
    subtree = Subtrees(trace).subtree_at(7)
    moments = np.array([trace.ns(1.5), trace.ns(2.5)], np.int64)
    assert unreclaimable_growth(subtree, moments).tolist() == [63 * MIB, 63 * MIB]
