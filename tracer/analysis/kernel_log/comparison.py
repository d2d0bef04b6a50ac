"""The kernel log of a trace, compared with the records of its probes and merged into them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tracer.analysis.core.columns import integers, optional, records, times_ns
from tracer.analysis.core.index import RowIndex
from tracer.analysis.core.lookup.stacks import is_named
from tracer.analysis.core.tables import TraceTables
from tracer.analysis.kernel_log import agreement, matching, merging
from tracer.analysis.results.quality import KernelLog
from tracer.kernel.kmsg.report.log_report import LogReport


@dataclass(frozen=True, slots=True)
class Told:
    """The findings of the log on one kill.

    `state`, `missing`, `fields` and `disagreements` are the values that `Quality` of its report gets.
    `origins`: those of `merging.Origins`.
    """

    report: LogReport | None
    state: KernelLog
    missing: str
    fields: tuple[str, ...]
    disagreements: tuple[str, ...]
    origins: Mapping[str, str]

    def gfp_names(self, gfp: int | None) -> str:
        """Return the names that the log has for these flags; "" if the log has other flags, or none."""
        asked = None if self.report is None else self.report.invoker
        return (asked.gfp_names or "") if asked is not None and asked.gfp == gfp else ""


@dataclass(frozen=True, slots=True)
class Completed:
    """Two tables of a trace with what its kernel log adds.

    `told` is kill_id -> the findings of the log on the kill.
    """

    oom: pd.DataFrame
    samples: pd.DataFrame
    told: Mapping[int, Told]


def complete(trace: TraceTables) -> Completed:
    """Return the tables of a trace completed by its kernel log."""
    kill_ids = dict.fromkeys(integers(trace.oom["kill_id"]).tolist())
    of_kill = RowIndex.from_keys(integers(trace.oom["kill_id"]))
    matched = matching.match(trace.oom, trace.logged) if kill_ids else {}
    taken: merging.Taken = {kill_id: [] for kill_id in kill_ids}
    origins: merging.Origins = {}
    oom, samples = merging.complete(trace, matched, taken, origins)
    told, times = {}, times_ns(trace.oom)
    recorded = records(trace.oom, (*agreement.COLUMNS, "kernel_stack_id"))
    for kill_id in kill_ids:
        positions = of_kill.rows_for(kill_id)
        rows = [recorded[position] for position in positions.tolist()]
        report = matched.get(kill_id)
        if report is not None and report.stack and _lacks_stack(trace, rows[0]):
            taken[kill_id].append("trigger.stack")
        coverage = matching.coverage(trace, int(times[positions[0]]), report)
        told[kill_id] = Told(
            report,
            coverage.state,
            coverage.missing,
            tuple(taken[kill_id]),
            () if report is None else tuple(agreement.disagreements(trace, rows, report)),
            origins.get(kill_id, {}),
        )
    return Completed(oom, samples, told)


def without(trace: TraceTables, why: str) -> Completed:
    """Return the tables of a trace as they are. `why` is the reason why its kernel log is not used."""
    kill_ids = dict.fromkeys(integers(trace.oom["kill_id"]).tolist())
    return Completed(
        trace.oom, trace.samples, dict.fromkeys(kill_ids, Told(None, "missing", why, (), (), {}))
    )


def _lacks_stack(trace: TraceTables, first: Mapping[str, Any]) -> bool:
    """Return whether the trace does not have the names of the trigger's kernel stack."""
    number = optional(first["kernel_stack_id"])
    return number is None or not is_named(trace.functions.frames_for(number))
