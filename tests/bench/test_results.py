from __future__ import annotations

from pathlib import Path

import pytest
from bench.results import (
    Figure,
    Program,
    Results,
    Slowdown,
    in_turn,
    is_above,
    number,
    paired_percent,
    spread,
)

FOUND = Results(
    machine={"kernel": "6.18", "load_during": {"faults": 1.25}},
    slowdowns=[Slowdown("faults", "fault", "page faults", "record", [3.0, -1.5], [4.0, 2.0], at_most=3)],
    figures=[Figure("lost", "lost records", "record", "records", [0.0], 0)],
    programs=[Program("faults", "record", "sw", 12, 99.5)],
    left_out=["pgbench: PostgreSQL is not installed"],
)


def test_paired_percent_compares_within_each_round() -> None:
    assert paired_percent([2.0, 4.0], [2.5, 3.0]) == [25.0, -25.0]


def test_paired_percent_of_unequal_rounds_is_refused() -> None:
    with pytest.raises(ValueError, match="longer"):
        paired_percent([1.0], [1.0, 2.0])


def test_in_turn_reverses_each_second_round() -> None:
    assert [in_turn("abc", turn) for turn in range(3)] == [["a", "b", "c"], ["c", "b", "a"], ["a", "b", "c"]]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([7.0], "7.00 %"),
        ([3.0, 1.0, 2.0], "2.00 % (1.00 to 3.00)"),
        ([4.0, 1.0, 2.0, 3.0], "2.50 % (1.00 to 4.00)"),
    ],
)
def test_spread_is_the_median_and_the_extremes(values: list[float], text: str) -> None:
    assert spread(values, "%") == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.00"), (-1.234, "-1.23"), (12.34, "12.3"), (4_000_019, "4,000,019")]
)
def test_number_has_the_digits_that_are_worth_reading(value: float, text: str) -> None:
    assert number(value) == text


def test_is_above_judges_the_median_and_not_one_bad_round() -> None:
    assert not is_above([1.0, 2.0, 90.0], 2.0)
    assert is_above([1.0, 2.1, 2.2], 2.0)
    assert not is_above([99.0], None)


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    FOUND.write(tmp_path / "found.json")
    assert Results.read(tmp_path / "found.json") == FOUND


def test_results_of_another_schema_are_refused(tmp_path: Path) -> None:
    FOUND.write(tmp_path / "found.json")
    text = (tmp_path / "found.json").read_text().replace('"schema": 1', '"schema": 0')
    (tmp_path / "found.json").write_text(text)
    with pytest.raises(ValueError, match="schema 0"):
        Results.read(tmp_path / "found.json")
