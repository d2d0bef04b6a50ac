"""Checks of the trigger, the victims and the candidates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from synthetic.lab_kill import (
    LIMIT,
    MIB,
    VICTIM,
    evidence,
    report,
    trace,
)

from tracer.analysis.results.kill import Candidate, OomReport
from tracer.analysis.results.quality import Quality
from tracer.lab import checks
from tracer.lab.checks import Evidence


def killed(trigger: str = "small", victim: str = "big", **changes: Any) -> OomReport:
    asked = replace(report().trigger, cgroup=f"/memcg-tracer-1-lab/{trigger}")
    died = replace(VICTIM, cgroup=f"/memcg-tracer-1-lab/{victim}")
    owner = replace(report().limit_owner, **{"is_ancestor": True} | changes)
    return replace(report(), trigger=asked, victims=(died,), limit_owner=owner)


@pytest.mark.parametrize(
    ("changed", "passed"),
    [
        (killed(), True),
        (killed(trigger="big"), False),
        (killed(victim="small"), False),
        (killed(is_ancestor=False), False),
        (killed(cgroup=None), False),
        (replace(killed(), victims=killed().victims * 2), False),
    ],
)
def test_three_cgroups_passes_for_trigger_and_victim_only(changed: OomReport, passed: bool) -> None:
    assert checks.three_cgroups(evidence(changed), "small", "big").passed is passed


def together(*sizes_bytes: int | None, **changes: Any) -> OomReport:
    victims = [replace(VICTIM, pid=7 + n, anon_rss_bytes=size) for n, size in enumerate(sizes_bytes)]
    return replace(report(), victims=tuple(replace(one, **{"group_kill": True} | changes) for one in victims))


@pytest.mark.parametrize(
    ("changed", "passed"),
    [
        (together(60 * MIB, 21 * MIB, 9 * MIB), True),
        (together(60 * MIB, 9 * MIB, 21 * MIB), True),
        (together(60 * MIB, 21 * MIB), False),
        (together(60 * MIB, 21 * MIB, 9 * MIB, 9 * MIB), False),
        (together(60 * MIB, 6 * MIB, 9 * MIB), False),
        (together(60 * MIB, 21 * MIB, None), False),
        (together(60 * MIB, 41 * MIB, 9 * MIB), False),
        (together(60 * MIB, 21 * MIB, 9 * MIB, group_kill=False), False),
        (report(), False),
    ],
)
def test_killed_together_passes_for_one_decision_only(changed: OomReport, passed: bool) -> None:
    """A group kill is one decision; the trigger (pid 7) may have any size."""
    assert checks.killed_together(evidence(changed), (7 * MIB, 19 * MIB)).passed is passed


CROWD = ((17 * MIB, 500), (2 * MIB, 600), (60 * MIB, 0))


@pytest.mark.parametrize(
    ("crowd", "victims", "passed"),
    [
        (CROWD, [(25 * MIB, 500)], True),
        (CROWD, [(25 * MIB, 500), (10 * MIB, 600)], True),
        (CROWD, [(25 * MIB, 500), (68 * MIB, 0)], False),
        (CROWD, [(10 * MIB, 600)], False),
        (CROWD, [(68 * MIB, 500)], False),
        (CROWD, [(16 * MIB, 500)], False),
        (CROWD, [(25 * MIB, 500)] * 4, False),
        (CROWD, [], False),
        (CROWD[::-1], [(68 * MIB, 0)], False),  # it would not be the worst
        (((17 * MIB, 500), (3 * MIB, 0)), [(25 * MIB, 500)], False),  # the one that asks may be worse
    ],
)
def test_worst_is_killed_passes_in_the_order_of_badness(
    crowd: tuple[tuple[int, int], ...], victims: list[tuple[int, int]], passed: bool
) -> None:
    killed = [replace(VICTIM, anon_rss_bytes=anon, oom_score_adj=adj) for anon, adj in victims]
    found = [replace(report(), victims=(one,)) for one in killed]
    assert checks.worst_is_killed(Evidence(trace(), found, LIMIT, "anon_growth"), crowd).passed is passed


def with_candidates(*candidates: tuple[int, bool]) -> OomReport:
    found = [Candidate(n, "python3", 9 - n, adj, 1, chosen) for n, (adj, chosen) in enumerate(candidates)]
    return replace(report(), candidates=tuple(found))


@pytest.mark.parametrize(
    ("changed", "passed"),
    [
        (with_candidates((500, True), (0, False), (600, False), (0, False)), True),
        (with_candidates((600, False), (500, True), (0, False), (0, False)), False),
        (with_candidates((500, True), (0, False), (600, False)), False),
        (with_candidates((500, True), (0, False), (600, False), (0, False), (0, False)), False),
        (with_candidates((500, False), (0, False), (600, False), (0, False)), False),
        (with_candidates(), False),
    ],
)
def test_all_are_candidates_passes_for_the_whole_crowd_only(changed: OomReport, passed: bool) -> None:
    assert checks.all_are_candidates(evidence(changed), CROWD).passed is passed


@pytest.mark.parametrize(("kmsg", "passed"), [("rate_limited", True), ("missing", True), ("matched", False)])
def test_unknown_candidates_without_a_reason_fail(kmsg: Any, passed: bool) -> None:
    silent = replace(with_candidates(), quality=Quality(0, kmsg, {}))
    without_table = replace(
        with_candidates(), quality=Quality(0, kmsg, {}, {"candidates": "the log has no table"})
    )
    assert checks.all_are_candidates(evidence(silent), CROWD).passed is False
    assert checks.all_are_candidates(evidence(without_table), CROWD).passed is passed
