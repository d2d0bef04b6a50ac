"""Our rule: the limit that at most a thousandth of the runs of a workload is expected to exceed."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np
import pandas as pd

from tracer.fleet.sizing.kaplan_meier import Survival
from tracer.fleet.sizing.needs import Needs, needs_of
from tracer.fleet.sizing.rates import highest_rate
from tracer.fleet.sizing.tail import Tail

TARGET_RATE: Final = 0.001
"""Kills a run that the suggestion accepts."""
LEAST_RUNS: Final = 3
"""Runs that ended without a kill, below which nothing is suggested."""
LEAST_MARGIN: Final = 0.03
"""The part of a limit that is added in any case: the kernel charges memory in advance (64 pages for each
CPU), and no two runs are equal."""
FURTHEST: Final = 1.15
"""How far beyond the largest need or bound seen a suggestion goes at most, without the margin."""
MOST_DOUBT: Final = 0.25
"""If kills leave a larger share of the runs beyond all limits tried, nothing is suggested but a trial."""
TRIAL: Final = 1.7
"""The limit to try, as a multiple of the largest bound."""
LEAST_TRIAL_BYTES: Final = 100 << 20
"""How much more than the largest bound is tried at least: a small program is soon at twice its size."""


@dataclass(frozen=True)
class Suggestion:
    """A limit for a workload, or the reason why none is suggested. Amounts are in bytes."""

    suggested_limit_bytes: int | None
    reason: str | None
    """Why nothing is suggested; None if something is."""
    trial_limit_bytes: int | None
    """If nothing is suggested and limits were too small: a higher one, which would show more of the need."""
    expected_kills_per_run: float | None
    """The share of runs expected to need more than the suggestion."""
    highest_kills_per_run: float | None
    """The highest such share that `from_runs` runs do not refute, at a confidence of 95 %."""
    slack_bytes: int | None
    """The suggestion less the median need."""
    median_need_bytes: int | None
    """None if too many of the smaller runs were killed."""
    largest_need_bytes: int | None
    """The largest need seen, or the largest bound if that is a killed run's."""
    from_runs: int
    killed_runs: int
    unknown_runs: int
    """Runs whose peaks are not known, which count for nothing."""


def suggest(lives: pd.DataFrame, kills: pd.DataFrame) -> Suggestion:
    """Return the suggestion for one workload, from its rows of `lives` and `kills` in any order.

    At least 1000 runs without a kill: the limit that one run in a thousand exceeds. Fewer: what the tail says
    of such a limit, at least the largest need and at most 15 % more. Both with 3 % on top. It also has room
    for the page cache that half of the runs read again.
    """
    needs = needs_of(lives, kills)
    reason = _reason_for_none(needs)
    survival = Survival.from_needs(needs)
    tail = None if reason else Tail.from_needs(needs, survival)
    if tail is None:
        reason = reason or "too many of the largest runs were killed: the need is beyond the limits tried"
        return _nothing(needs, survival, reason)
    limit = ceil(max(_safe(needs, survival, tail), _comfortable(needs)))
    expected = max(tail.share_above(limit), survival.share_above(limit))
    if needs.killed_runs and expected > MOST_DOUBT:
        return _nothing(
            needs, survival, f"{expected:.0%} of the runs seem to need more than the limits tried"
        )
    exceeding = int((needs.bound_bytes >= limit).sum())
    informing = int(((needs.bound_bytes >= limit) | ~needs.is_killed).sum())
    median = survival.need_at(0.5)
    return Suggestion(
        suggested_limit_bytes=limit,
        reason=None,
        trial_limit_bytes=None,
        expected_kills_per_run=expected,
        highest_kills_per_run=highest_rate(exceeding, informing),
        slack_bytes=None if median is None else limit - round(median),
        median_need_bytes=None if median is None else round(median),
        largest_need_bytes=round(float(needs.bound_bytes.max())),
        from_runs=needs.runs,
        killed_runs=needs.killed_runs,
        unknown_runs=needs.unknown_runs,
    )


def _safe(needs: Needs, survival: Survival, tail: Tail) -> float:
    """Return the limit at which the rate of kills is the target's, in bytes."""
    of_all = survival.need_at(TARGET_RATE) if needs.runs - needs.killed_runs >= 1 / TARGET_RATE else None
    if of_all is not None:
        return of_all * (1 + LEAST_MARGIN)
    largest = float(needs.bound_bytes.max())
    return min(max(largest, tail.need_at(TARGET_RATE)), FURTHEST * largest) * (1 + LEAST_MARGIN)


def _comfortable(needs: Needs) -> float:
    """Return the median of need and page cache that was read again, in bytes."""
    return float(np.median(needs.bound_bytes + needs.comfort_bytes))


def _reason_for_none(needs: Needs) -> str | None:
    """Return why the runs are too few, or None."""
    ended = needs.runs - needs.killed_runs
    if ended >= LEAST_RUNS:
        return None
    if not needs.runs:
        return "no run has a known peak"
    if needs.runs_killed_otherwise and needs.runs_killed_otherwise == needs.killed_runs:
        return f"{needs.killed_runs} of {needs.runs} runs were killed, but not since the limit was too small"
    if needs.killed_runs >= LEAST_RUNS:
        return f"{needs.killed_runs} of {needs.runs} runs were killed: their need is beyond the limits tried"
    return f"{ended} runs without a kill are too few (at least {LEAST_RUNS})"


def _nothing(needs: Needs, survival: Survival, reason: str) -> Suggestion:
    largest = float(needs.bound_bytes.max()) if needs.runs else 0.0
    is_too_small = needs.killed_runs > needs.runs_killed_otherwise
    median = survival.need_at(0.5)
    return Suggestion(
        suggested_limit_bytes=None,
        reason=reason,
        trial_limit_bytes=ceil(max(TRIAL * largest, largest + LEAST_TRIAL_BYTES)) if is_too_small else None,
        expected_kills_per_run=None,
        highest_kills_per_run=None,
        slack_bytes=None,
        median_need_bytes=None if median is None else round(median),
        largest_need_bytes=round(largest) if needs.runs else None,
        from_runs=needs.runs,
        killed_runs=needs.killed_runs,
        unknown_runs=needs.unknown_runs,
    )
