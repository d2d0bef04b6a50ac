"""The countdown, replayed on recorded approaches to a limit (tests/approaches)."""

from __future__ import annotations

import pytest
from approaches.scores import RECORDED, Score, scores

EXPECTED = {
    "v1-tuned-1": Score(in_time=28, late=9, without=4, false=8),
    "v1-tuned-2": Score(in_time=21, late=12, without=2, false=6),
    "v1-tuned-3": Score(in_time=9, late=5, without=7, false=0),
    "v2-tuned": Score(in_time=3, late=1, without=2, false=0),
}
"""The rule was made on all of these: a recording that is made after a change judges it.

In `v1-tuned-3` the machine was so busy that samples are seconds apart.
"""


@pytest.mark.parametrize("name", EXPECTED)
def test_recorded_approaches_have_this_many_kills_foreseen_and_false_alarms(name: str) -> None:
    found = scores(RECORDED / f"{name}.parquet")
    assert sum(found.values(), Score()) == EXPECTED[name], found


def test_each_recording_is_replayed() -> None:
    assert {path.stem for path in RECORDED.glob("*.parquet")} == set(EXPECTED)
