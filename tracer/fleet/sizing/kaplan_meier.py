"""The share of lives that need more than a given limit, from needs of which some are only lower bounds.

This is the estimator of Kaplan and Meier ("Nonparametric Estimation from Incomplete Observations", 1958),
with memory in the place of time: a killed life leaves the sample at its bound, and the lives above the bound
stand in for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tracer.fleet.sizing.needs import Floats, Needs


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
