"""The match between the reports of the kernel log and the kills of a trace.

Both have a time, and the victim's pid in the initial pid namespace. The pairs nearest in time are matched
first, each report and each kill once. The two times of a pair may be as far apart as the two clocks can be,
and the report as late as a recorder that waits for memory (capture/rows/kmsg_stream.py). A decision of the
OOM killer has one report, with a kill line for each victim.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd

from tracer.analysis.core.columns import integers, times_ns
from tracer.analysis.core.lookup.log_reports import Logged
from tracer.analysis.core.tables import TraceTables
from tracer.analysis.results.quality import KernelLog
from tracer.kernel.kmsg.report.log_report import LogReport, Section

APART_AT_MOST_NS: Final = 2_000_000_000
"""The greatest distance between the time of the log and that of the probes."""
LATE_AT_MOST_NS: Final = 60_000_000_000
"""The greatest delay of the log's time after the probes' time. If the kill is the recorder's first record of
the log, its time is the time of the wake-up, which a machine without memory delays by seconds. If a pid is
used again within this time, and killed again, each kill has the report nearest to it."""

_LOSS_NEAR_NS: Final = 1_000_000_000
_OF_A_DUMP: Final[frozenset[Section]] = frozenset({"header", "counters", "summary"})
"""The sections that dump_header prints with any settings (mm/oom_kill.c)."""

_NOT_READ: Final = "the trace is of a version that did not read the kernel log"
_NO_LINE: Final = (
    "the kernel logged nothing on this kill while the trace was recorded, "
    "as when the victim was already exiting"
)
_RATE_LIMITED: Final = "only the line of the kill is there: the kernel prints at most 10 reports in 5 s"
_NO_TASKS: Final = "the table of tasks is missing, as with vm.oom_dump_tasks=0"


@dataclass(frozen=True, slots=True)
class Coverage:
    """The part of a report that is in the log; `missing` names the absent parts and the reason ("": none)."""

    state: KernelLog
    missing: str


def match(oom: pd.DataFrame, logged: Sequence[Logged]) -> dict[int, LogReport]:
    """Return kill_id -> its report; `oom` and `logged` are those of one trace."""
    pairs = sorted(_pairs(oom, logged))
    found: dict[int, int] = {}
    taken = set[int]()
    for _, kill_id, number in pairs:
        if kill_id not in found and number not in taken:
            found[kill_id] = number
            taken.add(number)
    return {kill_id: logged[number].report for kill_id, number in found.items()}


def unmatched(oom: pd.DataFrame, logged: Sequence[Logged]) -> list[Logged]:
    """Return the reports of kills that `oom` does not have.

    A report is left out if any of its victims is in `oom`, even if the kill has another report: the log can
    have a group kill in several pieces.
    """
    seen = {number for _, _, number in _pairs(oom, logged)}
    return [one for number, one in enumerate(logged) if one.report.kills and number not in seen]


def _pairs(oom: pd.DataFrame, logged: Sequence[Logged]) -> Iterator[tuple[int, int, int]]:
    """Yield (distance in ns, kill_id, number of the report) of all pairs that may belong together."""
    kills = zip(
        integers(oom["kill_id"]).tolist(), integers(oom["pid"]).tolist(), times_ns(oom).tolist(), strict=True
    )
    by_pid: dict[int, list[tuple[int, int]]] = {}
    for number, one in enumerate(logged):
        for pid, killed_ns in one.killed_ns.items():
            by_pid.setdefault(pid, []).append((number, killed_ns))
    for kill_id, pid, marked_ns in kills:
        for number, killed_ns in by_pid.get(pid, ()):
            late_ns = killed_ns - marked_ns
            if -APART_AT_MOST_NS <= late_ns <= LATE_AT_MOST_NS:
                yield abs(late_ns), kill_id, number


def coverage(trace: TraceTables, time_ns: int, report: LogReport | None) -> Coverage:
    """Return the part of the report on a kill at that time that is in the log."""
    lost = trace.losses.near("kernel_log", time_ns - _LOSS_NEAR_NS, time_ns + _LOSS_NEAR_NS)
    overrun = (
        f"{lost} records of the kernel log around it were overwritten before they were read" if lost else None
    )
    if report is None:
        state = trace.meta.get("kernel_log")
        if state is None:
            return Coverage("missing", _NOT_READ)
        return Coverage(
            "missing", f"it could not be read: {state}" if state != "read" else overrun or _NO_LINE
        )
    if _OF_A_DUMP.issubset(report.missing) and not lost:
        return Coverage("rate_limited", _RATE_LIMITED)
    if report.missing == ("tasks",) and not lost:
        return Coverage("matched", _NO_TASKS)
    if report.missing:
        why = f": {overrun}" if overrun else ""
        return Coverage("matched", f"it lacks {', '.join(report.missing)}{why}")
    return Coverage("matched", "")
