"""Where something happened within rows of a timeline that are too long to show it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

COARSE: Final = pd.Timedelta("1s")
"""From this length of a row on, kills, evictions and reclaim disappear in their row."""

_AFTER: Final = 8
"""The part of a row that is shown after a kill: one in so many."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A part of a timeline to look at in shorter rows, UTC, and what happened there."""

    what: str
    begin: pd.Timestamp
    end: pd.Timestamp


def to_look_at(timeline: pd.DataFrame, kills: Sequence[pd.Timestamp]) -> list[Moment]:
    """Return where to look closer at what `analysis.views.timeline` gives for one cgroup, the most telling
    first.

    These are the last of `kills`, the row with the most evictions, and the first row with reclaim, each if it
    is not part of one before. Rows shorter than `COARSE` need no closer look.
    """
    if len(timeline) < 2 or (step := timeline.index[1] - timeline.index[0]) < COARSE:
        return []
    found: list[Moment] = []
    for moment in _candidates(timeline, kills, step):
        middle = moment.begin + (moment.end - moment.begin) / 2
        if not any(other.begin <= middle < other.end for other in found):
            found.append(moment)
    return found


def _candidates(
    timeline: pd.DataFrame, kills: Sequence[pd.Timestamp], step: pd.Timedelta
) -> Iterator[Moment]:
    within = [kill for kill in kills if timeline.index[0] <= kill < timeline.index[-1] + step]
    if within:
        last = max(within)
        yield Moment("the last kill", max(last - step, timeline.index[0]), last + step / _AFTER)
    evicted = timeline["cache_evicted_bytes"].to_numpy(dtype=np.float64, na_value=0)
    if evicted.any():
        begin = timeline.index[int(evicted.argmax())]
        yield Moment("the most evictions", begin, begin + step)
    tries = timeline["reclaim_attempts"].to_numpy(dtype=np.float64, na_value=0)
    if tries.any():
        begin = timeline.index[int((tries > 0).argmax())]
        yield Moment("the first reclaim", begin, begin + step)
