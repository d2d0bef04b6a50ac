"""The score of alarms, on approaches and alarms whose answer is known."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
import pytest
from approaches.scores import RECORDED, Approach, Score, approaches, recorded, score
from synthetic.sample_series import joined, series

KILLS = [Approach(begin_s=10, killed_s=20), Approach(begin_s=40, killed_s=42)]


@pytest.mark.parametrize(
    ("alarms_s", "expected"),
    [
        ([], Score(without=2)),
        ([19.0, 41.5], Score(in_time=2)),
        ([19.1, 41.6], Score(late=2)),
        ([19.0, 41.6], Score(in_time=1, late=1)),
        ([19.1, 18.0], Score(in_time=1, without=1)),
        ([20.5], Score(in_time=1, without=1)),
        ([11.9], Score(in_time=1, without=1)),
        ([42.5, 80.0], Score(without=2, false=2)),
    ],
)
def test_score_of_alarms(alarms_s: list[float], expected: Score) -> None:
    assert score(KILLS, alarms_s) == expected


def test_alarm_more_than_thirty_seconds_before_a_kill_is_false() -> None:
    assert score([Approach(10, 60)], [29.9]) == Score(without=1, false=1)
    assert score([Approach(10, 60)], [30.0]) == Score(in_time=1)


def test_approach_begins_when_half_was_left_and_kills_in_a_row_are_one() -> None:
    grown = series(lambda at: {"anon": 10 * at}, 9.9)
    kills = [series(lambda _: {"anon": 100}, 0, begin=at, source="oom") for at in (10, 10.5, 13)]
    (first, second) = approaches(joined(grown, *kills))
    assert (first.begin_s, first.killed_s) == pytest.approx((5, 10))
    assert second.killed_s == pytest.approx(13)


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.parquet")), ids=lambda path: path.stem)
def test_about_half_of_the_recorded_approaches_end_with_a_kill(path: Path) -> None:
    names, samples = recorded(path)
    killed = samples.filter(pc.equal(samples["source"], "oom"))["cgroup_id"]
    assert 0.35 < len(pc.unique(killed)) / len(names) < 0.65
