from __future__ import annotations

from contextlib import suppress
from unittest.mock import patch

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tracer.cli.group import group
from tracer.cli.typed_values import duration_s, frame_s, moment_ns, percent, size_bytes


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
def test_duration_other_text_is_refused_with_advice(text: str) -> None:
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


NOW_NS = 1_800_000_000 * 10**9
HOUR_NS = 3600 * 10**9
OPTION = click.Option(["--since"])


def moment_of(text: str | None) -> int | None:
    with patch("time.time_ns", return_value=NOW_NS):
        return moment_ns(click.Context(click.Command("fleet")), OPTION, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12h", NOW_NS - 12 * HOUR_NS),
        (" 7 d ", NOW_NS - 7 * 24 * HOUR_NS),
        ("1.5H", NOW_NS - 3 * HOUR_NS // 2),
        ("36000d", 0),
        ("1970-01-01", 0),
        ("2026-11-20", 1_795_132_800 * 10**9),
        ("2026-11-20T18:30Z", (1_795_132_800 + 66_600) * 10**9),
        ("2026-11-20 18:30:00.25+02:00", (1_795_132_800 + 59_400) * 10**9 + 250_000_000),
        (None, None),
    ],
)
def test_time_ago_or_in_iso_8601_is_a_moment(text: str | None, expected: int | None) -> None:
    assert moment_of(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "7", "20261120", "yesterday", "2026-13-01", "1969-12-31", "9999-01-01", "2026-11", "-7d", "18:30"],
)
def test_moment_other_text_is_refused_with_advice(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a time: give one like 7d or 12h"):
        moment_of(text)


def test_options_of_a_command_have_the_same_now() -> None:
    context = click.Context(click.Command("fleet"))
    assert moment_ns(context, OPTION, "1d") == moment_ns(context, OPTION, "24h")


@given(st.text())
def test_any_text_is_a_moment_or_refused(text: str) -> None:
    with suppress(click.BadParameter):
        assert moment_of(text) is not None


@pytest.mark.parametrize(("text", "expected"), [("0.1", 0.1), ("500s", 500.0), ("1h", 3600.0)])
def test_time_between_frames_is_a_duration(text: str, expected: float) -> None:
    assert frame_s(text) == expected


@pytest.mark.parametrize("text", ["0.09", "3601", "61m"])
def test_time_between_frames_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"from 0\.1s to 1h"):
        frame_s(text)
