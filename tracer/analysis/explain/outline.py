"""The outline of a kill: a report with its parties and its quality, without conclusions.

`unexplained` is the report of a kill that was not asked for, or that a bug of ours keeps from being
explained. `with_memory` adds the memory of the limit owner, which a picture shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from tracer.analysis.core.columns import limit_of, optional, utc_time
from tracer.analysis.core.tables import TraceTables
from tracer.analysis.explain.measure import composition, recorded_kill, window
from tracer.analysis.explain.measure.composition import Instant, Memory
from tracer.analysis.explain.measure.recorded_kill import RecordedKill
from tracer.analysis.explain.words import sentence_parts
from tracer.analysis.kernel_log.comparison import KERNEL_LOG, Told
from tracer.analysis.results.kill import NO_VERDICT, OomReport, Verdict
from tracer.analysis.results.memory import Cushion
from tracer.analysis.results.quality import KernelLog, Quality, Unknown
from tracer.errors import Defects
from tracer.schema import MEMORY_STAT_COLUMNS, UNLIMITED_BYTES

NOT_ASKED: Final = "it was not asked for"
NOT_EXPLAINED: Final = (
    *("verdict", "composition", "working_set_bytes", "reclaim", "cushion", "allocators"),
    *("further_allocators", "candidates", "sizing.min_limit_bytes", "code_sampled_share", "code_memory"),
)
"""The fields of a report that are null without an explanation."""

_OF_MEMORY: Final = ("composition", "cushion", "working_set_bytes")


def unexplained(report: OomReport, why: str) -> OomReport:
    """Return the outline of a report as that of a kill which `why` keeps from being explained."""
    summary = sentence_parts.unexplained(report, why)
    return _outlined(report, why, replace(NO_VERDICT, summary=summary))


def judged(report: OomReport, verdict: Verdict) -> OomReport:
    """Return the outline of a report with this verdict."""
    return _outlined(report, NOT_ASKED, verdict)


def explained(
    defects: Defects, kill_id: int, explain: Callable[[], OomReport], find_outline: Callable[[], OomReport]
) -> OomReport:
    """Return the report that `explain` makes; if a bug keeps it from that, the outline, which says so."""
    return defects.attempt(f"kill {kill_id}", explain, lambda why: unexplained(find_outline(), why))


def _outlined(report: OomReport, why: str, verdict: Verdict) -> OomReport:
    quality = report.quality
    return OomReport(
        kill_id=report.kill_id,
        time=report.time,
        ktime_ns=report.ktime_ns,
        constraint=report.constraint,
        limit_owner=report.limit_owner,
        victims=report.victims,
        verdict=verdict,
        quality=replace(quality, unknown={**quality.unknown, **dict.fromkeys(NOT_EXPLAINED, why)}),
        kernel_log=report.kernel_log,
    )


def from_trace(
    trace: TraceTables, time_ns: int, rows: Sequence[Mapping[str, Any]], state: KernelLog
) -> OomReport:
    """Return what the rows of a kill have themselves; `state`: how much of its report the log has."""
    first = rows[0]
    return OomReport(
        kill_id=int(first["kill_id"]),
        time=utc_time(time_ns),
        ktime_ns=int(first["ktime_ns"]),
        constraint=str(first["constraint"]),
        limit_owner=recorded_kill.outlined_owner(trace, first),
        victims=recorded_kill.victims(trace, time_ns, rows),
        quality=Quality(trace.losses.affecting_sizes, state, trace.meta["probes"]),
    )


def with_memory(trace: TraceTables, kill: RecordedKill, told: Told) -> OomReport:
    """Return the outline with composition, cushion (without refaults) and working set of the limit owner."""
    outline = unexplained(from_trace(trace, kill.time_ns, kill.rows, told.state), NOT_ASKED)
    unknown: Unknown = {"cushion.refaulted_bytes": NOT_ASKED}
    without_refaults = partial(window.measure_cushion, has_refaults=False)
    return measured(outline, memory(kill, told, unknown, without_refaults), unknown)


def measured(outline: OomReport, held: Memory, unknown: Unknown) -> OomReport:
    """Return the outline with the memory of the limit owner; `unknown`: the reasons for unknown values."""
    others = {name: why for name, why in outline.quality.unknown.items() if name not in _OF_MEMORY}
    return replace(
        outline,
        composition=held.made_of,
        cushion=held.cushion,
        working_set_bytes=held.working_set_bytes,
        memory_stat_bytes=held.known_sizes,
        quality=replace(outline.quality, unknown={**others, **unknown}),
    )


def memory(
    kill: RecordedKill,
    told: Told,
    unknown: Unknown,
    measure: Callable[..., Cushion] = window.measure_cushion,
) -> Memory:
    """Return the memory of the limit owner; `measure` returns the cushion, as `measure_cushion` does."""
    if kill.owner_id is None:
        why = dict.fromkeys(_OF_MEMORY, recorded_kill.NO_OWNER)
        nothing = Instant(dict.fromkeys(MEMORY_STAT_COLUMNS), None, unknown=why)
        return composition.memory(nothing, lambda **_: Cushion(), unknown)
    total, usage_table = _usage_at_kill(kill, told)
    at_kill = composition.at_kill(
        kill.subtree,
        kill.time_ns,
        kill.sample,
        total,
        usage_table=usage_table,
        is_logged="composition" in told.fields,  # the sample of the kill is from the kernel log
        origins=told.origins,
    )
    limit = limit_of(kill.first)
    limit_bytes = UNLIMITED_BYTES if limit is None else limit
    measure_here = partial(measure, kill.subtree, limit_bytes=limit_bytes, window=kill.window)
    return composition.memory(at_kill, measure_here, unknown)


def _usage_at_kill(kill: RecordedKill, told: Told) -> tuple[int | None, str]:
    """Return the page counter and its table: the sample that has the composition, else the row of `oom`."""
    sampled = None if kill.sample is None else optional(kill.sample["usage_bytes"])
    if sampled is not None:
        return sampled, told.origins.get("usage", "samples")
    return optional(kill.first["usage_bytes"]), KERNEL_LOG if "limit_owner" in told.fields else "oom"
