"""The window of time that a question is about, and the rows of summaries that belong to it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from tracer.fleet.summary.summaries import BIN_NS

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """From `since_ns` to before `until_ns`, in ns since the epoch; None: no bound."""

    since_ns: int | None = None
    until_ns: int | None = None

    def overlaps(self, begin_ns: int, end_ns: int) -> bool:
        """Return whether the span from `begin_ns` to `end_ns` overlaps the window."""
        is_too_late = self.until_ns is not None and begin_ns >= self.until_ns
        return not is_too_late and (self.since_ns is None or end_ns >= self.since_ns)

    def moments(self, rows: pa.Table) -> pa.Table:
        """Return the rows of `kills` whose `time` is in the window."""
        return self._kept(rows, _ns(rows["time"]), _ns(rows["time"]))

    def overlapping(self, rows: pa.Table) -> pa.Table:
        """Return the rows of `sources` or `lives` whose span from `time` to `end` overlaps the window. If the
        end is not known, the span is `time`."""
        begin = _ns(rows["time"])
        return self._kept(rows, begin, pc.coalesce(_ns(rows["end"]), begin))

    def whole_minutes(self, rows: pa.Table) -> pa.Table:
        """Return the rows of `evictors` or `timeline` whose minute is in the window as a whole. If the rows
        have the columns of the recorded part of the minute, only that part must be."""
        time = _ns(rows["time"])
        begin, end = time, pc.add(time, BIN_NS)
        if {"ktime_ns", "first_ktime_ns", "last_ktime_ns"} <= {*rows.column_names}:
            offset = pc.subtract(time, rows["ktime_ns"])
            begin = pc.coalesce(pc.add(rows["first_ktime_ns"], offset), begin)
            end = pc.coalesce(pc.add(rows["last_ktime_ns"], offset), end)
        return self._kept(rows, pc.subtract(end, 1), begin)

    def _kept(self, rows: pa.Table, early_ns: Any, late_ns: Any) -> pa.Table:
        """Return the rows whose `early_ns` is before the window's end, and whose `late_ns` is not before its
        begin."""
        if self.until_ns is not None:
            is_before = pc.less(early_ns, self.until_ns)
            rows, late_ns = rows.filter(is_before), late_ns.filter(is_before)
        if self.since_ns is not None:
            rows = rows.filter(pc.greater_equal(late_ns, self.since_ns))
        return rows


ALWAYS: Final = TimeWindow()


def time_ns(text: str) -> int:
    """Return a time in ISO 8601 in ns since the epoch, with microsecond resolution. It is UTC unless it has a
    zone.

    Raises ValueError.
    """
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND * 1000


def _ns(times: pa.ChunkedArray) -> Any:
    return times.cast(pa.int64())
