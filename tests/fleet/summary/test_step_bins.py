from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tracer.analysis.core.ledger import Steps
from tracer.fleet.summary.step_bins import greatest_and_mean


def steps(changes: dict[int, int], before: int | None) -> Steps:
    moments = sorted(changes)
    values = np.array([changes[moment] for moment in moments], dtype=np.int64)
    return Steps(np.array(moments, dtype=np.int64), values, before)


def test_each_interval_has_the_value_at_its_begin_and_all_changes_in_it() -> None:
    found = greatest_and_mean(steps({5: 30, 10: 0, 25: 7}, 10), [0, 10, 20, 30])
    assert found == [(30, 20), (0, 0), (7, 4)]


def test_value_before_the_first_known_one_is_left_out() -> None:
    found = greatest_and_mean(steps({15: 8, 18: 2}, None), [0, 10, 20, 30])
    assert found == [(None, None), (8, 6), (2, 2)]
    assert greatest_and_mean(steps({}, None), [0, 10]) == [(None, None)]
    assert greatest_and_mean(None, [0, 10, 20]) == [(None, None)] * 2


def test_change_at_the_last_edge_counts_for_the_last_interval() -> None:
    assert greatest_and_mean(steps({20: 9}, 1), [0, 10, 20]) == [(1, 1), (9, 1)]
    assert greatest_and_mean(steps({0: 9}, 1), [0, 0]) == [(9, 9)]


@given(
    st.dictionaries(st.integers(0, 60), st.integers(0, 1000)),
    st.none() | st.integers(0, 1000),
    st.lists(st.integers(0, 60), min_size=2, max_size=8, unique=True),
)
def test_intervals_have_the_greatest_value_and_the_mean_of_each_moment(
    changes: dict[int, int], before: int | None, edges: list[int]
) -> None:
    edges.sort()
    one = steps(changes, before)
    found = greatest_and_mean(one, edges)
    for position, (begin, end) in enumerate(pairwise(edges)):
        moments = [value for moment in range(begin, end) if (value := one.at(moment)) is not None]
        last = one.at(end) if position == len(edges) - 2 and end in changes else None
        greatest = max([*moments, *([] if last is None else [last])], default=None)
        assert found[position][0] == greatest
        if moments:
            mean = found[position][1]
            assert mean is not None
            assert abs(mean - sum(moments) / len(moments)) <= 0.5
