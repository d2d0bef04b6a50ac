"""Kills in intervals of a round length."""

from __future__ import annotations

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from tracer.fleet.reduction.fleet_answer import kills_over_time


def kills(*rows: tuple[str, str | None]) -> pd.DataFrame:
    """Return kills from rows of (time, cause)."""
    times = pd.to_datetime([time for time, _ in rows], utc=True, format="ISO8601").astype(
        "datetime64[ns, UTC]"
    )
    return pd.DataFrame({"time": times, "cause": pd.Series([cause for _, cause in rows], dtype=object)})


def test_kills_of_a_day_are_in_intervals_of_an_hour() -> None:
    rows = [("2026-11-20 06:59:59.9", "shmem"), ("2026-11-20 07:00", "shmem"), ("2026-11-20 07:30", None)]
    found = kills_over_time(kills(*rows, ("2026-11-21 08:10", "anon_growth")))
    assert found is not None
    assert (found.begin, found.width) == (pd.Timestamp("2026-11-20 06:00", tz="UTC"), pd.Timedelta("1h"))
    assert {len(counts) for counts in found.counts.values()} == {27}
    assert found.counts["shmem"][:3] == (1, 1, 0)
    assert found.counts["unknown"][1] == 1
    assert found.counts["anon_growth"][26] == 1


def test_one_kill_is_one_interval_and_none_is_none() -> None:
    assert kills_over_time(kills()) is None
    alone = kills_over_time(kills(("2026-11-20 06:59:59.9", "shmem")))
    assert alone is not None
    assert alone.counts == {"shmem": (1,)}


@given(st.lists(st.integers(0, 4_000_000_000 * 10**9), min_size=1, max_size=20))
def test_each_kill_is_in_one_of_at_most_sixty_intervals(times_ns: list[int]) -> None:
    times = pd.DatetimeIndex(times_ns, tz="UTC").as_unit("ns")
    found = kills_over_time(pd.DataFrame({"time": times, "cause": "shmem"}))
    assert found is not None
    counts = found.counts["shmem"]
    assert sum(counts) == len(times_ns) and len(counts) <= 61
    assert counts[0] and counts[-1]
    assert found.begin <= times.min() and times.max() < found.begin + len(counts) * found.width
