"""Days under a limit, against stretches of which the answer is plain; and demand, the same for a seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from simulated_fleet.demand import DAY, KINDS, Pod, Stretch, Workload, fleet
from simulated_fleet.replay import RETRIES, Days, days_of

MIB = 1 << 20


def stretch(minutes: int = 600, **changes: Any) -> Stretch:
    """Return a stretch that needs 100 MiB, with a cache of 40 MiB."""
    plain: dict[str, Any] = {
        "begin": 0,
        "need": np.full(minutes, 100.0 * MIB),
        "spike": np.zeros(minutes),
        "is_sampled": np.zeros(minutes, dtype=np.bool_),
        "cache": np.full(minutes, 40.0 * MIB),
    }
    return Stretch(**{**plain, **changes})


def seen(limit_mib: float, *stretches: Stretch, kind: str = "service") -> Days:
    pods = (Pod("web-0", "node-0", stretches),)
    workload = Workload("web", kind, 0, active=0.5, hot=0.5, pods=pods)
    return days_of(workload, limit_mib * MIB, 0, 1)


def spike_at(minute: int, mib: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    values = np.zeros(600)
    values[minute] = mib * MIB
    return values


def test_life_below_its_limit_shows_its_peaks_and_what_was_reserved() -> None:
    found = seen(200, stretch(spike=spike_at(100, 30)))
    (life,) = found.lives
    assert (life["peak_unreclaimable_bytes"], life["kills"]) == (130 * MIB, 0)
    assert (life["peak_working_set_bytes"], life["peak_usage_bytes"]) == (120 * MIB, 140 * MIB)
    assert found.reserved_byte_minutes == 600 * 200 * MIB
    warm = np.minimum(100, np.linspace(50, 100, 30)).sum() + 570 * 100
    assert found.needed_byte_minutes == pytest.approx(warm * MIB)


@pytest.mark.parametrize("is_sampled", [False, True])
def test_spike_of_seconds_is_in_the_samples_only_if_one_hit_it(is_sampled: bool) -> None:
    found = seen(200, stretch(spike=spike_at(100, 30), is_sampled=np.full(600, is_sampled)))
    assert max(row["bytes"] for row in found.sampled) == (150 if is_sampled else 120) * MIB
    assert max(row["bytes"] for row in found.exact) == 130 * MIB


def test_spike_above_the_limit_kills_a_service_which_then_goes_on() -> None:
    found = seen(120, stretch(spike=spike_at(100, 30)))
    assert [(life["kills"], life["observed_s"]) for life in found.lives] == [(1, 101 * 60), (0, 499 * 60)]
    (kill,) = found.kills
    assert (kill["cause"], kill["limit_bytes"]) == ("anon_growth", 120 * MIB)
    assert kill["unreclaimable_bytes"] == 120 * MIB
    assert found.kills_by_limit == 1


def test_job_above_its_limit_is_killed_at_each_try() -> None:
    found = seen(90, stretch(is_retried=True), kind="job")
    assert len(found.lives) == len(found.kills) == 1 + RETRIES
    assert len({life["pod"] for life in found.lives}) == 1 + RETRIES


def test_leak_is_killed_when_it_reaches_the_limit_and_begins_anew() -> None:
    found = seen(150, stretch(leak=MIB / 4))
    assert [life["observed_s"] / 60 for life in found.lives] == [202, 202, 196]
    assert found.kills_by_limit == 2


def test_kill_of_a_runaway_is_not_held_against_the_limit() -> None:
    found = seen(400, stretch(runaway=300))
    assert [kill["cause"] for kill in found.kills] == ["anon_growth"]
    assert found.kills_by_limit == 0


def test_kill_of_the_whole_machine_is_at_no_limit() -> None:
    found = seen(400, stretch(evicted_at=300))
    assert [(kill["cause"], kill["unreclaimable_bytes"]) for kill in found.kills] == [
        ("global_pressure", 100 * MIB)
    ]
    assert found.kills_by_limit == 0


def test_cache_that_is_read_again_and_does_not_fit_is_seen() -> None:
    found = seen(105, stretch())
    assert found.lives[0]["refaulted_bytes"] > 0
    assert found.short_minutes > 500
    assert seen(120, stretch()).short_minutes == 0


def test_days_are_those_asked_for() -> None:
    pods = (Pod("web-0", "node-0", (stretch(3 * DAY),)),)
    workload = Workload("web", "service", 0, active=0.5, hot=0.5, pods=pods)
    found = days_of(workload, 200 * MIB, 1, 3)
    assert found.reserved_byte_minutes == 2 * DAY * 200 * MIB
    assert (found.lives[0]["time"].day, found.lives[0]["end"].day) == (3, 5)


def test_fleet_of_a_seed_is_the_same_and_has_all_kinds() -> None:
    first, again, more = (
        fleet(seed, workloads=number, hosts=2, days=3) for seed, number in ((7, 8), (7, 8), (7, 9))
    )
    other = fleet(8, workloads=8, hosts=2, days=3)
    assert {workload.kind for workload in first} == {*KINDS}
    for workload, same in zip(first, again, strict=True):
        assert rows(workload) == rows(same)
    assert [rows(workload) for workload in more[:8]] == [rows(workload) for workload in first]
    assert [workload.limit_bytes for workload in other] != [workload.limit_bytes for workload in first]


def rows(workload: Workload) -> list[dict[str, Any]]:
    found = days_of(workload, workload.limit_bytes, 0, 3)
    return found.lives + found.kills + found.sampled


@pytest.mark.parametrize("number", range(8))
def test_lives_of_a_fleet_stay_below_the_limit_and_its_kills_reach_it(number: int) -> None:
    workload = fleet(3, workloads=8, hosts=3, days=7)[number]
    limit = int(workload.limit_bytes * 0.9)
    found = days_of(workload, limit, 0, 7)
    assert all(life["peak_unreclaimable_bytes"] <= limit for life in found.lives)
    assert sum(life["kills"] for life in found.lives) == len(found.kills)
    by_limit = [kill for kill in found.kills if kill["cause"] == "anon_growth"]
    assert all(kill["unreclaimable_bytes"] == limit for kill in by_limit)
