"""The looks of the recorder at all cgroups: when it sampled, and whether it left out what did not change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import Int64s, is_one_of, times_ns

LOOKED_NS: Final = 200_000_000
"""The time from one look at a cgroup after which the next one, due after 100 ms, is over."""

_OF_A_ROW: Final = ("source", "kill_id")


@dataclass(frozen=True, slots=True)
class Looks:
    """The times of all samples (ns, ascending), and whether every look at a cgroup gave a sample.

    Older recorders sampled all cgroups at every look. A recorder that leaves out cgroups that did not change
    writes no periodic sample that is equal to the one before.
    """

    times: Int64s
    is_dense: bool

    @classmethod
    def from_samples(cls, samples: pd.DataFrame, times: Int64s | None = None) -> Looks:
        """Return the looks from samples that were not thinned. `times` are the times of all samples if some
        were thinned."""
        values = samples.drop(columns=list(_OF_A_ROW)).assign(
            is_periodic=is_one_of(samples["source"], ["periodic"])
        )
        of_cgroup = values.sort_values("cgroup_id", kind="stable").reset_index(drop=True)
        before, now = of_cgroup.iloc[:-1].reset_index(drop=True), of_cgroup.iloc[1:].reset_index(drop=True)
        is_same = ((before == now) | (before.isna() & now.isna())).drop(columns="is_periodic")
        is_repeated = is_same.fillna(False).astype(bool).all(axis=1) & now["is_periodic"]
        return cls(times_ns(samples) if times is None else times, bool(is_repeated.any()))

    def missed(self, begin_ns: int, end_ns: int) -> bool:
        """Return whether the recorder did not look for a while within an interval. That is known only if each
        look gives samples: no cgroup was sampled then."""
        if not self.is_dense:
            return False
        first, end = np.searchsorted(self.times, [begin_ns, end_ns + 1])
        between = np.concatenate([[begin_ns], self.times[first:end], [end_ns]])
        return bool((np.diff(between) > LOOKED_NS).any())
