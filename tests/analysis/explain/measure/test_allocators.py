"""The processes that charged memory before a synthetic kill, and their waits."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from synthetic.memcg_kill import LIMIT, only_report, record_kill

from tracer.analysis.results.memory import FurtherAllocators

MIB = 1 << 20


def test_reclaim_and_allocators_of_the_page_cache_experiment_are_exact(page_cache_experiment: Any) -> None:
    report = only_report(page_cache_experiment)
    reclaim = report.reclaim
    assert reclaim.attempts == 17 + 99 + 3
    assert reclaim.reclaimed_pages == 116 * 256
    assert reclaim.scanned_pages == 116 * 300 + 300
    assert reclaim.stall_ms == pytest.approx(116 + 6)
    assert len(reclaim.transcript) == 12
    assert [attempt.reclaimed_pages for attempt in reclaim.transcript] == [256] * 9 + [0] * 3
    assert reclaim.transcript[-1].cgroup == "/docker/4f2a"
    assert reclaim.transcript[-1].comm == "python3"
    assert reclaim.transcript[-1].kept_file is None
    (waiter,) = reclaim.waiters
    assert (waiter.tgid, waiter.comm) == (41, "python3")
    assert waiter.kinds_ms == {"reclaim": pytest.approx(116 + 6)}
    (allocator,) = report.allocators
    # The window begins when usage was last below 50 MiB (the 49th of 117 reads). In it the process was
    # charged 1 MiB more of file than was evicted in its context, so no category is below zero.
    assert (allocator.tgid, allocator.comm) == (41, "python3")
    assert allocator.charged_bytes == 99 * MIB


def test_limit_of_an_ancestor_has_allocators_of_all_children(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/pod", created=trace.ns(0))
    for child, path in ((2, "/pod/a"), (3, "/pod/b"), (4, "/podcast")):
        trace.add("cgroups", cgroup_id=child, path=path, created=trace.ns(0))
    for second in range(1, 11):
        trace.charged(second, 2, "anon", 3 * MIB, tgid=50)
        trace.charged(second, 3, "anon", 7 * MIB, tgid=60)
        trace.charged(second, 4, "anon", 9 * MIB, tgid=70)
        trace.add("samples", second, cgroup_id=1, source="periodic", usage_bytes=second * 10 * MIB)
    trace.add("tasks", tgid=60, comm="hog", first_seen=trace.ns(0))
    record_kill(trace, 10.5, trigger_cgroup_id=2, cgroup_id=2)
    report = only_report(trace)
    assert report.limit_owner.is_ancestor is True
    assert report.limit_owner.cgroup == "/pod"
    assert report.trigger.cgroup == "/pod/a"
    assert report.composition.anon == LIMIT
    # Usage was last below 50 MiB at 4 s; the row of 4 s is in the window.
    assert [(one.tgid, one.comm, one.charged_bytes) for one in report.allocators] == [
        (60, "hog", 7 * 7 * MIB),
        (50, None, 7 * 3 * MIB),
    ]
    assert report.verdict.cause == "anon_growth"
    assert "(above the cgroup that asked)" in report.verdict.summary
    assert report.cushion.exhausted_at is None
    assert "cushion.exhausted_at" not in report.quality.unknown
    assert any("Do not look only at the killed process, sh (pid 50)" in line for line in report.advice)


def test_allocators_beyond_the_largest_ten_are_summed_up(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/crowd", created=trace.ns(0))
    for number in range(13):
        trace.charged(
            0.1 + number / 100, 1, "anon", (20 - number) * 4096, tgid=100 + number, usage_bytes=LIMIT
        )
    trace.charged(0.3, 1, "anon", -4096, tgid=200, usage_bytes=LIMIT)
    record_kill(trace, 1)
    report = only_report(trace)
    assert [one.tgid for one in report.allocators] == list(range(100, 110))
    assert report.further_allocators == FurtherAllocators(3, (10 + 9 + 8) * 4096)


def test_allocators_have_their_kinds_of_memory_and_their_end(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/mixed", created=trace.ns(0))
    trace.add("tasks", tgid=60, comm="dd", first_seen=trace.ns(0), exited=trace.ns(2))
    trace.add("tasks", tgid=50, comm="sort", first_seen=trace.ns(0), exited=trace.ns(9.01))
    for category in ("file", "shmem"):
        trace.charged(1.5, 1, category, 40 * MIB, tgid=60)
    trace.charged(1.6, 1, "file", 20 * MIB, tgid=60)
    for step in range(10):
        trace.charged(3 + step / 10, 1, "anon", 3 * MIB, tgid=50)
    trace.charged(4, 1, "kernel", MIB, tgid=50, usage_bytes=LIMIT)
    trace.charged(5, 1, "file", -17 * MIB, tgid=50)
    record_kill(trace, 9)
    dd, sort = only_report(trace).allocators
    assert (dd.anon_bytes, dd.shmem_bytes, dd.file_bytes, dd.kernel_bytes) == (0, 40 * MIB, 3 * MIB, 0)
    assert (sort.anon_bytes, sort.shmem_bytes, sort.file_bytes, sort.kernel_bytes) == (30 * MIB, 0, 0, MIB)
    assert (dd.charged_bytes, sort.charged_bytes) == (60 * MIB, 31 * MIB)
    assert dd.exited is not None and dd.exited.value == trace.ns(2)
    assert sort.exited is None  # it was killed
    assert sort.grew_from is not None and sort.grew_until is not None
    assert (sort.grew_from.value, sort.grew_until.value) == (trace.ns(3.1), trace.ns(3.9))


def test_process_that_grew_most_by_a_kind_and_lives_is_among_the_allocators(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/readers", created=trace.ns(0))
    for number in range(12):
        trace.charged(0.1, 1, "file", (50 - number) * 4096, tgid=100 + number)
    trace.charged(0.2, 1, "anon", 30 * 4096, tgid=50, usage_bytes=LIMIT)
    trace.charged(0.2, 1, "anon", 35 * 4096, tgid=51)
    trace.add("tasks", tgid=51, comm="gone", first_seen=trace.ns(0), exited=trace.ns(0.5))
    record_kill(trace, 1)
    report = only_report(trace)
    assert [one.tgid for one in report.allocators] == [*range(100, 110), 50]
    assert report.further_allocators == FurtherAllocators(3, (40 + 39 + 35) * 4096)


def test_process_with_negative_rows_alone_is_an_allocator_of_its_net_cache(trace: Any) -> None:
    """It freed 9 MiB of shared memory and read 1 MiB of a file, within one slice: `file` has the sum."""
    trace.add("cgroups", cgroup_id=1, path="/freed", created=trace.ns(0))
    trace.charged(0.1, 1, "anon", 50 * MIB, tgid=60, usage_bytes=LIMIT // 2)
    trace.charged(0.2, 1, "file", 20 * MIB, tgid=60, usage_bytes=LIMIT)
    trace.charged(0.2, 1, "shmem", 20 * MIB, tgid=60, usage_bytes=LIMIT)
    trace.charged(0.3, 1, "file", -8 * MIB, tgid=70, usage_bytes=LIMIT)
    trace.charged(0.3, 1, "shmem", -9 * MIB, tgid=70, usage_bytes=LIMIT)
    record_kill(trace, 1)
    report = only_report(trace)
    assert [(one.tgid, one.charged_bytes) for one in report.allocators] == [(60, 70 * MIB), (70, MIB)]
    when = pd.Timestamp(trace.ns(0.3), tz="UTC")
    assert (report.allocators[1].grew_from, report.allocators[1].grew_until) == (when, when)
    assert not trace.defects


@pytest.mark.parametrize(("tgid", "is_noted"), [(None, True), (50, False)])
def test_growth_that_no_process_was_charged_for_is_noted(
    trace: Any, tgid: int | None, is_noted: bool
) -> None:
    """A task of another cgroup can fill the memory of a process (userfaultfd)."""
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    trace.charged(1, 1, "anon", 90 << 20, tgid=tgid, usage_bytes=90 << 20)
    record_kill(trace, 2)
    why = only_report(trace).quality.unknown.get("allocators")
    assert (why is not None) == is_noted
    if why is not None:
        assert why.startswith(
            "of the 90 MiB that grew, 90 MiB was charged by no process that was seen in the "
        )


def test_memory_that_went_to_swap_is_charged_to_its_process_and_part_of_the_growth(trace: Any) -> None:
    """1 MiB each 0.1 s from 0 s on: at the limit of 100 MiB, as much goes to swap."""
    trace.add("cgroups", cgroup_id=2, path="/job", created=trace.ns(0))
    for step in range(200):
        at = 0.1 * (step + 1)
        trace.charged(at, 2, "anon", MIB, tgid=50, usage_bytes=min(step + 1, 100) * MIB, limit_bytes=LIMIT)
        if step >= 100:
            trace.charged(at, 2, "anon", -MIB, tgid=50, usage_bytes=LIMIT, limit_bytes=LIMIT)
            trace.charged(at, 2, "swap", MIB, tgid=50)
    record_kill(trace, 20.01, trigger_cgroup_id=2, cgroup_id=2, limit_owner_cgroup_id=2)
    report = only_report(trace)
    (allocator,) = report.allocators
    # Usage was last below 50 MiB at 4.9 s; the row of 4.9 s is in the window.
    assert (allocator.charged_bytes, allocator.anon_bytes) == (152 * MIB, 152 * MIB)
    assert report.sizing.pace.startswith("At this growth (152 MiB in 15.11 s), each extra 100 MiB of limit")
