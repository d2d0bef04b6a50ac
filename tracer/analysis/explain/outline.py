"""The outline of a kill: a report with its parties and its quality, without conclusions.

`unexplained` is the report of a kill that was not asked for, or that a bug of ours keeps from being
explained. `with_memory` adds the memory of the limit owner, which a picture shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeAlias

from tracer.analysis.core.columns import limit_of, optional, utc_time
from tracer.analysis.core.tables import TraceTables
from tracer.analysis.explain.measure import composition, recorded_kill, window
from tracer.analysis.explain.measure.recorded_kill import RecordedKill
from tracer.analysis.explain.words import sentence_parts
from tracer.analysis.kernel_log.comparison import KERNEL_LOG, Told
from tracer.analysis.results.kill import NO_VERDICT, OomReport, Verdict
from tracer.analysis.results.memory import Composition, Cushion
from tracer.analysis.results.quality import KernelLog, Quality, Unknown
from tracer.errors import Defects
from tracer.schema import UNLIMITED_BYTES

NOT_ASKED: Final = "it was not asked for"
NOT_EXPLAINED: Final = (
    *("verdict", "composition", "working_set_bytes", "reclaim", "cushion", "allocators"),
    *("further_allocators", "candidates", "sizing.min_limit_bytes", "code_sampled_share", "code_memory"),
)
"""The fields of a report that are null without an explanation."""

Origins: TypeAlias = Callable[[], Mapping[str, tuple[str, ...]]]
"""A function that returns the tables of each part (`composition.origins_of_parts`): a list does not show
them."""

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
    sizes, made_of, working_set, used, _ = memory(kill, unknown, told, without_refaults)
    return measured(outline, sizes, made_of, used, working_set_bytes=working_set, unknown=unknown)


def measured(
    outline: OomReport,
    sizes: Mapping[str, int | None],
    made_of: Composition,
    used: Cushion,
    *,
    working_set_bytes: int | None,
    unknown: Unknown,
) -> OomReport:
    """Return the outline with what `memory` returned; `unknown`: the reasons for its unknown values."""
    others = {name: why for name, why in outline.quality.unknown.items() if name not in _OF_MEMORY}
    return replace(
        outline,
        composition=made_of,
        cushion=used,
        working_set_bytes=working_set_bytes,
        memory_stat_bytes=known(sizes),
        quality=replace(outline.quality, unknown={**others, **unknown}),
    )


def memory(
    kill: RecordedKill,
    unknown: Unknown,
    told: Told,
    measure: Callable[..., Cushion] = window.measure_cushion,
) -> tuple[dict[str, int | None], Composition, int | None, Cushion, Origins]:
    """Return sizes, composition, working set and cushion of the limit owner, and what finds the tables that
    these are from; all null without an owner. `measure` returns the cushion as `window.measure_cushion`
    does."""
    if kill.owner_id is None:
        no_owner = recorded_kill.NO_OWNER
        unknown |= dict.fromkeys(_OF_MEMORY, no_owner)
        return {}, Composition(), None, Cushion(), dict
    total, usage_table = _usage_at_kill(kill, told)
    is_logged = "composition" in told.fields  # the sample of the kill is from the kernel log
    sizes, tables = composition.at_kill(
        kill.subtree, kill.time_ns, kill.sample, total, is_logged=is_logged, origins=told.origins
    )
    absent = partial(composition.why_not, kill.subtree.whole)
    made_of, why = composition.compose(sizes, total, absent)
    unknown |= why
    working_set = composition.working_set(sizes, total, unknown)
    limit = limit_of(kill.first)
    locked = composition.locked_cache(sizes, made_of)
    used = measure(
        kill.subtree,
        limit_bytes=UNLIMITED_BYTES if limit is None else limit,
        window=kill.window,
        cache_end_bytes=window.cache_bytes(sizes),
        locked_bytes=locked or 0,
        unknown=unknown,
    )
    origins = partial(composition.origins_of_parts, sizes, tables, usage_table)
    return sizes, made_of, working_set, used, origins


def _usage_at_kill(kill: RecordedKill, told: Told) -> tuple[int | None, str]:
    """Return the page counter and its table: the sample that has the composition, else the row of `oom`."""
    sampled = None if kill.sample is None else optional(kill.sample["usage_bytes"])
    if sampled is not None:
        return sampled, told.origins.get("usage", "samples")
    return optional(kill.first["usage_bytes"]), KERNEL_LOG if "limit_owner" in told.fields else "oom"


def known(sizes: Mapping[str, int | None]) -> dict[str, int]:
    """Return the sizes that are known, by name."""
    return {name: size for name, size in sizes.items() if size is not None}
