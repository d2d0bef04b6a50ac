from __future__ import annotations

import click
import pytest

from tracer.cli.percent import percent


@pytest.mark.parametrize(
    ("text", "expected"), [("2%", 2.0), ("2", 2.0), (" 0.5 % ", 0.5), ("100%", 100.0), ("0.001%", 0.001)]
)
def test_percentage_is_a_number(text: str, expected: float) -> None:
    assert percent(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "%", "0", "0%", "0.0%", "-1%", "100.1%", "101", "1e1%", "2%%", "nan", "inf", "2,5%", ".5%", "١%"],
)
def test_other_text_is_refused_with_advice(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"like 2% or 0\.5%"):
        percent(text)
