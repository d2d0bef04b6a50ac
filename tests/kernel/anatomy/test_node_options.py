"""The options of Node.js in the environment of a process."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.kernel.anatomy.node_options import parse_environment, shown


@pytest.mark.parametrize(
    ("environment", "options"),
    [
        (b"A=1\0NODE_OPTIONS=--max-old-space-size=300\0B=2\0", ["--max-old-space-size=300"]),
        (
            b"NODE_OPTIONS=--max_old_space_size=300  --require /secret --perf-basic-prof",
            ["--max_old_space_size=300", "--perf-basic-prof"],
        ),
        (
            b"NODE_OPTIONS=--max-semi-space-size=8 --max-old-space-size=9 --max-old-space-size=7",
            ["--max-semi-space-size=8", "--max-old-space-size=9", "--max-old-space-size=7"],
        ),
        (b"NODE_OPTIONS=\0NODE_OPTIONS=--max-old-space-size=300", []),  # getenv(3): the first counts
        (b"XNODE_OPTIONS=--max-old-space-size=300\0NODE_OPTIONS=--max-old-space-size=3x", []),
        (b"NODE_OPTIONS=" + 99 * b"--perf-basic-prof ", 16 * ["--perf-basic-prof"]),
        (b"", []),
    ],
)
def test_options_of_the_heap_are_kept_and_nothing_else(environment: bytes, options: list[str]) -> None:
    assert parse_environment(environment) == options


@given(st.binary(max_size=200))
def test_any_environment_gives_options_or_none(text: bytes) -> None:
    for option in parse_environment(b"NODE_OPTIONS=" + text):
        assert option.startswith("--")
        assert option.isascii()
        assert option.isprintable()


def test_process_that_has_ended_shows_nothing(tmp_path: Path) -> None:
    assert list(shown(tmp_path)) == []
