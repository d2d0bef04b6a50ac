"""The needs of further runs, and the limit that costs least.

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

from dataclasses import dataclass
from math import inf
from typing import Final

import numpy as np

from tracer.fleet.sizing.needs import Floats, Needs

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
    surplus_of_killed_bytes: float
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
            surplus_of_killed_bytes=max(surplus, LEAST_EXCESS_OF_KILLED) * middle,
            excess_of_release_bytes=RELEASE_EXCESS * middle,
            days=float(needs.days.sum()),
            kill_byte_days=max(COST_OF_A_KILL_BYTE_DAYS, COST_OF_A_KILL_DAYS * middle),
        )

    def kills_per_run(self, limits_bytes: Floats) -> Floats:
        """Return the expected kills of a further run at each of the limits: the share of runs that need more,
        and the kills after releases."""
        runs = len(self.known_bytes) + len(self.bound_bytes)
        beyond = _beyond(self.known_bytes, self.surplus_bytes, limits_bytes)
        beyond += _beyond(self.bound_bytes, self.surplus_of_killed_bytes, limits_bytes)
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
