"""Samples decoded into rows, on both versions of cgroups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.memcg_files import COLUMNS

from tracer.capture.rows.decode import PAGE_BYTES
from tracer.capture.rows.sampler import sample_rows
from tracer.capture.rows.stat_positions import StatPositions
from tracer.schema import SAMPLE_SOURCES, TABLES, UNLIMITED_BYTES
from tracer.wire import streams
from tracer.wire.dtypes import SAMPLE

OFFSET_NS = 1_000
UNLIMITED_PAGES = np.iinfo(np.int64).max // PAGE_BYTES
KNOWN = {"kernel_bytes": 0, "swap_bytes": 1, "anon_bytes": 2, "sock_bytes": 3}


def sample(**fields: Any) -> Any:
    made = np.zeros(1, SAMPLE)
    for field in streams.SAMPLE.fields:
        if field.kind == "s64" and not field.length:
            made[field.name] = -1
    for name, value in fields.items():
        made[name] = value
    return made


def row(made: Any, version: int) -> dict[str, Any]:
    batch = sample_rows(made, StatPositions(KNOWN), version=version, clock_offset_ns=OFFSET_NS)
    assert batch.schema.equals(TABLES["samples"])
    (found,) = batch.to_pylist()
    return dict(found)


def known(found: dict[str, Any]) -> dict[str, int]:
    return {name: value for name, value in found.items() if name in COLUMNS and value is not None}


COUNTERS = np.array([5, 6, 7, 8, *[0] * 92])
STAT = {"anon_bytes": 7 * PAGE_BYTES}


def test_rows_of_v1() -> None:
    made = sample(
        usage_pages=9, limit_pages=UNLIMITED_PAGES, swap_limit_pages=UNLIMITED_PAGES, kernel_pages=4
    )
    made["counters"], made["max_events"], made["swap_max_events"] = COUNTERS, 3, 2
    assert known(row(made, 1)) == STAT | {
        "usage_bytes": 9 * PAGE_BYTES,
        "limit_bytes": UNLIMITED_BYTES,
        "swap_limit_bytes": UNLIMITED_BYTES,
        "kernel_bytes": 4 * PAGE_BYTES,
        "swap_bytes": 6 * PAGE_BYTES,
        "swap_usage_bytes": 6 * PAGE_BYTES,
        "sock_bytes": 0,
        "use_hierarchy": 1,
        "max_events": 5,
        "swap_max_events": 2,
    }


def test_rows_of_v2() -> None:
    made = sample(usage_pages=9, limit_pages=100, swap_usage_pages=2, high_pages=UNLIMITED_PAGES, low_pages=0)
    made["counters"], made["oom_group"], made["psi_some_total_us"], made["has_psi"] = COUNTERS, 1, 12, 1
    assert known(row(made, 2)) == STAT | {
        "usage_bytes": 9 * PAGE_BYTES,
        "limit_bytes": 100 * PAGE_BYTES,
        "high_bytes": UNLIMITED_BYTES,
        "low_bytes": 0,
        "kernel_bytes": 5 * PAGE_BYTES,
        "sock_bytes": 8 * PAGE_BYTES,
        "swap_bytes": 2 * PAGE_BYTES,
        "swap_usage_bytes": 2 * PAGE_BYTES,
        "oom_group": 1,
        "psi_some_total_us": 12,
    }


def test_pressure_of_a_kernel_without_it_is_null() -> None:
    assert row(sample(psi_some_total_us=0, psi_full_total_us=0), 2)["psi_some_total_us"] is None


@pytest.mark.parametrize("number", range(len(SAMPLE_SOURCES)))
def test_rows_have_their_time_cgroup_and_source(number: int) -> None:
    found = row(sample(time_ns=7, cgroup_id=3, source=number), 2)
    assert found["time"].value == 7 + OFFSET_NS
    assert (found["cgroup_id"], found["source"], found["kill_id"]) == (3, SAMPLE_SOURCES[number], None)


@pytest.mark.parametrize(
    ("limit", "memsw_limit", "refused", "expected"),
    [
        (200, 400, 0, (14, None)),  # refusals of memory and swap may be uncounted
        (200, 200, 0, (None, None)),  # so may those of memory, which come first
        (200, 200, 3, (17, 3)),
        (200, UNLIMITED_PAGES, 0, (14, 0)),
    ],
)
def test_refusals_on_v1_that_may_be_uncounted_are_unknown(
    limit: int, memsw_limit: int, refused: int, expected: tuple[int | None, int | None]
) -> None:
    made = sample(limit_pages=limit, swap_limit_pages=memsw_limit, max_events=14, swap_max_events=refused)
    found = row(made, 1)
    assert (found["max_events"], found["swap_max_events"]) == expected
