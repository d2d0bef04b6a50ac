"""Which limits are called wrong, and in which order they are listed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tracer.fleet.reduction.fleet_answer import Fleet, Workload
from tracer.render.fleet import limit_states

MIB = 1 << 20


@pytest.fixture
def workload(fleet: Fleet) -> Callable[..., Workload]:
    """Return a function that makes a workload with a limit, a suggestion, and the most memory at which its
    runs were killed, in MiB."""

    def made(
        name: str, limit: int | None, suggested: int | None, exceeded: int | None = None, kills: int = 0
    ) -> Workload:
        in_bytes = [None if mib is None else mib * MIB for mib in (limit, suggested, exceeded)]
        first = fleet.workloads[0]
        suggestion = replace(
            first.suggestion,
            suggested_limit_bytes=in_bytes[1],
            trial_limit_bytes=exceeded and 2 * exceeded * MIB,
            least_limit_bytes=in_bytes[2],
        )
        is_limited = limit is not None
        return replace(
            first, workload=name, kills=kills, limit_bytes=in_bytes[0], is_limited=is_limited,
            suggestion=suggestion,
        )  # fmt: skip

    return made


@pytest.mark.parametrize(
    ("limit", "suggested", "exceeded", "expected"),
    [
        (100, 101, None, (True, False)),
        (100, 100, None, (False, False)),
        (110, 100, None, (False, False)),
        (111, 100, None, (False, True)),
        (100, None, 200, (True, False)),
        (200, None, 200, (True, False)),
        (300, None, 200, (False, False)),
        (100, None, None, (False, False)),
        (None, 100, None, (False, False)),
        (None, None, 200, (False, False)),
    ],
)
def test_limit_is_wrong_below_the_suggestion_and_far_above_it(
    workload: Callable[..., Workload],
    limit: int | None,
    suggested: int | None,
    exceeded: int | None,
    expected: tuple[bool, bool],
) -> None:
    one = workload("x", limit, suggested, exceeded)
    assert (limit_states.is_too_low(one), limit_states.is_too_high(one)) == expected


def test_limit_above_what_killed_runs_had_is_not_judged(
    workload: Callable[..., Workload],
) -> None:
    assert limit_states.better_limit_bytes(workload("x", 300, None, 200)) is None
    assert not limit_states.is_judged(workload("x", 300, None, 200))
    assert limit_states.is_judged(workload("x", 100, None, 200))
    assert limit_states.better_limit_bytes(workload("x", 100, 90, 200)) == 90 * MIB


def test_worst_limits_come_first_and_the_others_keep_their_order(workload: Callable[..., Workload]) -> None:
    given = [
        workload("fits", 100, 100),
        workload("unknown", 100, None),
        workload("high", 200, 100),
        workload("killed otherwise", 100, None, kills=9),
        workload("higher", 900, 100),
        workload("low", 100, 150),
        workload("low and killed", 100, 120, kills=2),
        workload("lower", 100, 300),
    ]
    wrong, others = limit_states.worst_first(given)
    assert [one.workload for one in wrong] == [
        *("low", "low and killed", "lower", "killed otherwise", "higher", "high")
    ]
    assert [one.workload for one in others] == ["fits", "unknown"]


@pytest.mark.parametrize(
    ("limits", "least", "is_only_least", "expected"),
    [
        ((100, None, None), 46, True, (False, False, False)),
        ((40, None, None), 46, True, (True, True, False)),
        ((None, None, None), 46, True, (False, False, False)),
        ((100, None, 150), 150, True, (True, True, False)),
        ((200, None, 150), 150, True, (False, False, False)),
        ((100, 60, None), None, False, (False, False, False)),
        ((50, 60, None), None, False, (True, True, False)),
    ],
)
def test_no_limit_is_too_high_beside_runs_that_were_held_back(
    workload: Callable[..., Workload],
    limits: tuple[int | None, int | None, int | None],
    least: int | None,
    is_only_least: bool,
    expected: tuple[bool, bool, bool],
) -> None:
    one = workload("x", *limits)
    least_bytes = None if least is None else least * MIB
    held_back = replace(
        one.suggestion, least_limit_bytes=least_bytes, held_back_runs=2, held_back_by=("throttled",)
    )
    one = replace(one, suggestion=held_back)
    found = limit_states.is_judged(one), limit_states.is_too_low(one), limit_states.is_too_high(one)
    assert found == expected
    assert limit_states.is_only_least(one) == is_only_least
