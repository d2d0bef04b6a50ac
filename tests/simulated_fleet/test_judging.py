"""Our rule against those of the VPA and of KRR, on fleets that nothing was chosen on and nothing reported."""

from __future__ import annotations

import pytest
from simulated_fleet.judging import (
    OURS,
    REPORTED_SEEDS,
    RULES,
    TUNING_SEEDS,
    Score,
    add,
    of_rules,
    scores,
    stated,
)
from simulated_fleet.score_tables import table_of_rates, tables

SEEDS = range(2000, 2003)


@pytest.fixture(scope="module")
def found() -> dict[str, Score]:
    rules = {name: RULES[name] for name in (OURS, "VPA", "KRR", "VPA on exact peaks")}
    total: dict[tuple[str, str], Score] = {}
    for seed in SEEDS:
        add(total, scores(seed, rules))
    return of_rules(total)


@pytest.mark.parametrize(("other", "fewer"), [("VPA", 0.6), ("KRR", 0.1), ("VPA on exact peaks", 0.6)])
def test_our_rule_has_fewer_kills(found: dict[str, Score], other: str, fewer: float) -> None:
    assert found[OURS].kills < fewer * found[other].kills


@pytest.mark.parametrize("other", ["VPA", "KRR"])
def test_our_rule_has_less_slack(found: dict[str, Score], other: str) -> None:
    assert found[OURS].slack_gib_hours < 0.95 * found[other].slack_gib_hours


def test_stated_rates_hold() -> None:
    by_seed = [stated(seed) for seed in SEEDS]
    found = [one for of_seed in by_seed for one in of_seed.values()]
    expected, above = (sum(getattr(one, name) for one in found) for name in ("expected", "above"))
    assert 0.4 * expected < above < 2.5 * expected
    assert sum(one.refuted for one in found) <= 0.05 * sum(one.workloads for one in found)
    assert "| all |" in table_of_rates(by_seed)


def test_seeds_for_choosing_and_for_reporting_and_for_testing_are_different() -> None:
    assert not {*TUNING_SEEDS} & {*REPORTED_SEEDS}
    assert not {*SEEDS} & {*REPORTED_SEEDS, *TUNING_SEEDS}


def test_tables_have_the_sums_and_the_spread() -> None:
    by_seed = {
        seed: {
            (rule, kind): Score(kills * (1 + seed), 10.0 * kills, 0.0, 0)
            for rule, kills in zip(RULES, range(1, 11), strict=True)
            for kind in ("job", "leak")
        }
        for seed in (0, 1)
    }
    first, _, second = tables(by_seed).partition("\n\n")
    assert "| VPA | 12 | 4 … 6 … 8 | 80 | 40 … 40 … 40 | 0 | 2, 2, 2 of 2 |" in first.splitlines()
    assert "| leak | 3; 20 | 6; 40 | 9; 60 | 30; 200 |" in second.splitlines()
