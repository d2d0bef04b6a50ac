"""The shared memory at a kill: its files, what is mapped, and a writer that ended."""

from __future__ import annotations

from typing import Any

import pytest
from support.evidence import numbers_of
from synthetic.memcg_kill import LIMIT, only_report, record_kill

from tracer.analysis.results.memory import SharedFile

MIB = 1 << 20


def shmem(trace: Any, seconds: float, amount: int, tgid: int) -> None:
    for category in ("file", "shmem"):
        trace.charged(seconds, 1, category, amount, tgid=tgid, usage_bytes=LIMIT)


def look(trace: Any, seconds: float, kind: str, name: str, held: int, **row: Any) -> None:
    whole = {"size_bytes": held, "dev": "0:1", "ino": hash((kind, name)) % 1000, "is_mapped": True} | row
    trace.add("shmem_files", seconds, cgroup_id=1, tgid=50, kind=kind, name=name, held_bytes=held, **whole)


def filled(trace: Any) -> None:
    """Charge 64 MiB of a file by dd, which ends, and 30 MiB of a segment by the process that is killed."""
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    trace.add("tasks", tgid=60, comm="dd", first_seen=trace.ns(0), exited=trace.ns(2))
    trace.add("tasks", tgid=50, comm="sh", first_seen=trace.ns(0))
    shmem(trace, 1, 64 * MIB, 60)
    shmem(trace, 5, 30 * MIB, 50)


def killed(trace: Any, **row: Any) -> Any:
    record_kill(trace, 10, shmem_rss_bytes=30 * MIB, **row)
    return only_report(trace)


def test_files_are_those_last_seen_and_name_the_kinds(trace: Any) -> None:
    filled(trace)
    look(trace, 1.1, "tmpfs", "/dev/shm/left", 40 * MIB, is_mapped=False)
    look(trace, 1.2, "tmpfs", "/dev/shm/left", 62 * MIB, is_mapped=False)
    look(trace, 10.09, "anonymous", "/dev/zero", 30 * MIB, size_bytes=128 * MIB)
    report = killed(trace)
    assert report.shared_files == (
        SharedFile("tmpfs", "/dev/shm/left", 62 * MIB, 62 * MIB, is_mapped=False),
        SharedFile("anonymous", "/dev/zero", 30 * MIB, 128 * MIB, is_mapped=True),
    )
    assert report.verdict.cause == "shmem"
    assert (
        "94 MiB of it shared memory (files on tmpfs and shared anonymous mappings)" in report.verdict.summary
    )
    assert any("such as /dev/shm/left, which holds 62 MiB" in line for line in report.advice)
    contributing = report.verdict.contributing
    (files,) = numbers_of(contributing, "shared_files")
    assert [one["kind"] for one in files["files"]] == ["tmpfs", "anonymous"]
    assert numbers_of(contributing, "unmapped_shmem") == [{"unmapped_bytes": 64 * MIB}]


@pytest.mark.parametrize(("seen_s", "held", "said"), [(3, 21, "at least 21 MiB"), (10.01, 66, "66 MiB")])
def test_file_that_was_seen_before_shared_memory_grew_may_hold_more(
    trace: Any, seen_s: float, held: int, said: str
) -> None:
    """The process had ended before a look at the kill."""
    filled(trace)
    look(trace, seen_s, "memfd", "/memfd:pool", held * MIB, size_bytes=137 * MIB)
    report = killed(trace)
    assert [one.is_least for one in report.shared_files] == [said.startswith("at least")]
    assert f"94 MiB of it shared memory ({said} of that in memfd)" in report.verdict.summary
    assert any(f"it holds {said} until" in line for line in report.advice)
    (files,) = numbers_of(report.verdict.contributing, "shared_files")
    assert [one.get("is_least", False) for one in files["files"]] == [said.startswith("at least")]


def test_memfd_that_nobody_mapped_is_no_file_that_outlives_the_kill(trace: Any) -> None:
    filled(trace)
    look(trace, 1.2, "memfd", "/memfd:cache", 62 * MIB, is_mapped=False)
    (numbers,) = numbers_of(killed(trace).verdict.contributing, "unmapped_shmem")
    assert numbers == {"unmapped_bytes": 64 * MIB, "in_memfds_bytes": 62 * MIB}


def test_writer_that_ended_is_named_for_what_it_left(trace: Any) -> None:
    filled(trace)
    report = killed(trace)
    assert report.shared_files == ()
    writer = {"writer_comm": "dd", "writer_pid": 60, "shmem_bytes": 64 * MIB, "ended_ns": 8_000_000_000}
    assert numbers_of(report.verdict.contributing, "ended_writer") == [writer]
    line = "dd (pid 60) was charged for 64 MiB of the shared memory, and ended 8 s before the kill"
    assert any(line in advice for advice in report.advice)
    assert any("Look for files on tmpfs" in line for line in report.advice)


def test_process_that_filled_the_rest_is_named_beside_the_writer_that_ended(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    trace.add("tasks", tgid=60, comm="dd", first_seen=trace.ns(0), exited=trace.ns(2))
    trace.add("tasks", tgid=50, comm="sort", first_seen=trace.ns(0))
    shmem(trace, 1, 70 * MIB, 60)
    trace.charged(5, 1, "anon", 30 * MIB, tgid=50, usage_bytes=LIMIT)
    report = killed(trace)
    assert report.verdict.cause == "shmem"
    assert report.advice[0].startswith(
        "dd (pid 60) was charged for 70 MiB of the shared memory, and ended 8 s"
    )
    assert any(
        line.startswith("Look for growth in sort (pid 50): it charged 30 MiB of a") for line in report.advice
    )


def test_segment_that_is_mapped_was_left_by_nobody(trace: Any) -> None:
    """A backend that ended was charged for most of a segment, and the others still map it."""
    filled(trace)
    look(trace, 9, "anonymous", "/dev/zero", 92 * MIB, size_bytes=96 * MIB)
    contributing = killed(trace).verdict.contributing
    assert numbers_of(contributing, "ended_writer") == []
    assert numbers_of(contributing, "unmapped_shmem") == []


def test_file_whose_memory_was_freed_since_is_left_out(trace: Any) -> None:
    filled(trace)
    look(trace, 1.5, "tmpfs", "/dev/shm/old", 40 * MIB, is_mapped=False)
    shmem(trace, 3, -40 * MIB, 60)
    shmem(trace, 4, 40 * MIB, 50)
    assert killed(trace).shared_files == ()


def test_looks_after_the_kill_do_not_count(trace: Any) -> None:
    filled(trace)
    look(trace, 10.11, "memfd", "/memfd:late", 40 * MIB)
    assert killed(trace).shared_files == ()


def test_growth_in_a_segment_is_bounded_by_its_size(trace: Any) -> None:
    """All shared memory is in one mapping of 160 MiB, and another of 20 MiB is mapped and not touched."""
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    trace.add("tasks", tgid=50, comm="sh", first_seen=trace.ns(0))
    for step in range(94):
        shmem(trace, 1 + step / 20, MIB, 50)
    look(trace, 9, "anonymous", "/dev/zero", 94 * MIB, size_bytes=160 * MIB)
    look(trace, 9, "memfd", "/memfd:spare", 0, size_bytes=20 * MIB)
    vm = {"total_vm_bytes": 900 * MIB, "data_vm_bytes": MIB, "exec_vm_bytes": MIB, "stack_vm_bytes": MIB}
    row = {"anon_rss_bytes": MIB, "swap_bytes": 0, "threads": 1}
    record_kill(trace, 10, shmem_rss_bytes=30 * MIB, kernel_stack_id=1, **vm, **row)
    trace.add("stacks", stack_id=1, frames=["try_charge_memcg+0x1", "handle_mm_fault+0x1"])
    trace.add("samples", 0.5, cgroup_id=1, source="periodic", swap_limit_bytes=LIMIT, limit_bytes=LIMIT)
    report = only_report(trace)
    assert [one.held_bytes for one in report.shared_files] == [94 * MIB, 0]
    low, high = report.sizing.min_limit_bytes or (0, None)
    assert high is not None
    untouched = (66 + 20) * MIB
    assert LIMIT <= low < high
    assert high - LIMIT == pytest.approx(untouched, rel=0.05)
    assert "86 MiB of them was not touched" in report.sizing.pace
