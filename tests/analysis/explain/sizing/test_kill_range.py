"""The range of limits after a kill, from synthetic kills whose mappings are known to the byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tracer
from tracer.analysis.explain.postmortem import explain
from tracer.analysis.results.kill import OomReport

RECORDED = Path(__file__).parents[4] / "traces"
PAGE = 4096
MIB = 1 << 20
LIMIT = 100 * MIB
UNSEEN = 2 * (64 * PAGE + (256 << 10))
"""Room for memory that the ledger lacks on two CPUs: stocks of charges, and sums that are not yet sent."""


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


def test_range_of_a_kill_is_bounded_by_mapped_memory(page_cache_experiment: Any) -> None:
    sizing = report_with(page_cache_experiment, **MAPPED).sizing
    untouched = (308 + 1 - 98) * MIB
    beside = untouched * 2 // 448  # page tables, and the index of shared memory
    high = LIMIT + PAGE + untouched + beside + UNSEEN
    assert sizing.min_limit_bytes == (LIMIT + PAGE, -(-high // PAGE) * PAGE)
    assert "211 MiB mapped that they had not touched" in sizing.basis[1]
    # 1 MiB each 10 ms from 2 s on; the kill is at 3.6 s.
    assert sizing.pace.startswith("At this growth (99 MiB in 1.60 s), each extra 100 MiB of limit buys")


def test_range_with_locked_files_counts_shared_mappings(page_cache_experiment: Any) -> None:
    page_cache_experiment.recorded()["samples"][0] |= {
        **{"anon_bytes": 60 * MIB, "file_bytes": 40 * MIB, "unevictable_bytes": 40 * MIB},
        **{"inactive_anon_bytes": 60 * MIB, "active_anon_bytes": 0},
    }
    report = report_with(page_cache_experiment, **MAPPED)
    assert report.composition.unevictable == 40 * MIB
    private, others = 308 + 1 - 98, 340 - 308 - 5 - 1
    assert f"{private + others - 40} MiB mapped that they had not touched" in report.sizing.basis[1]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({}, "were not recorded"),
        (MAPPED | {"data_vm_bytes": 110 * MIB}, "step by step|mapped little more"),
        # 24 further threads have 8 MiB of stack each that they never touch.
        (MAPPED | {"threads": 25}, "mapped little more"),
        (MAPPED | {"tgid": 99}, "other processes grew"),
        (MAPPED | {"kernel_stack_id": 4}, "not an access to mapped memory"),
    ],
)
def test_range_without_a_bound_is_null_and_has_a_pace(
    page_cache_experiment: Any, columns: dict[str, int], reason: str
) -> None:
    page_cache_experiment.add("stacks", stack_id=4, frames=["out_of_memory+0x1", "shmem_write_begin+0x6"])
    report = report_with(page_cache_experiment, **columns)
    assert any(word in why_not(report) for word in reason.split("|"))
    assert report.sizing.basis[0] == "The limit of 100 MiB was too small."
    assert "each extra 100 MiB of limit buys" in report.sizing.pace


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ({"anon_bytes": 60 * MIB, "file_bytes": 40 * MIB}, "with more time, 40 MiB could have been"),
        # Files on tmpfs that no victim has mapped.
        ({"anon_bytes": 60 * MIB, "file_bytes": 40 * MIB, "shmem_bytes": 40 * MIB}, "40 MiB of shmem"),
    ],
)
def test_range_of_a_kill_with_reclaimable_or_unmapped_memory_is_null(
    page_cache_experiment: Any, counts: dict[str, int], reason: str
) -> None:
    page_cache_experiment.forget("stacks")
    (sample,) = page_cache_experiment.recorded()["samples"]
    sample |= counts
    assert reason in why_not(report_with(page_cache_experiment, **MAPPED))


@pytest.mark.parametrize(
    ("name", "kill", "beside_bytes"),
    [
        ("cow", 0, 24 * MIB),  # pages of the parent that are not yet copied
        ("sharedbuffers", 0, 117 * MIB - 77_479_936),  # the rest of the segment
        ("sharedbuffers", 2, 117 * MIB - 79_302_656),
        ("leftover", 0, 400 * MIB - 17 * MIB),  # the rest of the mapping of the process that lived longer
    ],
)
def test_range_has_room_for_copies_segments_and_mappings_beside_other_processes(
    name: str, kill: int, beside_bytes: int
) -> None:
    report = tracer.open(RECORDED / name).explain()[kill]
    low, high = report.sizing.min_limit_bytes or (0, 0)
    assert low > (report.limit_owner.limit_bytes or 0)
    assert low + beside_bytes <= high < low + beside_bytes + 24 * MIB
