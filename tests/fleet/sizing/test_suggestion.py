"""The suggestion for a workload: what holds for any rows, and known cases."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.fleet.sizing.suggestion import FURTHEST, LEAST_FURTHEST_BYTES, Suggestion, suggest

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


@given(RUNS, st.randoms())
def test_order_of_rows_is_irrelevant(runs: list[Run], chance: Random) -> None:
    shuffled = list(runs)
    chance.shuffle(shuffled)
    assert suggested(shuffled) == suggested(runs)


@given(RUNS)
def test_limit_is_never_far_beyond_what_was_seen(runs: list[Run]) -> None:
    found = suggested(runs)
    largest = max((peak for peak, _ in runs), default=0) * MIB
    for limit in (found.suggested_limit_bytes, found.trial_limit_bytes):
        assert limit is None or limit <= max(FURTHEST * largest, largest + LEAST_FURTHEST_BYTES) + 1


@given(st.lists(st.integers(100, 120), min_size=3, max_size=30), st.integers(1, 5))
def test_limit_of_runs_that_are_alike_is_above_all_of_them(peaks: list[int], kills: int) -> None:
    found = suggested([(peak, 0) for peak in peaks])
    assert found.suggested_limit_bytes is not None and found.suggested_limit_bytes > max(peaks) * MIB
    assert found.runs_beyond == 0
    worse = suggested([*((peak, 0) for peak in peaks), *[(max(peaks), 1)] * kills])
    limit = worse.suggested_limit_bytes or worse.trial_limit_bytes
    assert limit is not None and limit > found.suggested_limit_bytes


@given(RUNS)
def test_suggestion_is_either_a_limit_with_rates_or_a_reason(runs: list[Run]) -> None:
    found = suggested(runs)
    assert found.from_runs == len(runs)
    assert found.killed_runs == sum(kills > 0 for _, kills in runs)
    if found.suggested_limit_bytes is None:
        assert found.reason
        assert found.expected_kills_per_run is None
        assert found.highest_kills_per_run is None
        assert found.runs_beyond is None
        assert (found.trial_limit_bytes is not None) == (found.killed_runs > 0)
    else:
        assert found.reason is None
        assert found.trial_limit_bytes is None
        assert found.expected_kills_per_run is not None and found.highest_kills_per_run is not None
        assert 0 <= found.expected_kills_per_run <= 1
        assert 0 < found.highest_kills_per_run <= 1
        if found.median_need_bytes is not None:
            assert found.slack_bytes == found.suggested_limit_bytes - found.median_need_bytes


def test_limit_of_uneven_runs_is_further_above_them() -> None:
    found = [suggested([(low, 0), (100, 0)] * 40, 80 * MIB) for low in (98, 85, 50)]
    limits = [one.suggested_limit_bytes or 0 for one in found]
    assert limits == sorted({*limits})


def test_limit_of_many_even_runs_is_close_above_them() -> None:
    few, many = (suggested([(1000, 0), (1001, 0)] * runs) for runs in (3, 3000))
    assert 1200 * MIB < (few.suggested_limit_bytes or 0) < 1600 * MIB
    assert 1001 * MIB < (many.suggested_limit_bytes or 0) < (few.suggested_limit_bytes or 0)
    assert many.highest_kills_per_run == pytest.approx(3 / 6000, rel=0.01)


def test_limit_of_many_even_runs_of_a_large_program_is_closer_above_them() -> None:
    """Room for a large release of it would cost more than its kills."""
    many = suggested([(1000, 0), (1001, 0)] * 3000, 32 * MIB)
    assert 1001 < (many.suggested_limit_bytes or 0) / (32 * MIB) < 1130


def test_run_that_allocated_without_end_is_left_beyond_the_limit_and_counted() -> None:
    usual = [(2000, 0)] * 60
    found = suggested([*usual, (8000, 1)])
    assert (found.suggested_limit_bytes or 0) < 3500 * MIB
    assert (found.runs_beyond, found.killed_runs, found.largest_need_bytes) == (1, 1, 8000 * MIB)
    assert 1 / 61 < (found.expected_kills_per_run or 0) < 2.5 / 61
    assert (found.highest_kills_per_run or 0) > 4 / 61


def test_killed_run_below_the_suggestion_may_need_more_than_it() -> None:
    found = suggested([(1000, 0)] * 19 + [(1005, 1)])
    assert found.runs_beyond == 0
    assert (found.highest_kills_per_run or 0) > 1 / 20


def test_limit_of_known_needs_that_do_not_change_is_exceeded_no_more_often_than_is_said() -> None:
    """The needs fall off by 5 % of the least. Nearly all expected kills are those after a release."""
    chance = np.random.default_rng(5)
    rates, expected, highest = [], [], []
    for _ in range(300):
        found = suggested([(round(1000 + need), 0) for need in chance.exponential(50, 60)])
        rates.append(np.exp((1000 * MIB - (found.suggested_limit_bytes or 0)) / (50 * MIB)))
        expected.append(found.expected_kills_per_run or 0.0)
        highest.append(found.highest_kills_per_run or 0.0)
    assert np.mean(expected) / 50 < np.mean(rates) < np.mean(expected)
    assert np.mean(np.array(rates) <= np.array(highest)) >= 0.95


@pytest.mark.parametrize(
    ("runs", "reason", "is_tried"),
    [
        ([], "no run has a known peak", False),
        ([(100, 0)] * 2, "2 runs without a kill are too few (at least 3, or 3 days)", False),
        ([(100, 1)] * 7, "7 of 7 runs were killed: their need is beyond the limits tried", True),
        (
            [(90, 0)] * 6 + [(95, 0)] + [(100, 1)] * 5,
            "42% of the runs may need more than the limits tried",
            True,
        ),
        ([(900, 0)] * 4 + [(1000, 1)] * 4, "50% of the runs may need more than the limits tried", True),
    ],
)
def test_nothing_is_suggested_without_enough_runs(runs: list[Run], reason: str, is_tried: bool) -> None:
    found = suggested(runs)
    assert (found.suggested_limit_bytes, found.reason) == (None, reason)
    assert (found.trial_limit_bytes is not None) == is_tried
    if found.trial_limit_bytes is not None:
        assert found.trial_limit_bytes > 1.2 * max(peak for peak, _ in runs) * MIB


def test_runs_of_days_are_enough_where_few_runs_are_not() -> None:
    for days, is_enough in ((1, False), (2, True)):
        lives = rows([(100, 0)] * 2).assign(observed_s=days * 86_400.0)
        assert (suggest(lives, pd.DataFrame([])).suggested_limit_bytes is not None) == is_enough


def test_limit_has_room_for_page_cache_that_was_read_again() -> None:
    lives = rows([(100, 0)] * 5).assign(peak_usage_bytes=480 * MIB, refaulted_bytes=360 * MIB)
    assert suggest(lives, pd.DataFrame([])).suggested_limit_bytes == 460 * MIB
    unused = lives.assign(refaulted_bytes=0)
    assert (suggest(unused, pd.DataFrame([])).suggested_limit_bytes or 0) < 200 * MIB


@pytest.mark.parametrize(("cause", "is_tried"), [("dirty_writeback", False), ("anon_growth", True)])
def test_higher_limit_is_tried_only_if_the_limit_was_too_small(cause: str, is_tried: bool) -> None:
    begin = pd.Timestamp("2026-03-01T10:00Z")
    names: dict[str, Any] = {"boot_id": "b", "cgroup": ["/a", "/b", "/c"], "time": begin}
    kills = pd.DataFrame({**names, "cause": cause, "limit_bytes": 100 * MIB, "unreclaimable_bytes": 61 * MIB})
    found = suggest(rows([(60, 1)] * 3).assign(**names), kills)
    assert (found.trial_limit_bytes is not None) == is_tried
    assert ("not because the limit was too small" in (found.reason or "")) != is_tried


@pytest.mark.parametrize(
    ("seen", "least"),
    [
        ({"state": "throttled"}, 100),
        ({"state": "thrashing", "comfortable_bytes": 170 * MIB}, 170),
        ({"work": "cut", "comfortable_bytes": 170 * MIB}, 100),
    ],
)
def test_runs_that_were_held_back_give_only_the_least_of_their_need(seen: dict[str, Any], least: int) -> None:
    found = suggest(rows([(100, 0), (90, 0), (95, 0)]).assign(**seen), pd.DataFrame([]))
    assert (found.suggested_limit_bytes, found.trial_limit_bytes) == (None, None)
    assert found.least_limit_bytes == least * MIB
    why = seen.get("state") or seen["work"]
    assert (found.held_back_runs, found.held_back_by) == (3, (why,))
    assert found.reason == f"3 of 3 runs were held back ({why}): they show only the least that they need"


def test_few_runs_that_were_held_back_below_the_others_change_little() -> None:
    usual = rows([(100, 0)] * 30)
    slow = rows([(60, 0)] * 2).assign(state="throttled")
    found = suggest(pd.concat([usual, slow]), pd.DataFrame([]))
    alone = suggest(usual, pd.DataFrame([]))
    assert found.suggested_limit_bytes is not None and alone.suggested_limit_bytes is not None
    assert alone.suggested_limit_bytes <= found.suggested_limit_bytes < 1.2 * alone.suggested_limit_bytes
    assert (found.held_back_runs, found.least_limit_bytes) == (2, None)


def test_many_runs_that_were_held_back_above_the_others_leave_nothing_to_suggest() -> None:
    runs = pd.concat([rows([(60, 0)] * 10), rows([(80, 0)] * 10).assign(state="throttled")])
    found = suggest(runs, pd.DataFrame([]))
    assert (found.suggested_limit_bytes, found.least_limit_bytes) == (None, 80 * MIB)


def test_killed_runs_beside_held_back_ones_give_a_limit_to_try_above_the_least() -> None:
    runs = pd.concat([rows([(100, 1)] * 3), rows([(80, 0)] * 3).assign(work="cut")])
    found = suggest(runs, pd.DataFrame([]))
    assert found.suggested_limit_bytes is None
    assert (found.trial_limit_bytes or 0) > (found.least_limit_bytes or 0) >= 100 * MIB


def test_limit_holds_the_page_cache_that_half_of_the_runs_had_in_use() -> None:
    lives = rows([(100, 0)] * 5).assign(comfortable_bytes=[np.nan, *[460.0 * MIB] * 3, 900 * MIB])
    assert suggest(lives, pd.DataFrame([])).suggested_limit_bytes == 460 * MIB
