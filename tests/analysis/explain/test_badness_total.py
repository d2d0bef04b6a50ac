"""The total for badness, of synthetic kills with known limits."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from tracer.analysis.core.columns import records, times_ns
from tracer.analysis.core.subtree import Subtree, Subtrees
from tracer.analysis.explain import victim_selection
from tracer.kernel.kmsg.report.log_report import Counter, Invoker, LogReport, MemInfo
from tracer.kernel.kmsg.text.log_record import Stamp
from tracer.schema import UNLIMITED_BYTES

PAGE = 4096
MIB = 1 << 20
LIMIT = 100 * MIB
LIMIT_PAGES = LIMIT // PAGE
MACHINE = {"total_bytes": 8192 * MIB, "swap_total_bytes": 0, "swappiness": 60}


def record_kill(trace: Any, constraint: str, owner_id: int | None) -> None:
    trace.add("cgroups", cgroup_id=7, path="/crowd")
    trace.add(
        "oom",
        2,
        kill_id=1,
        constraint=constraint,
        limit_owner_cgroup_id=owner_id,
        limit_bytes=LIMIT,
        usage_bytes=LIMIT,
        pid=41,
        tgid=41,
        cgroup_id=7,
    )


@pytest.mark.parametrize(
    ("swap_room", "swap_total", "swappiness", "expected"),
    [
        (500, 900, 60, LIMIT_PAGES + 500),
        (900, 500, 60, LIMIT_PAGES + 500),
        (0, None, None, LIMIT_PAGES),  # no swap is allowed, whatever the machine has
        (None, 0, None, LIMIT_PAGES),  # the machine has none, whatever is allowed
        (None, None, 0, LIMIT_PAGES),
        (None, 500, 60, None),
        (500, None, 60, None),
        (500, 500, None, None),
    ],
)
def test_memcg_total_of_limit_and_swap_counts_the_lesser_swap(
    swap_room: int | None, swap_total: int | None, swappiness: int | None, expected: int | None
) -> None:
    assert victim_selection.memcg_total_pages(LIMIT_PAGES, swap_room, swap_total, swappiness) == expected


@pytest.mark.parametrize(
    ("version", "swap", "machine", "expected"),
    [
        (2, (UNLIMITED_BYTES, None), MACHINE, LIMIT_PAGES),  # the machine has no swap
        (2, (7 * MIB, None), MACHINE | {"swap_total_bytes": 30 * MIB}, LIMIT_PAGES + 7 * 256),
        (2, (UNLIMITED_BYTES, None), MACHINE | {"swap_total_bytes": 30 * MIB}, LIMIT_PAGES + 30 * 256),
        (2, (7 * MIB, None), MACHINE | {"swap_total_bytes": 30 * MIB, "swappiness": 0}, LIMIT_PAGES),
        (
            *(1, (LIMIT + 7 * MIB, 60), MACHINE | {"swap_total_bytes": 30 * MIB, "swappiness": 0}),
            LIMIT_PAGES + 7 * 256,
        ),
        (1, (LIMIT + 7 * MIB, 0), MACHINE | {"swap_total_bytes": 30 * MIB}, LIMIT_PAGES),
        (1, (LIMIT, None), None, LIMIT_PAGES),
        (2, (7 * MIB, None), None, None),  # a trace older than this part of meta.json
    ],
)
def test_recorded_total_without_the_kernels_number_follows_from_the_last_sample_before(
    trace: Any, version: int, swap: tuple[int, int | None], machine: Any, expected: int | None
) -> None:
    swap_limit, swappiness = swap
    record_kill(trace, "memcg", 7)
    trace.meta |= {"cgroup_version": version, "memory": machine}
    trace.add("samples", 1, cgroup_id=7, swap_limit_bytes=swap_limit, swappiness=swappiness)
    trace.add("samples", 2, cgroup_id=7, source="oom", kill_id=1)
    trace.add("samples", 3, cgroup_id=7, swap_limit_bytes=0, swappiness=0)
    assert recorded_total(Subtrees(trace).subtree_at(7), trace.oom) == expected


def recorded_total(subtree: Subtree, oom: pd.DataFrame) -> int | None:
    return victim_selection.recorded_total_pages(subtree, int(times_ns(oom)[0]), records(oom)[0])


def test_recorded_total_of_a_global_kill_is_the_machines(trace: Any) -> None:
    record_kill(trace, "global", None)
    trace.meta |= {"cgroup_version": 2, "memory": MACHINE | {"swap_total_bytes": 3 * PAGE}}
    nobody = Subtrees(trace).machine()
    assert recorded_total(nobody, trace.oom) == 8192 * 256 + 3
    assert recorded_total(nobody, trace.oom.assign(constraint="cpuset")) is None


@pytest.mark.parametrize(
    ("counters", "expected"),
    [
        ({"swap": Counter(0, 0, 0)}, LIMIT_PAGES),
        ({"swap": Counter(0, UNLIMITED_BYTES, 0)}, None),  # a log does not have the machine's swap
        ({"memory+swap": Counter(LIMIT, LIMIT, 0)}, LIMIT_PAGES),
        ({"memory+swap": Counter(LIMIT, 2 * LIMIT, 0)}, None),
        ({}, None),
    ],
)
def test_logged_total_of_a_memcg_kill_needs_a_bound_on_swap(counters: Any, expected: int | None) -> None:
    log = LogReport(
        stamp=Stamp(1),
        last_line=9,
        invoker=Invoker(),
        constraint="memcg",
        counters={"memory": Counter(LIMIT, LIMIT, 7)} | counters,
    )
    assert victim_selection.logged_total_pages(log, PAGE) == expected


@pytest.mark.parametrize(
    ("mem_info", "expected"),
    [(MemInfo(ram_pages=5000, reserved_pages=300, total_swap_bytes=8 * PAGE), 4708), (None, None)],
)
def test_logged_total_of_a_global_kill_is_in_mem_info(mem_info: MemInfo | None, expected: int | None) -> None:
    log = LogReport(stamp=Stamp(1), last_line=9, invoker=Invoker(), constraint="global", mem_info=mem_info)
    assert victim_selection.logged_total_pages(log, PAGE) == expected
