"""The names behind the ids in the history: the latest row of each key, and none that nothing needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic.cgroup_worlds import S, table

from tracer.trace.history.kept_names import KeptNames
from tracer.trace.identity_tables import IDENTITY_KEYS, keep_last

RowsOf = Callable[[str, range], pa.RecordBatch]


def task(tgid: int, start_ns: int, exited_s: int | None, **more: Any) -> dict[str, Any]:
    named = {"comm": "a", "ppid": 1, "uid": 0, "cgroup_id": 1, "first_seen": start_ns}
    exited_ns = None if exited_s is None else exited_s * S
    return {"tgid": tgid, "start_ns": start_ns, "exited": exited_ns, **named, **more}


def add(names: KeptNames, name: str, rows: list[dict[str, Any]]) -> None:
    for batch in table(name, rows).to_batches():
        names.add(name, batch)


def kept_tasks(names: KeptNames) -> list[tuple[int, int]]:
    return [(row["tgid"], row["start_ns"]) for row in names.read("tasks").to_pylist()]


@pytest.mark.parametrize("name", sorted(IDENTITY_KEYS))
def test_latest_row_of_each_key_is_read(name: str, rows_of: RowsOf) -> None:
    """Some rows are compressed meanwhile."""
    names, batches = KeptNames(), []
    for first in (0, 5_000, 2_000, 8_000):
        batch = rows_of(name, range(first, first + 5_000)).cast(table(name, []).schema)
        batches.append(batch)
        names.add(name, batch)
    everything = pa.Table.from_batches(batches).unify_dictionaries()
    assert names.read(name).to_pylist() == keep_last(everything, name).to_pylist()
    assert names.count(name) >= names.read(name).num_rows == 13_000


def test_names_that_did_not_come_are_no_rows() -> None:
    names = KeptNames()
    assert [names.read(name).num_rows for name in IDENTITY_KEYS] == [0] * 4
    assert (names.size_bytes, names.count("tasks")) == (0, 0)
    names.forget_tasks(5)
    names.retain("inodes", np.array([1], np.int64))
    assert names.among("cgroups", np.array([1], np.int64)).num_rows == 0


def test_name_of_a_removed_file_is_still_known() -> None:
    names = KeptNames()
    row = {"inode_id": 7, "dev": "8:1", "ino": 1, "fs_type": "ext4", "mode": 1, "size_bytes": 5}
    add(names, "inodes", [row | {"path": "/a", "path_kind": "name", "deleted": False}])
    names.retain("inodes", np.array([7], np.int64))
    add(names, "inodes", [row | {"deleted": True}])
    (found,) = names.read("inodes").to_pylist()
    assert (found["path"], found["deleted"]) == ("/a", True)


def test_processes_that_ended_before_are_forgotten() -> None:
    names = KeptNames()
    add(names, "tasks", [task(5, 1, None), task(6, 2, None), task(7, 3, 9), task(8, 4, 10)])
    add(names, "tasks", [task(6, 2, 4)])
    names.forget_tasks(10 * S)
    assert kept_tasks(names) == [(5, 1), (8, 4)]


def test_process_whose_end_was_not_seen_is_forgotten_when_another_has_its_id() -> None:
    names = KeptNames()
    add(names, "tasks", [task(5, 8, None), task(5, 1, None), task(5, 4, 20), task(6, 1, None)])
    names.forget_tasks(10 * S)
    assert kept_tasks(names) == [(5, 8), (5, 4), (6, 1)]


@given(
    rows=st.lists(
        st.tuples(st.integers(1, 4), st.integers(0, 9), st.one_of(st.none(), st.integers(0, 9))), max_size=30
    ),
    before_s=st.integers(0, 9),
)
def test_processes_of_the_history_are_kept(rows: list[tuple[int, int, int | None]], before_s: int) -> None:
    names = KeptNames()
    for row in rows:
        add(names, "tasks", [task(*row)])
    last = {(tgid, start_ns): exited_s for tgid, start_ns, exited_s in rows}
    newest = {tgid: max(start for one, start in last if one == tgid) for tgid, _ in last}
    expected = {
        key
        for key, exited_s in last.items()
        if (newest[key[0]] == key[1] if exited_s is None else exited_s >= before_s)
    }
    names.forget_tasks(before_s * S)
    assert {*kept_tasks(names)} == expected


def test_only_ids_that_are_asked_for_are_retained(rows_of: RowsOf) -> None:
    names = KeptNames()
    names.add("inodes", rows_of("inodes", range(1, 100)).cast(table("inodes", []).schema))
    size_bytes = names.size_bytes
    names.retain("inodes", np.arange(1, 200))
    assert names.size_bytes == size_bytes, "nothing to forget"
    names.retain("inodes", np.array([500, 3, 2], np.int64))
    assert [row["inode_id"] for row in names.read("inodes").to_pylist()] == [2, 3]
    assert names.count("inodes") == 2
    assert names.size_bytes < size_bytes
