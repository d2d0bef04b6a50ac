"""The rules of the VPA and of KRR, against numbers worked out by hand from their definitions."""

from __future__ import annotations

import pandas as pd
import pytest

from tracer.fleet.sizing.other_recommenders import krr_limit_bytes, vpa_intervals, vpa_limit_bytes

BEGIN = pd.Timestamp("2026-03-01T00:00Z")
MIB = 1 << 20
NONE = pd.DataFrame({"pod": [], "time": [], "limit_bytes": []})


def samples(*rows: tuple[str, float, float]) -> pd.DataFrame:
    """Return samples of (pod, day, MiB)."""
    return pd.DataFrame(
        [(pod, BEGIN + pd.Timedelta(days=day), mib * MIB) for pod, day, mib in rows],
        columns=["pod", "time", "bytes"],
    )


def kills(*rows: tuple[str, float, float]) -> pd.DataFrame:
    return samples(*rows).rename(columns={"bytes": "limit_bytes"})


def bucket_end_mib(mib: float) -> float:
    """Return the end of the bucket of a value: the first has 10 MB, each further one is 5 % wider."""
    end, width = 1e7, 1e7
    while end <= mib * MIB:
        width *= 1.05
        end += width
    return end / MIB


def limit(seen: pd.DataFrame, killed: pd.DataFrame, day: float) -> float | None:
    found = vpa_limit_bytes(seen, killed, BEGIN + pd.Timedelta(days=day))
    return None if found is None else found / MIB / 1.15


def test_limit_of_one_day_is_its_largest_sample_and_15_percent() -> None:
    found = limit(samples(("a", 0, 300), ("a", 0.2, 417), ("a", 0.9, 120)), NONE, 1)
    assert found == pytest.approx(bucket_end_mib(417))


def test_limit_forgets_a_day_by_half_each_day() -> None:
    """A large first day has the weight 1/2 + 1/4 + … of nine: it is beyond the 90th percentile after four."""
    first = ("a", 0, 900)
    days = [samples(first, *(("a", day, 300) for day in range(1, last))) for last in (2, 3, 4, 5)]
    found = [limit(seen, NONE, len(seen)) for seen in days]
    large, small = bucket_end_mib(900), bucket_end_mib(300)
    assert found == pytest.approx([large, large, small, small])


def test_limit_ignores_days_before_the_last_eight() -> None:
    seen = samples(("a", 0, 900), ("b", 9.5, 300))
    assert limit(seen, NONE, 8.5) == pytest.approx(bucket_end_mib(300))
    assert limit(seen[:1], NONE, 20) is None


@pytest.mark.parametrize(("at", "expected"), [(417, 517), (1000, 1200)])
def test_kill_counts_as_a_peak_a_fifth_or_100_mib_higher(at: float, expected: float) -> None:
    found = limit(samples(("a", 0, 300)), kills(("a", 0.5, at)), 1)
    assert found == pytest.approx(bucket_end_mib(expected))


def test_kill_below_the_days_peak_counts_from_the_peak() -> None:
    found = limit(samples(("a", 0, 300)), kills(("a", 0.5, 200)), 1)
    assert found == pytest.approx(bucket_end_mib(400))


def test_intervals_are_the_days_since_the_first_sample_of_each_pod() -> None:
    seen = samples(("b", 0.5, 30), ("a", 0, 10), ("b", 1.4, 70), ("b", 1.5, 20), ("a", 3.2, 40))
    found = vpa_intervals(seen, NONE).itertuples(index=False, name=None)
    assert [(pod, (end - BEGIN) / pd.Timedelta(days=1), peak / MIB) for pod, end, peak in found] == [
        *(("a", 1, 10), ("a", 4, 40)),
        *(("b", 1.5, 70), ("b", 2.5, 20)),
    ]


def test_limit_without_anything_is_none() -> None:
    assert limit(samples(), NONE, 1) is None


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
