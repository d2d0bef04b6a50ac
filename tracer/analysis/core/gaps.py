"""The times in which a trace does not have everything: lost records, sums, thinned rows, and looks.

A row of `loss` is an interval in which records of one stream were lost.

Where page-cache runs were summed, totals are exact. The pages of a file that came and went are not known, so
nothing can be linked through such an interval (docs/trace-format.md, `summed`).

`watch` reduces older rows to one for each interval: a sum, or the last reading. Its time is the last one in
the interval, so its content may come from any earlier moment of the interval. A kill ends an interval
(`tracer.trace.history.thinning`).

The recorder looks at all cgroups, and leaves out the sample of a cgroup that did not change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import (
    Bools,
    Int64s,
    column_times_ns,
    integers,
    is_one_of,
    times_ns,
    utc_time,
)
from tracer.analysis.results.quality import SummedInterval, ThinnedInterval
from tracer.schema import LATEST_NS
from tracer.wire.streams import UNREPORTED

_IN_NO_SIZE: Final = ("kernel_log", "samples", "stack_names", "stack_copy", "code_sample", UNREPORTED)
"""Streams from which no size and no count of a report is computed."""

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

    @property
    def affecting_sizes(self) -> int:
        """The lost records of the whole trace from which sizes and counts would be computed."""
        return self.affecting_sizes_near(0, LATEST_NS)

    def affecting_sizes_near(self, begin_ns: int, end_ns: int) -> int:
        """Return the sum of `near` over all streams from which sizes and counts of a report are computed;
        lost sums of charges count from the start of the trace until `end_ns`."""
        return sum(
            self.near(stream, 0 if stream == _FOR_GOOD else begin_ns, end_ns)
            for stream in self._streams
            if stream not in _IN_NO_SIZE
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
        begun = self.lost_by_begin[self.begins.searchsorted(end_ns, "right")]
        return int(begun - self.lost_by_end[self.ends.searchsorted(begin_ns)])


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
        first, last = self._ends.searchsorted(begin_ns), self._begins.searchsorted(end_ns, "right")
        return tuple(
            SummedInterval(utc_time(int(begin)), utc_time(int(end)), reasons)
            for begin, end, reasons in zip(
                self._begins[first:last], self._ends[first:last], self._reasons[first:last], strict=True
            )
        )


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
