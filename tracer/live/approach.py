"""The cgroups that near the end of their limits, at the moments when a look at their processes is worth most.

A look shows what filled the limit, and the kernel frees that memory at the kill. So the last look before a
kill should be late, and no look should be paid for while nothing happens:

* A cgroup is looked at when less than a quarter of its limit is left. If that would be used up within a
  second, the look waits until half a second is left, or a sixteenth of the limit. Growth so fast counts
  whatever is left.
* There is another look, a second later at the earliest, when the cushion has fallen by a further 32nd of the
  limit, or a quarter of a second later when half of it is left and would be used up within half a second. A
  cgroup that lives near its limit, and falls no further, is looked at every 30 s at most.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import pyarrow as pa

from tracer.live.cgroup_states import CgroupStates
from tracer.live.countdown import cushions
from tracer.live.sample_arrays import UNKNOWN, Numbers, turns, values

_SECOND_NS: Final = 1_000_000_000
_AGAIN_NS: Final = _SECOND_NS
AGAIN_IF_HALF_NS: Final = _SECOND_NS // 4
_AGAIN_IF_NO_LOWER_NS: Final = 30 * _SECOND_NS
_LATE_NS: Final = _SECOND_NS // 2
_EARLY_DIVISOR: Final = 4
_LATE_DIVISOR: Final = 16
_STEP_DIVISOR: Final = 32
_AWAY_DIVISOR: Final = 2  # so much is left again: what comes next is a new approach
_NEVER_NS: Final = -(1 << 62)

_KIND: Final = np.dtype(
    [
        ("time", "i8"),
        ("left", "i8"),  # the cushion of the last sample; UNKNOWN: there was none
        ("looked_ns", "i8"),
        ("least", "i8"),  # the least cushion at a look on this approach; UNKNOWN: there was no look
    ]
)
_FRESH: Final = (0, UNKNOWN, _NEVER_NS, UNKNOWN)


class Approach:
    """Finds the cgroups to look at in batches of samples. `states` has what is known of each cgroup."""

    def __init__(self) -> None:
        self.states = CgroupStates(_KIND, _FRESH)

    def take(self, samples: pa.RecordBatch, free_swap_bytes: int) -> list[int]:
        """Return the ids of the cgroups to look at now, each once, the one with the least left first."""
        found = cushions(samples, free_swap_bytes)
        rows = np.flatnonzero(found.is_known)
        ids, times = (values(samples, name)[rows] for name in ("cgroup_id", "time"))
        left, limit, places = found.left[rows], found.limit[rows], self.states.places(ids)
        due: dict[int, float] = {}
        for turn in turns(places):
            is_due = self._step(times[turn], left[turn], limit[turn], places[turn])
            for row in turn[is_due].tolist():
                due[int(ids[row])] = left[row] / max(limit[row], 1)
        return sorted(due, key=lambda cgroup_id: due[cgroup_id])

    def forget(self, cgroup_ids: Iterable[int]) -> None:
        """Drop what is known of cgroups that are gone."""
        self.states.forget(cgroup_ids)

    def _step(self, time: Numbers, left: Numbers, limit: Numbers, places: Numbers) -> Numbers:
        """Take samples of different cgroups, and return the numbers of those to look at."""
        states = self.states.rows
        before = states[places]
        least = np.where(left * _AWAY_DIVISOR > limit, UNKNOWN, before["least"])
        fall = np.where(before["left"] == UNKNOWN, 0, before["left"] - left)
        # What is left lasts so long at the pace of the last two samples.
        lasts_ns = np.where(fall > 0, left / np.maximum(fall, 1) * (time - before["time"]), np.inf)
        is_near = (
            (left * _LATE_DIVISOR < limit)
            | (lasts_ns <= _LATE_NS)
            | ((left * _EARLY_DIVISOR < limit) & (lasts_ns > _AGAIN_NS + _LATE_NS))
        )
        is_lower = (least == UNKNOWN) | (left <= least - limit // _STEP_DIVISOR)
        is_half = is_lower & (left * 2 <= least) & (lasts_ns <= _LATE_NS)
        pause_ns = np.select([is_half, is_lower], [AGAIN_IF_HALF_NS, _AGAIN_NS], _AGAIN_IF_NO_LOWER_NS)
        due = np.flatnonzero(is_near & (time - before["looked_ns"] >= pause_ns))
        least[due] = np.where(least[due] == UNKNOWN, left[due], np.minimum(least[due], left[due]))
        states["time"][places], states["left"][places], states["least"][places] = time, left, least
        states["looked_ns"][places[due]] = time[due]
        return due
