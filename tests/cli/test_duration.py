from __future__ import annotations

from contextlib import suppress

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.cli.duration import duration_s


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90.0),
        ("90s", 90.0),
        ("5m", 300.0),
        ("5min", 300.0),
        ("5M", 300.0),
        ("1.5h", 5400.0),
        (" 2 d ", 172800.0),
        ("0.001", 0.001),
        ("36525d", 36525 * 86400.0),
    ],
)
def test_time_in_each_unit_is_converted_to_seconds(text: str, expected: float) -> None:
    assert duration_s(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "s", "0", "0s", "0.0m", "-5m", "+5m", "1e3", "5ms", "5 m s", ".5m", "5.m", "1:30", "٥m", "nan"),
        *("inf", "1" * 5000, "5m\n6m", "5 minutes", "1h30m"),
    ],
)
def test_other_text_is_refused_with_advice(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a time: give one like 90s, 5m or 1h"):
        duration_s(text)


@given(st.text())
def test_any_text_is_a_time_or_refused(text: str) -> None:
    with suppress(click.BadParameter):
        assert duration_s(text) > 0


@given(st.integers(1, 36_525), st.sampled_from(["s", "m", "h", "d"]))
def test_units_are_multiples_of_a_second(number: int, unit: str) -> None:
    assert duration_s(f"{number}{unit}") == number * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit]


@pytest.mark.parametrize("text", ["36526d", "999999999d", "999999999h"])
def test_time_beyond_every_clock_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="more than a hundred years"):
        duration_s(text)
