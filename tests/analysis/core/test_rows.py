"""Rows of large tables: indexes, batches and the charges."""

from __future__ import annotations

from threading import Event
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracer.analysis.core import rows
from tracer.analysis.core.columns import NO_ID, Int64s, integers, times_ns
from tracer.analysis.core.rows import NOT_READ, Charges, RowIndex, RowsByThing, RunningSums, each, rows_of
from tracer.enumerations import CATEGORY
from tracer.schema import UNLIMITED_BYTES


def test_rows_have_values_of_all_rows_in_recorded_order(trace: Any) -> None:
    for number in range(20):
        cgroup_id = None if number % 3 == 0 else number
        op, cause = ("add", "read") if number % 2 else ("delete", "truncate")
        trace.add(
            "pagecache", 5 - number, cgroup_id=cgroup_id, tgid=number, op=op, cause=cause, nr_pages=number
        )
    columns = ("time", "cgroup_id", "tgid", "op", "cause", "nr_pages")
    found = list(rows_of(trace, "pagecache", columns))
    assert [len(one) for one in found] == [7, 7, 6]

    def joined(arrays: list[Any]) -> list[Any]:
        return [value for array in arrays for value in array.tolist()]

    assert joined([one.integers("time") for one in found]) == [trace.ns(5 - n) for n in range(20)]
    assert joined([one.integers("tgid") for one in found]) == list(range(20))
    owners = [NO_ID if number % 3 == 0 else number for number in range(20)]
    assert joined([one.integers("cgroup_id") for one in found]) == owners
    assert joined([one.known("cgroup_id") for one in found]) == [number % 3 != 0 for number in range(20)]
    assert joined([one.known("tgid") for one in found]) == [True] * 20
    assert joined([one.codes("cause", ["fault", "read"]) for one in found]) == [
        1 if number % 2 else -1 for number in range(20)
    ]


def test_each_gives_results_in_order_however_long_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_THREADS", 2)
    first_may_end = Event()

    def find(number: int) -> int:
        if number:
            first_may_end.set()
        else:
            assert first_may_end.wait(10)
        return number**2

    assert list(each(find, range(50))) == [number**2 for number in range(50)]


def test_each_raises_the_error_of_an_item_after_the_results_before_it() -> None:
    results = each(lambda number: 1 // number, [1, 1, 0, 1])
    assert [next(results), next(results)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


_THINGS = 4
ANY_ROWS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, _THINGS - 1), st.integers(-5, 5)), max_size=20
)


def array(values: list[int]) -> Int64s:
    return np.array(values, dtype=np.int64)


@given(keys=st.lists(st.integers(-1, 5), max_size=20), wanted=st.sets(st.integers(-1, 6)))
def test_row_index_of_any_keys_equals_a_scan_of_the_rows(keys: list[int], wanted: set[int]) -> None:
    index = RowIndex.from_keys(array(keys))
    found = index.rows_for_any(array(sorted(wanted))).tolist()
    assert found == [row for row, key in enumerate(keys) if key in wanted]
    for key in wanted:
        assert index.rows_for(key).tolist() == [row for row, one in enumerate(keys) if one == key]


@given(rows=ANY_ROWS, moment=st.integers(-1, 10))
def test_histories_and_sums_at_any_moment_equal_a_scan_of_the_rows(
    rows: list[tuple[int, int, int]], moment: int
) -> None:
    rows = sorted(rows, key=lambda row: row[0])
    times, things, amounts = (array([row[column] for row in rows]) for column in range(3))
    earlier = [(thing, number) for number, (time, thing, _) in enumerate(rows) if time <= moment]
    of_things = [[number for one, number in earlier if one == thing] for thing in range(_THINGS)]
    last = RowsByThing.from_rows(times, things, _THINGS).last_rows_at(moment)
    assert last.tolist() == [max(numbers, default=-1) for numbers in of_things]
    sums = RunningSums.from_rows(times, things, amounts, _THINGS)
    expected = [sum(rows[number][2] for number in numbers) for numbers in of_things]
    assert sums.sums_at(moment).tolist() == expected
    assert sums.sums_at(moment, array([2, 0])).tolist() == [expected[2], expected[0]]


CHARGES = st.lists(
    st.tuples(
        st.integers(0, 9),  # seconds
        st.integers(1, 4),  # cgroup
        st.none() | st.integers(1, 3),  # tgid
        st.sampled_from(["anon", "file", "swap", "of a later version"]),
        st.integers(-9, 9),  # bytes
        st.none() | st.integers(0, 9),  # usage
        st.sampled_from([None, 5, UNLIMITED_BYTES]),
    ),
    max_size=30,
)


def charged(trace: Any, rows: list[Any]) -> Charges:
    for seconds, cgroup_id, tgid, category, amount, usage, limit in rows:
        readings = {"usage_bytes": usage, "limit_bytes": limit}
        trace.charged(seconds, cgroup_id, category, amount, tgid=tgid, **readings)
    return Charges.from_trace(trace)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=CHARGES)
def test_charges_are_rows_in_order_of_time(rows: list[Any], new_trace: Any) -> None:
    trace = new_trace()
    found = charged(trace, rows)
    frame = trace.charge
    assert found.time.tolist() == times_ns(frame).tolist()
    assert found.cgroup_id.tolist() == frame["cgroup_id"].tolist()
    assert found.tgid.tolist() == integers(frame["tgid"]).tolist()
    assert found.bytes.tolist() == frame["bytes"].tolist()
    words = [CATEGORY.names[code] if code >= 0 else "of a later version" for code in found.category.tolist()]
    assert words == frame["category"].tolist()
    assert found.usage_bytes.tolist() == integers(frame["usage_bytes"], missing=NOT_READ).tolist()
    limits = frame["limit_bytes"].mask(frame["is_limited"].eq(False).fillna(False), UNLIMITED_BYTES)
    assert found.limit_bytes.tolist() == integers(limits, missing=NOT_READ).tolist()
    assert found.is_read("limit_bytes").tolist() == frame["is_limited"].notna().tolist()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=CHARGES, ids=st.sets(st.integers(0, 5)))
def test_charges_of_cgroups_are_their_rows(rows: list[Any], ids: set[int], new_trace: Any) -> None:
    trace = new_trace()
    found = charged(trace, rows).of_cgroups(np.array(sorted(ids), dtype=np.int64))
    wanted = trace.charge[trace.charge["cgroup_id"].isin(ids)]
    assert found.time.tolist() == times_ns(wanted).tolist()
    assert found.bytes.tolist() == wanted["bytes"].tolist()


def test_charges_weighted_sum_leaves_other_categories_out(trace: Any) -> None:
    rows = [(1, 1, None, kind, 10, None, None) for kind in ("file", "shmem", "anon", "of a later version")]
    picked, amounts = charged(trace, rows).weighted({"file": 1, "shmem": -1})
    assert picked.tolist() == [True, True, False, False]
    assert amounts[picked].tolist() == [10, -10]
    assert charged(trace, []).tgid.tolist() == [NO_ID] * 4
