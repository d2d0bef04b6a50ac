"""The post-mortem from a trace: a report for each decision of the OOM killer, and its window."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from typing import Any, Final, TypeAlias

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import Int64s, integers, limit_of, optional, utc_time
from tracer.analysis.core.tables import TraceTables, page_size
from tracer.analysis.explain import log_postmortem, shortage, verdict, victim_selection
from tracer.analysis.explain.measure import (
    allocators,
    circumstances,
    composition,
    recorded_kill,
    shared_memory,
    window,
)
from tracer.analysis.explain.measure.findings import Circumstances, Findings
from tracer.analysis.explain.measure.recorded_kill import RecordedKill, RecordedKills
from tracer.analysis.explain.sizing.bounds import Range
from tracer.analysis.explain.sizing.kill_range import kill_range
from tracer.analysis.explain.victim_selection import Selection
from tracer.analysis.explain.words import advice, log_words
from tracer.analysis.kernel_log import comparison
from tracer.analysis.kernel_log.comparison import KERNEL_LOG, Told
from tracer.analysis.kernel_log.decisions import missed
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.memory import Allocator, Composition, Cushion, FurtherAllocators, Grown
from tracer.analysis.results.quality import Quality, Unknown, resolution_s
from tracer.analysis.views import reclaim
from tracer.analysis.views.grown_code import grown_within
from tracer.analysis.views.timeline import LEVELS, timeline
from tracer.errors import TracerError, UsageError
from tracer.kernel.kmsg.report.log_report import LogReport
from tracer.schema import UNLIMITED_BYTES

_Explain: TypeAlias = Callable[[TraceTables, RecordedKill, Told], OomReport]

_OF_MEMORY: Final = ("composition", "cushion", "working_set_bytes")


def explain(trace: TraceTables, *, is_sized: bool = True) -> list[OomReport]:
    """Return one report for each kill, in order of time; an empty list if nothing was killed.

    Without `is_sized`, the sizing is null, which saves looking for refaults. A kill that a bug keeps from
    being explained has a report that says so (`trace.defects`).
    Kills that only the trace's kernel log has are included. The definitions of the numbers are in
    `analysis.explain.measure.composition` (the classes of memory), `analysis.explain.measure.window` (the
    time before the kill, and the reclaimed cache), `analysis.explain.verdict` (the cause),
    `analysis.kernel_log.comparison` (the additions from the log) and `analysis.explain.log_postmortem`
    (kills that the probe missed).
    """
    return PostMortems(trace).all(is_sized=is_sized)


class PostMortems:
    """The kills of a trace, of which a caller may want to have only one explained."""

    def __init__(self, trace: TraceTables) -> None:
        self._trace = trace
        self._only_logged = list(log_postmortem.missed(trace))
        completed = trace.defects.attempt(
            "the kernel log of the trace",
            partial(comparison.complete, trace),
            partial(comparison.without, trace),
        )
        self._told, self._kills = completed.told, RecordedKills(trace, completed)

    def all(self, *, is_sized: bool = True) -> list[OomReport]:
        """Return what `explain` returns."""
        return self._each(partial(_report, is_sized=is_sized))

    def measured(self) -> list[OomReport]:
        """Return the reports of `outlines` with the memory of the limit owner: what a picture shows."""
        return self._each(_measured)

    def judged(self) -> list[OomReport]:
        """Return the reports of `outlines` with the limit owner, the cause and its confidence: what a list
        shows of a kill."""
        return self._each(_judged)

    def outlines(self) -> list[OomReport]:
        """Return the reports of `explain` with number, time, limit owner and victims alone: the rest takes
        most of the time."""
        return self._by_time(
            verdict.unexplained(self._outline(kill_id), verdict.NOT_ASKED) for kill_id in self._told
        )

    def one(self, kill_id: int) -> OomReport:
        """Return the whole report of a kill, by its number."""
        if kill_id not in self._told:
            return next(report for report in self._only_logged if report.kill_id == kill_id)
        return self._explained(kill_id, partial(self._kills.kill_at, kill_id), _report)

    def _by_time(self, recorded: Iterable[OomReport]) -> list[OomReport]:
        return sorted([*recorded, *self._only_logged], key=attrgetter("time"))

    def _each(self, explain: _Explain) -> list[OomReport]:
        reports = {kill_id: self._explained(kill_id, find, explain) for kill_id, find in self._kills}
        return self._by_time(reports[kill_id] for kill_id in self._told)

    def _explained(self, kill_id: int, find: Callable[[], RecordedKill], explain: _Explain) -> OomReport:
        return self._trace.defects.attempt(
            f"kill {kill_id}",
            lambda: explain(self._trace, find(), self._told[kill_id]),
            lambda why: verdict.unexplained(self._outline(kill_id), why),
        )

    def _outline(self, kill_id: int) -> OomReport:
        return _outline(self._trace, *self._kills.rows_for(kill_id), self._told[kill_id])


def allocated_before(trace: TraceTables, kill_id: int) -> tuple[Int64s | None, int, int]:
    """Return where and when the allocators of a kill were charged: (cgroup ids, begin, end in nanoseconds).

    The ids are None if all cgroups count. UsageError if there is no such kill, or only the kernel log has it.
    """
    numbers = np.unique(integers(trace.oom["kill_id"])).tolist()
    if kill_id in {kill.kill_id for kill in missed(trace)}:
        raise UsageError(f"kill {kill_id} is known from the kernel log alone: see memcg-tracer explain")
    if kill_id not in numbers:
        raise no_such_kill(kill_id, numbers)
    kill = RecordedKills(trace, comparison.complete(trace)).kill_at(kill_id)
    return None if kill.owner_id is None else kill.subtree.members, kill.window.begin, kill.time_ns


def no_such_kill(kill_id: int, numbers: Sequence[int], place: str = "this trace") -> UsageError:
    """Return the error for a number that is not among `numbers`, which are in ascending order."""
    there = "no kill at all" if not numbers else f"kill {numbers[0]}"
    there += f" to {numbers[-1]}" if len(numbers) > 1 else ""
    return UsageError(f"there is no kill {kill_id} in {place}: it holds {there}")


def _measured(trace: TraceTables, kill: RecordedKill, told: Told) -> OomReport:
    outline = verdict.unexplained(_outline(trace, kill.time_ns, kill.rows, told), verdict.NOT_ASKED)
    unknown = {name: why for name, why in outline.quality.unknown.items() if name not in _OF_MEMORY}
    sizes, made_of, working_set, used, _ = _memory(kill, unknown, told)
    return replace(
        outline,
        composition=made_of,
        cushion=used,
        working_set_bytes=working_set,
        memory_stat_bytes=verdict.known(sizes),
        quality=replace(outline.quality, unknown=unknown),
    )


def _report(trace: TraceTables, kill: RecordedKill, told: Told, *, is_sized: bool = True) -> OomReport:
    unknown: Unknown = {}
    outline = _outline(trace, kill.time_ns, kill.rows, told)
    weighed = _to_weigh(trace, kill, told, outline, unknown)
    tried = reclaim.attempts(kill.subtree, kill.window.at_limit, kill.time_ns)
    if tried.swap_writes is None:
        unknown |= reclaim.SWAP_NOT_KNOWN
    thinned = trace.fineness.thinned(kill.window.begin, kill.time_ns)
    most, further = _allocators(kill)
    selection = victim_selection.from_trace(
        kill.subtree, kill.time_ns, rows=kill.rows, weighed=kill.weighed(), log=told.report, unknown=unknown
    )
    sizes, made_of = weighed.sizes, weighed.findings.composition
    around = _circumstances(kill, weighed, selection)
    if (why_not := allocators.why_unknown(around.grown_bytes, most, further, made_of.total)) is not None:
        unknown["allocators"] = why_not
    killed = frozenset(int(row["tgid"]) for row in kill.rows)
    unknown |= weighed.unknown_parties
    findings = replace(
        weighed.findings,
        victim_tgids=killed | shared_memory.sharers(kill.subtree, selection.candidates, killed, kill.time_ns),
        reclaim=tried,
        allocators=most,
        circumstances=around,
        steal=None if kill.owner_id is None else window.compare_with_kernel(kill.subtree, kill.window),
        origins=weighed.origins,
        further_allocators=further,
        candidates=selection.candidates,
        shared_files=shared_memory.files_at(kill.subtree, kill.time_ns, sizes.get("shmem")),
        thinned=thinned,
    )
    sized, why_unsized = (
        kill_range(kill.subtree, kill.rows, findings) if is_sized else (Range(), verdict.NOT_ASKED)
    )
    if why_unsized is not None:
        unknown["sizing.min_limit_bytes"] = why_unsized
    quality = Quality(
        lost_records=findings.lost_records,
        kmsg=told.state,
        probes=outline.quality.probes,
        unknown=unknown,
        disagreements=tuple(map(log_words.difference, told.disagreements)),
        kmsg_missing=told.missing,
        kmsg_fields=(*told.fields, *(["candidates"] if selection.is_logged else [])),
        summed=trace.summed_intervals.near(kill.window.begin, kill.time_ns),
        resolution_ms=round(resolution_s(thinned, utc_time(kill.time_ns)) * 1000),
        thinned=thinned,
    )
    return verdict.assemble(
        replace(
            outline, working_set_bytes=weighed.working_set_bytes, sizing=advice.sized(sized), quality=quality
        ),
        findings,
        selection,
        sizes,
        grown=partial(_grown, kill),
    )


@dataclass(frozen=True, slots=True)
class _Weighable:
    """The findings by which causes are weighed, with what else the memory of the limit owner gave.

    `findings` lack what only evidence, advice and sizing read. `unknown_parties`: the reasons for unknown
    values of the trigger, the victims and the limit owner.
    """

    findings: Findings
    sizes: dict[str, int | None]
    working_set_bytes: int | None
    origins: Mapping[str, tuple[str, ...]]
    unknown_parties: Unknown


def _to_weigh(
    trace: TraceTables, kill: RecordedKill, told: Told, outline: OomReport, unknown: Unknown
) -> _Weighable:
    sizes, made_of, working_set, used, origins = _memory(kill, unknown, told)
    unknown_parties: Unknown = {}
    asked = recorded_kill.trigger(trace, kill, told, unknown_parties)
    unknown_parties |= recorded_kill.why_unknown(outline.victims)
    is_told = kill.first["is_told"]
    findings = Findings(
        time=outline.time,
        constraint=outline.constraint,
        owner=recorded_kill.limit_owner(trace, kill, outline.limit_owner, asked.stack, unknown_parties),
        trigger=asked,
        victims=outline.victims,
        victim_tgids=frozenset(),
        composition=made_of,
        cushion=used,
        page_size=page_size(trace),
        window=kill.window,
        circumstances=_weighed_circumstances(kill, sizes, made_of, told.report),
        lost_records=trace.losses.affecting_numbers(kill.window.begin, kill.time_ns),
        sampled_at_kill=kill.sample is not None and bool(pd.notna(kill.sample["anon_bytes"])),
        is_told=bool(is_told) if pd.notna(is_told) else False,
        kmsg=told.state,
        previous=kill.previous,
    )
    return _Weighable(findings, sizes, working_set, origins, unknown_parties)


def _judged(trace: TraceTables, kill: RecordedKill, told: Told) -> OomReport:
    outline = _outline(trace, kill.time_ns, kill.rows, told)
    findings = _to_weigh(trace, kill, told, outline, {}).findings
    listed = verdict.unexplained(replace(outline, limit_owner=findings.owner), verdict.NOT_ASKED)
    return replace(listed, verdict=verdict.pick(findings))


def _outline(trace: TraceTables, time_ns: int, rows: Sequence[Mapping[str, Any]], told: Told) -> OomReport:
    """Return what the rows of a kill have themselves."""
    first = rows[0]
    return OomReport(
        kill_id=int(first["kill_id"]),
        time=utc_time(time_ns),
        ktime_ns=int(first["ktime_ns"]),
        constraint=str(first["constraint"]),
        limit_owner=recorded_kill.outlined_owner(trace, first),
        victims=recorded_kill.victims(trace, time_ns, rows),
        quality=Quality(trace.losses.total, told.state, dict(trace.meta["probes"])),
    )


def _memory(
    kill: RecordedKill, unknown: Unknown, told: Told
) -> tuple[dict[str, int | None], Composition, int | None, Cushion, Mapping[str, tuple[str, ...]]]:
    """Return sizes, composition, working set and cushion of the limit owner, and the tables that these are
    from; all null without an owner."""
    if kill.owner_id is None:
        no_owner = recorded_kill.NO_OWNER
        unknown |= dict.fromkeys(_OF_MEMORY, no_owner)
        return {}, Composition(), None, Cushion(), {}
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
    used = window.measure_cushion(
        kill.subtree,
        limit_bytes=UNLIMITED_BYTES if limit is None else limit,
        window=kill.window,
        cache_end_bytes=window.cache_bytes(sizes),
        locked_bytes=locked or 0,
        unknown=unknown,
    )
    return sizes, made_of, working_set, used, composition.origins_of_parts(sizes, tables, usage_table)


def _usage_at_kill(kill: RecordedKill, told: Told) -> tuple[int | None, str]:
    """Return the page counter and its table: the sample that has the composition, else the row of `oom`."""
    sampled = None if kill.sample is None else optional(kill.sample["usage_bytes"])
    if sampled is not None:
        return sampled, told.origins.get("usage", "samples")
    return optional(kill.first["usage_bytes"]), KERNEL_LOG if "limit_owner" in told.fields else "oom"


def _allocators(kill: RecordedKill) -> tuple[tuple[Allocator, ...], FurtherAllocators]:
    if kill.owner_id is None:
        return (), FurtherAllocators(0, 0)
    return allocators.between(kill.subtree, kill.window.begin, kill.time_ns)


def _grown(kill: RecordedKill, kinds: Sequence[str]) -> Grown:
    if kill.owner_id is None:
        return Grown((), None, verdict.NO_OWNER)
    return grown_within(kill.subtree, kinds, kill.window.begin, kill.time_ns)


def _weighed_circumstances(
    kill: RecordedKill, sizes: dict[str, int | None], made_of: Composition, log: LogReport | None
) -> Circumstances:
    if kill.owner_id is None:
        return Circumstances(
            shortage=None if log is None else shortage.from_log(log, page_size(kill.subtree.whole)),
            machine=None if log is None else log.mem_info,
        )
    return circumstances.weighed(
        kill.subtree,
        kill.window,
        sample=kill.sample,
        sizes=sizes,
        locked_cache_bytes=composition.locked_cache(sizes, made_of),
        locked_in_unknown_bytes=composition.locked_in_unknown(sizes, made_of),
    )


def _circumstances(kill: RecordedKill, weighed: _Weighable, selection: Selection) -> Circumstances:
    if kill.owner_id is None:
        holders = shortage.machine_holders(kill.subtree.whole, kill.time_ns)
        return replace(weighed.findings.circumstances, machine_holders=holders)
    return circumstances.around(
        weighed.findings.circumstances,
        kill.subtree,
        kill.window,
        trigger_id=int(kill.first["trigger_cgroup_id"]),
        has_shmem=bool(weighed.sizes.get("shmem")),
        candidates=selection.candidates,
        weighed_tgids=selection.tgids,
    )


FLOWS: Final = (
    "cache_added_bytes",
    "cache_evicted_bytes",
    "cache_dropped_bytes",
    "cache_refaulted_bytes",
)
_SAMPLED: Final = {"file_dirty_bytes": "file_dirty", "file_writeback_bytes": "file_writeback"}
COLUMNS: Final = ("cgroup", "cgroup_id", "usage_bytes", "limit_bytes", *LEVELS, *_SAMPLED, *FLOWS)


def kill_window(trace: TraceTables, report: OomReport) -> pd.DataFrame:
    """Return the memory of the limit owner when the window before its kill begins, and at the kill.

    The window begins where that of the allocators does (`explain.measure.window`): when usage was last below
    half of the limit, at the earliest when the trace began, the cgroup was made, or at the kill before. The
    index, `time` (UTC), has the two moments, and the columns are those of `analysis.views.timeline`. The
    levels of the first row are the ledger's, those of the second are the
    counters that the report has (`OomReport.memory_stat_bytes`); a level that is not known in one row is NA
    in both. The flows of the page cache between the two moments are in the second row, and NA in the first.

    Raises TracerError if no cgroup's limit led to the kill, and UsageError if only the kernel log has it.
    """
    _, begin_ns, kill_ns = allocated_before(trace, report.kill_id)
    owner = report.limit_owner.cgroup_id
    if owner is None:
        raise TracerError(f"kill {report.kill_id} was for no cgroup's limit: there is no usage to take apart")
    # The charge that ended the time below half is an event of the page cache some us later. A cut before it
    # has both on one side. A trace has no level before it began.
    first = _between(trace, owner, begin_ns - 1, begin_ns)
    if first["usage_bytes"].isna().all():
        begin_ns += 1
        first = _between(trace, owner, begin_ns - 1, begin_ns)
    kill_ns = max(kill_ns, begin_ns)
    rows = pd.concat([first, _between(trace, owner, begin_ns, kill_ns + 1)])[list(COLUMNS)]
    begin, kill = utc_time(begin_ns), utc_time(kill_ns)
    rows.index = pd.DatetimeIndex([begin, kill], name="time")
    at_kill = _levels_at_kill(report)
    rows.loc[kill, list(at_kill)] = list(at_kill.values())
    rows.loc[begin, list(FLOWS)] = pd.NA
    sizes = list(rows.columns[rows.columns.str.endswith("_bytes")])
    rows[sizes] = rows[sizes].astype("Int64")
    for name in (*LEVELS, *_SAMPLED):
        if rows[name].isna().any():
            rows[name] = pd.array([pd.NA, pd.NA], dtype="Int64")
    return rows


def _between(trace: TraceTables, owner: int, begin_ns: int, end_ns: int) -> pd.DataFrame:
    """Return the timeline of the cgroup as one row, from `begin_ns` until just before `end_ns`."""
    begin, end = utc_time(begin_ns).isoformat(), utc_time(end_ns).isoformat()
    return timeline(trace, owner, f"{end_ns - begin_ns}ns", begin, end)


def _levels_at_kill(report: OomReport) -> dict[str, int | None]:
    sizes: Mapping[str, int] = report.memory_stat_bytes
    levels: dict[str, int | None] = {
        "usage_bytes": report.composition.total,
        "limit_bytes": report.limit_owner.limit_bytes,
    }
    for name, weights in LEVELS.items():
        # A part of kernel memory that has no counter here is in the remainder, as in the timeline.
        counted = {category: sign for category, sign in weights.items() if sign > 0 or category in sizes}
        is_known = all(category in sizes for category in counted)
        levels[name] = sum(sign * sizes[category] for category, sign in counted.items()) if is_known else None
    return levels | {column: sizes.get(name) for column, name in _SAMPLED.items()}
