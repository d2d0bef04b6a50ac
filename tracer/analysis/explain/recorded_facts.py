"""The whole report of a recorded kill: from what is measured in the trace to the conclusions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import pandas as pd

from tracer.analysis.core.columns import utc_time
from tracer.analysis.core.tables import TraceTables, page_size
from tracer.analysis.explain import outline as outlines
from tracer.analysis.explain import runtimes, shortage, verdict, victim_selection
from tracer.analysis.explain.causes.registry import CAUSES
from tracer.analysis.explain.measure import (
    allocators,
    circumstances,
    composition,
    last_looks,
    recorded_kill,
    shared_memory,
    window,
)
from tracer.analysis.explain.measure.findings import Circumstances, Findings
from tracer.analysis.explain.measure.recorded_kill import RecordedKill
from tracer.analysis.explain.sizing.demand import Demand
from tracer.analysis.explain.sizing.kill_range import Range, kill_range
from tracer.analysis.explain.victim_selection import Selection
from tracer.analysis.explain.words import advice, sentence_parts
from tracer.analysis.kernel_log.comparison import Told
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.memory import Allocator, Composition, Cushion, FurtherAllocators, Grown
from tracer.analysis.results.quality import Quality, Unknown, resolution_s
from tracer.analysis.views import reclaim
from tracer.analysis.views.code_samples import grown_within

_RANGE: Final = "sizing.min_limit_bytes"
_NOT_SUMMARIZED: Final = dict.fromkeys(("candidates", "allocators", "further_allocators"), outlines.NOT_ASKED)


def whole(trace: TraceTables, kill: RecordedKill, told: Told, *, is_sized: bool = True) -> OomReport:
    unknown: Unknown = {}
    outline = outlines.from_trace(trace, kill.time_ns, kill.rows, told.state)
    weighed = _to_weigh(trace, kill, told, outline, unknown)
    tried = reclaim.attempts(kill.subtree, kill.window.at_limit, kill.time_ns)
    if tried.swap_writes is None:
        unknown |= reclaim.SWAP_NOT_KNOWN
    most, further = _allocators(kill)
    sizable, selection = _to_size(kill, told, weighed, unknown)
    grown_bytes, total = sizable.circumstances.grown_bytes, sizable.composition.total
    if (why_not := allocators.why_unknown(grown_bytes, most, further, total)) is not None:
        unknown["allocators"] = why_not
    mappings = last_looks.processes_at_kill(kill.subtree, _since(kill), kill.time_ns, _killed(kill))
    unknown |= weighed.unknown_parties
    findings = replace(
        sizable,
        reclaim=tried,
        allocators=most,
        steal=None if kill.owner_id is None else window.compare_with_kernel(kill.subtree, kill.window),
        origins=weighed.origins(),
        further_allocators=further,
        mappings=mappings,
        runtimes=runtimes.of_processes(kill.subtree, mappings),
        cached=last_looks.cached_files(kill.subtree, _since(kill), kill.time_ns),
    )
    limits, why_unsized = (
        kill_range(kill.subtree, kill.rows, findings) if is_sized else (Range(), outlines.NOT_ASKED)
    )
    if why_unsized is not None:
        unknown[_RANGE] = why_unsized
    quality = Quality(
        lost_records=findings.lost_records,
        kmsg=told.state,
        probes=outline.quality.probes,
        unknown=unknown,
        disagreements=tuple(map(sentence_parts.difference, told.disagreements)),
        kmsg_missing=told.missing,
        kmsg_fields=(*told.fields, *(["candidates"] if selection.is_logged else [])),
        summed=trace.summed_intervals.near(kill.window.begin, kill.time_ns),
        resolution_ms=round(resolution_s(findings.thinned, utc_time(kill.time_ns)) * 1000),
        thinned=tuple(findings.thinned),
    )
    return verdict.assemble(
        replace(
            outline,
            working_set_bytes=weighed.working_set_bytes,
            sizing=advice.sized(limits, kills=1),
            quality=quality,
        ),
        findings,
        selection,
        weighed.sizes,
        grown=partial(_grown, kill),
    )


def sized(trace: TraceTables, kill: RecordedKill, told: Told) -> OomReport:
    """Return the outline with the limit owner and the kill's own range of limits."""
    outline = outlines.from_trace(trace, kill.time_ns, kill.rows, told.state)
    findings, _ = _to_size(kill, told, _to_weigh(trace, kill, told, outline, {}), {})
    limits, why_unsized = kill_range(kill.subtree, kill.rows, findings)
    owned = outlines.unexplained(replace(outline, limit_owner=findings.owner), outlines.NOT_ASKED)
    return replace(
        owned, sizing=advice.sized(limits, kills=1), quality=_with_reason(owned.quality, why_unsized)
    )


def summarized(trace: TraceTables, kill: RecordedKill, told: Told) -> OomReport:
    """Return the outline with what a row of a kill shows: the parties, the memory, the number of attempts,
    the verdict without evidence, the code that grew, and the kill's own range of limits."""
    unknown: Unknown = {}
    outline = outlines.from_trace(trace, kill.time_ns, kill.rows, told.state)
    weighed = _to_weigh(trace, kill, told, outline, unknown)
    findings, _ = _to_size(kill, told, weighed, {})
    limits, why_unsized = kill_range(kill.subtree, kill.rows, findings)
    judged = verdict.worded(verdict.pick(findings), findings)
    grew = _grown(kill, CAUSES[judged.cause].grows)
    unknown |= {**weighed.unknown_parties, **grew.unknown(), **_NOT_SUMMARIZED}
    if why_unsized is not None:
        unknown[_RANGE] = why_unsized
    return replace(
        outline,
        limit_owner=findings.owner,
        trigger=findings.trigger,
        composition=findings.composition,
        working_set_bytes=weighed.working_set_bytes,
        reclaim=reclaim.counted(kill.subtree, kill.window.at_limit, kill.time_ns),
        cushion=findings.cushion,
        verdict=judged,
        sizing=advice.sized(limits, kills=1),
        **grew.fields(),
        quality=replace(outline.quality, lost_records=findings.lost_records, unknown=unknown),
    )


def with_range_of_run(report: OomReport, needs: Demand, kills: int) -> OomReport:
    """Return a report with the range of limits of its run, in which there were so many kills."""
    if needs.killed_below_bytes is None:
        return report
    low = max(needs.killed_below_bytes, *(report.sizing.min_limit_bytes or ())[:1])
    limits, basis = (low, needs.survives_from_bytes), (advice.for_all_kills(kills), *report.sizing.basis)
    return replace(
        report,
        sizing=replace(report.sizing, min_limit_bytes=limits, basis=basis, kills=kills),
        quality=_with_reason(report.quality, needs.why_open),
    )


def _with_reason(quality: Quality, why: str | None) -> Quality:
    """Return the quality with the reason for a range that has no upper end; None: it has one."""
    others = {name: reason for name, reason in quality.unknown.items() if name != _RANGE}
    return replace(quality, unknown=others if why is None else others | {_RANGE: why})


def _killed(kill: RecordedKill) -> frozenset[int]:
    """Return the tgids of the victims."""
    return frozenset(int(row["tgid"]) for row in kill.rows)


def _since(kill: RecordedKill) -> int:
    """Return the moment of the kill before, for the same limit; else the begin of the trace or the cgroup."""
    return kill.subtree.start_ns if kill.previous is None else kill.time_ns - kill.previous.age_ns


@dataclass(frozen=True, slots=True)
class _Weighable:
    """The findings by which causes are weighed, with what else the memory of the limit owner gave.

    `findings` lack what only evidence, advice and sizing read. `unknown_parties`: the reasons for unknown
    values of the trigger, the victims and the limit owner.
    """

    findings: Findings
    sizes: dict[str, int | None]
    working_set_bytes: int | None
    origins: outlines.Origins
    unknown_parties: Unknown


def _to_weigh(
    trace: TraceTables,
    kill: RecordedKill,
    told: Told,
    outline: OomReport,
    unknown: Unknown,
    *,
    measure: Callable[..., Cushion] = window.measure_cushion,
) -> _Weighable:
    sizes, made_of, working_set, used, origins = outlines.memory(kill, unknown, told, measure)
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
        circumstances=_weighed_circumstances(kill, sizes, made_of, told),
        lost_records=trace.losses.affecting_sizes_near(kill.window.begin, kill.time_ns),
        sampled_at_kill=kill.sample is not None and bool(pd.notna(kill.sample["anon_bytes"])),
        is_told=bool(is_told) if pd.notna(is_told) else False,
        kmsg=told.state,
        previous=kill.previous,
    )
    return _Weighable(findings, sizes, working_set, origins, unknown_parties)


def _to_size(
    kill: RecordedKill, told: Told, weighed: _Weighable, unknown: Unknown
) -> tuple[Findings, Selection]:
    """Return the findings that the range of limits needs, and the victim's selection."""
    selection = victim_selection.from_trace(
        kill.subtree,
        kill.time_ns,
        rows=kill.rows,
        weighed=kill.weighed(),
        read_log=lambda: told.report,
        unknown=unknown,
    )
    killed = _killed(kill)
    findings = replace(
        weighed.findings,
        victim_tgids=killed | shared_memory.sharers(kill.subtree, selection.candidates, killed, kill.time_ns),
        circumstances=_circumstances(kill, weighed, selection),
        candidates=selection.candidates,
        shared_files=shared_memory.files_at(kill.subtree, kill.time_ns, weighed.sizes.get("shmem")),
        thinned=kill.subtree.whole.fineness.thinned(kill.window.begin, kill.time_ns),
    )
    return findings, selection


def listed(trace: TraceTables, kill: RecordedKill, told: Told) -> OomReport:
    """Return the outline with the limit owner, the cause and its confidence."""
    outline = outlines.from_trace(trace, kill.time_ns, kill.rows, told.state)
    findings = _to_weigh(trace, kill, told, outline, {}, measure=window.measure_start).findings
    return _with_verdict(outline, findings)


def judged(trace: TraceTables, kill: RecordedKill, told: Told) -> OomReport:
    """Return the report of `listed` with the memory of the limit owner."""
    outline = outlines.from_trace(trace, kill.time_ns, kill.rows, told.state)
    unknown: Unknown = {}
    weighed = _to_weigh(trace, kill, told, outline, unknown)
    return outlines.measured(
        _with_verdict(outline, weighed.findings),
        weighed.sizes,
        weighed.findings.composition,
        weighed.findings.cushion,
        working_set_bytes=weighed.working_set_bytes,
        unknown=unknown,
    )


def _with_verdict(outline: OomReport, findings: Findings) -> OomReport:
    """Return the outline with the limit owner, the cause and its confidence."""
    return outlines.judged(outline, findings.owner, verdict.pick(findings))


def _allocators(kill: RecordedKill) -> tuple[tuple[Allocator, ...], FurtherAllocators]:
    if kill.owner_id is None:
        return (), FurtherAllocators(0, 0)
    return allocators.between(kill.subtree, kill.window.begin, kill.time_ns)


def _grown(kill: RecordedKill, kinds: Sequence[str]) -> Grown:
    if kill.owner_id is None:
        return Grown(why_unknown=verdict.NO_OWNER)
    return grown_within(kill.subtree, kinds, kill.window.begin, kill.time_ns)


def _weighed_circumstances(
    kill: RecordedKill, sizes: dict[str, int | None], made_of: Composition, told: Told
) -> Circumstances:
    if kill.owner_id is None:
        log = told.report
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
