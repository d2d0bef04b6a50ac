"""Options that take a number with a fraction."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from tracer.cli.group import group
from tracer.cli.number import percent

OPTIONS = ("top -i {}", "record -o t -d {}", "watch --psi {}", "watch --max-disk {}", "push --every {} a b")
OTHERS = ("fit --slowdown {} -- true", "record --max-overhead {} -o t", "top -n {}")


@pytest.mark.parametrize("command", [*OPTIONS, *OTHERS])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400", "-1", "0", "1e300", "x"])
def test_number_that_means_nothing_is_refused_before_any_work(command: str, value: str) -> None:
    result = CliRunner().invoke(group, command.format(value).split())
    assert result.exit_code == 2, result.output
    assert "Invalid value" in result.output


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
