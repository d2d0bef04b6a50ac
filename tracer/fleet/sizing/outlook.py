"""What further runs will need, and the limit that costs least.

Each run seen stands for further ones that need as much, and then some more. This surplus falls off
exponentially. Its mean is measured on the runs from the median on: their mean excess, divided by the part of
them that shows a need and no bound, as the mean of lifetimes of which some are only bounds. Few runs say
little about it, so `TYPICAL_RUNS` runs with a typical excess count with them. A killed run needs more than
its bound by an unknown amount, so its surplus is larger.

What the runs of one release need says nothing about the next release, however many runs there are. So beside
the surplus of each run there is a change of all of them: a release that needs more, and kills until the limit
is raised. It is assumed, not measured, and falls off with the distance as a surplus does.

A limit costs the memory that it reserves while the runs last, and the kills of the runs that need more. No
kill is too cheap to count, and none is prevented at any price: where a program once in a while allocates
without end, or one run of many is far off, it is cheaper to leave such a run beyond the limit.
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
"""The mean excess over the median that is assumed of runs not seen, as a part of the median."""
TYPICAL_RUNS: Final = 20
"""How many runs this assumption counts for."""
LEAST_EXCESS_OF_KILLED: Final = 0.2
"""How much more than its bound a killed run needs on average, at least, as a part of the median."""
RELEASE_EXCESS: Final = 0.12
"""How much more a release needs on average, of those that need more, as a part of the median, …"""
RELEASE_KILLS_A_DAY: Final = 3 / 30
"""… and how many kills such releases cost on each day of a run if the limit has no room for them: there is
one in 30 days, and a run is killed three times until its limit is raised."""

_STEP: Final = 1.002
"""The ratio of one limit to the next lower one, of those that are compared."""


@dataclass(frozen=True)
class Outlook:
    """The runs seen, with the mean surplus of the runs that they stand for. Amounts are in bytes."""

    known_bytes: Floats
    """Needs of runs, in order."""
    bound_bytes: Floats
    """Lower bounds of the needs of killed runs, in order."""
    surplus_bytes: float
    surplus_of_killed_bytes: float
    excess_of_release_bytes: float
    days: float
    """How long the runs lasted, together."""
    kill_byte_days: float
    """What a kill costs."""

    @classmethod
    def from_needs(cls, needs: Needs, below_bytes: float = inf) -> Outlook:
        """Return the outlook of at least one run. Runs at or above `below_bytes` are as likely as others to
        come again, but are too far off to tell how the others spread."""
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
        """Return how many kills are expected of a further run at each of the limits: the share of runs that
        need more, and the kills after releases."""
        runs = len(self.known_bytes) + len(self.bound_bytes)
        beyond = _beyond(self.known_bytes, self.surplus_bytes, limits_bytes)
        beyond += _beyond(self.bound_bytes, self.surplus_of_killed_bytes, limits_bytes)
        needs = np.sort(np.concatenate([self.known_bytes, self.bound_bytes]))
        after_release = _beyond(needs, self.excess_of_release_bytes, limits_bytes) / runs
        return beyond / runs + RELEASE_KILLS_A_DAY * self.days / runs * after_release

    def cheapest_bytes(self, most_bytes: float) -> float:
        """Return the limit that costs least, of those up to the given one, as many runs and days as were
        seen."""
        runs = len(self.known_bytes) + len(self.bound_bytes)
        least = min(float(needs[0]) for needs in (self.known_bytes, self.bound_bytes) if len(needs))
        steps = int(np.ceil(np.log(most_bytes / least) / np.log(_STEP))) + 1
        limits = np.geomspace(least, most_bytes, steps)
        cost = limits * self.days + self.kill_byte_days * runs * self.kills_per_run(limits)
        return float(limits[np.argmin(cost)])


def _beyond(needs: Floats, surplus_bytes: float, limits: Floats) -> Floats:
    """Return how many runs are expected beyond each limit, for needs in order: those above it, and of those
    below it a part that falls with the distance."""
    if not len(needs):
        return np.zeros(len(limits))
    below = np.searchsorted(needs, limits, side="right")
    # log(sum(exp(need / surplus))) of the first needs: the sum itself would overflow
    sums = np.concatenate([[-np.inf], np.logaddexp.accumulate(needs / surplus_bytes)])
    of_those_below: Floats = np.exp(sums[below] - limits / surplus_bytes)
    return of_those_below + (len(needs) - below)
