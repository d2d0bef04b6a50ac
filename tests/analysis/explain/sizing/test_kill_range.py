"""The range of limits after a kill, from synthetic kills whose mappings are known to the byte."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tracer
from tracer.analysis.explain.measure import shared_memory
from tracer.analysis.explain.measure.findings import Fork
from tracer.analysis.explain.postmortem import explain
from tracer.analysis.results.kill import OomReport

RECORDED = Path(__file__).parents[4] / "traces"
PAGE = 4096
MIB = 1 << 20
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
