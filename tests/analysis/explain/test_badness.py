"""The arithmetic of `oom_badness` (mm/oom_kill.c), compared with numbers worked out by hand."""

from __future__ import annotations

import pytest

from tracer.analysis.explain.victim_selection import OOM_SCORE_ADJ_MIN, TODAY, badness, held_pages, rules_of

TOTAL = 25600  # pages: 100 MiB, of which a thousandth is 25 whole pages


def test_badness_is_held_pages_and_a_share_of_the_total() -> None:
    assert held_pages(1000, 200, 30, uid=0, rules=TODAY) == 1230
    assert badness(1230, 0, TOTAL, TODAY) == 1230
    assert badness(1230, 500, TOTAL, TODAY) == 1230 + 500 * 25, "the quotient is cut before it is multiplied"
    assert badness(1230, -500, TOTAL, TODAY) == 1230 - 500 * 25, "badness can be negative"
    assert badness(1230, 1000, 999, TODAY) == 1230, "a thousandth of less than 1000 pages is 0"
    assert badness(1230, OOM_SCORE_ADJ_MIN, TOTAL, TODAY) is None


def test_badness_without_an_input_is_none() -> None:
    assert badness(1230, 0, None, TODAY) == 1230, "an oom_score_adj of 0 needs no total"
    assert badness(1230, 1, None, TODAY) is None
    assert held_pages(1000, 200, None, uid=0, rules=TODAY) is None
    assert badness(None, 0, TOTAL, TODAY) is None


@pytest.mark.parametrize(
    ("release", "held", "adj", "expected"),
    [
        ("3.10.0-1160.el7.x86_64", 1000, 0, 970),  # root's bonus
        ("4.16.7", 1000, -1, 970 - 25),
        ("4.17.0", 1000, 0, 1000),
        ("4.19.0-21-amd64", 1000, -500, 1),  # never less
        ("5.4.0-190-generic", 1000, -500, 1000 - 12500),
        ("6.18.44", 1000, -500, 1000 - 12500),
        (None, 1000, -500, 1000 - 12500),
    ],
)
def test_badness_by_release_follows_its_rules(
    release: str | None, held: int, adj: int, expected: int
) -> None:
    rules = rules_of(release)
    assert badness(held_pages(held, 0, 0, uid=0, rules=rules), adj, TOTAL, rules) == expected


def test_root_bonus_of_another_user_is_zero() -> None:
    assert held_pages(1000, 0, 0, uid=1000, rules=rules_of("4.4.0")) == 1000
