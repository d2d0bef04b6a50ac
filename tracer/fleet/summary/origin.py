"""The origin of rows: the trace, its clocks, and the columns of each row that name it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

from tracer.analysis.trace import AnalysedTrace
from tracer.fleet.summary.summaries import BIN_NS, SUMMARY_VERSION
from tracer.trace.meta import trace_id

_DAY_NS: Final = 86_400_000_000_000


@dataclass(frozen=True, slots=True)
class Origin:
    """A trace: its machine, its name, and the offset between its clocks.

    `clock_offset_ns` is CLOCK_REALTIME less CLOCK_MONOTONIC.
    """

    host: str
    boot_id: str | None
    trace: str
    trace_id: str
    clock_offset_ns: int

    @classmethod
    def from_trace(cls, trace: AnalysedTrace) -> Self:
        meta = trace.meta
        return cls(
            host=_storable(meta["host_name"]),
            boot_id=_storable(boot_id) if (boot_id := meta.get("boot_id")) is not None else None,
            trace=_storable(trace.path.resolve().name),
            trace_id=trace_id(meta),
            clock_offset_ns=meta["clock"]["realtime_ns"] - meta["clock"]["monotonic_ns"],
        )

    def row(self, time_ns: int) -> dict[str, Any]:
        """Return the columns with the origin of a row at `time_ns` (ns since the epoch), and its `time`."""
        return {
            "date": time_ns // _DAY_NS,
            "host": self.host,
            "boot_id": self.boot_id,
            "trace": self.trace,
            "trace_id": self.trace_id,
            "summary_version": SUMMARY_VERSION,
            "time": time_ns,
        }

    def ktime_ns(self, time_ns: int) -> int:
        """Return CLOCK_MONOTONIC of a moment in ns since the epoch."""
        return time_ns - self.clock_offset_ns

    def bin_edges_ns(self, first_ns: int, last_ns: int) -> list[int]:
        """Return the edges of the intervals of `BIN_NS`, in ns since the epoch. The first edge is `first_ns`,
        and the last is `last_ns`."""
        bins = range(self.ktime_ns(first_ns) // BIN_NS + 1, -(-self.ktime_ns(last_ns) // BIN_NS))
        return [
            first_ns,
            *(number * BIN_NS + self.clock_offset_ns for number in bins),
            max(first_ns, last_ns),
        ]

    def bin_row(self, first_ns: int, last_ns: int) -> dict[str, Any]:
        """Return the columns of a row about an interval of `BIN_NS`, of which it covers `first_ns` to
        `last_ns`."""
        begin = self.ktime_ns(first_ns) // BIN_NS * BIN_NS
        return {
            **self.row(begin + self.clock_offset_ns),
            "ktime_ns": begin,
            "first_ktime_ns": self.ktime_ns(first_ns),
            "last_ktime_ns": self.ktime_ns(last_ns),
        }


def _storable(name: str) -> str:
    """Return a name with `\\` escapes for bytes that are not UTF-8, which Parquet cannot hold."""
    return name.encode(errors="backslashreplace").decode()
