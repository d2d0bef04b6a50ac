"""The detection of a guest at a standstill."""

from __future__ import annotations

import pytest
from vm.machine import Standstill


def first_seen_s(*shares: tuple[int, float]) -> float | None:
    """Return the time at which a standstill is detected, for shares of a processor used for some seconds
    each; None if it is not detected."""
    standstill = Standstill(1000.0)
    now_s, used_s = 1000.0, 0.0
    for lasts_s, share in shares:
        for _ in range(lasts_s):
            now_s, used_s = now_s + 1, used_s + share
            if standstill.is_there(now_s, used_s):
                return now_s - 1000
    return None


def test_standstill_working_guest_is_none() -> None:
    assert first_seen_s((4000, 0.6)) is None


@pytest.mark.parametrize("worked_s", [0, 30, 700])
def test_standstill_idle_guest_is_found(worked_s: int) -> None:
    seen_s = first_seen_s((worked_s, 0.9), (1000, 0.02))
    assert seen_s is not None and worked_s + 150 <= seen_s <= worked_s + 170


def test_standstill_waiting_guest_is_none() -> None:
    assert first_seen_s(*[(100, 0.02), (20, 0.5)] * 20) is None
