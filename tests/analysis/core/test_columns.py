from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.analysis.core.columns import ascending, is_one_of, joined, reorder

BITS = (3, 16, 17, 32, 40, 62)


@pytest.mark.parametrize("bits", BITS)
@given(data=st.data())
def test_ascending_positions_are_those_of_a_stable_sort(bits: int, data: st.DataObject) -> None:
    numbers = np.array(data.draw(st.lists(st.integers(0, (1 << bits) - 1))), dtype=np.int64)
    assert ascending(numbers).tolist() == np.argsort(numbers, kind="stable").tolist()


@given(
    st.lists(st.lists(st.integers(0, 2), max_size=4).map(lambda part: np.array(part, np.uint8)), min_size=1)
)
def test_joined_arrays_are_their_concatenation(parts: list[np.ndarray]) -> None:
    wide = [part.astype(np.uint32) for part in parts[:1]] + parts[1:]
    found, expected = joined(wide), np.concatenate(wide)
    assert found.tolist() == expected.tolist()
    assert found.dtype == expected.dtype


def test_equal_values_take_the_memory_of_one_and_have_every_order() -> None:
    same = joined([np.full(3, 7), np.full(2, 7)])
    assert same.strides == (0,)
    reorder(same, np.array([4, 2, 0, 1, 3]))
    assert same.tolist() == [7] * 5


def test_reordered_values_are_in_the_place_of_those_before() -> None:
    values = np.array([5, 6, 7])
    reorder(values, np.array([2, 0, 1]))
    assert values.tolist() == [7, 5, 6]


@pytest.mark.parametrize("kind", ["category", "string", "object"])
def test_is_one_of_is_false_where_the_value_is_not_known(kind: str) -> None:
    column = pd.Series(["add", None, "delete", "dirty", "add"], dtype=kind)
    assert is_one_of(column, iter(["add", "dirty", "never"])).tolist() == [True, False, False, True, True]
    assert not is_one_of(column, []).any()
    assert is_one_of(column[:0], ["add"]).tolist() == []
