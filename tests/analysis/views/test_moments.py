from __future__ import annotations

import pandas as pd

from tracer.analysis.views.focus import to_look_at

BEGIN = pd.Timestamp("2025-11-24T10:00:00Z")


def frame(step: str, evicted: list[int], tries: list[int]) -> pd.DataFrame:
    index = pd.date_range(BEGIN, periods=len(evicted), freq=step)
    return pd.DataFrame({"cache_evicted_bytes": evicted, "reclaim_attempts": tries}, index, dtype="Int64")


def moments_of(rows: pd.DataFrame, *kill_s: float) -> list[tuple[str, float, float]]:
    """Return (what, begin, end) of each moment, in seconds."""
    kills = [BEGIN + pd.Timedelta(second, "s") for second in kill_s]
    return [
        (one.what, (one.begin - BEGIN).total_seconds(), (one.end - BEGIN).total_seconds())
        for one in to_look_at(rows, kills)
    ]


def test_moments_are_kill_evictions_and_first_reclaim() -> None:
    rows = frame("80s", [0, 5, 0, 9, 0, 0, 0], [0, 3, 0, 9, 0, 0, 1])
    assert moments_of(rows, 100, 490) == [
        ("the last kill", 410, 500),
        ("the most evictions", 240, 320),
        ("the first reclaim", 80, 160),
    ]


def test_moments_in_one_row_are_shown_once() -> None:
    rows = frame("80s", [0, 0, 9], [0, 0, 9])
    assert moments_of(rows) == [("the most evictions", 160, 240)]
    assert moments_of(rows, 235) == [("the last kill", 155, 245)]


def test_moment_of_a_kill_is_cut_at_the_begin() -> None:
    rows = frame("80s", [0, 0, 0], [0, 0, 0])
    assert moments_of(rows, 8) == [("the last kill", 0, 18)]
    assert moments_of(rows, -8, 240) == []


def test_moments_of_short_rows_are_none() -> None:
    assert moments_of(frame("500ms", [0, 5, 0], [1, 1, 1]), 0.7) == []
    assert moments_of(frame("1s", [0], [0]), 0.5) == []


def test_moments_of_unknown_values_are_none() -> None:
    rows = frame("80s", [0, 0, 0], [0, 0, 0])
    rows.iloc[1] = pd.NA
    assert moments_of(rows) == []
