"""Moments of a timeline to draw in shorter rows, because its own rows are too long to show them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

COARSE: Final = pd.Timedelta("1s")
"""The shortest length of a row in which kills, evictions and reclaim can no longer be distinguished."""

_AFTER: Final = 8
"""An eighth of a row is shown after a kill."""


@dataclass(frozen=True, slots=True)
class Moment:
    """An interval (UTC) to draw in shorter rows, and its event in words."""

    what: str
    begin: pd.Timestamp
    end: pd.Timestamp


def to_look_at(timeline: pd.DataFrame, kills: Sequence[pd.Timestamp]) -> list[Moment]:
    """Return the moments of the timeline of one cgroup, most important first.

    These are the last of `kills`, the row with the most evictions, and the first row with reclaim. A moment
    whose middle lies in an earlier one is left out. Timelines with rows shorter than `COARSE` have no such
    moments.
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
