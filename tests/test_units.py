from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer import units
from tracer.schema import UNLIMITED_BYTES


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "not known"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (100 << 20, "100 MiB"),
        ((100 << 20) + (512 << 10), "100.5 MiB"),
        ((1 << 20) - 1, "1 MiB"),
        ((100 << 20) + 4096, "100 MiB"),
        (-(3 << 20) // 2, "-1.5 MiB"),
    ],
)
def test_size_of_a_number_has_its_binary_unit(value: int | None, shown: str) -> None:
    assert units.size(value) == shown


@given(st.integers(-(1 << 62), 1 << 62))
def test_size_is_right_to_a_tenth_of_its_unit(value: int) -> None:
    found = re.fullmatch(r"(-?\d+(?:\.\d)?) ([KMGTPE]?i?B)", units.size(value))
    assert found is not None
    unit = 1024.0 ** ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB").index(found[2])
    assert abs(float(found[1])) < 1024 or found[2] == "EiB"
    assert abs(float(found[1]) * unit - value) <= 0.051 * unit + abs(value) * 1e-9


def test_limit_that_is_not_set_or_not_known_has_words() -> None:
    assert units.limit(UNLIMITED_BYTES) == "no limit"
    assert units.limit(100 << 20) == "100 MiB"
    assert units.limit(None) == "not known"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "not known"),
        (0, "0 s"),
        (0.00018, "180 us"),
        (0.0123, "12.3 ms"),
        (0.99996, "1 s"),
        (3.4, "3.40 s"),
        (59.999, "1 min 00 s"),
        (123, "2 min 03 s"),
        (5 * 3600 + 125, "5 h 02 min"),
        (-0.5, "-500 ms"),
    ],
)
def test_duration_has_its_unit(seconds: float | None, shown: str) -> None:
    assert units.duration(seconds) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.02, "20 ms"), (60, "1 min"), (90, "1 min 30 s"), (10800, "3 h"), (10860, "3 h 01 min")],
)
def test_round_duration_has_no_zero_behind_its_unit(seconds: float, shown: str) -> None:
    assert units.round_duration(seconds) == shown


def test_percent_of_zero_or_of_unknown_is_empty() -> None:
    assert units.percent(1, 0) == ""
    assert units.percent(None, 4) == ""
    assert units.percent(1, 4) == "25.0 %"


@pytest.mark.parametrize(
    ("seconds", "resolution_s", "words"),
    [
        (0.0313, 0, "31.3 ms"),
        (0.0313, 0.1, "less than 100 ms"),
        (0.1, 0.1, "less than 100 ms"),
        (0.157, 0.1, "about 100 ms"),
        (0.3, 0.1, "about 300 ms"),
        (83.4, 1, "about 1 min 23 s"),
    ],
)
def test_coarse_duration_is_within_its_resolution(seconds: float, resolution_s: float, words: str) -> None:
    assert units.coarse_duration(seconds, resolution_s) == words


def test_article_is_left_out_before_a_coarse_duration() -> None:
    spans = ("12.3 ms", "less than 100 ms", "about 2.3 s")
    assert [units.the(span) for span in spans] == ["the 12.3 ms", *spans[1:]]
