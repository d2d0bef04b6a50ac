"""Runs of a name in words."""

from __future__ import annotations

import pytest

from tracer.render.words import places


@pytest.mark.parametrize(
    ("ordinals", "words"),
    [
        ([3], "run 3"),
        ([3, 4], "runs 3, 4"),
        ([1, 3, 4, 5, 9, 10], "runs 1, 3 to 5, 9, 10"),
        (range(1, 1001), "runs 1 to 1000"),
    ],
)
def test_consecutive_runs_are_a_range(ordinals: list[int], words: str) -> None:
    assert places.listed(ordinals) == words
