"""What was lost, by when: an interval in which records of a stream were lost is a row of `loss`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import Int64s, column_times_ns, integers, times_ns

_IN_NO_NUMBER: Final = ("kernel_log", "samples", "stack_names", "stack_sample")


class Losses:
    """The losses of a trace, for whoever asks about one interval after the other."""

    def __init__(self, loss: pd.DataFrame) -> None:
        streams = loss["stream"].astype(str).to_numpy(dtype=object)
        self._of = {str(stream): _Stream.of(loss[streams == stream]) for stream in np.unique(streams)}

    def near(self, stream: str, begin_ns: int, end_ns: int) -> int:
        """Records of the stream that were lost in intervals that touch this one."""
        return self._of[stream].near(begin_ns, end_ns) if stream in self._of else 0

    def of_numbers(self, begin_ns: int, end_ns: int) -> int:
        """The same of all streams whose loss makes a number of a report less certain."""
        return sum(self.near(stream, begin_ns, end_ns) for stream in self._of if stream not in _IN_NO_NUMBER)


@dataclass(frozen=True, slots=True)
class _Stream:
    """When its intervals ended and began, each ascending, and how much was lost in the first so many."""

    ends: Int64s
    lost_by_end: Int64s
    begins: Int64s
    lost_by_begin: Int64s

    @classmethod
    def of(cls, loss: pd.DataFrame) -> _Stream:
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
