"""Rows of kills in cases that no recorded example has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import tracer
from tracer.analysis.results.kill import OomReport
from tracer.fleet.summary.kill_rows import kill_rows, unreclaimable_bytes
from tracer.fleet.summary.named_cgroups import NamedCgroups
from tracer.fleet.summary.origin import Origin
from tracer.schema import UNLIMITED_BYTES

TRACE = tracer.open(Path(__file__).parents[3] / "traces/parent-limit")
(REPORT,) = TRACE.explain()


def row_of(report: OomReport) -> dict[str, Any]:
    (row,) = kill_rows([report], Origin.from_trace(TRACE), NamedCgroups(TRACE))
    return row


def test_kill_without_a_limit_is_of_the_workload_of_its_victim() -> None:
    owner = replace(REPORT.limit_owner, cgroup=None, cgroup_id=None, limit_bytes=None, usage_bytes=None)
    row = row_of(replace(REPORT, constraint="global", limit_owner=owner))
    assert row["workload"] == row["victim_workload"] == "/memcg-tracer-*-lab-parent-limit/big"
    assert row_of(REPORT)["workload"] == "/memcg-tracer-*-lab-parent-limit"
    assert (row["cgroup"], row["cgroup_id"], row["limit_bytes"], row["is_limited"]) == (None,) * 4


def test_limit_that_is_not_set_is_null_and_said() -> None:
    row = row_of(replace(REPORT, limit_owner=replace(REPORT.limit_owner, limit_bytes=UNLIMITED_BYTES)))
    assert (row["limit_bytes"], row["is_limited"]) == (None, False)


def test_kill_without_victims_and_time_known_from_the_log() -> None:
    row = row_of(replace(REPORT, victims=(), ktime_ns=None))
    assert (row["victims"], row["victim_pid"], row["victim_workload"], row["ktime_ns"]) == (
        0,
        None,
        "?",
        None,
    )
    assert kill_rows([replace(REPORT, time=None)], Origin.from_trace(TRACE), NamedCgroups(TRACE)) == []


def test_unreclaimable_memory_is_null_unless_each_part_of_it_is_known() -> None:
    made_of = replace(REPORT.composition, total=100, file_clean=10, file_dirty=5, writeback=None)
    made_of = replace(made_of, slab_reclaimable=2)
    assert unreclaimable_bytes(made_of) == 83
    for part in ("total", "file_clean", "slab_reclaimable"):
        unknown: dict[str, Any] = {part: None}
        assert unreclaimable_bytes(replace(made_of, **unknown)) is None
