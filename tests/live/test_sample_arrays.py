from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic.sample_series import batch

from tracer.live.sample_arrays import UNKNOWN, at_least_0, is_word, limits, turns, values
from tracer.schema import UNLIMITED_BYTES

CELLS = st.lists(st.one_of(st.none(), st.integers(0, UNLIMITED_BYTES)), min_size=1, max_size=40)


@given(cells=CELLS, begin=st.integers(0, 20), length=st.integers(0, 20))
def test_values_of_a_slice_equal_the_cells(cells: list[int | None], begin: int, length: int) -> None:
    whole = batch(len(cells), time=0, cgroup_id=7, usage_bytes=pa.array(cells, pa.int64()))
    part = cells[begin:][:length]
    samples = whole.slice(begin, length)
    assert values(samples, "usage_bytes").tolist() == [UNKNOWN if cell is None else cell for cell in part]
    assert at_least_0(samples, "usage_bytes").tolist() == [cell or 0 for cell in part]
    assert limits(samples, "usage_bytes").tolist() == [
        UNLIMITED_BYTES if cell is None else cell for cell in part
    ]


@pytest.mark.parametrize("word", ["oom", "end"])
def test_words_of_a_slice_are_found(word: str) -> None:
    samples = batch(5, time=0, cgroup_id=7, source=["start", "oom", "periodic", "oom", "start"]).slice(1)
    assert is_word(samples, "source", word).tolist() == [word == "oom", False, word == "oom", False]


@given(keys=st.lists(st.integers(0, 5), max_size=30))
def test_turns_have_every_row_once_with_distinct_keys_in_order(keys: list[int]) -> None:
    array = np.array(keys, np.int64)
    groups = [group.tolist() for group in turns(array)]
    assert sorted(row for group in groups for row in group) == list(range(len(keys)))
    for group in groups:
        assert len({keys[row] for row in group}) == len(group) > 0
    for key in set(keys):
        rows = [row for group in groups for row in group if keys[row] == key]
        assert rows == sorted(rows)
