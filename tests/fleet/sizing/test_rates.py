"""The highest rate that a number of runs does not refute."""

from __future__ import annotations

from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.fleet.sizing.rates import highest_rate


@given(st.integers(1, 300), st.data())
def test_highest_rate_leaves_5_percent_for_so_few_events(runs: int, data: st.DataObject) -> None:
    events = data.draw(st.integers(0, runs - 1))
    rate = highest_rate(events, runs)
    so_few = sum(comb(runs, k) * rate**k * (1 - rate) ** (runs - k) for k in range(events + 1))
    assert so_few == pytest.approx(0.05, rel=1e-6)


def test_highest_rate_without_an_event_is_about_three_in_the_number_of_runs() -> None:
    assert highest_rate(0, 1000) == pytest.approx(3 / 1000, rel=0.01)
    assert highest_rate(4, 4) == 1.0
