"""The choice of cgroups, times and moments to draw."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.analysis.views import focus
from tracer.analysis.views.focus import to_look_at
from tracer.schema import UNLIMITED_BYTES

MIB = 1 << 20


@pytest.fixture
def several(trace: Any) -> Any:
    for number, (usage, limit) in enumerate([(900, None), (50, 100), (80, 100), (5, 10)]):
        trace.add("cgroups", cgroup_id=number, path=f"/{number}")
        limit_bytes = UNLIMITED_BYTES if limit is None else limit * MIB
        for at, sample in enumerate((1, usage, 2)):
            trace.add(
                *("samples", at),
                cgroup_id=number,
                source="periodic",
                usage_bytes=sample * MIB,
                limit_bytes=limit_bytes,
            )
    trace.add("cgroups", cgroup_id=9, path="/never-measured")
    return trace


def test_ranked_cgroup_with_a_limit_precedes_a_larger_one(several: Any) -> None:
    ranked = focus.ranked(several)
    assert ranked.index.tolist() == [2, 1, 3, 0]
    assert ranked["peak_usage_bytes"].tolist() == [80 * MIB, 50 * MIB, 5 * MIB, 900 * MIB]
    assert ranked["limit_bytes"].tolist() == [100 * MIB, 100 * MIB, 10 * MIB, UNLIMITED_BYTES]
    assert focus.to_show(several, 3) == ([2], 3)


def test_ranked_peak_is_that_of_the_kernel_between_two_readings(several: Any) -> None:
    """As in `explain`: memory.peak of a cgroup that was made in the trace, or in which it rose."""
    for at, peak in ((1, 50), (3, 97)):
        several.add("samples", at, cgroup_id=1, source="periodic", usage_bytes=MIB, peak_bytes=peak * MIB)
    several.add("samples", 3, cgroup_id=2, source="periodic", usage_bytes=MIB, peak_bytes=99 * MIB)
    ranked = focus.ranked(several)
    assert ranked["peak_usage_bytes"].to_dict() == {1: 97 * MIB, 2: 80 * MIB, 3: 5 * MIB, 0: 900 * MIB}
    assert ranked.index.tolist() == [1, 2, 3, 0]


def test_ranked_cgroups_with_kills_come_first_in_their_order(several: Any) -> None:
    for kill_id, owner in ((1, 3), (2, 1), (2, 1), (3, 3)):
        several.add("oom", 1, kill_id=kill_id, limit_owner_cgroup_id=owner, constraint="memcg")
    several.add("oom", 1, kill_id=4, constraint="global")
    ranked = focus.ranked(several)
    assert ranked.index.tolist() == [3, 1, 2, 0]
    assert ranked["kills"].tolist() == [2, 1, 0, 0]
    assert focus.to_show(several, 3) == ([3, 1], 2)
    assert focus.to_show(several, 1) == ([3], 3)


def test_to_show_of_an_empty_trace_is_nothing(trace: Any) -> None:
    assert focus.to_show(trace, 3) == ([], 0)


def test_timeline_of_life_covers_the_life_of_the_cgroup(several: Any) -> None:
    several.add("cgroups", cgroup_id=20, path="/short", created=several.ns(0.5), removed=several.ns(1.5))
    several.charged(0.6, 20, "anon", MIB, usage_bytes=MIB)
    frame = focus.timeline_of_life(several, 20, 40)
    assert frame.index[0] == pd.Timestamp(several.ns(0.5), tz="UTC")
    assert len(frame) <= 40
    assert frame.index[-1] < pd.Timestamp(several.ns(1.5) + 1, tz="UTC")
    whole = focus.timeline_of_life(several, 2, 40)
    assert whole.index[0] == pd.Timestamp(several.ns(0), tz="UTC")


def test_timeline_of_life_of_exactly_the_most_rows_fits(several: Any) -> None:
    several.add("cgroups", cgroup_id=20, path="/short", created=several.ns(0), removed=several.ns(2))
    assert len(focus.timeline_of_life(several, 20, 40)) <= 40


def test_timeline_of_life_from_begin_to_end_has_rows_for_that_time(several: Any) -> None:
    frame = focus.timeline_of_life(several, 2, 40, begin="0.2s", end="0.6s")
    assert (frame.index[1] - frame.index[0]) == pd.Timedelta("10ms")
    assert len(frame) == 40
    assert len(focus.timeline_of_life(several, 2, 40, every="1s")) == 3


@given(st.floats(0.001, 1e7), st.integers(2, 400))
def test_row_width_is_round_and_gives_few_enough_rows(seconds: float, rows: int) -> None:
    width = pd.Timedelta(focus.row_width(seconds, rows)).total_seconds()
    assert seconds / width <= rows * (1 + 1e-9)
    assert width == 0.01 or seconds / width > rows / 3 - 1 or width > 86400


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
