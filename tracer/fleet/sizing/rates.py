"""The confidence bound of a rate that was observed in some runs: the exact bound of Clopper and Pearson."""

from __future__ import annotations

from math import exp, lgamma, log, log1p
from typing import Final

CONFIDENCE: Final = 0.95


def highest_rate(events: int, runs: int) -> float:
    """Return the highest rate per run that `events` in `runs` do not refute at a confidence of 95 %.

    Without an event, it is about 3 / `runs`.
    """
    if events >= runs:
        return 1.0
    low, high = events / runs, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if _at_most(events, runs, middle) > 1 - CONFIDENCE:
            low = middle
        else:
            high = middle
    return high


def _at_most(events: int, runs: int, rate: float) -> float:
    """Return the probability of at most `events` in `runs`."""
    if rate >= 1.0:
        return 0.0
    if rate <= 0.0:
        return 1.0
    choices = (lgamma(runs + 1) - lgamma(k + 1) - lgamma(runs - k + 1) for k in range(events + 1))
    return sum(exp(c + k * log(rate) + (runs - k) * log1p(-rate)) for k, c in enumerate(choices))
