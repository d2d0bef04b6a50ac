"""The start samples of a trace that begins with the history."""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
from typing import Any, Final

from hypothesis import given
from hypothesis import strategies as st
from synthetic.cgroup_worlds import (
    END_S,
    SHOWN,
    S,
    World,
    between,
    cgroup,
    charge,
    list_of,
    sample,
    table,
    worlds,
)

from tracer.categories import CATEGORIES
from tracer.schema import TABLES
from tracer.trace.history.bases import MOST_HELD, Bases, begun_at

NOBODY: Final = TABLES["charge"].empty_table()


@given(
    world=worlds(),
    steps=st.lists(st.integers(0, END_S), min_size=1, max_size=4).map(sorted),
    order=st.randoms(use_true_random=False),
    asked=st.lists(st.integers(0, END_S), max_size=3),
    moved_s=st.integers(0, 5),
)
def test_levels_are_those_of_all_rows(
    world: World, steps: list[int], order: Any, asked: list[int], moved_s: int
) -> None:
    bases, noted = Bases(), list(world.cgroups)
    order.shuffle(noted)
    for row in noted:
        bases.note_cgroups(table("cgroups", [row]))
    bases.add_starts(table("samples", world.samples))
    dropped_s = 0
    for step_s in steps:
        for name, rows in order.sample([("charge", world.charges), ("samples", world.samples)], 2):
            bases.drop(name, table(name, between(rows, dropped_s, step_s)))
        bases.forget(step_s * S)
        dropped_s = step_s
    begin_s = dropped_s + moved_s
    ids = bases.ids(begin_s * S)
    kept = World(
        [row | {"created": None} if (row["created"] or 0) < begin_s * S else row for row in world.cgroups],
        list_of(bases.rows(begin_s * S, table("charge", between(world.charges, dropped_s, begin_s))))
        + between(world.samples, begin_s, END_S + 1),
        between(world.charges, begin_s, END_S + 1),
    )
    for time_s in {begin_s, *asked, END_S}:
        for number in ids if time_s >= begin_s else ():
            for name in SHOWN:
                moment = (number, name, time_s * S)
                assert kept.level(*moment) == world.level(*moment), moment
    assert ids >= {
        row["cgroup_id"] for row in world.cgroups if row["removed"] is None or row["removed"] >= begin_s * S
    }


def test_rows_have_the_last_known_value_of_other_columns() -> None:
    bases = Bases()
    bases.note_cgroups(table("cgroups", [cgroup(1, None), cgroup(2, 1)]))
    bases.add_starts(table("samples", [sample(0, 1, "start", anon_bytes=5, swappiness=60, pgfault=1)]))
    bases.drop("samples", table("samples", [sample(3, 1, limit_bytes=70, usage_bytes=30, pgfault=9)]))
    bases.drop("samples", table("samples", [sample(4, 1, "oom", limit_bytes=80, anon_bytes=7)]))
    (row,) = list_of(bases.rows(5 * S, NOBODY))
    assert row["time"].timestamp() == 5
    known = {name: value for name, value in row.items() if value is not None and name != "time"}
    assert known == {
        "cgroup_id": 1,
        "source": "start",
        "anon_bytes": 5,
        "swappiness": 60,
        "pgfault": 9,
        "limit_bytes": 80,
        "usage_bytes": 30,
    }


def test_usage_is_the_later_reading_of_a_charge_and_a_sample() -> None:
    for charge_s, sample_s, expected in ((1.0, 2.0, (20, 200)), (2.0, 1.0, (10, 100))):
        for tables in (("charge", "samples"), ("samples", "charge")):
            rows = {
                "charge": [
                    charge(charge_s - 0.5, 1, "anon", 1, usage_bytes=9, limit_bytes=99),
                    charge(charge_s, 1, "anon", 1, usage_bytes=10, limit_bytes=100),
                ],
                "samples": [sample(sample_s, 1, usage_bytes=20, limit_bytes=200)],
            }
            bases = Bases()
            bases.note_cgroups(table("cgroups", [cgroup(1, None, 0)]))
            for name in tables:
                bases.drop(name, table(name, rows[name]))
            (row,) = list_of(bases.rows(5 * S, NOBODY))
            assert (row["usage_bytes"], row["limit_bytes"]) == expected


def test_unrecorded_categories_are_not_known() -> None:
    bases = Bases({"sock"})
    bases.note_cgroups(table("cgroups", [cgroup(1, None, 0)]))
    (row,) = list_of(bases.rows(5 * S, NOBODY))
    values = {category.name: row[category.column] for category in CATEGORIES}
    assert values == {category.name: None if category.name == "sock" else 0 for category in CATEGORIES}


def test_first_start_sample_is_the_base_and_a_later_one_is_not() -> None:
    bases = Bases()
    bases.note_cgroups(table("cgroups", [cgroup(1, None)]))
    bases.add_starts(table("samples", [sample(1, 1, "start", anon_bytes=5)]))
    bases.add_starts(table("samples", [sample(2, 1, "start", anon_bytes=8)]))
    bases.drop("charge", table("charge", [charge(3, 1, "anon", 10)]))
    assert [row["anon_bytes"] for row in list_of(bases.rows(5 * S, NOBODY))] == [15]


def test_cgroup_without_any_sample_has_no_row() -> None:
    bases = Bases()
    bases.note_cgroups(table("cgroups", [cgroup(1, None)]))
    bases.drop("charge", table("charge", [charge(3, 1, "anon", 10)]))
    assert not [*bases.rows(5 * S, NOBODY)]


def test_start_sample_that_is_still_in_the_history_has_no_second_row() -> None:
    bases = Bases()
    bases.note_cgroups(table("cgroups", [cgroup(1, None)]))
    bases.add_starts(table("samples", [sample(7, 1, "start", anon_bytes=5)]))
    assert not [*bases.rows(5 * S, NOBODY)]
    assert len(list_of(bases.rows(8 * S, NOBODY))) == 1


def churn(bases: Bases, count: int, *, is_freed: bool) -> None:
    """Have `count` cgroups below cgroup 1 come and go, at 500 in a second, each with a page of cache."""
    bases.note_cgroups(table("cgroups", [cgroup(1, None, 0)]))
    for begin in range(0, count, 500):
        second, numbers = begin // 500, range(begin + 2, begin + 502)
        bases.note_cgroups(table("cgroups", [cgroup(number, 1, second) for number in numbers]))
        bases.note_cgroups(table("cgroups", [cgroup(number, 1, second, second) for number in numbers]))
        moves = [charge(second, number, name, 4096) for number in numbers for name in ("file", "kernel")]
        frees = [charge(second, number, "file", -4096) for number in numbers] if is_freed else []
        bases.drop("charge", table("charge", moves + frees))
        bases.forget(second * S)


def test_removed_cgroups_without_memory_are_forgotten() -> None:
    bases = Bases()
    churn(bases, 20_000, is_freed=True)
    bases.forget(10_000 * S)
    assert bases.ids(0) == {1}
    (row,) = list_of(bases.rows(10_000 * S, NOBODY))
    assert (row["file_bytes"], row["kernel_bytes"]) == (0, 20_000 * 4096)


def test_memory_freed_after_a_cgroup_was_forgotten_leaves_those_above() -> None:
    bases = Bases()
    churn(bases, 20_000, is_freed=False)
    bases.forget(10_000 * S)
    assert len(bases.ids(0)) == MOST_HELD + 1
    freed = [charge(10_001, number, "file", -4096) for number in range(2, 20_002)]
    (row,) = [one for one in list_of(bases.rows(10_002 * S, table("charge", freed))) if one["cgroup_id"] == 1]
    assert row["file_bytes"] == 0
    bases.drop("charge", table("charge", freed))
    bases.forget(10_003 * S)
    assert bases.ids(0) == {1}
    (row,) = list_of(bases.rows(10_004 * S, NOBODY))
    assert row["file_bytes"] == 0


def level_of_root(bases: Bases, category: str) -> int:
    (row,) = [one for one in list_of(bases.rows(100 * S, NOBODY)) if one["cgroup_id"] == 1]
    return int(row[f"{category}_bytes"])


def test_charges_before_a_parent_is_known_count_for_it_and_those_above() -> None:
    bases = Bases()
    bases.drop("charge", table("charge", [charge(1, 3, "anon", 10)]))
    bases.note_cgroups(table("cgroups", [cgroup(3, 2, 0)]))
    bases.note_cgroups(table("cgroups", [cgroup(2, 1, 0), cgroup(1, None, 0)]))
    assert level_of_root(bases, "anon") == 10


def test_kernel_memory_freed_right_after_a_removal_leaves_those_above() -> None:
    bases = Bases()
    bases.note_cgroups(table("cgroups", [cgroup(1, None, 0), cgroup(2, 1, 0, removed=5)]))
    bases.drop("charge", table("charge", [charge(1, 2, "kernel", 10)]))
    bases.forget(6 * S)
    bases.drop("charge", table("charge", [charge(7, 2, "kernel", -10)]))
    assert level_of_root(bases, "kernel") == 0


def test_memory_of_a_removed_cgroup_that_is_older_than_the_recording_leaves_those_above() -> None:
    bases = Bases()
    bases.note_cgroups(table("cgroups", [cgroup(1, None), cgroup(2, 1, removed=5)]))
    bases.add_starts(table("samples", [sample(0, 1, "start", file_bytes=10)]))
    bases.forget(50 * S)
    assert bases.ids(50 * S) == {1}
    bases.drop("charge", table("charge", [charge(60, 2, "file", -10)]))
    assert level_of_root(bases, "file") == 0
    assert bases.ids(0) == {1}


def test_cgroup_that_is_made_when_the_trace_begins_has_no_row() -> None:
    bases = Bases()
    bases.note_cgroups(table("cgroups", [cgroup(1, None, 5)]))
    assert not [*bases.rows(5 * S, NOBODY)]
    assert len(list_of(bases.rows(5 * S + 1, NOBODY))) == 1


def test_parent_that_is_below_its_child_is_not_believed() -> None:
    bases = Bases()
    bases.note_cgroups(table("cgroups", [cgroup(1, 1, 0), cgroup(2, 3, 0), cgroup(3, 2, 0)]))
    bases.drop("charge", table("charge", [charge(1, number, "anon", 10) for number in (1, 2, 3)]))
    rows = list_of(bases.rows(5 * S, NOBODY))
    assert [(row["cgroup_id"], row["anon_bytes"]) for row in rows] == [(1, 10), (2, 10), (3, 20)]


@given(
    made=st.lists(st.one_of(st.none(), st.integers(0, 20)), max_size=9),
    begin=st.integers(0, 20),
)
def test_cgroups_made_before_a_trace_have_always_been_there(made: list[int | None], begin: int) -> None:
    rows = [cgroup(number, None, created) for number, created in enumerate(made, start=1)]
    expected = [
        row | {"created": None if (row["created"] or 0) < begin * S else row["created"]}
        for row in sorted(rows, key=lambda row: row["created"] or 0)
    ]
    assert begun_at(table("cgroups", rows), begin * S).equals(table("cgroups", expected))


def test_pandas_is_not_imported() -> None:
    program = (
        "import sys, pyarrow as pa\n"
        "from tracer.schema import TABLES\n"
        "from tracer.trace.arrow_columns import rows_of\n"
        "from tracer.trace.history.bases import Bases, begun_at\n"
        "def made(table, **values):\n"
        "    return rows_of(table, [dict.fromkeys(TABLES[table].names, 1) | values] * 2)\n"
        "texts = [f.name for f in TABLES['cgroups'] if pa.types.is_string(f.type)]\n"
        "cgroups = made('cgroups', **dict.fromkeys(texts, 'x'))\n"
        "bases = Bases()\n"
        "bases.note_cgroups(cgroups)\n"
        "begun_at(pa.Table.from_batches([cgroups]), 5)\n"
        "samples, charges = made('samples', source='start'), made('charge', category='anon')\n"
        "bases.add_starts(samples)\n"
        "bases.drop('samples', samples)\n"
        "bases.drop('charge', charges)\n"
        "bases.forget(0)\n"
        "assert len([*bases.rows(5, charges)]) == 1\n"
        "print({'pandas'} & {*sys.modules})\n"
    )
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert printed.stdout == "set()\n"


def test_columns_of_samples_come_out_as_they_came() -> None:
    """Values of any size and sign, columns that are not known, and a later sample of some columns."""
    values: dict[str, Any] = {"usage_bytes": 2**62, "anon_bytes": -5, "swappiness": 0, "pgfault": 1}
    bases = Bases()
    bases.note_cgroups(table("cgroups", [cgroup(1, None)]))
    bases.drop("samples", table("samples", [sample(1, 1, **values), sample(2, 1, pgfault=7)]))
    (row,) = list_of(bases.rows(5 * S, NOBODY))
    known = {name: value for name, value in row.items() if value is not None}
    expected = values | {"pgfault": 7} | {category.column: 0 for category in CATEGORIES}
    assert known.keys() - expected.keys() == {"time", "cgroup_id", "source"}
    assert {name: known[name] for name in ("usage_bytes", "swappiness", "pgfault")} == {
        "usage_bytes": 2**62,
        "swappiness": 0,
        "pgfault": 7,
    }


def test_many_sampled_cgroups_take_little_memory_and_it_is_known() -> None:
    """A burst of 10,000 cgroups, which exist for a while, takes 5 MB, not 13."""
    number = 2000
    rows = [sample(1, one, limit_bytes=2**62, usage_bytes=4096 * one) for one in range(2, number + 2)]
    cgroups = table("cgroups", [cgroup(one, 1, 1) for one in range(2, number + 2)])
    samples = table("samples", rows)
    bases = Bases()
    bases.note_cgroups(table("cgroups", [cgroup(1, None)]))
    bases.drop("samples", samples.slice(0, 1))  # what is made once
    gc.collect()  # it empties the lists of free tuples, which the tests before have filled
    tracemalloc.start()
    try:
        bases.note_cgroups(cgroups)
        bases.drop("samples", samples)
        taken_bytes = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken_bytes / number < 600
    assert abs(bases.size_bytes - taken_bytes) < taken_bytes / 3


def test_rows_of_many_cgroups_come_in_small_batches() -> None:
    bases = Bases()
    bases.note_cgroups(table("cgroups", [cgroup(one, None) for one in range(1, 2502)]))
    bases.drop("samples", table("samples", [sample(1, one, usage_bytes=one) for one in range(1, 2502)]))
    batches = [*bases.rows(5 * S, NOBODY)]
    assert [batch.num_rows for batch in batches] == [1000, 1000, 501]
    assert [row["usage_bytes"] for row in list_of(batches)] == list(range(1, 2502))
