from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.render.page import drawing

SPANS = st.floats(0.05, 40 * 86400)


def test_line_has_a_gap_where_values_are_not_known() -> None:
    x = np.arange(6.0)
    path = drawing.line(x, np.array([np.nan, 1, 2, np.nan, 3, 4]))
    assert path == "M1,1 2,2M4,3 5,4"
    assert drawing.line(x, np.full(6, np.nan)) == ""


def test_level_stretch_keeps_only_its_ends() -> None:
    assert drawing.line(np.arange(6.0), np.array([0, 5, 5, 5, 5, 1.0])) == "M0,0 1,5 4,5 5,1"


def test_area_is_closed_along_its_lower_curve() -> None:
    path = drawing.area(np.array([0.0, 1.0]), np.array([9.0, 8.0]), np.array([5.0, 4.0]))
    assert path == "M0,5 1,4L1,8 0,9Z"


def test_stairs_hold_each_value_between_its_edges() -> None:
    x, y = drawing.stairs(np.array([0.0, 2.0, 4.0]), np.array([7.0, 8.0]))
    assert x.tolist() == [0, 2, 2, 4] and y.tolist() == [7, 7, 8, 8]


@given(st.lists(st.floats(0, 1e15), min_size=2, max_size=50))
def test_heights_stay_in_the_panel(values: list[float]) -> None:
    top = max(values) or 1.0
    found = drawing.heights(np.array(values), top)
    assert ((found >= 0) & (found <= drawing.UNITS)).all()
    path = drawing.line(np.arange(float(len(values))), found)
    assert re.fullmatch(r"M[0-9., ]+", path)


@given(st.floats(1e-6, 1e18))
def test_round_step_leaves_one_to_six_labels(top: float) -> None:
    step = drawing.round_step(top)
    assert 1 <= int(top / step + 1e-9) <= 5
    assert f"{step:e}"[:3] in {"1.0", "2.0", "2.5", "5.0"}


@given(SPANS, st.integers(1, 8))
def test_round_seconds_leave_at_most_so_many_labels(span_s: float, most: int) -> None:
    step = drawing.round_seconds(span_s, most)
    assert span_s / step <= most * (1 + 1e-6)


@pytest.mark.parametrize(("share", "shown"), [(0, "0%"), (0.375, "37.5%"), (1, "100%"), (1 / 3, "33.333%")])
def test_share_is_a_percentage(share: float, shown: str) -> None:
    assert drawing.percent(share) == shown
