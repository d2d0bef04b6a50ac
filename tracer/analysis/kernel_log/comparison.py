"""The kernel log of a trace, compared with the records of its probes and merged into them.

Differences are reported with both numbers. Pids, names, limits, oom_score_adj, gfp and order must be equal.
Sizes are read at two moments, and may differ by the batches that CPUs hold back: usage by MEMCG_CHARGE_BATCH
pages for each CPU (mm/memcontrol.c), RSS by a batch of percpu_counter for each CPU (lib/percpu_counter.c),
page tables by one page. A victim that exits fast may have given back more by the time its line was printed.

Values that the trace only inferred are compared as well, except order and gfp: the trace has those of a
reclaim attempt instead, whose flags differ from those of the charge (mm/vmscan.c,
try_to_free_mem_cgroup_pages).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from tracer.analysis.core.columns import integers, optional, records, times_ns
from tracer.analysis.core.index import RowIndex
from tracer.analysis.core.limits import limit_of
from tracer.analysis.core.lookup.stacks import is_named
from tracer.analysis.core.tables import TraceTables, page_size
from tracer.analysis.kernel_log import decisions, merging
from tracer.analysis.results.quality import KernelLog
from tracer.kernel.kmsg.report.log_report import Kill, LogReport
from tracer.schema import LIMITS
from tracer.stored_names import stored_text

_CHARGE_BATCH_PAGES: Final = 64
_COUNTER_BATCH_PAGES: Final = 32  # at least, and twice the number of CPUs
_KIB: Final = 1024
COLUMNS: Final = (
    *("constraint", "limit_owner_cgroup_id", "usage_bytes", "limit_bytes", LIMITS["limit_bytes"]),
    *("trigger_pid", "trigger_comm", "is_told", "order", "gfp", "pid", "comm", "oom_score_adj"),
    *("anon_rss_bytes", "file_rss_bytes", "shmem_rss_bytes", "pgtables_bytes"),
)
"""The columns of `oom` that are compared."""

_LONGEST_NAME: Final = 400  # a longer path may be cut in its line (LOG_LINE_MAX, kernel/printk/printk.c)


def disagreements(trace: TraceTables, rows: Sequence[Mapping[str, Any]], report: LogReport) -> Iterator[str]:
    """Yield a sentence for each difference; `rows` are those of one kill in `oom`, with `COLUMNS`."""
    first = rows[0]
    cpus = int(trace.meta.get("cpus", 1))
    yield from _decision(trace, first, report)
    memory = report.counters.get("memory")
    if memory is not None:
        stock_bytes = _CHARGE_BATCH_PAGES * cpus * page_size(trace)
        yield from _sizes("usage", optional(first["usage_bytes"]), memory.usage_bytes, stock_bytes)
        yield from _sizes("limit", limit_of(first), memory.limit_bytes, _KIB)
    killed = {kill.pid: kill for kill in report.kills}
    slack_bytes = max(_COUNTER_BATCH_PAGES, 2 * cpus) * cpus * page_size(trace)
    for row in rows:
        kill = killed.pop(int(row["pid"]), None)
        if kill is not None:
            yield from _victim(row, kill, slack_bytes, page_size(trace))
        elif report.kills:
            yield f"pid {row['pid']} was marked as a victim, but the kernel log has no line on it"
    for pid in killed:
        yield f"the kernel log has a kill of pid {pid}, which was not marked as a victim"


def _decision(trace: TraceTables, first: Mapping[str, Any], report: LogReport) -> Iterator[str]:
    constraint, asked = str(first["constraint"]), report.invoker
    if "unknown" not in (constraint, report.constraint):
        yield from _words("constraint", constraint, report.constraint)
    owner = trace.places.path_of(optional(first["limit_owner_cgroup_id"]))
    if owner is not None and report.oom_memcg is not None and len(owner) < _LONGEST_NAME:
        yield from _words("the limit owner", owner, stored_text(report.oom_memcg))
    yield from _words("the pid of the trigger", int(first["trigger_pid"]), asked.pid)
    if asked.comm is not None:
        yield from _words("the name of the trigger", str(first["trigger_comm"]), stored_text(asked.comm))
    if optional(first["is_told"]):
        yield from _words("order", optional(first["order"]), asked.order)
        yield from _words("gfp", _flags(optional(first["gfp"])), _flags(asked.gfp))


def _victim(row: Mapping[str, Any], kill: Kill, slack_bytes: int, page_bytes: int) -> Iterator[str]:
    pid = kill.pid
    yield from _words(f"the name of pid {pid}", str(row["comm"]), stored_text(kill.comm))
    yield from _words(f"oom_score_adj of pid {pid}", int(row["oom_score_adj"]), kill.oom_score_adj)
    for kind in ("anon", "file", "shmem"):
        column = f"{kind}_rss_bytes"
        ours, theirs = optional(row[column]), getattr(kill, column)
        yield from _sizes(f"{kind} RSS of pid {pid}", ours, theirs, slack_bytes)
    yield from _sizes(
        f"page tables of pid {pid}", optional(row["pgtables_bytes"]), kill.pgtables_bytes, page_bytes
    )


def _words(what: str, ours: str | int | None, theirs: str | int | None) -> Iterator[str]:
    if ours is not None and theirs is not None and ours != theirs:
        yield f"{what}: {ours}, in the kernel log {theirs}"


def _flags(mask: int | None) -> str | None:
    return None if mask is None else f"{mask:#x}"


def _sizes(what: str, ours: int | None, theirs: int | None, within_bytes: int) -> Iterator[str]:
    """Yield a sentence if two sizes differ by more than `within_bytes`; the kernel prints whole KiB, rounded
    down."""
    if ours is not None and theirs is not None and abs(ours - theirs) > max(within_bytes, _KIB):
        yield f"{what}: {ours} bytes, in the kernel log {theirs}"


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
    matched = decisions.match(trace.oom, trace.logged) if kill_ids else {}
    taken: merging.Taken = {kill_id: [] for kill_id in kill_ids}
    origins: merging.Origins = {}
    oom, samples = merging.complete(trace, matched, taken, origins)
    told, times = {}, times_ns(trace.oom)
    recorded = records(trace.oom, (*COLUMNS, "kernel_stack_id"))
    for kill_id in kill_ids:
        positions = of_kill.rows_for(kill_id)
        rows = [recorded[position] for position in positions.tolist()]
        report = matched.get(kill_id)
        if report is not None and report.stack and _lacks_stack(trace, rows[0]):
            taken[kill_id].append("trigger.stack")
        coverage = decisions.coverage(trace, int(times[positions[0]]), report)
        told[kill_id] = Told(
            report,
            coverage.state,
            coverage.missing,
            tuple(taken[kill_id]),
            () if report is None else tuple(disagreements(trace, rows, report)),
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
