"""Our rule: the limit that costs least, in reserved memory and expected kills.

Some needs are only lower bounds. The share of lives that need more than a limit is the estimator of Kaplan
and Meier ("Nonparametric Estimation from Incomplete Observations", 1958), with memory in the place of time: a
killed life leaves the sample at its bound, and the lives above the bound stand in for it.

Each run seen stands for further runs that need as much, plus a surplus with an exponential distribution. Its
mean is measured on the runs from the median on: their mean excess, divided by the share of them that shows a
need and not a bound, as for the mean of censored lifetimes. A few runs show little about it, so
`TYPICAL_RUNS` runs with a typical excess are added to them. A killed run needs more than its bound by an
unknown amount, so its surplus is larger.

The needs of one release do not predict those of the next release, however many runs there are. So besides the
surplus of each run, a change of all runs is expected: a release that needs more, and has kills until the
limit is raised. This change is assumed, not measured, and has an exponential distribution as well.

A limit costs the memory that it reserves while the runs last, and the kills of the runs that need more. Every
kill counts, and none is prevented at any price: if a program sometimes allocates without end, or one run of
many is far off, it is cheaper to leave such a run beyond the limit.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import ceil, exp, inf, lgamma, log, log1p
from typing import Final

import numpy as np
import pandas as pd

from tracer.fleet.sizing.needs import Floats, Needs, needs_of


@dataclass(frozen=True)
class Survival:
    """A step function. `share[i]` of the lives need more than `need_bytes[i]`; all need more than nothing."""

    need_bytes: Floats
    share: Floats

    @classmethod
    def from_needs(cls, needs: Needs) -> Survival:
        """Return the estimate; without a known need, it has no step."""
        known = needs.bound_bytes[~needs.is_killed & ~needs.is_bound]
        at, deaths = np.unique(known, return_counts=True)
        in_order = np.sort(needs.bound_bytes)
        at_risk = len(in_order) - np.searchsorted(in_order, at, side="left")
        return cls(at, np.cumprod(1 - deaths / at_risk, dtype=np.float64))

    def share_above(self, limit_bytes: float) -> float:
        """Return the share of lives that need more than the limit."""
        index = int(np.searchsorted(self.need_bytes, limit_bytes, side="right"))
        return float(self.share[index - 1]) if index else 1.0

    def need_at(self, share: float) -> float | None:
        """Return the least need in bytes that at most this share of the lives exceeds; None if all known
        needs are below it."""
        reached = np.flatnonzero(self.share <= share + 1e-12)
        return float(self.need_bytes[reached[0]]) if len(reached) else None


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
        if _at_most_so_many(events, runs, middle) > 1 - CONFIDENCE:
            low = middle
        else:
            high = middle
    return high


def _at_most_so_many(events: int, runs: int, rate: float) -> float:
    """Return the probability of at most `events` in `runs`."""
    if rate >= 1.0:
        return 0.0
    if rate <= 0.0:
        return 1.0
    choices = (lgamma(runs + 1) - lgamma(k + 1) - lgamma(runs - k + 1) for k in range(events + 1))
    return sum(exp(c + k * log(rate) + (runs - k) * log1p(-rate)) for k, c in enumerate(choices))


COST_OF_A_KILL_BYTE_DAYS: Final = 15 * 2**30
"""A kill costs as much as a reservation of 15 GiB for a day, …"""
COST_OF_A_KILL_DAYS: Final = 3
"""… and at least as much as the program itself needs for 3 days."""
TYPICAL_EXCESS: Final = 0.06
"""The assumed mean excess of unseen runs over the median, as a part of the median."""
TYPICAL_RUNS: Final = 20
"""The number of runs that this assumption counts as."""
LEAST_EXCESS_OF_KILLED: Final = 0.2
"""The least mean excess of a killed run's need over its bound, as a part of the median."""
RELEASE_EXCESS: Final = 0.12
"""The mean excess of a release that needs more, as a part of the median, …"""
RELEASE_KILLS_A_DAY: Final = 3 / 30
"""… and the kills by such releases per day of a run if the limit has no room for them: there is one release
in 30 days, and it kills a run three times until the limit is raised."""

_STEP: Final = 1.002
"""The ratio of one compared limit to the next lower one."""


@dataclass(frozen=True)
class Outlook:
    """The runs seen, with the mean surplus of the runs that they stand for. Amounts are in bytes."""

    known_bytes: Floats
    """Needs of runs, ascending."""
    bound_bytes: Floats
    """Lower bounds of the needs of killed and held-back runs, ascending."""
    surplus_bytes: float
    """The mean excess of a further run above a known need that it exceeds."""
    bound_surplus_bytes: float
    """The same above a lower bound."""
    excess_of_release_bytes: float
    days: float
    """The total length of the runs."""
    kill_byte_days: float
    """The cost of a kill."""

    @classmethod
    def from_needs(cls, needs: Needs, below_bytes: float = inf) -> Outlook:
        """Return the outlook of at least one run. Runs at or above `below_bytes` are as likely as others to
        recur, but are too far off to show the spread of the others."""
        in_order = np.sort(needs.bound_bytes)
        middle = float(in_order[(len(in_order) - 1) // 2])
        is_above = (needs.bound_bytes >= middle) & (needs.bound_bytes < below_bytes)
        excess = float(needs.bound_bytes[is_above].sum()) / middle - int(is_above.sum())
        shown = int((is_above & ~needs.is_bound).sum())
        surplus = (TYPICAL_RUNS * TYPICAL_EXCESS + excess) / (TYPICAL_RUNS + shown)
        return cls(
            known_bytes=np.sort(needs.bound_bytes[~needs.is_bound]),
            bound_bytes=np.sort(needs.bound_bytes[needs.is_bound]),
            surplus_bytes=surplus * middle,
            bound_surplus_bytes=max(surplus, LEAST_EXCESS_OF_KILLED) * middle,
            excess_of_release_bytes=RELEASE_EXCESS * middle,
            days=float(needs.days.sum()),
            kill_byte_days=max(COST_OF_A_KILL_BYTE_DAYS, COST_OF_A_KILL_DAYS * middle),
        )

    def kills_per_run(self, limits_bytes: Floats) -> Floats:
        """Return the expected kills of a further run at each of the limits: the share of runs that need more,
        and the kills after releases."""
        runs = len(self.known_bytes) + len(self.bound_bytes)
        beyond = _beyond(self.known_bytes, self.surplus_bytes, limits_bytes)
        beyond += _beyond(self.bound_bytes, self.bound_surplus_bytes, limits_bytes)
        needs = np.sort(np.concatenate([self.known_bytes, self.bound_bytes]))
        after_release = _beyond(needs, self.excess_of_release_bytes, limits_bytes) / runs
        return beyond / runs + RELEASE_KILLS_A_DAY * self.days / runs * after_release

    def cheapest_bytes(self, most_bytes: float) -> float:
        """Return the cheapest limit of at most `most_bytes`, for as many runs and days as were seen."""
        runs = len(self.known_bytes) + len(self.bound_bytes)
        least = min(float(needs[0]) for needs in (self.known_bytes, self.bound_bytes) if len(needs))
        steps = int(np.ceil(np.log(most_bytes / least) / np.log(_STEP))) + 1
        limits = np.geomspace(least, most_bytes, steps)
        cost = limits * self.days + self.kill_byte_days * runs * self.kills_per_run(limits)
        return float(limits[np.argmin(cost)])


def _beyond(needs: Floats, surplus_bytes: float, limits: Floats) -> Floats:
    """Return how many runs are expected beyond each limit: the runs whose needs (ascending) are above it, and
    a part of the runs below it that falls with the distance."""
    if not len(needs):
        return np.zeros(len(limits))
    below = np.searchsorted(needs, limits, side="right")
    # log(sum(exp(need / surplus))) of the first needs: the sum itself would overflow
    sums = np.concatenate([[-np.inf], np.logaddexp.accumulate(needs / surplus_bytes)])
    of_those_below: Floats = np.exp(sums[below] - limits / surplus_bytes)
    return of_those_below + (len(needs) - below)


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
        return f"{100 * share_beyond:.0f} % of the runs may need more than the limits tried"
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
