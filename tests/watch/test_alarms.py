"""Pressure: when all tasks waited for long enough, and when the next alarm of a cgroup is due."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic.sample_series import MIB, SECOND_NS, START_NS, batch, cut, series

from tracer.live.alarm import Alarm, AllWaited, LimitHit
from tracer.schema import UNLIMITED_BYTES
from tracer.watch.alarms import MOST, WITHIN_NS, Alarms, LimitHits, Pressure


def leak(begin: float = 0) -> pa.RecordBatch:
    """Return samples of a leak that hits a limit of 100 MiB after 16 s."""
    return series(
        lambda at: {"anon": 20 + 5 * (at - begin), "max_events": 3 if at - begin > 15.9 else 0},
        16,
        begin=begin,
    )


@pytest.mark.parametrize(
    ("kinds", "reasons"),
    [
        ({"soon"}, ["soon"]),
        ({"limit"}, ["limit"]),
        ({"kill", "limit", "soon"}, ["soon", "limit"]),
        ({"kill"}, []),
    ],
)
def test_alarms_are_only_of_the_kinds_that_were_asked_for(kinds: set[str], reasons: list[str]) -> None:
    found = Alarms(frozenset(kinds)).take(leak(), START_NS)
    assert [alarm.reason for alarm in found] == reasons


def test_sigkills_are_alarms_only_if_that_was_asked_for_and_within_the_bound() -> None:
    assert not Alarms(frozenset({"soon"})).takes_sigkill(START_NS)
    alarms = Alarms(frozenset({"sigkill"}))
    assert [alarms.takes_sigkill(START_NS + turn) for turn in range(MOST + 2)] == [True] * MOST + [False] * 2
    assert alarms.suppressed == {"sigkill": 2}
    assert alarms.takes_sigkill(START_NS + WITHIN_NS + MOST)
    assert alarms.take(leak(), START_NS) == []


def test_batch_without_rows_gives_no_alarm() -> None:
    assert Alarms(frozenset({"soon", "limit"})).take(leak().slice(0, 0), START_NS) == []


def test_cgroup_without_a_limit_gives_no_alarm_until_it_has_one() -> None:
    alarms = Alarms(frozenset({"soon", "limit"}))
    unlimited = series(lambda at: {"anon": 20 + 5 * at, "max_events": 1 if at < 8 else 3}, 16, np.inf)
    assert alarms.take(unlimited, START_NS) == []
    assert len(alarms.take(leak(17), START_NS)) == 2


def test_alarms_of_many_cgroups_are_bounded_and_the_others_counted() -> None:
    count = 3 * MOST
    alarms = Alarms(frozenset({"limit"}))

    def take(turn: int, now_ns: int) -> int:
        samples = batch(
            count,
            time=START_NS + turn * 3600 * SECOND_NS,
            cgroup_id=np.arange(count),
            usage_bytes=100 * MIB,
            limit_bytes=100 * MIB,
            max_events=turn,
        )
        return len(alarms.take(samples, now_ns))

    assert take(0, 0) == 0
    assert take(1, SECOND_NS) == MOST
    assert take(2, WITHIN_NS) == 0
    assert alarms.suppressed == {"limit": 2 * count - MOST}
    assert take(3, WITHIN_NS + SECOND_NS) == MOST


@pytest.mark.parametrize(("killed", "after_s", "reasons"), [
    ((3, 7), 17, []),
    ((7,), 17, []),
    ((3,), 17, ["soon", "limit"]),
    ((7,), -1, ["soon", "limit"]),
])  # fmt: skip
def test_alarm_for_samples_from_before_a_known_kill_is_not_given(
    killed: tuple[int, ...], after_s: int, reasons: list[str]
) -> None:
    alarms = Alarms(frozenset({"soon", "limit"}))
    samples = leak()
    assert samples.column("cgroup_id").to_pylist()[0] == 7
    alarms.killed(killed, START_NS + after_s * SECOND_NS)
    assert [alarm.reason for alarm in alarms.take(samples, START_NS)] == reasons
    assert alarms.suppressed == {"soon": 0, "limit": 0}


def test_forgotten_cgroup_begins_anew() -> None:
    alarms = Alarms(frozenset({"soon", "limit"}))
    assert len(alarms.take(leak(), 0)) == 2
    assert alarms.take(leak(17), 0) == []
    alarms.forget(iter([7]))
    assert len(alarms.take(leak(34), 0)) == 2


def test_alarms_import_neither_pandas_nor_compute_functions() -> None:
    program = (
        "import sys\n"
        "from tracer.trace.arrow_columns import rows_of\n"
        "from tracer.watch.alarms import Alarms\n"
        "from tracer.schema import TABLES\n"
        "row = dict.fromkeys(TABLES['samples'].names) | {'source': 'oom', 'time': 1, 'cgroup_id': 7}\n"
        "samples = rows_of('samples', [row, row | {'usage_bytes': 9, 'limit_bytes': 9, 'file_bytes': 0}])\n"
        "Alarms(frozenset({'soon', 'limit'})).take(samples, 1)\n"
        "print({'pandas', 'pyarrow.compute'} & {*sys.modules})\n"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert printed.stdout == "set()\n"


TENTH_NS = SECOND_NS // 10


def hits_of(usage: list[float], every_ns: int = TENTH_NS, **columns: Any) -> list[Alarm]:
    """Return the alarms of samples of cgroup 7, a tenth of a second apart, below a limit of 100 MiB."""
    given: dict[str, Any] = {"limit_bytes": 100 * MIB, "high_bytes": UNLIMITED_BYTES} | columns
    samples = batch(
        len(usage),
        time=START_NS + np.arange(len(usage)) * every_ns,
        cgroup_id=7,
        usage_bytes=(np.array(usage) * MIB).astype(np.int64),
        **given,
    )
    return list(LimitHits().take(samples))


def test_rise_of_max_events_gives_an_alarm_with_its_numbers() -> None:
    (alarm,) = hits_of([99, 100, 99.5, 99.5], max_events=[4, 4, 41, 41])
    numbers = LimitHit(
        is_high=False, limit_bytes=100 * MIB, usage_bytes=int(99.5 * MIB), within_s=0.1, times=37
    )
    assert alarm == Alarm("limit", 7, START_NS + 2 * TENTH_NS, numbers)


def test_rise_of_high_events_gives_an_alarm_with_its_numbers() -> None:
    (alarm,) = hits_of([79, 80], high_bytes=80 * MIB, high_events=[0, 1], max_events=0)
    assert alarm.numbers == LimitHit(
        is_high=True, limit_bytes=80 * MIB, usage_bytes=80 * MIB, within_s=0.1, times=1
    )


@pytest.mark.parametrize("name", ["max_events", "high_events"])
def test_first_sample_of_a_cgroup_is_only_compared_with(name: str) -> None:
    assert hits_of([100], **{name: 5}) == []


def test_hits_of_a_descendant_give_the_ancestor_no_alarm() -> None:
    """memory.events of v2 is hierarchical."""
    assert hits_of([50, 50], max_events=[0, 9]) == []
    assert hits_of([100, 100], max_events=[0, 9], limit_bytes=UNLIMITED_BYTES) == []
    assert hits_of([100, 100], high_events=[0, 9], max_events=0) == []


def test_hit_is_found_although_usage_fell_since() -> None:
    """A process that was killed, or exited, frees its memory within the tenth of a second."""
    (alarm,) = hits_of([10, 10], max_events=[0, 1], peak_bytes=[60 * MIB, 100 * MIB])
    assert isinstance(alarm.numbers, LimitHit)
    assert (alarm.numbers.limit_bytes, alarm.numbers.times) == (100 * MIB, 1)
    assert hits_of([10, 10], max_events=[0, 1], peak_bytes=100 * MIB) == []


@pytest.mark.parametrize(("sources", "kills", "counted"), [
    (["periodic", "oom", *["periodic"] * 3], None, [0, 37, 39, 1968, 1968]),
    (["periodic", "oom", *["periodic"] * 3], None, [0, None, 39, 39, 1968]),
    (["periodic"] * 5, [2, 2, 3, 3, 3], [0, 0, 39, 39, 1968]),
])  # fmt: skip
def test_hits_of_a_kill_give_no_alarm(
    sources: list[str], kills: list[int] | None, counted: list[int | None]
) -> None:
    """The samples of a kill come before its report, and the victim takes a while to end."""
    columns: dict[str, Any] = {"source": sources, "oom_kill_events": kills}
    usage = [99, 100, 100, 0.2, 100]
    assert hits_of(usage, max_events=pa.array(counted), **columns) == []
    (alarm,) = hits_of(usage, SECOND_NS, max_events=pa.array([*counted[:3], 39, 1 << 20]), **columns)
    assert alarm.time_ns == START_NS + 4 * SECOND_NS


def test_limit_whose_hits_are_not_counted_is_hit_when_reclaim_works_at_it() -> None:
    (alarm,) = hits_of([90, 98.5, 98.5], pgscan=[0, 0, 1203])
    assert isinstance(alarm.numbers, LimitHit)
    assert (alarm.numbers.times, alarm.numbers.scanned_pages) == (None, 1203)
    assert hits_of([90, 90], pgscan=[0, 1203]) == []


def test_sample_without_counts_is_passed_over() -> None:
    """That of a kill has none if the cgroup has children."""
    (alarm,) = hits_of([99, 100, 100], max_events=pa.array([4, None, 5]), pgscan=pa.array([7, None, 7]))
    assert alarm.time_ns == START_NS + 2 * TENTH_NS


def seconds_of(alarms: list[Alarm]) -> list[float]:
    return [(alarm.time_ns - START_NS) / SECOND_NS for alarm in alarms]


def test_cgroup_that_hits_its_limit_all_day_gives_ever_fewer_alarms() -> None:
    hits = 5 * 3600
    alarms = seconds_of(hits_of([100] * hits, SECOND_NS, max_events=np.arange(hits)))
    assert alarms[0] == 1
    assert np.diff(alarms).tolist() == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]


def test_hits_after_ten_minutes_without_one_give_an_alarm_again() -> None:
    goes_on, again = np.arange(300), np.arange(600)
    events = np.concatenate([goes_on, np.full(600, goes_on[-1]), goes_on[-1] + 1 + again])
    alarms = seconds_of(hits_of([100] * len(events), SECOND_NS, max_events=events))
    assert alarms == [1, 61, 181, 900, 960, 1080, 1320]


def test_cgroups_are_told_apart_and_forgotten() -> None:
    def sample(turn: int, events: list[int]) -> Any:
        return batch(
            2,
            time=START_NS + turn * TENTH_NS,
            cgroup_id=[7, 8],
            usage_bytes=100 * MIB,
            limit_bytes=100 * MIB,
            max_events=events,
        )

    hits = LimitHits()
    assert list(hits.take(sample(0, [1, 5]))) == []
    assert [alarm.cgroup_id for alarm in hits.take(sample(1, [1, 6]))] == [8]
    hits.forget([7])
    assert list(hits.take(sample(2, [2, 6]))) == []
    assert [alarm.cgroup_id for alarm in hits.take(sample(3, [3, 7]))] == [7]


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


def test_alarm_has_the_time_and_usage() -> None:
    (alarm,) = Pressure(20).take(waits(lambda at: 0.25 * (at >= 20), 40))
    assert (alarm.reason, alarm.cgroup_id) == ("pressure", 7)
    assert isinstance(alarm.numbers, AllWaited)
    assert 2 <= alarm.numbers.waited_s < 3
    assert (alarm.numbers.usage_bytes, alarm.numbers.limit_bytes) == (99 * MIB, 100 * MIB)


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
