"""The share of lives above a limit, with and without killed lives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.fleet.sizing.kaplan_meier import Survival
from tracer.fleet.sizing.needs import Needs


def needs(known: list[float], killed: list[float]) -> Needs:
    values = np.array([*known, *killed], dtype=np.float64)
    is_killed = np.array([False] * len(known) + [True] * len(killed))
    none, day = np.zeros(len(values)), np.ones(len(values))
    of_none = np.full(len(values), "", dtype=object)
    return Needs(values, is_killed, is_killed, day, none, of_none, unknown_runs=0)


def test_share_of_a_textbook_sample_matches() -> None:
    """The remission times of 6-MP patients (Freireich et al. 1963), found in every text on survival."""
    found = Survival.from_needs(
        needs([6, 6, 6, 7, 10, 13, 16, 22, 23], [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35])
    )
    assert found.need_bytes.tolist() == [6, 7, 10, 13, 16, 22, 23]
    assert found.share.round(4).tolist() == [0.8571, 0.8067, 0.7529, 0.6902, 0.6275, 0.5378, 0.4482]
    assert found.need_at(0.5) == 23
    assert found.need_at(0.4) is None
    assert found.share_above(5.9) == 1.0
    assert found.share_above(15) == pytest.approx(0.6902, abs=1e-4)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(0, 51))
def test_share_without_kills_is_the_fraction_above(values: list[int], limit: int) -> None:
    found = Survival.from_needs(needs([float(value) for value in values], []))
    assert found.share_above(limit) == pytest.approx(sum(value > limit for value in values) / len(values))


def test_survival_of_killed_lives_alone_has_no_step() -> None:
    found = Survival.from_needs(needs([], [5, 7]))
    assert (found.share_above(6), found.need_at(0.5)) == (1.0, None)
