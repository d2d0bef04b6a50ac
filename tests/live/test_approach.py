"""The moments at which the processes of a cgroup are looked at, on known ways to a limit."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic.sample_series import SECOND_NS, START_NS, cut, joined, series

from tracer.live.approach import Approach

Looks = list[tuple[float, int]]


def looks_of(samples: pa.RecordBatch, sizes: tuple[int, ...] = (2,)) -> Looks:
    """Return (seconds, cgroup) of each look; the samples come in batches of these sizes."""
    approach, found = Approach(), []
    for part in cut(samples, sizes):
        at = (part.column("time").cast(pa.int64())[-1].as_py() - START_NS) / SECOND_NS
        found += [(at, cgroup_id) for cgroup_id in approach.take(part, 0)]
    return found


def seconds(samples: pa.RecordBatch) -> list[float]:
    return [at for at, _ in looks_of(samples, (1,))]


def leak(rate: float, begin: float = 0.0, cache: float = 0.0) -> Callable[[float], dict[str, float]]:
    return lambda at: {"anon": min(begin + rate * at, 100.0), "file": max(min(cache, 100 - rate * at), 0)}


def test_leak_is_looked_at_each_second_from_the_last_quarter_on() -> None:
    found = seconds(series(leak(5), 20))
    assert found[0] == pytest.approx(15.1)
    *steady, last = [later - earlier for earlier, later in pairwise(found)]
    assert all(lasts == pytest.approx(1) for lasts in steady)
    assert 0.25 <= last < 1.01, "of the last half second"
    assert 18.9 <= found[-1] <= 20


def test_cache_that_gives_way_is_no_end() -> None:
    found = seconds(series(leak(5, cache=60), 20))
    assert found[0] == pytest.approx(15.1)
    assert seconds(series(lambda at: {"anon": 10, "file": min(90, 30 * at)}, 20)) == []


def test_slow_leak_is_looked_at_for_each_step_of_the_limit() -> None:
    found = seconds(series(leak(0.5, begin=70), 60))
    assert len(found) == 8, "a quarter of the limit has eight steps"
    assert found[0] == pytest.approx(10.1)


def test_growth_within_two_seconds_is_looked_at_late() -> None:
    first, *more = seconds(series(leak(50), 2))
    assert 1.4 <= first < 2
    assert len(more) <= 2


def test_growth_within_half_a_second_is_looked_at_at_once() -> None:
    assert seconds(series(leak(300), 0.4))[0] == pytest.approx(0.1), "the end would be 0.23 s later"


def test_start_that_is_followed_by_growth_within_a_second_is_looked_at_again() -> None:
    """A program that grows fast when it starts seems to be at its end, and then it is."""
    found = seconds(series(lambda at: {"anon": min(300 * at, 30) + 60 * at}, 1.2))
    assert found[0] < 0.3
    assert any(100 - 30 - 60 * at < 25 for at in found), found


def test_cgroup_that_stays_near_its_limit_is_looked_at_twice_a_minute() -> None:
    def near(at: float) -> dict[str, float]:
        return {"anon": 85 + 9 * (int(at * 10) % 7) / 6}

    found = seconds(series(near, 120))
    assert 4 <= len(found) <= 8


def test_cgroup_that_came_away_is_looked_at_anew() -> None:
    def after_a_kill(at: float) -> dict[str, float]:
        return {"anon": at % 10 * 10}

    found = seconds(series(after_a_kill, 40))
    for begin in (0, 10, 20, 30):
        assert any(begin + 7 < at < begin + 10 for at in found)


def test_cgroup_without_a_limit_is_not_looked_at() -> None:
    assert seconds(series(leak(5), 20, np.inf)) == []


def test_cgroup_with_the_least_left_comes_first() -> None:
    both = joined(
        series(lambda at: {"anon": 90.0}, 0.2, cgroup_id=7),
        series(lambda at: {"anon": 95.0}, 0.2, cgroup_id=8),
    )
    assert [cgroup_id for _, cgroup_id in looks_of(both, (len(both),))] == [8, 7]


def test_forgotten_cgroup_begins_anew() -> None:
    approach, samples = Approach(), series(lambda at: {"anon": 90.0}, 0.1)
    assert approach.take(samples, 0) == [7]
    assert approach.take(samples, 0) == []
    approach.forget([7])
    assert len(approach.states) == 0
    assert approach.take(samples, 0) == [7]


@given(
    st.lists(st.integers(0, 110), min_size=2, max_size=200),
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
)
def test_looks_are_apart_however_samples_are_cut(levels: list[int], sizes: list[int]) -> None:
    def shape(at: float) -> dict[str, Any]:
        return {"anon": levels[min(round(at * 10), len(levels) - 1)], "file": 5.0}

    samples = series(shape, (len(levels) - 1) / 10)
    each = seconds(samples)
    assert all(later - earlier > 0.24 for earlier, later in pairwise(each))
    assert [bool(found) for found in (looks_of(samples, tuple(sizes)), each)] in ([True] * 2, [False] * 2)
