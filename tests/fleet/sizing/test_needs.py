"""What lives and kills say of a workload's need."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from tracer.fleet.sizing.needs import needs_of

BEGIN = pd.Timestamp("2026-03-01T10:00Z")
MIB = 1 << 20


def life(**changes: Any) -> dict[str, Any]:
    return {
        "boot_id": "b",
        "cgroup": "/a",
        "time": BEGIN,
        "end": BEGIN + pd.Timedelta(hours=1),
        "peak_unreclaimable_bytes": 70 * MIB,
        "peak_working_set_bytes": 83 * MIB,
        "peak_usage_bytes": 100 * MIB,
        "refaulted_bytes": 0,
        "limit_bytes": 100 * MIB,
        "kills": 0,
        **changes,
    }


def kill(**changes: Any) -> dict[str, Any]:
    return {
        "boot_id": "b",
        "cgroup": "/a",
        "time": BEGIN + pd.Timedelta(minutes=7),
        "cause": "anon_growth",
        "limit_bytes": 100 * MIB,
        "unreclaimable_bytes": 61 * MIB,
        "min_limit_low_bytes": None,
        **changes,
    }


def bounds(lives: list[dict[str, Any]], kills: list[dict[str, Any]]) -> list[tuple[float, bool]]:
    needs = needs_of(pd.DataFrame(lives), pd.DataFrame(kills))
    return list(zip((needs.bound_bytes / MIB).tolist(), needs.is_killed.tolist(), strict=True))


def test_need_of_a_life_without_a_kill_is_its_unreclaimable_peak() -> None:
    assert bounds([life()], []) == [(70, False)]


@pytest.mark.parametrize(
    ("unknown", "expected"),
    [
        (["peak_unreclaimable_bytes"], 83),
        (["peak_unreclaimable_bytes", "peak_working_set_bytes"], 100),
    ],
)
def test_need_without_the_unreclaimable_peak_is_the_next_best_peak(unknown: list[str], expected: int) -> None:
    assert bounds([life(**dict.fromkeys(unknown))], []) == [(expected, False)]
    absent = {name: value for name, value in life().items() if name not in unknown}
    assert bounds([absent], []) == [(expected, False)]


def test_life_without_any_peak_is_counted_as_unknown() -> None:
    blank = life(peak_unreclaimable_bytes=None, peak_working_set_bytes=None, peak_usage_bytes=None)
    needs = needs_of(pd.DataFrame([blank, life()]), pd.DataFrame([]))
    assert (needs.runs, needs.unknown_runs) == (1, 1)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 100),
        ({"min_limit_low_bytes": 104 * MIB}, 104),
        ({"cause": "dirty_writeback", "unreclaimable_bytes": 75 * MIB}, 75),
        ({"cause": "global_pressure"}, 70),
        ({"cgroup": "/parent"}, 70),
        ({"boot_id": "another"}, 70),
        ({"time": BEGIN + pd.Timedelta(hours=2)}, 70),
    ],
)
def test_bound_of_a_killed_life_is_what_its_kill_proves(changes: dict[str, Any], expected: int) -> None:
    assert bounds([life(kills=1)], [kill(**changes)]) == [(expected, True)]


def test_boots_that_are_not_known_are_not_one_boot() -> None:
    assert bounds([life(kills=1, boot_id=None)], [kill(boot_id=None)]) == [(70, True)]


def test_bound_of_a_life_with_several_kills_is_their_largest() -> None:
    several = [kill(limit_bytes=mib * MIB) for mib in (97, 113, 104)]
    assert bounds([life(kills=3)], several) == [(113, True)]


def test_killed_life_that_has_no_end_takes_later_kills() -> None:
    later = kill(time=BEGIN + pd.Timedelta(days=3))
    assert bounds([life(kills=1, end=pd.NaT)], [later]) == [(100, True)]


@pytest.mark.parametrize(("refaulted", "expected"), [(0, 0), (11 * MIB, 11), (900 * MIB, 30), (None, 0)])
def test_comfort_is_what_was_read_again_up_to_the_cache_there_was(refaulted: Any, expected: int) -> None:
    needs = needs_of(pd.DataFrame([life(refaulted_bytes=refaulted)]), pd.DataFrame([]))
    assert (needs.comfort_bytes / MIB).tolist() == [expected]


@pytest.mark.parametrize(
    ("causes", "expected"),
    [
        (["dirty_writeback"], 1),
        (["dirty_writeback", "anon_growth"], 0),
        (["anon_growth"], 0),
        ([], 0),
    ],
)
def test_run_is_killed_otherwise_if_no_kill_was_for_the_size_of_the_limit(
    causes: list[str], expected: int
) -> None:
    kills = pd.DataFrame([kill(cause=cause) for cause in causes])
    needs = needs_of(pd.DataFrame([life(kills=1)]), kills)
    assert needs.runs_killed_otherwise == expected
    assert needs.is_bound.tolist() == [not expected]


def test_life_without_a_kill_shows_its_need_and_no_bound() -> None:
    assert needs_of(pd.DataFrame([life()]), pd.DataFrame([])).is_bound.tolist() == [False]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"is_begin_seen": True, "is_end_seen": True}, 1 / 24),
        ({"is_begin_seen": True, "is_end_seen": False}, 1),
        ({"is_begin_seen": False, "is_end_seen": True}, 1),
        ({"is_begin_seen": True, "is_end_seen": None}, 1),
        ({}, 1),
        ({"observed_s": 5 * 86_400.0}, 5),
        ({"is_begin_seen": True, "is_end_seen": True, "observed_s": None}, 1),
    ],
)
def test_life_that_is_seen_in_part_counts_as_a_day_at_least(changes: dict[str, Any], expected: float) -> None:
    needs = needs_of(pd.DataFrame([life(**{"observed_s": 3600.0, **changes})]), pd.DataFrame([]))
    assert needs.days.tolist() == [pytest.approx(expected)]


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        ({}, ""),
        ({"state": None, "work": None}, ""),
        ({"state": "held", "work": "complete"}, ""),
        ({"state": "throttled", "work": "complete", "comfortable_bytes": 90 * MIB}, "throttled"),
        ({"state": "thrashing", "work": "complete", "comfortable_bytes": 90 * MIB}, ""),
        ({"state": "thrashing", "work": "complete", "comfortable_bytes": None}, "thrashing"),
        ({"state": "thrashing", "work": None, "comfortable_bytes": 90 * MIB}, "thrashing"),
        ({"state": "held", "work": "cut"}, "cut"),
        ({"state": "held", "work": "failed"}, "failed"),
        ({"state": None, "work": "growing"}, "growing"),
        ({"state": "throttled", "work": "cut"}, "throttled"),
    ],
)
def test_life_that_was_slowed_down_or_cut_shows_only_a_bound(seen: dict[str, Any], why: str) -> None:
    needs = needs_of(pd.DataFrame([life(**seen)]), pd.DataFrame([]))
    assert needs.held_back.tolist() == [why]
    assert needs.is_bound.tolist() == [why != ""]
    assert needs.held_back_runs == (why != "")
    assert needs.killed_runs == 0


def test_killed_life_is_not_held_back_as_well() -> None:
    needs = needs_of(pd.DataFrame([life(state="thrashing", work="cut", kills=1)]), pd.DataFrame([kill()]))
    assert needs.held_back.tolist() == [""]
    assert needs.is_bound.tolist() == [True]


def test_memory_in_swap_counts_as_need() -> None:
    assert bounds([life(peak_with_swap_bytes=91 * MIB)], []) == [(91, False)]
    assert bounds([life(peak_with_swap_bytes=None)], []) == [(70, False)]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ({"refaulted_bytes": 400 * MIB}, 30),
        ({"comfortable_bytes": 85 * MIB}, 15),
        ({"comfortable_bytes": 85 * MIB, "refaulted_bytes": 20 * MIB}, 20),
        ({"comfortable_bytes": 160 * MIB, "refaulted_bytes": 400 * MIB}, 90),
        ({"comfortable_bytes": None, "refaulted_bytes": None}, 0),
    ],
)
def test_comfort_is_page_cache_in_use_or_read_again(seen: dict[str, Any], expected: int) -> None:
    needs = needs_of(pd.DataFrame([life(**seen)]), pd.DataFrame([]))
    assert needs.comfort_bytes.tolist() == [expected * MIB]
