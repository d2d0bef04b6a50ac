"""Indexes of rows, compared with a scan of all rows."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tracer.analysis.core.columns import Int64s
from tracer.analysis.core.rows import RowIndex, RowsByThing, RunningSums

_THINGS = 4
ROWS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, _THINGS - 1), st.integers(-5, 5)), max_size=20)


def array(values: list[int]) -> Int64s:
    return np.array(values, dtype=np.int64)


@given(keys=st.lists(st.integers(-1, 5), max_size=20), wanted=st.sets(st.integers(-1, 6)))
def test_row_index_of_any_keys_equals_a_scan_of_the_rows(keys: list[int], wanted: set[int]) -> None:
    index = RowIndex.from_keys(array(keys))
    found = index.rows_for_any(array(sorted(wanted))).tolist()
    assert found == [row for row, key in enumerate(keys) if key in wanted]
    for key in wanted:
        assert index.rows_for(key).tolist() == [row for row, one in enumerate(keys) if one == key]


@given(rows=ROWS, moment=st.integers(-1, 10))
def test_histories_and_sums_at_any_moment_equal_a_scan_of_the_rows(
    rows: list[tuple[int, int, int]], moment: int
) -> None:
    rows = sorted(rows, key=lambda row: row[0])
    times, things, amounts = (array([row[column] for row in rows]) for column in range(3))
    earlier = [(thing, number) for number, (time, thing, _) in enumerate(rows) if time <= moment]
    of_things = [[number for one, number in earlier if one == thing] for thing in range(_THINGS)]
    last = RowsByThing.from_rows(times, things, _THINGS).last_rows_at(moment)
    assert last.tolist() == [max(numbers, default=-1) for numbers in of_things]
    sums = RunningSums.from_rows(times, things, amounts, _THINGS).sums_at(moment)
    assert sums.tolist() == [sum(rows[number][2] for number in numbers) for numbers in of_things]
