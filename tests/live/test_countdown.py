"""The countdown, on series with the shapes of recorded ones: when it gives an alarm, and when it must not."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic.sample_series import MIB, SECOND_NS, START_NS, batch, cut, joined, series

from tracer.live.alarm import Alarm, UsedUpSoon
from tracer.live.countdown import Countdown, cushions
from tracer.schema import UNLIMITED_BYTES

V1 = {"soft_limit_bytes": UNLIMITED_BYTES}


def left_of(free_swap: int = 0, **sizes: Any) -> float | None:
    """Return the cushion in MiB of a cgroup with a limit of 100 MiB, a usage of 90 and nothing else."""
    given = {"usage": 90, "limit": 100, "effective_limit": 100, "file": 0} | sizes
    columns = {
        name if name.endswith("_bytes") else f"{name}_bytes": size if name.endswith("_bytes") else size * MIB
        for name, size in given.items()
        if size is not None
    }
    found = cushions(batch(1, time=0, cgroup_id=7, **columns), free_swap * MIB)
    return float(found.left[0]) / MIB if found.is_known[0] else None


@pytest.mark.parametrize(
    ("sizes", "left"),
    [
        ({"anon": 90}, 10),
        ({"file": 40, "inactive_file": 30, "active_file": 10}, 50),
        ({"file": 40, "inactive_file": 30, "active_file": 10, "file_dirty": 20}, 50),
        ({"file": 40, "shmem": 40, "inactive_anon": 40}, 10),
        ({"file": 40, "unevictable": 40}, 10),
        ({"file": 40, "shmem": 10, "unevictable": 5}, 35),  # no page on the lists: reclaim isolated them
        ({"file": 0, "inactive_file": 20}, 30),  # MADV_FREE
        ({"slab_reclaimable": 40}, 30),
        ({"file": 80, "inactive_file": 80, "protected": 45}, 50),
        ({"effective_limit": 95}, 5),
        ({"usage": 101}, 0),
    ],
)
def test_cushion_is_the_room_and_what_reclaim_can_free(sizes: dict[str, int], left: float) -> None:
    assert left_of(**sizes) == left


@pytest.mark.parametrize(
    ("sizes", "left"),
    [
        ({"swap_room": 1000}, 70),
        ({"swap_room": 15}, 25),
        ({"swap_room_bytes": UNLIMITED_BYTES}, 70),
        ({}, 70),  # swap is not counted here
        ({"free_swap": 7, "swap_room": 1000}, 17),
        ({"free_swap": 0, "swap_room": 1000}, 10),
        ({"swap_room": 0}, 10),
        ({"swap_room": 1000} | V1, 70),
        ({"swap_room": 12} | V1, 12),  # of memory and swap together
        ({"swap_room": 12, "file": 5, "inactive_file": 5} | V1, 17),
        (V1, 70),
    ],
)
def test_anonymous_memory_counts_as_far_as_swap_has_room(sizes: dict[str, Any], left: float) -> None:
    assert left_of(**{"free_swap": 1000, "inactive_anon": 50, "active_anon": 10} | sizes) == left


@pytest.mark.parametrize(
    "sizes",
    [
        {"limit_bytes": UNLIMITED_BYTES, "effective_limit_bytes": UNLIMITED_BYTES, "limit": None}
        | {"effective_limit": None},
        {"limit": None, "effective_limit": None},
        {"usage": None},
        {"file": None},
    ],
)
def test_cushion_without_a_limit_or_statistics_is_not_known(sizes: dict[str, Any]) -> None:
    assert left_of(**sizes) is None


def alarms_of(*parts: pa.RecordBatch, countdown: Countdown | None = None, swap: int = 0) -> list[Alarm]:
    countdown = countdown or Countdown(free_swap=lambda: swap)
    return [alarm for part in parts for one in cut(part, [40]) for alarm in countdown.take(one)]


def seconds_of(alarms: list[Alarm]) -> list[float]:
    return [(alarm.time_ns - START_NS) / SECOND_NS for alarm in alarms]


def growth(rate: float, base: float = 20, most: float = math.inf, since: float = 0) -> Any:
    """Return a shape: anon grows by MiB a second from `base` to `most`."""
    return lambda at: {"anon": min(base + max(at - since, 0) * rate, most)}


def page_cache(at: float) -> dict[str, float]:
    """Fill the limit of 100 MiB with cache in 0.8 s, then replace it by anon within 0.8 s."""
    anon = 7 + max(at - 0.8, 0) * 116
    return {"anon": anon, "file": min(at * 116, 93, max(100 - anon, 0))}


def test_page_cache_experiment_gives_one_alarm_before_the_kill() -> None:
    (alarm,) = alarms_of(series(page_cache, 1.6))
    assert alarm.reason == "soon"
    assert alarm.cgroup_id == 7
    assert 1.2 < seconds_of([alarm])[0] <= 1.5
    numbers = alarm.numbers
    assert isinstance(numbers, UsedUpSoon)
    assert (numbers.limit_bytes, numbers.room_bytes, numbers.lasted_s) == (100 * MIB, 0, 0.5)
    assert numbers.left_bytes == numbers.cache_bytes
    assert numbers.rate == pytest.approx(116 * MIB, rel=0.01)
    assert numbers.left_s == pytest.approx(numbers.left_bytes / numbers.rate)


@pytest.mark.parametrize(
    ("rate", "limit", "least", "most"),
    [(5, 200, 6, 10), (1, 100, 8, 10), (50, 200, 0.2, 1), (0.2, 40, 8, 10)],
)
def test_leak_gives_one_alarm_seconds_before_the_kill(
    rate: float, limit: float, least: float, most: float
) -> None:
    life = (limit - 20) / rate
    (at,) = seconds_of(alarms_of(series(growth(rate), life, limit)))
    assert least <= life - at <= most


def test_alarm_comes_earlier_if_samples_are_far_apart() -> None:
    """A recorder that gets little CPU takes a sample each half second: two more may be all that come."""
    leak, life = growth(14), 80 / 14
    (often,) = seconds_of(alarms_of(series(leak, life)))
    (seldom,) = seconds_of(alarms_of(series(leak, life, every=0.5)))
    assert 0.2 <= life - often <= 0.4
    assert life - seldom == pytest.approx(10 / 14)


def test_leak_that_evicts_cache_gives_one_alarm_seconds_before_the_kill() -> None:
    leak = series(lambda at: {"anon": 20 + 5 * at, "file": 180 - 5 * at}, 36, 200)
    (at,) = seconds_of(alarms_of(leak))
    assert 6 <= 36 - at <= 10


@pytest.mark.parametrize("kind", ["shmem", "kernel", "unevictable"])
def test_growth_of_other_memory_that_reclaim_cannot_free_gives_an_alarm(kind: str) -> None:
    def shape(at: float) -> dict[str, float]:
        size = 20 + 5 * at
        return {kind: size} if kind == "kernel" else {kind: size, "file": size}

    (at,) = seconds_of(alarms_of(series(shape, 36, 200)))
    assert 6 <= 36 - at <= 10


def test_thrashing_cache_at_the_limit_gives_no_alarm() -> None:
    samples = series(lambda at: {"anon": 7, "file": min(320 * at, 32 - at * 10 % 3)}, 10, 40)
    assert alarms_of(samples) == []


def test_page_cache_that_fills_the_limit_gives_no_alarm() -> None:
    assert alarms_of(series(lambda at: {"anon": 5, "file": min(50 * at, 95), "file_dirty": 20}, 5)) == []


@pytest.mark.parametrize(("share", "seconds"), [(0.6, 2), (0.85, 2), (0.85, 8), (0.85, 0.4), (0.75, 60)])
def test_start_up_that_ends_below_the_limit_gives_no_alarm(share: float, seconds: float) -> None:
    most = share * 200
    assert alarms_of(series(growth(most / seconds, 0, most), seconds + 20, 200)) == []


def test_start_up_that_slows_down_below_the_limit_gives_no_alarm() -> None:
    """At the present pace, it would use up the limit within 10 s from 4.5 s on. It ends with 4 MiB left."""

    def shape(at: float) -> dict[str, float]:
        return {"anon": 96 * (1 - math.exp(-at / 2.5))}

    assert alarms_of(series(shape, 25)) == []


def test_garbage_that_is_collected_in_time_gives_one_alarm() -> None:
    """It leaves 4 MiB, and 5 MiB each 2.8 s later. A rate measured across the two lows is no growth."""

    def shape(at: float) -> dict[str, float]:
        return {"anon": min(70 + 9.3 * (at % 2.8), 96 if at < 2.8 else 95)}

    assert len(alarms_of(series(shape, 28))) == 1


def test_start_up_that_evicts_two_thirds_of_a_full_limit_gives_no_alarm() -> None:
    def shape(at: float) -> dict[str, float]:
        anon = 7 + min(max(at - 1, 0) * 100, 190)
        return {"anon": anon, "file": 300 - anon}

    assert alarms_of(series(shape, 12, 300)) == []


def database(at: float) -> dict[str, float]:
    """Fill 72 MiB of shared buffers, then serve at a full limit of 160 MiB: connections come and go, cache
    churns, a checkpoint every 30 s writes what is dirty, and every 17 s a query sorts 45 MiB, most of them
    within a tenth of a second.
    """
    connections = 3 + 8 * (int(at * 10) % 7 / 6) if at % 13 > 7 else 11
    into_query = at % 17 - 13
    query = min(28 + 14 * into_query / 0.5, 42 + into_query, 45) if into_query > 0.05 else 0
    anon, shmem, kernel = 5 + connections + query, min(15 * at, 72), 5
    cache = 160 - anon - shmem - kernel - (3 if int(at * 7) % 4 == 0 else 0)
    dirty = min(at % 30, 20)
    return {"anon": anon, "shmem": shmem, "kernel": kernel, "file": shmem + cache, "file_dirty": dirty}


def test_steady_database_at_its_limit_gives_no_alarm() -> None:
    assert alarms_of(series(database, 300, 160)) == []


@pytest.mark.parametrize(("size", "alarms"), [(6, 0), (12, 1)])
def test_connections_of_a_steady_server_give_at_most_one_alarm(size: float, alarms: int) -> None:
    """They take a third, or two thirds, of what is left in 0.3 s. After the first time, that was survived."""

    def shape(at: float) -> dict[str, float]:
        return {"anon": 82 + size * min(at % 5 / 0.3, 1) if at > 20 else 82 + 0.6 * at / 20}

    assert len(alarms_of(series(shape, 120))) == alarms


def test_growth_that_ended_gives_no_alarm_afterwards() -> None:
    """A query takes most of the cushion within one sample, then a little more."""

    def shape(at: float) -> dict[str, float]:
        anon = 30 if at < 5 else 85 + min(at - 5, 0.3) * 5
        return {"anon": anon, "file": 100 - anon}

    assert alarms_of(series(shape, 15)) == []


def test_growth_in_one_step_gives_no_alarm() -> None:
    assert alarms_of(series(lambda at: {"anon": 40 if at < 5 else 97}, 15)) == []


def test_cgroup_without_a_limit_gives_no_alarm() -> None:
    assert alarms_of(series(growth(1000), 60, math.inf)) == []


def test_pause_in_a_leak_is_a_new_approach_if_it_is_long() -> None:
    def with_pause(pause: float) -> Any:
        """Grow to 91 MiB, pause, then grow on."""
        return lambda at: {"anon": 20 + 5 * (min(at, 14.2) + max(at - 14.2 - pause, 0))}

    assert len(alarms_of(series(with_pause(2), 17.8))) == 1
    assert len(alarms_of(series(with_pause(15), 30.8))) == 2


def test_usage_that_fell_away_is_a_new_approach_only_beyond_what_was_survived() -> None:
    def twice(second_most: float) -> Any:
        def shape(at: float) -> dict[str, float]:
            most = 93 if at < 30 else second_most
            return {"anon": min(20 + 5 * (at % 30), most) if at % 30 < 20 else 20}

        return shape

    assert len(alarms_of(series(twice(93), 60))) == 1
    assert len(alarms_of(series(twice(99), 60))) == 2


def test_what_was_survived_is_forgotten_after_twenty_minutes() -> None:
    def shape(at: float) -> dict[str, float]:
        return {"anon": min(20 + 5 * at, 96) if at < 20 else 20 + 5 * max(at - 1300, 0)}

    assert len(alarms_of(series(shape, 1316))) == 2


@pytest.mark.parametrize("shows", ["oom_kill_events", "source"])
def test_crash_loop_gives_an_alarm_before_each_kill(shows: str) -> None:
    def life(number: int) -> pa.RecordBatch:
        begin = number * 20.0
        grown = series(growth(5, since=begin), 16, begin=begin, oom_kill_events=number)
        if shows == "source":
            grown = series(growth(5, since=begin), 16, begin=begin)
        killed = {"source": "oom"} if shows == "source" else {"oom_kill_events": number + 1}
        # The kill itself, and the victim's memory that goes.
        freed = series(growth(-100, 100, since=begin + 16.1), 0.8, begin=begin + 16.1, **killed)
        return joined(grown, freed)

    alarms = alarms_of(*map(life, range(3)))
    assert [int(at // 20) for at in seconds_of(alarms)] == [0, 1, 2]


def test_alarm_after_a_kill_comes_earlier() -> None:
    """A kill in the last 20 minutes makes the next one likely. 20 MiB/s leave no time at 6 % of the limit."""

    def life(begin: float, kills: int) -> pa.RecordBatch:
        grown = series(growth(20, since=begin), 4, begin=begin, oom_kill_events=kills)
        freed = series(
            growth(-100, 100, since=begin + 4.1), 0.8, begin=begin + 4.1, oom_kill_events=kills + 1
        )
        return joined(grown, freed)

    first, second, much_later = seconds_of(alarms_of(life(0, 0), life(20, 1), life(1300, 2)))
    assert 0.2 <= 4 - first <= 0.4
    assert 0.9 <= 24 - second <= 1.1
    assert 0.2 <= 1304 - much_later <= 0.4


def test_kill_leaves_what_was_survived_before() -> None:
    def approach(begin: float, most: float) -> pa.RecordBatch:
        return series(growth(5, most=most, since=begin), 18, begin=begin, oom_kill_events=int(begin > 36))

    killed = series(lambda _: {"anon": 20}, 0.8, begin=36.1, oom_kill_events=1)
    survived, to_the_kill, again, further = (
        approach(begin, most) for begin, most in ((0, 93), (18.1, 100), (37, 93), (56, 99))
    )
    alarms = seconds_of(alarms_of(survived, to_the_kill, killed, again, further))
    assert [int(at // 18.1) for at in alarms] == [0, 1, 3]


def test_kill_whose_sample_has_no_statistics_gives_no_alarm() -> None:
    at_kill = batch(1, time=START_NS + 9 * SECOND_NS, cgroup_id=7, source="oom", limit_bytes=100 * MIB)
    assert alarms_of(at_kill, series(growth(1, 20), 10, begin=9.1)) == []


def test_limit_that_was_lowered_is_no_growth() -> None:
    steady = {"anon": 85.0}
    assert alarms_of(series(lambda _: steady, 5, 200), series(lambda _: steady, 5, 90, begin=5.1)) == []


def test_swap_with_room_for_all_memory_puts_no_end_to_a_leak() -> None:
    def leak(**columns: Any) -> pa.RecordBatch:
        return series(growth(5), 16, **columns)

    assert alarms_of(leak(swap_room_bytes=UNLIMITED_BYTES), swap=1 << 30) == []
    assert alarms_of(leak(), swap=1 << 30) == []
    assert len(alarms_of(leak(swap_room_bytes=0), swap=1 << 30)) == 1
    assert len(alarms_of(leak(swap_room_bytes=UNLIMITED_BYTES), swap=0)) == 1


def test_limit_of_an_ancestor_gives_an_alarm_to_the_one_that_has_it() -> None:
    parent = series(growth(5), 16, cgroup_id=1)
    child = series(growth(5, 19), 16, cgroup_id=2, limit_bytes=UNLIMITED_BYTES)
    assert [alarm.cgroup_id for alarm in alarms_of(joined(parent, child))] == [1]
    assert [alarm.cgroup_id for alarm in alarms_of(child)] == [2]


def test_forgotten_cgroup_begins_anew() -> None:
    countdown = Countdown(free_swap=lambda: 0)
    assert len(alarms_of(series(growth(5), 15), countdown=countdown)) == 1
    countdown.forget([7, 8])
    again = series(growth(5, since=20), 15, begin=20)
    assert len(alarms_of(again, countdown=countdown)) == 1


@settings(max_examples=20)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_batches_of_any_size_give_the_same_alarms(sizes: list[int]) -> None:
    samples = joined(
        series(growth(5), 16, cgroup_id=1),
        series(page_cache, 1.6, cgroup_id=2),
        series(database, 17, 160, cgroup_id=3),
    )
    countdown = Countdown(free_swap=lambda: 0)
    alarms = [alarm for part in cut(samples, sizes) for alarm in countdown.take(part)]
    assert sorted(alarms, key=lambda alarm: alarm.time_ns) == alarms_of(samples)
