"""The search against models of commands whose least limits are known."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.errors import TracerError
from tracer.fit import search
from tracer.fit.driver import found
from tracer.fit.search import Bounds, Run

MIB = 1 << 20
ANYWHERE = Bounds(None, None, 0.1)


def run(
    limit_bytes: int | None,
    status: int | None = 0,
    wall_s: float = 1.0,
    peak_bytes: int = 300 * MIB,
    lost_share: float | None = None,
) -> Run:
    return Run(limit_bytes, status, wall_s, 0, int(status == 137), peak_bytes, "run", lost_share)


def searched(need: int, comfort: int, peak: int, bounds: Bounds = ANYWHERE) -> list[Run]:
    """Return the runs of a search for a command that is killed below `need`, and slow below `comfort`."""
    runs: list[Run] = []
    while (attempt := search.next_attempt(runs, bounds)) is not None:
        limit = attempt.limit_bytes
        lives, is_fast = (limit is None or limit >= least for least in (need, comfort))
        runs.append(run(limit, 0 if lives else 137, 1.0 if is_fast else 1.5, peak))
        assert len(runs) < 60
    return runs


sizes = st.lists(st.integers(MIB, 64 << 30), min_size=3, max_size=3).map(sorted)


@given(sizes)
def test_both_limits_are_found_within_the_precision(needs: list[int]) -> None:
    need, comfort, peak = needs
    runs = searched(need, comfort, peak)
    result = found(runs, ANYWHERE)
    assert result.is_complete
    for answer, truth in ((result.least_limit_bytes, need), (result.comfortable_limit_bytes, comfort)):
        assert answer is not None
        assert 0 <= answer - truth <= search.precision_bytes(answer)
        assert sum(one.limit_bytes == answer for one in runs) >= search.CONFIRMING_RUNS


@given(sizes, st.integers(0, 40))
def test_interrupted_search_goes_on_as_if_it_was_not(needs: list[int], kept: int) -> None:
    runs = searched(needs[0], needs[1], needs[2])
    part = runs[:kept]
    attempt = search.next_attempt(part, ANYWHERE)
    assert (attempt and attempt.limit_bytes) == (runs[kept].limit_bytes if kept < len(runs) else None)


def test_limit_at_which_one_of_two_runs_fails_fails() -> None:
    runs = [run(None)] * 3 + [run(200 * MIB), run(100 * MIB), run(100 * MIB, 137)]
    assert search.interval(runs, search.succeeds) == search.Interval(100 * MIB, 200 * MIB)


def test_success_below_a_failure_is_no_answer() -> None:
    runs = [run(None)] * 3 + [run(200 * MIB), run(100 * MIB, 137), run(50 * MIB)]
    assert search.interval(runs, search.succeeds) == search.Interval(100 * MIB, 200 * MIB)


def test_nothing_that_passes_has_no_answer() -> None:
    bounds = Bounds(None, 50 * MIB, 0.1)
    runs = searched(60 * MIB, 60 * MIB, 300 * MIB, bounds)
    result = found(runs, bounds)
    assert (result.least_limit_bytes, result.comfortable_limit_bytes, result.is_complete) == (
        None,
        None,
        True,
    )
    assert result.least == search.Interval(50 * MIB, None)


def test_no_limit_below_the_lower_bound_is_tried() -> None:
    bounds = Bounds(80 * MIB, None, 0.1)
    runs = searched(30 * MIB, 30 * MIB, 300 * MIB, bounds)
    assert min(one.limit_bytes for one in runs if one.limit_bytes) == 80 * MIB
    assert found(runs, bounds).least_limit_bytes == 80 * MIB


def test_doubtful_time_is_measured_again_until_the_median_decides() -> None:
    runs = [run(None)] * 4 + [run(search.upper_bytes([run(None)], ANYWHERE)), run(150 * MIB, wall_s=1.12)]
    for wall_s in (1.08, 1.07):
        attempt = search.next_attempt(runs, ANYWHERE)
        assert attempt is not None
        assert attempt.limit_bytes == 150 * MIB
        runs.append(run(150 * MIB, wall_s=wall_s))
    by = search.yardstick(runs, ANYWHERE)
    assert by is not None
    assert not by.is_slow(runs[5:], ANYWHERE)


def test_run_that_was_ended_does_not_succeed() -> None:
    assert not search.succeeds([run(MIB, status=None)])


@given(need=st.integers(20, 90), comfort=st.integers(0, 60), noise=st.randoms(use_true_random=False))
def test_unsteady_times_leave_the_answer_to_the_lost_time(
    need: int, comfort: int, noise: random.Random
) -> None:
    """Below `comfort` above its need, the command loses 30 % of its time, whatever time a run takes."""
    runs: list[Run] = []
    while (attempt := search.next_attempt(runs, ANYWHERE)) is not None:
        limit, wall_s = attempt.limit_bytes, noise.choice([1.0, 1.4, 2.2])
        if limit is None:
            runs.append(run(None, wall_s=1.0 + 0.4 * len(runs), lost_share=0.0))
        else:
            lives, is_fast = limit >= need * MIB, limit >= (need + comfort) * MIB
            runs.append(run(limit, 0 if lives else 137, wall_s, lost_share=0.004 if is_fast else 0.3))
        assert len(runs) < 60
    result = found(runs, ANYWHERE)
    assert (result.is_complete, result.by and result.by.name) == (True, "lost_share")
    for answer, truth in (
        (result.least_limit_bytes, need * MIB),
        (result.comfortable_limit_bytes, (need + comfort) * MIB),
    ):
        assert answer is not None
        assert 0 <= answer - truth <= search.precision_bytes(answer)


def test_slowdown_by_lost_time_is_beside_the_other_time() -> None:
    by = search.Yardstick("lost_share", 1.0)
    assert by.slowdown(run(MIB, wall_s=9.0, lost_share=0.2)) == pytest.approx(0.25)
    assert by.slowdown(run(MIB, lost_share=0.0)) == 0
    assert by.slowdown(run(MIB, lost_share=1.0)) == math.inf
    assert by.slowdown(run(MIB, lost_share=None)) == math.inf


def test_unsteady_times_without_known_lost_time_have_no_comfortable_limit_and_cost_no_runs() -> None:
    runs = [run(None), run(None), run(None, wall_s=1.3), run(None)]
    while (attempt := search.next_attempt(runs, ANYWHERE)) is not None:
        runs.append(run(attempt.limit_bytes, wall_s=1.5))
    result = found(runs, ANYWHERE)
    assert (result.is_complete, result.by, result.comfortable_limit_bytes) == (True, None, None)
    assert result.comfortable == search.Interval(None, None)
    assert result.least_limit_bytes is not None
    assert result.unlimited_spread > ANYWHERE.slowdown


def test_slow_run_that_chance_made_is_run_again_and_does_not_decide() -> None:
    runs: list[Run] = []
    while (attempt := search.next_attempt(runs, ANYWHERE)) is not None:
        is_first_below = sum(one.limit_bytes is not None for one in runs) == 1
        lives = attempt.limit_bytes is None or attempt.limit_bytes >= 90 * MIB
        runs.append(run(attempt.limit_bytes, 0 if lives else 137, 3.0 if is_first_below else 1.0))
        assert len(runs) < 60
    result = found(runs, ANYWHERE)
    assert result.comfortable_limit_bytes is not None
    assert 0 <= result.comfortable_limit_bytes - 90 * MIB <= MIB


def test_time_of_the_warm_up_does_not_count() -> None:
    runs = [run(None, wall_s=9.0), run(None, wall_s=1.0), run(None, wall_s=1.02), run(None, wall_s=1.01)]
    assert search.yardstick(runs, ANYWHERE) == search.Yardstick("wall_s", 1.01)
    assert search.yardstick(runs[:1], ANYWHERE) == search.Yardstick("wall_s", 9.0)


def test_upper_bound_has_room_for_a_usage_that_differs_from_run_to_run() -> None:
    runs = [run(None, peak_bytes=300 * MIB), run(None, peak_bytes=310 * MIB)]
    assert search.upper_bytes(runs, ANYWHERE) > 320 * MIB
    assert search.upper_bytes(runs, Bounds(None, 99 * MIB, 0.1)) == 99 * MIB


def test_kernel_without_the_highest_usage_needs_an_upper_bound() -> None:
    runs = [Run(None, 0, 1.0, 0, 0, None, "run")] * search.UNLIMITED_RUNS
    with pytest.raises(TracerError, match="add --to"):
        search.next_attempt(runs, ANYWHERE)
    assert search.next_attempt(runs, Bounds(None, MIB, 0.1)) == search.Attempt(MIB)
