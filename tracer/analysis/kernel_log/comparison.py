"""What the kernel log of a trace says of its kills: read, put beside what the probes saw, and into what they
left open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import pandas as pd

from tracer.analysis.core.index import Grouped
from tracer.analysis.core.tables import TraceTables, integers, times_ns
from tracer.analysis.kernel_log import completion, matching
from tracer.analysis.kernel_log.agreement import disagreements
from tracer.analysis.kernel_log.matching import Logged
from tracer.analysis.results.quality import KernelLog
from tracer.kernel.kmsg import grammar
from tracer.kernel.kmsg.log_report import LogReport
from tracer.stored_names import stored_text


@dataclass(frozen=True, slots=True)
class Told:
    """What the log has on one kill. `state`, `missing`, `fields` and `disagreements` are what `Quality` says
    of it."""

    report: LogReport | None
    state: KernelLog
    missing: str
    fields: tuple[str, ...]
    disagreements: tuple[str, ...]

    def gfp_names(self, gfp: int | None) -> str:
        """What the log calls these flags; empty where it has others, or none."""
        asked = None if self.report is None else self.report.invoker
        return (asked.gfp_names or "") if asked is not None and asked.gfp == gfp else ""


def complete(trace: TraceTables) -> tuple[TraceTables, Mapping[int, Told]]:
    """The trace with what its kernel log adds to the tables; what the log has on each kill, by kill_id."""
    kill_ids = dict.fromkeys(integers(trace.oom["kill_id"]).tolist())
    of_kill = Grouped.by(integers(trace.oom["kill_id"]))
    matched = matching.match(trace.oom, trace.logged) if kill_ids else {}
    taken: completion.Taken = {kill_id: [] for kill_id in kill_ids}
    tables = completion.complete(trace, matched, taken)
    told = {}
    for kill_id in kill_ids:
        rows = trace.oom.iloc[of_kill.of(kill_id)]
        report = matched.get(kill_id)
        coverage = matching.coverage(trace, int(times_ns(rows)[0]), report)
        told[kill_id] = Told(
            report,
            coverage.state,
            coverage.missing,
            tuple(taken[kill_id]),
            () if report is None else tuple(disagreements(trace, rows, report)),
        )
    return tables, told


def logged(kernel_log: pd.DataFrame) -> list[Logged]:
    """The reports of the table `kernel_log`, each with the times of its kills."""
    rows = kernel_log.sort_values("sequence")
    moments = times_ns(rows)
    found = []
    for report in grammar.reports(_lines(rows)):
        killed_ns = {kill.pid: int(moments[kill.stamp.line - 1]) for kill in report.kills}
        if report.chosen is not None:
            killed_ns.setdefault(report.chosen.pid, int(moments[report.last_line - 1]))
        tasks = tuple(replace(task, comm=stored_text(task.comm)) for task in report.tasks)
        found.append(Logged(replace(report, tasks=tasks), killed_ns))
    return found


def _lines(rows: pd.DataFrame) -> Iterator[str]:
    """As /dev/kmsg gave them, one a row."""
    columns = ("level", "sequence", "ktime_ns", "caller", "text")
    for level, sequence, ktime_ns, caller, text in zip(*(rows[name] for name in columns), strict=True):
        by = "" if pd.isna(caller) else f",caller={caller}"
        yield f"{level},{sequence},{ktime_ns // 1000},-{by};{text}"
