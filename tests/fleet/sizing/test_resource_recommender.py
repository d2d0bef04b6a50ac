"""KRR's rule, against numbers worked out by hand from its definition."""

from __future__ import annotations

import pandas as pd

from tracer.fleet.sizing.resource_recommender import krr_limit_bytes

NOW = pd.Timestamp("2026-03-20T00:00Z")
SAMPLES = pd.DataFrame(
    {
        "pod": ["a", "b", "a"],
        "time": [NOW - pd.Timedelta(days=days) for days in (15, 13, 1)],
        "bytes": [9000, 2000, 1000],
    }
)
KILLS = pd.DataFrame({"pod": ["b"], "time": [NOW - pd.Timedelta(days=2)], "limit_bytes": [4000]})


def test_limit_is_15_percent_above_the_largest_sample_of_14_days() -> None:
    assert krr_limit_bytes(SAMPLES, KILLS, NOW) == 2300


def test_limit_with_kills_is_25_percent_above_the_limit_that_killed() -> None:
    assert krr_limit_bytes(SAMPLES, KILLS, NOW, with_kills=True) == 5000


def test_limit_without_a_recent_sample_is_none() -> None:
    assert krr_limit_bytes(SAMPLES[:1], KILLS, NOW) is None
