"""The report of a kill, made in the same steps from the facts in a trace and from those in a kernel log.

A source (`Kill`) gives the outline of a kill. It measures what the causes are weighed by, and then what
evidence and advice read. A value that it does not show is None, and `Quality.unknown` has the reason. The
verdict and the advice follow from the findings alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, Protocol

from tracer.analysis.explain.causes.registry import CAUSES
from tracer.analysis.explain.measure.composition import Memory
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.outline import NOT_ASKED
from tracer.analysis.explain.victim_selection import Selection
from tracer.analysis.explain.words import advice, sentence_parts
from tracer.analysis.results.kill import NO_VERDICT, OomReport, Sizing, Verdict
from tracer.analysis.results.memory import Grown
from tracer.analysis.results.quality import RANGE, Quality, Unknown

if TYPE_CHECKING:
    from tracer.analysis.explain.sizing.demand import Demand


@dataclass(frozen=True, slots=True)
class Weighed:
    """The findings by which causes are weighed, and the memory of the limit owner that they are from.

    `findings` lack what only evidence, advice and sizing read.
    """

    findings: Findings
    memory: Memory


class Kill(Protocol):
    """The facts of a kill. Methods with `unknown` add the reasons for unknown values to it."""

    @property
    def outline(self) -> OomReport:
        """Return what the source says without any measuring."""

    def parties(self, judged: Verdict = NO_VERDICT) -> OomReport:
        """Return the time, the limit owner and the victims, with this verdict and nothing else."""

    def picked(self) -> Verdict:
        """Return the cause and its confidence."""

    def weighed(self, unknown: Unknown) -> Weighed:
        """Measure what the causes are weighed by."""

    def measured(self, weighed: Weighed, unknown: Unknown) -> tuple[Findings, Selection]:
        """Return all findings, and the selection of the victim."""

    def sizing(self, findings: Findings, unknown: Unknown) -> Sizing:
        """Return the kill's own range of limits."""

    def quality(self, findings: Findings, selection: Selection, unknown: Unknown) -> Quality:
        """Return the quality of the report."""

    def judge(self, findings: Findings) -> Verdict:
        """Return the verdict on all findings."""

    def grown(self, kinds: Sequence[str]) -> Grown:
        """Return the code that made these kinds of memory grow before the kill."""


def parties(kill: Kill) -> OomReport:
    """Return the time, the limit owner and the victims."""
    return kill.parties()


def listed(kill: Kill) -> OomReport:
    """Return the parties, the cause and its confidence."""
    return kill.parties(kill.picked())


def whole(kill: Kill, *, is_sized: bool = True) -> OomReport:
    """Return everything about a kill; without `is_sized`, without a range of limits."""
    outline = kill.outline
    unknown: Unknown = dict(outline.quality.unknown)
    weighed = kill.weighed(unknown)
    findings, selection = kill.measured(weighed, unknown)
    if is_sized:
        sizing = kill.sizing(findings, unknown)
    else:
        sizing, unknown[RANGE] = Sizing(), NOT_ASKED
    quality = kill.quality(findings, selection, unknown)
    findings = replace(findings, candidates=selection.candidates, kmsg_fields=quality.kmsg_fields)
    if selection.is_contradicted:
        contradiction = sentence_parts.contradiction(selection.candidates)
        quality = replace(quality, disagreements=(*quality.disagreements, contradiction))
    judged = kill.judge(findings)
    grew = kill.grown(CAUSES[judged.cause].grows)
    grown_by = replace(findings, code=grew.code)
    return replace(
        with_findings(outline, findings, weighed.memory, judged=judged, sizing=sizing, grew=grew),
        candidates=selection.candidates,
        allocators=tuple(findings.allocators),
        advice=(*advice.advise(grown_by, judged.cause), *advice.settings(findings, judged.cause)),
        memory_stat_bytes=weighed.memory.known_sizes,
        badness_total_pages=selection.total_pages,
        what_if=selection.what_if,
        further_allocators=findings.further_allocators,
        shared_files=tuple(findings.shared_files),
        mappings=tuple(findings.mappings),
        runtime=tuple(findings.runtimes),
        cached=findings.cached,
        quality=replace(quality, unknown={**quality.unknown, **grew.unknown()}),
    )


def with_findings(
    outline: OomReport, findings: Findings, held: Memory, *, judged: Verdict, sizing: Sizing, grew: Grown
) -> OomReport:
    """Return the outline with the findings that a row of a kill shows as well as its whole report."""
    return replace(
        outline,
        time=findings.time,
        limit_owner=findings.owner,
        trigger=findings.trigger,
        victims=tuple(findings.victims),
        composition=findings.composition,
        working_set_bytes=held.working_set_bytes,
        reclaim=findings.reclaim,
        cushion=findings.cushion,
        verdict=judged,
        sizing=sizing,
        **grew.fields(),
    )


Depth = Literal["parties", "causes", "all"]
"""How much of a kill is explained: its time, limit owner and victims; also its cause; or all of it."""

DEPTHS: Final[dict[Depth, Callable[[Kill], OomReport]]] = {
    "parties": parties,
    "causes": listed,
    "all": whole,
}


def with_range_of_run(report: OomReport, needs: Demand, kills: int) -> OomReport:
    """Return a report with the range of limits of its run, in which there were so many kills."""
    if needs.killed_below_bytes is None:
        return report
    low = max(needs.killed_below_bytes, *(report.sizing.min_limit_bytes or ())[:1])
    limits, basis = (low, needs.grown_fits_from_bytes), (advice.for_all_kills(kills), *report.sizing.basis)
    return replace(
        report,
        sizing=replace(report.sizing, min_limit_bytes=limits, basis=basis, kills=kills),
        quality=with_reason(report.quality, needs.why_open),
    )


def with_reason(quality: Quality, why: str | None) -> Quality:
    """Return the quality with the reason for a range that has no upper end; None: it has one."""
    others = {name: reason for name, reason in quality.unknown.items() if name != RANGE}
    return replace(quality, unknown=others if why is None else others | {RANGE: why})
