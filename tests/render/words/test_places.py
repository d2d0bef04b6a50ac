"""Names of cgroups and runs in words."""

from __future__ import annotations

import pytest

from tracer.analysis.results.kill import LimitOwner
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


def owner(cgroup: str | None, container: str | None, run: int | None = 1, runs: int | None = 1) -> LimitOwner:
    return LimitOwner(cgroup, container, None, None, None, None, run=run, runs=runs)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (owner("/docker/4f2a", "web"), "container web"),
        (owner("/docker/4f2a", "web", 3, 7), "run 3 of 7 of container web"),
        (owner("/a\x1b", None), r"/a\x1b"),
        (owner(None, None, None, None), "a cgroup whose path is not known"),
        (owner(f"/begin{'x' * 90}/end", None), f"/begin{'x' * 17}…{'x' * 20}/end"),
    ],
)
def test_place_in_short_is_a_name_of_bounded_length(place: LimitOwner, words: str) -> None:
    assert places.place_in_short(place) == words
