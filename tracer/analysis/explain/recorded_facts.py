"""The facts of a recorded kill: what the tables of a trace show of it (`kill_report.Kill`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Final, Literal

from tracer.analysis.core.columns import optional, utc_time
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import TraceTables, page_size
from tracer.analysis.explain import outline as outlines
from tracer.analysis.explain import runtimes, shortage, verdict, victim_selection
from tracer.analysis.explain.causes.registry import CAUSES
from tracer.analysis.explain.kill_report import Weighed, listed, whole, with_findings, with_reason
from tracer.analysis.explain.measure import (
    allocators,
    circumstances,
    last_looks,
    recorded_kill,
    shared_memory,
    window,
)
from tracer.analysis.explain.measure.composition import Memory
from tracer.analysis.explain.measure.findings import Circumstances, Findings, Throttled
from tracer.analysis.explain.measure.recorded_kill import RecordedKill
from tracer.analysis.explain.sizing.kill_range import kill_range
from tracer.analysis.explain.slowed import HighLimits
from tracer.analysis.explain.victim_selection import Selection
from tracer.analysis.explain.words import advice, sentence_parts
from tracer.analysis.kernel_log.comparison import Told
from tracer.analysis.results.kill import NO_VERDICT, OomReport, Sizing, Verdict
from tracer.analysis.results.memory import Allocator, Cushion, FurtherAllocators, Grown, Reclaim
from tracer.analysis.results.quality import RANGE, Quality, Unknown, resolution_s
from tracer.analysis.views import reclaim
from tracer.analysis.views.code_samples import grown_within

_NOT_SUMMARIZED: Final = dict.fromkeys(("candidates", "allocators", "further_allocators"), outlines.NOT_ASKED)
_NO_OWNER: Final = "the cgroup whose limit was hit is not known"


class RecordedFacts:
    """The facts of one kill. `told` are the findings of the trace's kernel log on it."""

    def __init__(self, trace: TraceTables, kill: RecordedKill, told: Told) -> None:
        self._trace, self._kill, self._told = trace, kill, told

    @cached_property
    def outline(self) -> OomReport:
        """Return what the rows of the kill have themselves."""
        return outlines.from_trace(self._trace, self._kill.time_ns, self._kill.rows, self._told.state)

    def parties(self, judged: Verdict = NO_VERDICT) -> OomReport:
        """Return the outline with the limit owner and this verdict."""
        return outlines.judged(replace(self.outline, limit_owner=self._to_pick.owner), judged)

    def picked(self) -> Verdict:
        """Return the cause and its confidence."""
        return verdict.pick(self._to_pick)

    @cached_property
    def _to_pick(self) -> Findings:
        return self.weighed({}, window.measure_start).findings

    def weighed(self, unknown: Unknown, measure: Callable[..., Cushion] = window.measure_cushion) -> Weighed:
        """Measure what the causes are weighed by; `measure` returns the cushion."""
        trace, kill, told, outline = self._trace, self._kill, self._told, self.outline
        held = outlines.memory(kill, told, unknown, measure)
        asked = recorded_kill.trigger(trace, kill, told, unknown)
        unknown |= recorded_kill.why_unknown(outline.victims)
        findings = Findings(
            time=outline.time,
            constraint=outline.constraint,
            owner=recorded_kill.limit_owner(trace, kill, outline.limit_owner, asked.stack, unknown),
            trigger=asked,
            victims=outline.victims,
            victim_tgids=frozenset(),
            composition=held.made_of,
            cushion=held.cushion,
            page_size=page_size(trace),
            window=kill.window,
            circumstances=self._weighed_circumstances(held),
            lost_records=trace.losses.affecting_sizes_near(kill.window.begin, kill.time_ns),
            sampled_at_kill=kill.sample is not None and optional(kill.sample["anon_bytes"]) is not None,
            is_told=bool(optional(kill.first["is_told"])),
            kmsg=told.state,
            previous=kill.previous,
        )
        return Weighed(findings, held)

    def measured(self, weighed: Weighed, unknown: Unknown) -> tuple[Findings, Selection]:
        """Return all findings, and the selection of the victim."""
        kill = self._kill
        tried = reclaim.attempts(kill.subtree, kill.window.at_limit, kill.time_ns)
        if tried.swap_writes is None:
            unknown |= reclaim.SWAP_NOT_KNOWN
        most, further = self._allocators()
        sizable, selection = self.to_size(weighed, unknown)
        grown_bytes, total = sizable.circumstances.grown_bytes, sizable.composition.total
        if (why_not := allocators.why_unknown(grown_bytes, most, further, total)) is not None:
            unknown["allocators"] = why_not
        mappings = last_looks.processes_at_kill(kill.subtree, self._since(), kill.time_ns, self._killed)
        findings = replace(
            sizable,
            reclaim=tried,
            allocators=most,
            steal=None if kill.owner_id is None else window.compare_with_kernel(kill.subtree, kill.window),
            origins=weighed.memory.at.origins(),
            further_allocators=further,
            mappings=mappings,
            runtimes=runtimes.of_processes(kill.subtree, mappings),
            cached=last_looks.cached_files(kill.subtree, self._since(), kill.time_ns),
        )
        return findings, selection

    def to_size(self, weighed: Weighed, unknown: Unknown) -> tuple[Findings, Selection]:
        """Return the findings that the range of limits needs, and the victim's selection."""
        kill, killed, sizes = self._kill, self._killed, weighed.memory.at.sizes
        selection = victim_selection.from_trace(
            kill.subtree,
            kill.time_ns,
            rows=kill.rows,
            weighed=kill.weighed(),
            read_log=lambda: self._told.report,
            unknown=unknown,
        )
        sharers = shared_memory.sharers(kill.subtree, selection.candidates, killed, kill.time_ns)
        findings = replace(
            weighed.findings,
            victim_tgids=killed | sharers,
            circumstances=self._circumstances(weighed, selection),
            candidates=selection.candidates,
            shared_files=shared_memory.files_at(kill.subtree, kill.time_ns, sizes.get("shmem")),
            thinned=kill.subtree.whole.fineness.thinned(kill.window.begin, kill.time_ns),
        )
        return findings, selection

    def sizing(self, findings: Findings, unknown: Unknown) -> Sizing:
        """Return the kill's own range of limits."""
        limits, why_unsized = kill_range(self._kill.subtree, self._kill.rows, findings)
        if why_unsized is not None:
            unknown[RANGE] = why_unsized
        return advice.sized(limits, kills=1)

    def quality(self, findings: Findings, selection: Selection, unknown: Unknown) -> Quality:
        """Return the quality of the report: that of the trace until the kill, and of the log on it."""
        told, kill = self._told, self._kill
        return Quality(
            lost_records=findings.lost_records,
            kmsg=told.state,
            probes=self.outline.quality.probes,
            unknown=unknown,
            disagreements=tuple(map(sentence_parts.difference, told.disagreements)),
            kmsg_missing=told.missing,
            kmsg_fields=(*told.fields, *(["candidates"] if selection.is_logged else [])),
            summed=self._trace.summed_intervals.near(kill.window.begin, kill.time_ns),
            resolution_ms=round(resolution_s(findings.thinned, utc_time(kill.time_ns)) * 1000),
            thinned=tuple(findings.thinned),
        )

    judge = staticmethod(verdict.judge)

    def grown(self, kinds: Sequence[str]) -> Grown:
        """Return the code that made these kinds of memory grow in the window."""
        kill = self._kill
        if kill.owner_id is None:
            return Grown(why_unknown=_NO_OWNER)
        return grown_within(kill.subtree, kinds, kill.window.begin, kill.time_ns)

    def attempts(self) -> Reclaim:
        """Return the number of attempts to reclaim, and their time."""
        return reclaim.counted(self._kill.subtree, self._kill.window.at_limit, self._kill.time_ns)

    def _allocators(self) -> tuple[tuple[Allocator, ...], FurtherAllocators]:
        if self._kill.owner_id is None:
            return (), FurtherAllocators(0, 0)
        return allocators.between(self._kill.subtree, self._kill.window.begin, self._kill.time_ns)

    @cached_property
    def _killed(self) -> frozenset[int]:
        """Return the tgids of the victims."""
        return frozenset(int(row["tgid"]) for row in self._kill.rows)

    def _since(self) -> int:
        """Return the moment of the kill before, for the same limit; else the begin of the trace or the
        cgroup."""
        kill = self._kill
        return kill.subtree.start_ns if kill.previous is None else kill.time_ns - kill.previous.age_ns

    def _weighed_circumstances(self, held: Memory) -> Circumstances:
        kill = self._kill
        if kill.owner_id is None:
            log = self._told.report
            return Circumstances() if log is None else shortage.circumstances(log, page_size(self._trace))
        return circumstances.weighed(kill.subtree, kill.window, kill.sample, held)

    def _circumstances(self, weighed: Weighed, selection: Selection) -> Circumstances:
        kill = self._kill
        if kill.owner_id is None:
            holders = shortage.machine_holders(kill.subtree.whole, kill.time_ns)
            return replace(weighed.findings.circumstances, machine_holders=holders)
        found = circumstances.around(
            weighed.findings.circumstances,
            kill.subtree,
            kill.window,
            trigger_id=int(kill.first["trigger_cgroup_id"]),
            usage_bytes=weighed.memory.at.usage_bytes,
            has_shmem=bool(weighed.memory.at.sizes.get("shmem")),
            candidates=selection.candidates,
            weighed_tgids=selection.tgids,
        )
        return replace(found, throttled=_throttled(kill.subtree, kill.window.begin, kill.time_ns))


def _throttled(subtree: Subtree, begin_ns: int, kill_ns: int) -> Throttled | None:
    """Return the waits above a memory.high since `begin_ns`, until a kill; None if there were none."""
    waited_ns = reclaim.waited_ns(subtree, "high", begin_ns, kill_ns)
    if not waited_ns:
        return None
    limits = subtree.once_for_all("slowed.high_limits", lambda: HighLimits(subtree.whole))
    high = limits.owner(subtree, is_throttled=True)
    return Throttled(waited_ns, kill_ns - begin_ns, high)


def judged(kill: RecordedFacts) -> OomReport:
    """Return the report of `listed` with the memory of the limit owner."""
    unknown: Unknown = {}
    weighed = kill.weighed(unknown)
    outline = replace(kill.outline, limit_owner=weighed.findings.owner)
    judged = outlines.judged(outline, verdict.pick(weighed.findings))
    return outlines.measured(judged, weighed.memory, unknown)


def sized(kill: RecordedFacts) -> OomReport:
    """Return the outline with the limit owner and the kill's own range of limits."""
    unknown: Unknown = {}
    findings, _ = kill.to_size(kill.weighed({}), {})
    sizing = kill.sizing(findings, unknown)
    owned = outlines.unexplained(replace(kill.outline, limit_owner=findings.owner), outlines.NOT_ASKED)
    return replace(owned, sizing=sizing, quality=with_reason(owned.quality, unknown.get(RANGE)))


def summarized(kill: RecordedFacts) -> OomReport:
    """Return the outline with what a row of a kill shows: the parties, the memory, the number of attempts,
    the verdict without evidence, the code that grew, and the kill's own range of limits."""
    unknown: Unknown = {}
    outline = kill.outline
    weighed = kill.weighed(unknown)
    findings, _ = kill.to_size(weighed, {})
    judged = verdict.worded(verdict.pick(findings), findings)
    grew = kill.grown(CAUSES[judged.cause].grows)
    unknown |= {**grew.unknown(), **_NOT_SUMMARIZED}
    sizing, tried = kill.sizing(findings, unknown), replace(findings, reclaim=kill.attempts())
    quality = replace(outline.quality, lost_records=findings.lost_records, unknown=unknown)
    row = with_findings(outline, tried, weighed.memory, judged=judged, sizing=sizing, grew=grew)
    return replace(row, quality=quality)


RecordedDepth = Literal["causes", "causes and memory", "range", "row", "all but the range", "all"]
"""How much of a recorded kill is explained."""

DEPTHS: Final[dict[RecordedDepth, Callable[[RecordedFacts], OomReport]]] = {
    "causes": listed,
    "causes and memory": judged,
    "range": sized,
    "row": summarized,
    "all but the range": partial(whole, is_sized=False),
    "all": whole,
}
