"""Checks of the page-cache experiment: each passes on the right answer, and fails on its own error."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from synthetic.lab_kill import (
    BEGIN,
    EVICTED,
    KILL,
    LIMIT,
    MIB,
    PAGE,
    evicted,
    evidence,
    report,
    timeline,
)

from tracer.analysis.results.kill import OomReport
from tracer.lab import checks
from tracer.lab.experiments import EXPERIMENTS


@pytest.mark.parametrize("check", EXPERIMENTS["page-cache"].checks)
def test_checks_of_the_right_answer_pass(check: Any) -> None:
    found = check(evidence())
    assert found.passed, found
    assert found.detail


@pytest.mark.parametrize(("damons", "passed"), [(4, True), (3, False)])
def test_evictions_by_damon_are_not_in_pgsteal(damons: int, passed: bool) -> None:
    found = checks.evictions_equal_pgsteal(
        evidence(cushion(evicted_bytes=EVICTED + 4 * PAGE), evicted=evicted(damons_pages=damons))
    )
    assert found.passed is passed
    assert f"DAMON evicted {damons * PAGE} bytes" in found.detail


def cushion(**changes: Any) -> OomReport:
    return replace(report(), cushion=replace(report().cushion, **changes))


def owner(**changes: Any) -> OomReport:
    return replace(report(), limit_owner=replace(report().limit_owner, **changes))


@pytest.mark.parametrize(
    ("check", "changed"),
    [
        (checks.killed_at_the_limit, replace(report(), constraint="global")),
        (checks.killed_at_the_limit, owner(usage_bytes=LIMIT - 129 * PAGE)),
        (checks.killed_at_the_limit, owner(limit_bytes=2 * LIMIT, usage_bytes=2 * LIMIT)),
        (checks.killed_at_the_limit, owner(usage_bytes=None)),
        (checks.cause_is_named, replace(report(), verdict=replace(report().verdict, cause="unknown"))),
        (
            checks.composition_adds_up,
            replace(report(), composition=replace(report().composition, anon=90 * MIB, other=8 * MIB)),
        ),
        (
            checks.composition_adds_up,
            replace(report(), composition=replace(report().composition, total=None)),
        ),
        (checks.evictions_equal_pgsteal, cushion(evicted_bytes=EVICTED - PAGE)),
        (checks.evictions_equal_pgsteal, cushion(evicted_bytes=None)),
        (checks.cache_gives_way, cushion(absorbed_bytes=10 * MIB)),
        (checks.cache_gives_way, cushion(evicted_bytes=50 * MIB)),
        (checks.cache_gives_way, cushion(absorbed_bytes=None)),
        (checks.cache_is_used_up, cushion(exhausted_at=None)),
        (checks.cache_is_used_up, cushion(exhausted_at=KILL + pd.Timedelta("1ms"))),
        (checks.cache_is_used_up, cushion(cache_end_bytes=30 * MIB)),
        (checks.little_was_evicted, report()),
    ],
)
def test_check_of_a_wrong_answer_fails(check: Any, changed: OomReport) -> None:
    found = check(evidence(changed))
    assert not found.passed, found


@pytest.mark.parametrize(
    ("check", "passed"),
    [(checks.only_kill, [False, True, False]), (checks.first_kill, [False, True, True])],
)
def test_number_of_kills_passes_as_the_experiment_allows(check: Any, passed: list[bool]) -> None:
    assert [check([report()] * kills).passed for kills in range(3)] == passed


def test_unknown_pgsteal_fails_the_check() -> None:
    samples = pd.DataFrame({"cgroup_id": [5], "kill_id": [1], "pgsteal": [None]}).astype("Int64")
    assert not checks.evictions_equal_pgsteal(evidence(cushion(evicted_bytes=None), samples=samples)).passed


def test_cache_check_with_usage_below_the_limit_fails() -> None:
    low = timeline()
    low["cache_bytes"] //= 2
    assert not checks.cache_fills_to_the_limit(evidence(timeline=lambda **_: low)).passed
    low["usage_bytes"] //= 2
    assert not checks.cache_fills_to_the_limit(evidence(timeline=lambda **_: low)).passed


def test_acts_with_unknown_cache_fail_their_checks() -> None:
    unknown = timeline()
    unknown["cache_bytes"] = pd.array([pd.NA] * len(unknown), dtype="Int64")
    for check in (checks.cache_fills_to_the_limit, checks.cache_gives_way):
        found = check(evidence(timeline=lambda **_: unknown))
        assert not found.passed
        assert "not known" in found.detail


def test_dip_of_usage_between_the_acts_fails() -> None:
    dip = timeline()
    dip.loc[BEGIN + pd.Timedelta("1.5s"), "usage_bytes"] = 60 * MIB
    assert not checks.cache_gives_way(evidence(timeline=lambda **_: dip)).passed
    damons = evicted(damons_pages=(36 * MIB) // PAGE)
    assert checks.cache_gives_way(evidence(timeline=lambda **_: dip, evicted=damons)).passed
    damons = evicted(damons_pages=(34 * MIB) // PAGE)
    assert not checks.cache_gives_way(evidence(timeline=lambda **_: dip, evicted=damons)).passed
