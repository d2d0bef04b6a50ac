"""Rows of the history reduced to one of each group and interval."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.calls import counted_calls

from tracer.schema import TABLES
from tracer.trace import arrow_columns
from tracer.trace.history.thinning import SUMS_OF_FILES_NS, SUMS_OF_RUNS_NS, summed_rows, thin

Rows = list[dict[str, Any]]

MS: Final = 1_000_000
STAGES: Final = (10 * MS, SUMS_OF_RUNS_NS, SUMS_OF_FILES_NS)

INTERVAL = st.sampled_from(STAGES)
TIME = st.one_of(st.integers(0, 3_000).map(lambda ms: ms * MS), st.integers(0, 3 * 10**9))
FEW = st.integers(1, 3)
FEW_OR_NULL = st.one_of(st.none(), st.sampled_from([0, 1, 2]))
LARGE_ID = st.one_of(st.none(), st.sampled_from([0, 7, 2**63 - 1, 2**62]))
COUNT = st.integers(0, 2**40)
CHANGE = st.integers(-(2**40), 2**40)


def rows_of(table: str, **columns: st.SearchStrategy[Any]) -> st.SearchStrategy[Rows]:
    return st.lists(st.fixed_dictionaries({"time": TIME} | columns), max_size=60)


CHARGES = rows_of(
    "charge",
    cgroup_id=st.sampled_from([5, 2**63 - 1]),
    tgid=FEW_OR_NULL,
    category=st.sampled_from(["anon", "file"]),
    pages=CHANGE,
    bytes=CHANGE,
    updates=COUNT,
    usage_bytes=st.one_of(st.none(), COUNT),
    limit_bytes=st.one_of(st.none(), COUNT),
)
RUNS = rows_of(
    "pagecache",
    duration_ns=st.integers(0, 10 * MS),
    folios=COUNT,
    cgroup_id=LARGE_ID,
    tgid=FEW_OR_NULL,
    task_cgroup_id=FEW,
    op=st.sampled_from(["add", "delete"]),
    cause=st.sampled_from(["read", "truncate"]),
    inode_id=LARGE_ID,
    dev=FEW,
    ino=st.one_of(st.none(), st.sampled_from([0, 1, 2**64 - 1])),
    index=st.one_of(st.none(), COUNT),
    nr_pages=COUNT,
)
TASK_TIMES = rows_of("task_time", begin=TIME, cgroup_id=FEW, cpu_ns=COUNT)
FILE_WAITS = rows_of(
    "file_waits",
    duration_ns=st.integers(0, 20 * MS),
    cgroup_id=FEW,
    tgid=FEW,
    inode_id=LARGE_ID,
    waits=COUNT,
    wait_ns=COUNT,
)
SAMPLES = rows_of(
    "samples",
    cgroup_id=FEW,
    source=st.sampled_from(["start", "periodic", "oom", "end"]),
    usage_bytes=st.one_of(st.none(), COUNT),
)


def table_of(table: str, rows: Rows, cuts: Sequence[int] = ()) -> pa.Table:
    """Return rows of a table, in a batch with a vocabulary of its own between any two cuts."""
    unknown = dict.fromkeys(TABLES[table].names)
    edges = [0, *sorted(cut % (len(rows) + 1) for cut in cuts), len(rows)]
    pieces = [rows[begin:end] for begin, end in pairwise(edges)]
    batches = [arrow_columns.rows_of(table, [unknown | row for row in piece]) for piece in pieces]
    return pa.Table.from_batches(batches, schema=TABLES[table])


def list_of(data: pa.Table) -> Rows:
    """Return rows with times in ns."""
    plain = [
        column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in data.columns
    ]
    rows: Rows = pa.Table.from_arrays(plain, names=data.schema.names).to_pylist()
    return rows


def grouped(rows: Rows, interval_ns: int, keys: Sequence[str]) -> dict[tuple[Any, ...], Rows]:
    """Return rows in order of time by interval and key."""
    groups: dict[tuple[Any, ...], Rows] = {}
    for row in sorted(rows, key=lambda row: row["time"]):
        groups.setdefault((row["time"] // interval_ns, *(row[key] for key in keys)), []).append(row)
    return groups


def thinned(table: str, rows: Rows, interval_ns: int, cuts: Sequence[int] = ()) -> Rows:
    """Return thinned rows, after a look at what holds for all tables."""
    data = thin(table, table_of(table, rows, cuts), interval_ns)
    assert data.schema.equals(TABLES[table])
    assert thin(table, data, interval_ns).equals(data)
    data.validate(full=True)
    found = list_of(data)
    if interval_ns >= SUMS_OF_RUNS_NS:
        assert [row["time"] for row in found] == sorted(row["time"] for row in found)
    return found


CUTS = st.lists(st.integers(0, 60), max_size=3)


@given(rows=CHARGES, interval_ns=INTERVAL, cuts=CUTS)
def test_charges_are_one_sum_with_the_last_reading(rows: Rows, interval_ns: int, cuts: list[int]) -> None:
    groups = grouped(rows, interval_ns, ("cgroup_id", "tgid", "category"))
    expected = [
        group[-1] | {name: sum(row[name] for row in group) for name in ("pages", "bytes", "updates")}
        for group in groups.values()
    ]
    found = thinned("charge", rows, interval_ns, cuts)
    assert sorted(map(repr, found)) == sorted(
        repr({name: row[name] for name in found[0]}) for row in expected
    )


@given(rows=CHARGES, interval_ns=INTERVAL)
def test_level_at_the_end_of_each_interval_is_exact(rows: Rows, interval_ns: int) -> None:
    found = thinned("charge", rows, interval_ns)
    for end_ns in range(interval_ns, 4 * SUMS_OF_FILES_NS, max(interval_ns, SUMS_OF_RUNS_NS)):
        levels = [
            Counter[Any]({(row["cgroup_id"], row["category"]): 0 for row in rows}) for _ in (rows, found)
        ]
        for level, some in zip(levels, (rows, found), strict=True):
            for row in some:
                if row["time"] < end_ns:
                    level[row["cgroup_id"], row["category"]] += row["bytes"]
        assert levels[0] == levels[1]


@given(rows=RUNS, interval_ns=INTERVAL, cuts=CUTS)
def test_runs_become_sums_from_the_first_to_the_last(rows: Rows, interval_ns: int, cuts: list[int]) -> None:
    found = thinned("pagecache", rows, interval_ns, cuts)
    if interval_ns < SUMS_OF_RUNS_NS:
        assert found == list_of(table_of("pagecache", rows))
        return
    of_files = () if interval_ns >= SUMS_OF_FILES_NS else ("tgid", "inode_id", "ino")
    keys = ("cgroup_id", "task_cgroup_id", "op", "cause", "dev", *of_files)
    expected = {}
    for key, group in grouped(rows, interval_ns, keys).items():
        end_ns = max(row["time"] + row["duration_ns"] for row in group)
        sums = {name: sum(row[name] for row in group) for name in ("folios", "nr_pages")}
        nulls = dict.fromkeys(("index", "tgid", "inode_id", "ino"))
        kept = {name: group[0][name] for name in ("time", *keys)}
        expected[key] = nulls | kept | sums | {"duration_ns": end_ns - group[0]["time"]}
    assert {(row["time"] // interval_ns, *(row[key] for key in keys)): row for row in found} == expected
    assert len(found) == len(expected)


@given(rows=SAMPLES, interval_ns=INTERVAL, cuts=CUTS)
def test_last_periodic_sample_is_kept_and_all_others(rows: Rows, interval_ns: int, cuts: list[int]) -> None:
    periodic = grouped(
        [row for row in rows if row["source"] == "periodic"], interval_ns, ("cgroup_id",)
    ).values()
    kept = {id(group[-1]) for group in periodic} | {id(row) for row in rows if row["source"] != "periodic"}
    expected = sorted((row for row in rows if id(row) in kept), key=lambda row: row["time"])
    assert thinned("samples", rows, interval_ns, cuts) == list_of(table_of("samples", expected))


@given(rows=TASK_TIMES, interval_ns=INTERVAL)
def test_task_time_is_one_sum_from_the_first_begin(rows: Rows, interval_ns: int) -> None:
    expected = {
        (group[-1]["time"], group[0]["cgroup_id"]): (
            min(row["begin"] for row in group),
            sum(row["cpu_ns"] for row in group),
        )
        for group in grouped(rows, interval_ns, ("cgroup_id",)).values()
    }
    found = thinned("task_time", rows, interval_ns)
    assert {(row["time"], row["cgroup_id"]): (row["begin"], row["cpu_ns"]) for row in found} == expected
    assert len(found) == len(expected)


@given(rows=FILE_WAITS, interval_ns=INTERVAL, cuts=CUTS)
def test_waits_of_a_file_are_one_sum_until_the_last_end(
    rows: Rows, interval_ns: int, cuts: list[int]
) -> None:
    keys = ("cgroup_id", "tgid", "inode_id")
    expected = {
        key: {
            "time": group[0]["time"],
            "duration_ns": max(row["time"] + row["duration_ns"] for row in group) - group[0]["time"],
            **{name: group[0][name] for name in keys},
            **{name: sum(row[name] for row in group) for name in ("waits", "wait_ns")},
        }
        for key, group in grouped(rows, interval_ns, keys).items()
    }
    found = thinned("file_waits", rows, interval_ns, cuts)
    assert {(row["time"] // interval_ns, *(row[key] for key in keys)): row for row in found} == expected
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    "table", sorted(TABLES.keys() - {"charge", "pagecache", "samples", "task_time", "file_waits"})
)
def test_other_tables_are_not_touched(table: str, rows_of: Callable[[str, range], pa.RecordBatch]) -> None:
    data = pa.Table.from_batches([rows_of(table, range(9))])
    assert thin(table, data, SUMS_OF_FILES_NS) is data


@given(parts=st.lists(RUNS, max_size=3), interval_ns=st.sampled_from(STAGES[1:]))
def test_summed_interval_contains_every_sum_of_all_blocks(parts: list[Rows], interval_ns: int) -> None:
    blocks = [table_of("pagecache", rows) for rows in parts]
    found = summed_rows(thin("pagecache", block, interval_ns) for block in blocks)
    runs = [row for rows in parts for row in rows]
    assert found == summed_rows(blocks)
    if not runs:
        assert found == []
        return
    assert list_of(table_of("summed", found)) == [
        {
            "begin": min(row["time"] for row in runs),
            "time": max(row["time"] + row["duration_ns"] for row in runs),
            "stream": "pagecache",
            "reason": "history",
        }
    ]


def charges(count: int) -> pa.Table:
    """Return rows of charge within a second, of 10 cgroups with 20 tasks in 12 categories."""
    random = np.random.default_rng(1)
    integers = {
        "time": np.sort(random.integers(0, 10**9, count)) + random.integers(0, 10**6, count),
        "cgroup_id": random.integers(0, 10, count),
        "tgid": random.integers(1, 4_000_000, 20).astype(np.int32)[random.integers(0, 20, count)],
        **{name: random.integers(-(2**20), 2**20, count) for name in ("pages", "bytes")},
        **{name: random.integers(0, 2**20, count) for name in ("updates", "usage_bytes", "limit_bytes")},
    }
    columns = {
        name: arrow_columns.numbers(values, TABLES["charge"].field(name).type)
        for name, values in integers.items()
    }
    columns["category"] = arrow_columns.names(random.integers(0, 12, count), tuple("abcdefghijkl"))
    return pa.Table.from_arrays([columns[name] for name in TABLES["charge"].names], schema=TABLES["charge"])


def test_calls_do_not_grow_with_the_rows() -> None:
    """No Python and no call of a library runs for each row or group."""
    few, many = charges(2_000), charges(200_000)
    rows = []
    calls = [
        counted_calls(lambda data=data: rows.append(thin("charge", data, SUMS_OF_RUNS_NS).num_rows))  # type: ignore[misc]
        for data in (few, few, many)
    ]
    assert rows[1] < 2_000
    assert 2 * rows[1] < rows[2] < 50_000
    assert calls[2] == calls[1] <= calls[0]  # the first call also fills caches


def test_pandas_is_not_imported() -> None:
    program = (
        "import sys, pyarrow as pa\n"
        "from tracer.schema import TABLES\n"
        "from tracer.trace.arrow_columns import rows_of\n"
        "from tracer.trace.history.thinning import thin\n"
        "for table, schema in TABLES.items():\n"
        "    kinds = {f.name: f.type for f in schema}\n"
        "    texts = [name for name, kind in kinds.items() if str(kind).find('string') >= 0]\n"
        "    values = dict.fromkeys(kinds, 1) | dict.fromkeys(texts, 'x')\n"
        "    thin(table, pa.Table.from_batches([rows_of(table, [values] * 2)]), 10**9)\n"
        "print({'pandas'} & {*sys.modules})\n"
    )
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert printed.stdout == "set()\n"


@given(rows=CHARGES, interval_ns=INTERVAL, kills=st.lists(st.integers(0, 4 * SUMS_OF_FILES_NS), max_size=3))
def test_sums_are_exact_at_each_cut(rows: Rows, interval_ns: int, kills: list[int]) -> None:
    """A cut is a kill: rows at its very moment are before it."""
    data = table_of("charge", rows)
    found = list_of(thin("charge", data, interval_ns, origin_ns=interval_ns // 3, cuts=sorted(set(kills))))
    for kill_ns in kills:
        sums = [sum(row["bytes"] for row in some if row["time"] <= kill_ns) for some in (rows, found)]
        assert sums[0] == sums[1]
