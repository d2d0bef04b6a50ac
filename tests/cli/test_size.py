from __future__ import annotations

from contextlib import suppress

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.cli.size import size_bytes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("4096", 4096),
        ("100M", 100 << 20),
        ("100MiB", 100 << 20),
        ("100mb", 100 << 20),
        ("1.5G", 3 << 29),
        (" 2 k ", 2048),
        ("1.0001K", 1024),
        ("4T", 4 << 40),
        ("4611686018427387904", 1 << 62),
        ("9007199254740993", 9007199254740993),  # a float would round it
    ],
)
def test_size_in_each_unit_is_converted_to_bytes(text: str, expected: int) -> None:
    assert size_bytes(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "M",
        "-1",
        "+1",
        "1e6",
        "1,5G",
        "1.G",
        ".5G",
        "5P",
        "5 M B",
        "0x10",
        "١٠M",
        "1" * 5000,
        "1\n2",
        "nan",
    ],
)
def test_invalid_cgroup_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a size"):
        size_bytes(text)


@pytest.mark.parametrize("text", ["4611686018427387905", "4194305T", "9999999999999999999"])
def test_size_beyond_any_machine_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="more than any machine has"):
        size_bytes(text)


@given(st.text())
def test_any_text_is_a_size_or_refused(text: str) -> None:
    with suppress(click.BadParameter):
        assert 0 <= size_bytes(text) <= 1 << 62


@given(st.integers(0, 1 << 40), st.sampled_from(["", "k", "M", "g"]), st.sampled_from(["", "B", "iB"]))
def test_units_are_powers_of_1024(number: int, unit: str, ending: str) -> None:
    if number << 30 <= 1 << 62:
        assert size_bytes(f"{number}{unit}{ending}") == number << (10 * ["", "k", "M", "g"].index(unit))
