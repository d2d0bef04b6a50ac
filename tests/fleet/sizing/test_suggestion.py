"""The suggestion for a workload: what holds for any rows, and known cases."""

from __future__ import annotations

from math import comb
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.fleet.sizing.needs import Needs
from tracer.fleet.sizing.suggestion import (
    COST_OF_A_KILL_BYTE_DAYS,
    COST_OF_A_KILL_DAYS,
    FURTHEST,
    LEAST_EXCESS_OF_KILLED,
    LEAST_FURTHEST_BYTES,
    RELEASE_EXCESS,
    RELEASE_KILLS_A_DAY,
    TYPICAL_EXCESS,
    TYPICAL_RUNS,
    Outlook,
    Suggestion,
    Survival,
    highest_rate,
    suggest,
)

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
            "42 % of the runs may need more than the limits tried",
            True,
        ),
        ([(900, 0)] * 4 + [(1000, 1)] * 4, "50 % of the runs may need more than the limits tried", True),
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


def needs(known: list[float], killed: list[float]) -> Needs:
    values = np.array([*known, *killed], dtype=np.float64)
    is_killed = np.array([False] * len(known) + [True] * len(killed))
    none, day = np.zeros(len(values)), np.ones(len(values))
    of_none = np.full(len(values), "", dtype=object)
    return Needs(values, is_killed, is_killed, day, none, of_none, unknown_runs=0)


def test_share_of_a_textbook_sample_matches() -> None:
    """The remission times of 6-MP patients (Freireich et al. 1963), found in every text on survival."""
    found = Survival.from_needs(
        needs([6, 6, 6, 7, 10, 13, 16, 22, 23], [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35])
    )
    assert found.need_bytes.tolist() == [6, 7, 10, 13, 16, 22, 23]
    assert found.share.round(4).tolist() == [0.8571, 0.8067, 0.7529, 0.6902, 0.6275, 0.5378, 0.4482]
    assert found.need_at(0.5) == 23
    assert found.need_at(0.4) is None
    assert found.share_above(5.9) == 1.0
    assert found.share_above(15) == pytest.approx(0.6902, abs=1e-4)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(0, 51))
def test_share_without_kills_is_the_fraction_above(values: list[int], limit: int) -> None:
    found = Survival.from_needs(needs([float(value) for value in values], []))
    assert found.share_above(limit) == pytest.approx(sum(value > limit for value in values) / len(values))


def test_survival_of_killed_lives_alone_has_no_step() -> None:
    found = Survival.from_needs(needs([], [5, 7]))
    assert (found.share_above(6), found.need_at(0.5)) == (1.0, None)


@given(st.integers(1, 300), st.data())
def test_highest_rate_leaves_5_percent_for_so_few_events(runs: int, data: st.DataObject) -> None:
    events = data.draw(st.integers(0, runs - 1))
    rate = highest_rate(events, runs)
    so_few = sum(comb(runs, k) * rate**k * (1 - rate) ** (runs - k) for k in range(events + 1))
    assert so_few == pytest.approx(0.05, rel=1e-6)


def test_highest_rate_without_an_event_is_about_three_in_the_number_of_runs() -> None:
    assert highest_rate(0, 1000) == pytest.approx(3 / 1000, rel=0.01)
    assert highest_rate(4, 4) == 1.0


GIB = 1 << 30
OUTLOOK_RUNS = st.lists(
    st.tuples(st.integers(1, 9000), st.booleans(), st.integers(1, 5)), min_size=1, max_size=20
)


def outlook(runs: list[tuple[int, bool, int]]) -> Outlook:
    """Return the outlook of runs with a need in MiB, whether it is a bound, and the days that they lasted."""
    needs, is_bound, days = (np.array(column) for column in zip(*runs, strict=True))
    none, of_none = np.zeros(len(needs)), np.full(len(needs), "", dtype=object)
    needs = needs * float(MIB)
    return Outlook.from_needs(Needs(needs, is_bound, is_bound, days * 1.0, none, of_none, unknown_runs=0))


@given(OUTLOOK_RUNS, st.floats(0.1, 3))
def test_kills_at_a_limit_are_the_sum_over_the_runs(runs: list[tuple[int, bool, int]], part: float) -> None:
    found = outlook(runs)
    limit = part * max(need for need, _, _ in runs) * MIB
    middle = sorted(need for need, _, _ in runs)[(len(runs) - 1) // 2] * MIB
    releases = RELEASE_KILLS_A_DAY * sum(days for _, _, days in runs) / len(runs)
    expected = 0.0
    for need, is_bound, _ in runs:
        surplus = found.bound_surplus_bytes if is_bound else found.surplus_bytes
        distance = max(limit - need * MIB, 0)
        expected += np.exp(-distance / surplus) / len(runs)
        expected += releases * np.exp(-distance / (RELEASE_EXCESS * middle)) / len(runs)
    assert found.kills_per_run(np.array([limit]))[0] == pytest.approx(expected, rel=1e-6, abs=1e-12)


@given(OUTLOOK_RUNS)
def test_no_other_limit_costs_less(runs: list[tuple[int, bool, int]]) -> None:
    found = outlook(runs)
    needs = [need * MIB for need, _, _ in runs]
    limits = np.linspace(min(needs), 2 * max(needs), 3000)

    def cost(limits: np.ndarray) -> np.ndarray:
        kills = len(runs) * found.kills_per_run(limits)
        return limits * found.days + found.kill_byte_days * kills

    cheapest = found.cheapest_bytes(2.0 * max(needs))
    assert min(needs) <= cheapest <= 2 * max(needs) * 1.0001
    assert cost(np.array([cheapest]))[0] <= 1.003 * cost(limits).min()


def test_mean_surplus_of_many_runs_is_their_mean_excess_over_the_median() -> None:
    chance = np.random.default_rng(3)
    runs = [(round(100_000 + need), False, 1) for need in chance.exponential(20_000, 4000)]
    assert outlook(runs).surplus_bytes == pytest.approx(20_000 * MIB, rel=0.05)


def test_mean_surplus_of_one_run_is_near_the_typical_one() -> None:
    found = outlook([(1000, False, 1)])
    expected = TYPICAL_EXCESS * TYPICAL_RUNS / (TYPICAL_RUNS + 1)
    assert found.surplus_bytes == pytest.approx(expected * 1000 * MIB)
    assert found.bound_surplus_bytes == pytest.approx(LEAST_EXCESS_OF_KILLED * 1000 * MIB)


def test_runs_above_the_median_that_were_killed_make_the_surplus_larger() -> None:
    runs = [(100, False, 1)] * 3 + [(150, False, 1)] * 2
    killed = [(100, False, 1)] * 3 + [(150, False, 1), (150, True, 1)]
    assert outlook(runs).surplus_bytes == pytest.approx(
        (TYPICAL_RUNS * TYPICAL_EXCESS + 2 * 0.5) / (TYPICAL_RUNS + 5) * 100 * MIB
    )
    assert outlook(killed).surplus_bytes > outlook(runs).surplus_bytes


def test_kill_of_a_large_program_costs_as_much_as_days_of_it() -> None:
    assert outlook([(100, False, 1)]).kill_byte_days == COST_OF_A_KILL_BYTE_DAYS
    assert outlook([(100 * 1024, False, 1)]).kill_byte_days == COST_OF_A_KILL_DAYS * 100 * GIB


def test_one_far_run_of_many_is_left_out_and_several_are_not() -> None:
    usual = [(2000, False, 1)] * 60
    assert outlook([*usual, (8000, False, 1)]).cheapest_bytes(9000.0 * MIB) < 3500 * MIB
    assert outlook([*usual, *[(8000, False, 1)] * 40]).cheapest_bytes(9000.0 * MIB) > 8000 * MIB


def test_longer_runs_get_a_smaller_limit_than_short_ones_of_the_same_needs() -> None:
    limits = [outlook([(1000, False, days)] * 5).cheapest_bytes(2000.0 * MIB) for days in (1, 5)]
    assert limits[1] < limits[0]


def test_run_that_is_left_out_does_not_make_the_others_look_uncertain() -> None:
    usual = [(2000, False, 1)] * 60
    none = np.zeros(61)
    values = np.array([2000.0 * MIB] * 60 + [8000.0 * MIB])
    is_bound = values > 7000 * MIB
    needs = Needs(
        values, is_bound, is_bound, np.ones(61), none, np.full(61, "", dtype=object), unknown_runs=0
    )
    found = Outlook.from_needs(needs, below_bytes=8000.0 * MIB)
    assert found.surplus_bytes == pytest.approx(outlook(usual).surplus_bytes)
    assert found.kills_per_run(np.array([7999.0 * MIB]))[0] == pytest.approx((1 + RELEASE_KILLS_A_DAY) / 61)


def test_limit_of_many_equal_runs_has_room_for_a_release_that_needs_more() -> None:
    """What runs of one release need says nothing about the next, however many they are."""
    limits = [outlook([(500, False, 1)] * runs).cheapest_bytes(2000.0 * MIB) for runs in (100, 5000)]
    assert 650 * MIB < limits[1] <= limits[0]


def test_room_for_a_release_is_a_smaller_part_of_a_larger_program() -> None:
    parts = [
        outlook([(need, False, 1)] * 1000).cheapest_bytes(4.0 * need * MIB) / need
        for need in (100, 1000, 8000)
    ]
    assert parts == sorted({*parts}, reverse=True)
