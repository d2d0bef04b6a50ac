"""The OOM killer's reports in the kernel log of a trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import pandas as pd

from tracer.analysis.core.columns import times_ns
from tracer.kernel.kmsg import parser
from tracer.kernel.kmsg.report.log_report import LogReport
from tracer.stored_names import stored_text


@dataclass(frozen=True, slots=True)
class Logged:
    """A report of the log, and the times of its kill lines by pid, in ns since the epoch.

    The times may be late by the delay of the recorder's wake-up, from which the offset between the clocks is
    estimated (capture/rows/kmsg_stream.py).
    """

    report: LogReport
    killed_ns: Mapping[int, int]


def logged(kernel_log: pd.DataFrame) -> list[Logged]:
    """Return the reports in the table `kernel_log`, each with the times of its kills."""
    rows = kernel_log.sort_values("sequence")
    moments = times_ns(rows)
    found = []
    for report in parser.reports(_lines(rows)):
        killed_ns = {kill.pid: int(moments[kill.stamp.line - 1]) for kill in report.kills}
        if report.chosen is not None:
            killed_ns.setdefault(report.chosen.pid, int(moments[report.last_line - 1]))
        tasks = tuple(replace(task, comm=stored_text(task.comm)) for task in report.tasks)
        found.append(Logged(replace(report, tasks=tasks), killed_ns))
    return found


def _lines(rows: pd.DataFrame) -> Iterator[str]:
    """Return the rows as lines of /dev/kmsg (Documentation/ABI/testing/dev-kmsg)."""
    columns = ("level", "sequence", "ktime_ns", "caller", "text")
    for level, sequence, ktime_ns, caller, text in zip(*(rows[name] for name in columns), strict=True):
        by = "" if pd.isna(caller) else f",caller={caller}"
        yield f"{level},{sequence},{ktime_ns // 1000},-{by};{text}"
