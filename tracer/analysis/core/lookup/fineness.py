"""The fineness of the rows of a trace over time: `watch` reduces older rows to one for each interval.

Such a row is a sum, or the last reading. Its time is the last one in the interval, so its content may come
from any earlier moment of the interval. A kill ends an interval (`tracer.trace.history.thinning`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import Bools, Int64s, utc_time
from tracer.analysis.results.quality import ThinnedInterval
from tracer.trace.value_ranges import LATEST_NS


class Fineness:
    """The intervals of the rows of a trace, from its meta.json and the times of its kills (ns).

    `is_thinned`: some rows are not as they were recorded.
    """

    def __init__(self, meta: Mapping[str, Any], kills: Int64s) -> None:
        stages: Sequence[Mapping[str, Any]] = meta.get("history", {}).get("fineness", ())
        ordered = sorted((_ns(stage["begin"]), stage["every_ms"] * 1_000_000) for stage in stages)
        self._begins = np.array([begin for begin, _ in ordered], np.int64)
        self._every = np.array([0, *(every for _, every in ordered)], np.int64)
        self._kills = np.unique(kills)
        clock = meta["clock"]
        self._origin_ns = clock["realtime_ns"] - clock["monotonic_ns"]
        self.is_thinned = bool(self._every.any())

    def every_ns(self, times: Int64s) -> Int64s:
        """Return the interval of the rows at each of these times in ns; 0: they are as they were recorded."""
        every: Int64s = self._every[np.searchsorted(self._begins, times, side="right")]
        return every

    def since(self, time_ns: int) -> int:
        """Return the earliest moment that a row at this time may cover: the begin of its interval."""
        every = int(self.every_ns(np.array([time_ns]))[0]) if self.is_thinned else 0
        if not every:
            return time_ns
        begin: int = (time_ns - self._origin_ns) // every * every + self._origin_ns
        stage = self._begins[np.searchsorted(self._begins, time_ns, side="right") - 1]
        kills = self._kills[: np.searchsorted(self._kills, time_ns)]
        return max(begin, int(stage), int(kills[-1]) + 1 if len(kills) else 0)

    def held_until(self, time_ns: int, following_ns: int) -> int:
        """Return the last moment at which a value of `time_ns` is known to be unchanged, or `time_ns` if the
        following row is as it was recorded.

        The content of the following row begins with its interval at the earliest.
        """
        since = self.since(following_ns)
        return time_ns if since == following_ns else max(time_ns, since)

    def are_last(self, times: Int64s) -> Bools:
        """Return a mask of the times (ascending) after which no row of the same interval follows.

        A running sum over the rows is exact there, and not within the interval.
        """
        every = self.every_ns(times)
        cells = (times - self._origin_ns) // np.maximum(every, 1)
        kills = np.searchsorted(self._kills, times)
        is_new = np.ones(len(times), np.bool_)
        is_new[:-1] = (np.diff(cells) != 0) | (np.diff(every) != 0) | (np.diff(kills) != 0)
        is_new |= every == 0
        return is_new

    def thinned(self, begin_ns: int, end_ns: int) -> tuple[ThinnedInterval, ...]:
        """Return the times with thinned rows that overlap an interval, in order."""
        bounds = pairwise([*self._begins.tolist(), LATEST_NS])
        return tuple(
            ThinnedInterval(utc_time(begin), utc_time(min(end, max(end_ns, begin))), every // 1_000_000)
            for (begin, end), every in zip(bounds, self._every[1:].tolist(), strict=True)
            if every and begin <= end_ns and end > begin_ns
        )


def _ns(moment: str) -> int:
    return int(pd.Timestamp(moment).tz_convert("UTC").as_unit("ns").value)
