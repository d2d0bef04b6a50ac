from __future__ import annotations

from contextlib import suppress
from unittest.mock import patch

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.cli.moment import moment_ns

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
def test_other_text_is_refused_with_advice(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a time: give one like 7d or 12h"):
        moment_of(text)


def test_options_of_a_command_have_the_same_now() -> None:
    context = click.Context(click.Command("fleet"))
    assert moment_ns(context, OPTION, "1d") == moment_ns(context, OPTION, "24h")


@given(st.text())
def test_any_text_is_a_moment_or_refused(text: str) -> None:
    with suppress(click.BadParameter):
        assert moment_of(text) is not None
