"""Beyond the largest need seen: how much further the needs of a workload may go.

Needs above the median of all values and bounds are taken to fall off exponentially. The mean excess is
estimated from the median one, so that a single run that was far off does not make all others look uncertain.
It is divided by the part of these runs that were not killed, as in the estimate of a mean lifetime from
lifetimes of which some are only bounds. So a kill makes the tail longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log

import numpy as np

from tracer.fleet.sizing.kaplan_meier import Survival
from tracer.fleet.sizing.needs import Needs


@dataclass(frozen=True)
class Tail:
    """`share * exp(-excess / mean_excess_bytes)` of the lives need `excess` more than `start_bytes`."""

    start_bytes: float
    share: float
    mean_excess_bytes: float

    @classmethod
    def from_needs(cls, needs: Needs, survival: Survival) -> Tail | None:
        """Return the tail, None if all lives in it were killed."""
        in_order = np.sort(needs.bound_bytes)
        start = float(in_order[(len(in_order) - 1) // 2])
        is_above = needs.bound_bytes > start
        beyond = int((is_above | (needs.is_killed & (needs.bound_bytes >= start))).sum())
        known = int((is_above & ~needs.is_killed).sum())
        share = survival.share_above(start)
        if not beyond:
            return cls(start, share, 0.0)
        if not known:
            return None
        median = float(np.median(in_order[in_order > start])) - start
        return cls(start, share, median / log(2) * beyond / known)

    def need_at(self, share: float) -> float:
        """Return the need in bytes that this share of the lives exceeds."""
        return self.start_bytes + self.mean_excess_bytes * log(max(1.0, self.share / share))

    def share_above(self, limit_bytes: float) -> float:
        """Return the share of lives that need more than the limit, which is at least `start_bytes`."""
        excess = limit_bytes - self.start_bytes
        if not self.mean_excess_bytes:
            return 0.0 if excess > 0 else self.share
        return self.share * exp(-excess / self.mean_excess_bytes)
