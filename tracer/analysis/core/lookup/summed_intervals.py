"""The intervals in which page-cache runs were summed instead of being kept one by one.

Totals are exact there. The pages of a file that came and went are not known, so nothing can be linked through
such an interval (docs/trace-format.md, `summed`).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import column_times_ns, times_ns, utc_time
from tracer.analysis.results.quality import SummedInterval


class SummedIntervals:
    """The table `summed`, with rows that touch joined to one interval."""

    def __init__(self, summed: pd.DataFrame) -> None:
        ends = np.maximum.accumulate(times_ns(summed))
        begins = np.minimum.accumulate(column_times_ns(summed["begin"])[::-1])[::-1]
        reasons = summed["reason"].astype(str).to_numpy(dtype=object)
        firsts = np.flatnonzero(np.append(True, begins[1:] > ends[:-1])[: len(begins)])
        lasts = np.append(firsts[1:], len(begins))[: len(firsts)]
        self._begins, self._ends = begins[firsts], ends[lasts - 1]
        self._reasons = [
            tuple(dict.fromkeys(reasons[first:last])) for first, last in zip(firsts, lasts, strict=True)
        ]

    def near(self, begin_ns: int, end_ns: int) -> tuple[SummedInterval, ...]:
        """Return the intervals that overlap this one, by time."""
        first, last = np.searchsorted(self._ends, begin_ns), np.searchsorted(self._begins, end_ns, "right")
        return tuple(
            SummedInterval(utc_time(int(begin)), utc_time(int(end)), reasons)
            for begin, end, reasons in zip(
                self._begins[first:last], self._ends[first:last], self._reasons[first:last], strict=True
            )
        )
