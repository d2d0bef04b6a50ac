"""Flows: the sums of the rows of a batch, by cgroup, compared with sums made one row at a time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic.live_rows import rows

from tracer.enumerations import CAUSE, EVICTION_CAUSES
from tracer.live.flows import (
    ADD_CAUSES,
    BLOCKS,
    DROP_CAUSES,
    WIDTH,
    Evictions,
    evictions_of,
    flows_of,
)

PAGE = 4096


def block(table: str, name: str, *of: dict[str, Any]) -> dict[int, list[int]]:
    """Return cgroup -> its sums in one block, of cgroups with any."""
    return {
        number: line[BLOCKS[name]].tolist()
        for flows in flows_of(table, rows(table, *of), PAGE)
        for number, line in zip(flows.cgroup_ids.tolist(), flows.sums, strict=True)
        if line[BLOCKS[name]].any()
    }


RUN = st.fixed_dictionaries(
    {
        "cgroup_id": st.sampled_from([None, 3, 4, 5]),
        "op": st.sampled_from(["add", "delete"]),
        "cause": st.sampled_from(CAUSE.names),
        "nr_pages": st.integers(1, 1000),
    }
)


@given(runs=st.lists(RUN, min_size=1, max_size=30))
def test_page_cache_is_summed_by_owner_operation_and_cause(runs: list[dict[str, Any]]) -> None:
    for op, name in (("add", "added"), ("delete", "deleted")):
        expected: Counter[tuple[int, str]] = Counter()
        for run in runs:
            if run["op"] == op and run["cgroup_id"] is not None:
                expected[run["cgroup_id"], run["cause"]] += run["nr_pages"] * PAGE
        found = {
            (number, CAUSE.names[place]): size
            for number, sizes in block("pagecache", name, *runs).items()
            for place, size in enumerate(sizes)
            if size
        }
        assert found == dict(expected)


def test_charges_are_signed_and_what_was_charged_is_not() -> None:
    given: list[dict[str, Any]] = [
        {"cgroup_id": 3, "category": "anon", "bytes": 7 * PAGE},
        {"cgroup_id": 3, "category": "anon", "bytes": -2 * PAGE},
        {"cgroup_id": 3, "category": "shmem", "bytes": 3 * PAGE},  # inside file, whose own row has it
        {"cgroup_id": 3, "category": "swap", "bytes": 5 * PAGE},  # in no usage
        {"cgroup_id": 3, "category": "file", "bytes": 3 * PAGE},
    ]
    (level,) = block("charge", "level", *given).values()
    assert [size // PAGE for size in level if size] == [5, 3, 3, 5]
    assert block("charge", "charged", *given) == {3: [10 * PAGE]}


def test_reclaim_counts_attempts_for_the_target_and_time_for_the_task() -> None:
    given: list[dict[str, Any]] = [
        {"cgroup_id": 3, "task_cgroup_id": 4, "kind": "memcg", "reclaimed": 9, "duration_ns": 100},
        {"cgroup_id": 3, "task_cgroup_id": 4, "kind": "memcg", "reclaimed": 0, "duration_ns": 30},
        {"cgroup_id": None, "task_cgroup_id": 4, "kind": "direct", "reclaimed": 5, "duration_ns": 7},
        {"cgroup_id": None, "task_cgroup_id": 1, "kind": "kswapd", "reclaimed": 5, "duration_ns": 1000},
    ]
    assert block("reclaim", "attempts", *given) == {3: [1, 1]}
    assert block("reclaim", "reclaimed", *given) == {3: [9 * PAGE]}
    assert block("reclaim", "reclaim", *given) == {4: [137]}


def test_group_kill_counts_as_one_decision_of_the_limit_owner() -> None:
    given: list[dict[str, Any]] = [
        {"kill_id": 1, "limit_owner_cgroup_id": 3, "cgroup_id": 8},
        {"kill_id": 1, "limit_owner_cgroup_id": 3, "cgroup_id": 9},
        {"kill_id": 2, "limit_owner_cgroup_id": 3, "cgroup_id": 9},
        {"kill_id": 3, "limit_owner_cgroup_id": None, "cgroup_id": 9},
    ]
    assert block("oom", "kills", *given) == {3: [2], 9: [1]}


def test_evictions_are_summed_by_owner_and_evictor() -> None:
    def run(owner: int | None, evictor: int, cause: str, op: str = "delete") -> dict[str, Any]:
        return {"cgroup_id": owner, "task_cgroup_id": evictor, "cause": cause, "op": op, "nr_pages": 3}

    found = evictions_of(
        rows(
            "pagecache",
            run(3, 4, "reclaim_memcg"),
            run(3, 4, "reclaim_direct"),
            run(3, 5, "reclaim_kswapd"),
            run(3, 5, "truncate"),
            run(3, 5, "read", "add"),
            run(None, 5, "reclaim_memcg"),
        ),
        PAGE,
    )
    assert list(zip(*(column.tolist() for column in found), strict=True)) == [
        (3, 4, 6 * PAGE),
        (3, 5, 3 * PAGE),
    ]
    assert isinstance(found, Evictions)


@pytest.mark.parametrize("table", ["tasks", "samples", "loss"])
def test_table_without_flows_has_none(table: str) -> None:
    assert flows_of(table, rows(table, {}), PAGE) == []


def test_blocks_and_causes_are_complete() -> None:
    assert BLOCKS["kills"].stop == WIDTH
    assert {*ADD_CAUSES, *EVICTION_CAUSES, *DROP_CAUSES} == set(CAUSE.names)
