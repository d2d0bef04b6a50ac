"""Beyond the largest need seen: how much further the needs of a workload may go.

Needs above the median of all values and bounds are taken to fall off as a power law. Its index is Hill's
estimator ("A Simple General Approach to Inference About the Tail of a Distribution", 1975) in the form for
lower bounds: the sum over all lives above the median, divided by the number of those that were not killed. So
it does not depend on the unit of memory, and a kill makes the tail longer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tracer.fleet.sizing.kaplan_meier import Survival
from tracer.fleet.sizing.needs import Needs


@dataclass(frozen=True)
class Tail:
    """`share * (need / start_bytes) ** (-1 / index)` of the lives need more, from `start_bytes` on."""

    start_bytes: float
    share: float
    index: float

    @classmethod
    def from_needs(cls, needs: Needs, survival: Survival) -> Tail | None:
        """Return the tail, None if all lives in it were killed."""
        in_order = np.sort(needs.bound_bytes)
        start = float(in_order[(len(in_order) - 1) // 2])
        is_above = (needs.bound_bytes > start) | (needs.is_killed & (needs.bound_bytes >= start))
        known = int((is_above & ~needs.is_killed).sum())
        if not known and is_above.any():
            return None
        excess = float(np.log(in_order[in_order > start] / start).sum())
        index = excess / known * (1 + known**-0.5) if known else 0.0  # one standard error to the safe side
        return cls(start, survival.share_above(start), index)

    def need_at(self, share: float) -> float:
        """Return the need in bytes that this share of the lives exceeds."""
        return float(self.start_bytes * max(1.0, self.share / share) ** self.index)

    def share_above(self, limit_bytes: float) -> float:
        """Return the share of lives that need more than the limit, which is at least `start_bytes`."""
        if not self.index:
            return 0.0 if limit_bytes > self.start_bytes else self.share
        return float(self.share * (limit_bytes / self.start_bytes) ** (-1 / self.index))
