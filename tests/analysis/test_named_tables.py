"""The tables of a trace with the names of their ids."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tracer.analysis.named_tables import batches, schema_of
from tracer.schema import TABLES, UNLIMITED_BYTES


def rows(trace: Any, table: str, members: list[int] | None = None) -> list[dict[str, Any]]:
    ids = None if members is None else np.array(members, np.int64)
    return [row for part in batches(trace, table, ids) for row in part.to_pylist()]


@pytest.mark.parametrize("table", TABLES)
def test_every_table_has_its_columns_and_rows(page_cache_experiment: Any, table: str) -> None:
    parts = list(batches(page_cache_experiment, table))
    assert all(part.schema.equals(schema_of(table)) for part in parts)
    stored = page_cache_experiment.table(table)
    assert sum(part.num_rows for part in parts) == stored.num_rows
    assert set(TABLES[table].names) <= set(schema_of(table).names)


def test_ids_have_their_names_at_the_time_of_the_row(page_cache_experiment: Any) -> None:
    charge = rows(page_cache_experiment, "charge")
    assert {(row["cgroup"], row["container"], row["comm"]) for row in charge if row["tgid"]} == {
        ("/docker/4f2a", "web", "python3")
    }
    (kill,) = rows(page_cache_experiment, "oom")
    assert kill["limit_owner_cgroup"] == kill["cgroup"] == kill["trigger_cgroup"] == "/docker/4f2a"
    assert kill["kernel_stack"] == ["out_of_memory", "try_charge_memcg", "handle_mm_fault"]
    assert kill["user_stack"] is None
    order = schema_of("oom").names
    assert order.index("limit_owner_cgroup") == order.index("limit_owner_cgroup_id") + 1


def test_names_and_limits_that_are_not_known_are_null(trace: Any) -> None:
    trace.add("charge", 0, cgroup_id=9, tgid=None, category="anon", limit_bytes=None)
    trace.add("charge", 1, cgroup_id=9, tgid=4, category="anon", limit_bytes=UNLIMITED_BYTES)
    trace.add("charge", 2, cgroup_id=9, tgid=4, category="anon", limit_bytes=4096)
    trace.add("pagecache", 0, cgroup_id=None, op="add", cause="read", inode_id=None)
    assert [(row["limit_bytes"], row["is_limited"]) for row in rows(trace, "charge")] == [
        (None, None),
        (None, False),
        (4096, True),
    ]
    assert all(row["cgroup"] is row["container"] is row["comm"] is None for row in rows(trace, "charge"))
    assert [(row["cgroup"], row["file"]) for row in rows(trace, "pagecache")] == [(None, None)]


def test_rows_of_other_cgroups_are_left_out_if_any_cgroup_is_named(trace: Any) -> None:
    for number in (1, 2, 3):
        trace.add("charge", number, cgroup_id=number, category="anon")
        trace.add("cgroups", cgroup_id=number, path=f"/{number}")
    trace.add("pagecache", 0, cgroup_id=None, task_cgroup_id=2, op="add", cause="read")
    trace.add("inodes", inode_id=5, path="/x")
    assert [row["cgroup_id"] for row in rows(trace, "charge", [2, 3])] == [2, 3]
    assert len(rows(trace, "pagecache", [2])) == 1
    assert len(rows(trace, "pagecache", [3])) == 0
    assert [row["path"] for row in rows(trace, "cgroups", [3])] == ["/3"]
    assert len(rows(trace, "inodes", [3])) == 1


def test_rows_of_a_batch_are_in_the_order_of_time(trace: Any) -> None:
    for second in (3, 1, 2):
        trace.add("stalls", second, kind="dirty", cgroup_id=1)
    assert pa.concat_tables(batches(trace, "stalls"))["time"].cast(pa.int64()).to_pylist() == [
        trace.ns(second) for second in (1, 2, 3)
    ]
