"""Pressure: when all tasks waited for long enough, and when the next alarm of a cgroup is due."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic.sample_series import MIB, SECOND_NS, START_NS, batch, cut

from tracer.watch.alarms import MOST, Alarms
from tracer.watch.signs.pressure import Pressure


def waits(share: Callable[[float], float], seconds: float, *, is_sparse: bool = False) -> pa.RecordBatch:
    """Return samples of cgroup 7, ten a second, whose tasks wait for `share` of each tenth of a second.

    `is_sparse`: without those that are equal to the one before.
    """
    at = np.arange(round(seconds * 10) + 1) / 10
    grown = np.array([0, *(round(share(float(moment)) * 100_000) for moment in at[:-1])])
    kept = np.flatnonzero((grown > 0) | (at == 0)) if is_sparse else np.arange(len(at))
    return batch(
        len(kept),
        time=START_NS + np.round(at[kept] * 1e9).astype(np.int64),
        cgroup_id=7,
        usage_bytes=99 * MIB,
        effective_limit_bytes=100 * MIB,
        psi_full_total_us=(grown.cumsum() + 5_000_000)[kept],
    )


def moments(samples: pa.RecordBatch, percent: float = 20) -> list[float]:
    """Return the seconds at which alarms are given."""
    return [round((one.time_ns - START_NS) / 1e9, 1) for one in Pressure(percent).take(samples)]


@pytest.mark.parametrize("is_sparse", [False, True])
def test_alarm_comes_when_the_share_of_ten_seconds_is_reached(is_sparse: bool) -> None:
    """All tasks wait all the time from 20 s on: 2 s later, that is 20 % of 10 s, and 2.2 s of 11 s."""
    (moment,) = moments(waits(lambda at: float(at >= 20), 60, is_sparse=is_sparse))
    assert 22 <= moment <= 22.2


def test_sentence_has_the_time_and_usage() -> None:
    (alarm,) = Pressure(20).take(waits(lambda at: 0.25 * (at >= 20), 40))
    assert (alarm.reason, alarm.cgroup_id) == ("pressure", 7)
    assert alarm.sentence.startswith("All tasks waited for memory at the same time for 2")
    assert alarm.sentence.endswith("; usage is 99 MiB of 100 MiB.")


def test_less_than_the_threshold_gives_no_alarm() -> None:
    assert moments(waits(lambda _: 0.19, 120)) == []
    assert len(moments(waits(lambda _: 0.21, 120))) == 1


@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize(("rest_s", "alarms"), [(30, 1), (60, 2)])
def test_next_alarm_needs_a_calm_of_half_a_minute(rest_s: int, alarms: int, is_sparse: bool) -> None:
    """Tasks wait for 15 s, then not at all: up to 10 s later, those are within the last 10 s."""
    samples = waits(lambda at: float(at < 15 or at >= 15 + rest_s), 40 + rest_s, is_sparse=is_sparse)
    assert len(moments(samples)) == alarms


def test_share_between_half_and_all_of_the_threshold_does_not_rearm() -> None:
    def share(at: float) -> float:
        return 0.5 if at < 15 or at > 100 else 0.15

    assert len(moments(waits(share, 130))) == 1


@settings(max_examples=30)
@given(
    shares=st.lists(st.sampled_from([0, 0, 0.1, 0.3, 1]), min_size=1, max_size=20), size=st.integers(1, 60)
)
def test_batches_do_not_matter_and_no_alarm_is_early(shares: list[float], size: int) -> None:
    samples = waits(lambda at: shares[int(at // 5)], 5 * len(shares) - 0.1)
    whole = list(Pressure(25).take(samples))
    pressure = Pressure(25)
    assert [one for part in cut(samples, [size]) for one in pressure.take(part)] == whole
    times, totals = (
        samples.column(name).cast(pa.int64()).to_pylist() for name in ("time", "psi_full_total_us")
    )
    for alarm in whole:
        waited = totals[times.index(alarm.time_ns)] - max(
            [
                total
                for time, total in zip(times, totals, strict=True)
                if time <= alarm.time_ns - 11 * SECOND_NS
            ],
            default=totals[0],
        )
        assert waited >= 0.25 * 10_000_000


def test_cgroup_without_pressure_gives_nothing() -> None:
    samples = batch(3, time=START_NS + np.arange(3), cgroup_id=np.arange(3), usage_bytes=1)
    assert list(Pressure(1).take(samples)) == []


def test_forgotten_cgroup_is_new() -> None:
    pressure = Pressure(20)
    samples = waits(lambda _: 1.0, 12)
    assert len(list(pressure.take(samples))) == 1
    assert list(pressure.take(samples.slice(len(samples)))) == []
    pressure.forget([7, 8])
    assert len(list(pressure.take(samples))) == 1


def test_alarms_include_pressure_of_cgroups_without_a_limit_and_are_bounded() -> None:
    alarms = Alarms(frozenset(), psi_percent=20)
    count = 3 * MOST
    found = [
        alarms.take(
            batch(
                count,
                time=START_NS + turn * SECOND_NS,
                cgroup_id=np.arange(count),
                usage_bytes=MIB,
                psi_full_total_us=turn * 900_000,
            ),
            START_NS,
        )
        for turn in range(6)
    ]
    assert [one.reason for listed in found for one in listed] == ["pressure"] * MOST
    assert alarms.suppressed == {"pressure": count - MOST}
