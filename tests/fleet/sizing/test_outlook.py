"""What further runs need, and the cheapest limit, against sums and searches that are done the long way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.fleet.sizing.needs import Needs
from tracer.fleet.sizing.outlook import (
    COST_OF_A_KILL_BYTE_DAYS,
    COST_OF_A_KILL_DAYS,
    LEAST_EXCESS_OF_KILLED,
    RELEASE_EXCESS,
    RELEASE_KILLS_A_DAY,
    TYPICAL_EXCESS,
    TYPICAL_RUNS,
    Outlook,
)

MIB = 1 << 20
GIB = 1 << 30
RUNS = st.lists(st.tuples(st.integers(1, 9000), st.booleans(), st.integers(1, 5)), min_size=1, max_size=20)


def outlook(runs: list[tuple[int, bool, int]]) -> Outlook:
    """Return the outlook of runs with a need in MiB, whether it is a bound, and the days that they lasted."""
    needs, is_bound, days = (np.array(column) for column in zip(*runs, strict=True))
    none, of_none = np.zeros(len(needs)), np.full(len(needs), "", dtype=object)
    needs = needs * float(MIB)
    return Outlook.from_needs(Needs(needs, is_bound, is_bound, days * 1.0, none, of_none, unknown_runs=0))


@given(RUNS, st.floats(0.1, 3))
def test_kills_at_a_limit_are_the_sum_over_the_runs(runs: list[tuple[int, bool, int]], part: float) -> None:
    found = outlook(runs)
    limit = part * max(need for need, _, _ in runs) * MIB
    middle = sorted(need for need, _, _ in runs)[(len(runs) - 1) // 2] * MIB
    releases = RELEASE_KILLS_A_DAY * sum(days for _, _, days in runs) / len(runs)
    expected = 0.0
    for need, is_bound, _ in runs:
        surplus = found.surplus_of_killed_bytes if is_bound else found.surplus_bytes
        distance = max(limit - need * MIB, 0)
        expected += np.exp(-distance / surplus) / len(runs)
        expected += releases * np.exp(-distance / (RELEASE_EXCESS * middle)) / len(runs)
    assert found.kills_per_run(np.array([limit]))[0] == pytest.approx(expected, rel=1e-6, abs=1e-12)


@given(RUNS)
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
    assert found.surplus_of_killed_bytes == pytest.approx(LEAST_EXCESS_OF_KILLED * 1000 * MIB)


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
