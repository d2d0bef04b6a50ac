"""Our rule: the limit that costs least, in reserved memory and expected kills."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np
import pandas as pd

from tracer.fleet.sizing.kaplan_meier import Survival
from tracer.fleet.sizing.needs import Needs, needs_of
from tracer.fleet.sizing.outlook import Outlook
from tracer.fleet.sizing.rates import highest_rate

LEAST_RUNS: Final = 3
"""The number of runs without a kill, or of days of such runs, below which nothing is suggested."""
FURTHEST: Final = 1.7
"""The highest limit, as a multiple of the largest need or bound: nothing is known beyond it."""
LEAST_FURTHEST_BYTES: Final = 256 << 20
"""The least distance of the highest limit from the largest need or bound: a small program soon doubles its
size."""
MOST_DOUBT: Final = 0.25
"""If a larger share of the runs may need more than any limit that was tried, nothing is suggested."""


@dataclass(frozen=True)
class Suggestion:
    """A limit for a workload, or the reason why none is suggested. Amounts are in bytes."""

    suggested_limit_bytes: int | None
    reason: str | None
    """The reason why nothing is suggested; None if a limit is suggested."""
    trial_limit_bytes: int | None
    """If nothing is suggested and limits were too small: a higher limit, which would show more of the need.
    Nothing shows that it would be enough."""
    expected_kills_per_run: float | None
    """The expected kills of a further run under the suggestion, at most 1: the share of runs that need more,
    and the kills after a release that needs more."""
    highest_kills_per_run: float | None
    """The highest share of runs killed that `from_runs` runs do not refute, at a confidence of 95 %."""
    slack_bytes: int | None
    """The suggestion less the median need."""
    median_need_bytes: int | None
    """None if too many of the smaller runs were killed."""
    largest_need_bytes: int | None
    """The largest need seen, or the largest bound if a killed run has it."""
    runs_beyond: int | None
    """Runs that needed more than the suggestion, or were killed at no smaller limit: a limit that holds them
    would cost more than their kills."""
    least_limit_bytes: int | None
    """If nothing is suggested, and runs were held back or killed because the limit was too small: they need
    at least this much, and killed runs more."""
    from_runs: int
    killed_runs: int
    held_back_runs: int
    """Runs that were slowed down or cut short, but not killed: they show less than they need."""
    held_back_by: tuple[str, ...]
    """The reasons why they were held back, the most frequent first: throttled, thrashing, cut, failed,
    growing."""
    unknown_runs: int
    """Runs whose peaks are not known, which count for nothing."""


def suggest(lives: pd.DataFrame, kills: pd.DataFrame) -> Suggestion:
    """Return the suggestion for one workload, from its rows of `lives` and `kills` in any order.

    It is the limit with the least total cost of reserved memory and expected kills, but has room for the page
    cache that half of the runs had in use or read again.
    """
    needs = needs_of(lives, kills)
    survival = Survival.from_needs(needs)
    if not needs.runs:
        return _nothing(needs, survival, "no run has a known peak", None)
    largest = float(needs.bound_bytes.max())
    most = max(FURTHEST * largest, largest + LEAST_FURTHEST_BYTES)
    outlook = Outlook.from_needs(needs, Outlook.from_needs(needs).cheapest_bytes(most))
    limit = ceil(max(outlook.cheapest_bytes(most), _comfortable(needs)))
    reason = _reason_for_none(needs, survival.share_above(largest))
    if reason is not None:
        return _nothing(needs, survival, reason, limit)
    exceeding = int(((needs.bound_bytes >= limit) | needs.is_bound).sum())
    median = survival.need_at(0.5)
    return Suggestion(
        suggested_limit_bytes=limit,
        reason=None,
        trial_limit_bytes=None,
        expected_kills_per_run=min(1.0, float(outlook.kills_per_run(np.array([limit]))[0])),
        highest_kills_per_run=highest_rate(exceeding, needs.runs),
        slack_bytes=None if median is None else limit - round(median),
        median_need_bytes=None if median is None else round(median),
        largest_need_bytes=round(largest),
        runs_beyond=int((needs.bound_bytes >= limit).sum()),
        from_runs=needs.runs,
        least_limit_bytes=None,
        killed_runs=needs.killed_runs,
        held_back_runs=needs.held_back_runs,
        held_back_by=_held_back_by(needs),
        unknown_runs=needs.unknown_runs,
    )


def _held_back_by(needs: Needs) -> tuple[str, ...]:
    counts = Counter(why for why in needs.held_back.tolist() if why)
    return tuple(sorted(counts, key=lambda why: (-counts[why], why)))


def _comfortable(needs: Needs) -> float:
    """Return the median of need and page cache that was in use or read again, in bytes."""
    return float(np.median(needs.bound_bytes + needs.comfort_bytes))


def _reason_for_none(needs: Needs, share_beyond: float) -> str | None:
    """Return why nothing can be suggested, or None. `share_beyond` of the runs may need more than any limit
    that was tried."""
    is_shown = ~needs.is_killed & ~needs.is_bound
    ended = int(is_shown.sum())
    if ended < LEAST_RUNS and not (ended and needs.days[is_shown].sum() >= LEAST_RUNS):
        if needs.killed_runs and needs.runs_killed_otherwise == needs.killed_runs:
            return (
                f"{needs.killed_runs} of {needs.runs} runs were killed, "
                "but not because the limit was too small"
            )
        if needs.killed_runs >= LEAST_RUNS:
            return (
                f"{needs.killed_runs} of {needs.runs} runs were killed: their need is beyond the limits tried"
            )
        if needs.held_back_runs:
            return (
                f"{needs.held_back_runs} of {needs.runs} runs were held back "
                f"({', '.join(_held_back_by(needs))}): they show only the least that they need"
            )
        return f"{ended} runs without a kill are too few (at least {LEAST_RUNS}, or {LEAST_RUNS} days)"
    if share_beyond > MOST_DOUBT:
        return f"{share_beyond:.0%} of the runs may need more than the limits tried"
    return None


def _nothing(needs: Needs, survival: Survival, reason: str, limit: int | None) -> Suggestion:
    median = survival.need_at(0.5)
    return Suggestion(
        suggested_limit_bytes=None,
        reason=reason,
        trial_limit_bytes=limit if (needs.is_bound & needs.is_killed).any() else None,
        expected_kills_per_run=None,
        highest_kills_per_run=None,
        slack_bytes=None,
        median_need_bytes=None if median is None else round(median),
        largest_need_bytes=round(float(needs.bound_bytes.max())) if needs.runs else None,
        runs_beyond=None,
        least_limit_bytes=_least(needs) if needs.is_bound.any() else None,
        from_runs=needs.runs,
        killed_runs=needs.killed_runs,
        held_back_runs=needs.held_back_runs,
        held_back_by=_held_back_by(needs),
        unknown_runs=needs.unknown_runs,
    )


def _least(needs: Needs) -> int:
    """Return the most that a run is known to need, with its page cache if it was thrashing, in bytes."""
    cache = np.where(needs.held_back == "thrashing", needs.comfort_bytes, 0)
    return ceil(float((needs.bound_bytes + cache).max()))
