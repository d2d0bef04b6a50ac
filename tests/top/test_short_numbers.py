"""Short numbers: at most six cells, and never a rounded-up promise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.top.short_numbers import short_percent, short_size, short_time, sparkline


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "?"),
        (0, "-"),
        (1, "1"),
        (1023, "1023"),
        (1023.6, "1.0Ki"),
        (1536, "1.5Ki"),
        (100 << 20, "100Mi"),
        ((1 << 30) - 1, "1.0Gi"),
        (1 << 62, "4.0Ei"),
        (0.4, "<1"),
    ],
)
def test_size_has_its_unit(value: float | None, text: str) -> None:
    assert short_size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "?"), (0, "-"), (0.01, "<.1%"), (0.1, "0.1%"), (9.96, "10%"), (38.0, "38%"), (250.4, "250%")],
)
def test_percent_is_rounded(value: float | None, text: str) -> None:
    assert short_percent(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0.0s"), (0.99, "0.9s"), (9.99, "9.9s"), (100, "1m"), (7199, "1h"), (9e9, "9999d")],
)  # fmt: skip
def test_time_is_rounded_down(value: float | None, text: str) -> None:
    assert short_time(value) == text


@given(st.floats(0, 2.0**63 - 1025))
def test_numbers_fit_six_cells(value: float) -> None:
    assert len(short_size(value)) <= 6
    assert len(short_time(value)) <= 6


def test_sparkline_shows_the_last_values_and_gaps() -> None:
    assert sparkline((1.0, 2.0, None, 4.0), 6) == "  ▃▅ █"
    assert sparkline((1.0, 2.0, 8.0, 4.0), 2) == "█▅"
    assert sparkline((), 3) == "   "
    assert sparkline((0.0, 0.0), 3) == " ▁▁"
    assert sparkline((1.0,), 0) == ""
