"""The suggestion for a workload: what holds for any rows, and known cases."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.fleet.sizing.suggestion import FURTHEST, LEAST_MARGIN, TARGET_RATE, Suggestion, suggest

MIB = 1 << 20

Run = tuple[int, int]
"""The peak in MiB, and the number of kills."""
RUNS = st.lists(st.tuples(st.integers(1, 4000), st.sampled_from([0, 0, 0, 1, 2])), max_size=30)


def rows(runs: list[Run], unit: int = MIB) -> pd.DataFrame:
    """Return lives that were killed at their peak, if they were killed."""
    return pd.DataFrame(
        [{"peak_unreclaimable_bytes": peak * unit, "kills": kills} for peak, kills in runs],
        columns=["peak_unreclaimable_bytes", "kills"],
    )


def suggested(runs: list[Run], unit: int = MIB) -> Suggestion:
    return suggest(rows(runs, unit), pd.DataFrame([]))


def as_number(found: Suggestion) -> float:
    """Return the limit; without one, no known limit is enough."""
    return float("inf") if found.suggested_limit_bytes is None else found.suggested_limit_bytes


@given(RUNS, st.data())
def test_kill_of_a_run_that_had_none_never_lowers_the_limit(runs: list[Run], data: st.DataObject) -> None:
    worse = [(peak, kills + data.draw(st.sampled_from([0, 0, 0, 1]))) for peak, kills in runs]
    assert as_number(suggested(worse)) >= as_number(suggested(runs))


@given(RUNS, st.integers(0, 100))
def test_kill_at_the_suggested_limit_raises_it(runs: list[Run], above: int) -> None:
    before = suggested(runs, 1)
    if before.suggested_limit_bytes is not None:
        after = suggested([*runs, (before.suggested_limit_bytes + above, 1)], 1)
        assert as_number(after) > before.suggested_limit_bytes


@given(RUNS, st.sampled_from([2, 3, 1000]))
def test_limit_scales_with_the_needs(runs: list[Run], factor: int) -> None:
    small, large = suggested(runs), suggested(runs, MIB * factor)
    assert (small.suggested_limit_bytes is None) == (large.suggested_limit_bytes is None)
    if small.suggested_limit_bytes is not None:
        assert large.suggested_limit_bytes == pytest.approx(small.suggested_limit_bytes * factor, abs=factor)


@given(RUNS, st.randoms())
def test_order_of_rows_is_irrelevant(runs: list[Run], chance: Random) -> None:
    shuffled = list(runs)
    chance.shuffle(shuffled)
    assert suggested(shuffled) == suggested(runs)


@given(RUNS)
def test_limit_of_few_runs_is_above_every_need_and_bounded(runs: list[Run]) -> None:
    found = suggested(runs)
    if found.suggested_limit_bytes is not None:
        largest = max(peak for peak, _ in runs) * MIB
        highest = largest * FURTHEST * (1 + LEAST_MARGIN) + 1
        assert largest * (1 + LEAST_MARGIN) <= found.suggested_limit_bytes <= highest


@given(RUNS)
def test_suggestion_is_either_a_limit_with_rates_or_a_reason(runs: list[Run]) -> None:
    found = suggested(runs)
    assert found.from_runs == len(runs)
    assert found.killed_runs == sum(kills > 0 for _, kills in runs)
    if found.suggested_limit_bytes is None:
        assert found.reason
        assert found.expected_kills_per_run is None
        assert found.highest_kills_per_run is None
        assert (found.trial_limit_bytes is not None) == (found.killed_runs > 0)
    else:
        assert found.reason is None
        assert found.trial_limit_bytes is None
        assert found.expected_kills_per_run is not None and found.highest_kills_per_run is not None
        assert 0 <= found.expected_kills_per_run <= 1
        assert 0 < found.highest_kills_per_run <= 1
        if found.median_need_bytes is not None:
            assert found.slack_bytes == found.suggested_limit_bytes - found.median_need_bytes


def test_limit_of_even_runs_is_3_percent_above_them() -> None:
    found = suggested([(100, 0)] * 8)
    assert found.suggested_limit_bytes == 103 * MIB
    assert (found.expected_kills_per_run, found.slack_bytes) == (0.0, 3 * MIB)
    assert found.highest_kills_per_run == pytest.approx(1 - 0.05 ** (1 / 8))


def test_limit_of_uneven_runs_is_further_above_them() -> None:
    found = [suggested([(peak, 0) for peak in [*range(low, 100), 100] * 3]) for low in (99, 96, 93)]
    assert [as_number(limit) / MIB for limit in found] == sorted({as_number(limit) / MIB for limit in found})


def test_limit_of_more_than_1000_runs_leaves_out_what_one_in_a_thousand_needs() -> None:
    runs = [(100, 0)] * 2998 + [(1000, 0)] * 2
    found = suggested(runs)
    assert found.suggested_limit_bytes == 103 * MIB
    assert found.expected_kills_per_run == pytest.approx(2 / 3000)
    assert found.highest_kills_per_run == pytest.approx(6.3 / 3000, rel=0.01)
    assert suggested([*runs[:-2], *[(1000, 0)] * 40]).suggested_limit_bytes == 1030 * MIB


def test_limit_of_known_needs_is_exceeded_as_often_as_is_said() -> None:
    """The needs fall off as the tail assumes, by 2 % of the least."""
    chance = np.random.default_rng(5)
    rates, expected, highest = [], [], []
    for _ in range(300):
        found = suggested([(round(1e6 + need), 0) for need in chance.exponential(20_000, 60)], 1)
        rates.append(np.exp((1e6 - as_number(found)) / 20_000))
        expected.append(found.expected_kills_per_run or 0.0)
        highest.append(found.highest_kills_per_run or 0.0)
    assert np.mean(rates) <= TARGET_RATE
    assert np.mean(expected) == pytest.approx(np.mean(rates), rel=1, abs=TARGET_RATE / 2)
    assert np.mean(np.array(rates) <= np.array(highest)) >= 0.95


@pytest.mark.parametrize(
    ("runs", "reason", "trial"),
    [
        ([], "no run has a known peak", None),
        ([(100, 0)] * 2, "2 runs without a kill are too few (at least 3)", None),
        ([(100, 1)] * 7, "7 of 7 runs were killed: their need is beyond the limits tried", 200),
        (
            [(90, 0)] * 6 + [(95, 0)] + [(100, 1)] * 5,
            "42% of the runs seem to need more than the limits tried",
            200,
        ),
        (
            [(900, 0)] * 4 + [(1000, 1)] * 4,
            "too many of the largest runs were killed: the need is beyond the limits tried",
            1700,
        ),
        *(
            (
                [(90, 0)] * 4 + [(100, 1)] * killed,
                "too many of the largest runs were killed: the need is beyond the limits tried",
                200,
            )
            for killed in (3, 30)
        ),
    ],
)
def test_nothing_is_suggested_without_enough_runs(runs: list[Run], reason: str, trial: int | None) -> None:
    found = suggested(runs)
    assert (found.suggested_limit_bytes, found.reason) == (None, reason)
    assert found.trial_limit_bytes == (None if trial is None else trial * MIB)


def test_limit_has_room_for_page_cache_that_was_read_again() -> None:
    lives = rows([(100, 0)] * 5).assign(peak_usage_bytes=180 * MIB, refaulted_bytes=60 * MIB)
    assert suggest(lives, pd.DataFrame([])).suggested_limit_bytes == 160 * MIB
    unused = lives.assign(refaulted_bytes=0)
    assert suggest(unused, pd.DataFrame([])).suggested_limit_bytes == 103 * MIB


@pytest.mark.parametrize(("cause", "is_tried"), [("dirty_writeback", False), ("anon_growth", True)])
def test_higher_limit_is_tried_only_if_the_limit_was_too_small(cause: str, is_tried: bool) -> None:
    begin = pd.Timestamp("2026-03-01T10:00Z")
    names: dict[str, Any] = {"boot_id": "b", "cgroup": ["/a", "/b", "/c"], "time": begin}
    kills = pd.DataFrame({**names, "cause": cause, "limit_bytes": 100 * MIB, "unreclaimable_bytes": 61 * MIB})
    found = suggest(rows([(60, 1)] * 3).assign(**names), kills)
    assert (found.trial_limit_bytes is not None) == is_tried
    assert ("not since the limit was too small" in (found.reason or "")) != is_tried
