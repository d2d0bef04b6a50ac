"""The losses of a trace: a row of `loss` is an interval in which records of one stream were lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import Int64s, column_times_ns, integers, times_ns

_IN_NO_NUMBER: Final = ("kernel_log", "samples", "stack_names", "stack_sample")
"""Streams that contribute to no number of a report."""

_FOR_GOOD: Final = "residue"
"""The stream of sums of charges. If a sum is lost, each later level is wrong."""


class Losses:
    """The table `loss`, by stream and interval."""

    def __init__(self, loss: pd.DataFrame) -> None:
        streams = loss["stream"].astype(str).to_numpy(dtype=object)
        self._streams = {
            str(stream): _Stream.from_rows(loss[streams == stream]) for stream in np.unique(streams)
        }

    def near(self, stream: str, begin_ns: int, end_ns: int) -> int:
        """Return the number of records of a stream that were lost in intervals that overlap this one."""
        return self._streams[stream].near(begin_ns, end_ns) if stream in self._streams else 0

    def affecting_numbers(self, begin_ns: int, end_ns: int) -> int:
        """Return the sum of `near` over all streams from which numbers of a report are computed; lost sums of
        charges count from the start of the trace until `end_ns`."""
        return sum(
            self.near(stream, 0 if stream == _FOR_GOOD else begin_ns, end_ns)
            for stream in self._streams
            if stream not in _IN_NO_NUMBER
        )


@dataclass(frozen=True, slots=True)
class _Stream:
    """The intervals of one stream.

    `ends` and `begins` ascend; `lost_by_end[n]` is the number of records lost in the first n intervals to
    end, `lost_by_begin[n]` in the first n to begin.
    """

    ends: Int64s
    lost_by_end: Int64s
    begins: Int64s
    lost_by_begin: Int64s

    @classmethod
    def from_rows(cls, loss: pd.DataFrame) -> _Stream:
        begins, lost = column_times_ns(loss["begin"]), integers(loss["lost"])
        order = np.argsort(begins, kind="stable")
        return cls(
            times_ns(loss),
            np.append(0, np.cumsum(lost)),
            begins[order],
            np.append(0, np.cumsum(lost[order])),
        )

    def near(self, begin_ns: int, end_ns: int) -> int:
        begun = self.lost_by_begin[np.searchsorted(self.begins, end_ns, "right")]
        return int(begun - self.lost_by_end[np.searchsorted(self.ends, begin_ns)])
