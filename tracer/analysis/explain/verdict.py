"""The verdict on a kill, and the assembly of its report.

Each cause is weighed, the heaviest is picked, and doubts lower the confidence.

A source (`recorded_facts`, `logged_kills`) first gives the outline of a kill (`outline`). To explain the
kill, it measures. A value that it does not show is None, and `Quality.unknown` has the reason. From there on
all kills are treated alike: the verdict, then the advice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from tracer.analysis.explain import weighing
from tracer.analysis.explain.causes.registry import CAUSES
from tracer.analysis.explain.evidence import gathering
from tracer.analysis.explain.evidence.contributing import contributing
from tracer.analysis.explain.evidence.gathering import CLOSE_WEIGHT, doubts
from tracer.analysis.explain.evidence.kinds import on_suspect
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.outline import known
from tracer.analysis.explain.victim_selection import Selection
from tracer.analysis.explain.words import advice, sentence_parts
from tracer.analysis.explain.words.cause_words import WORDS
from tracer.analysis.results.kill import (
    UNKNOWN,
    Cause,
    Confidence,
    Evidence,
    OomReport,
    Suspect,
    Verdict,
)
from tracer.analysis.results.memory import Grown
from tracer.analysis.results.quality import LOG_ALONE

_LEAST_WEIGHT: Final = 0.4
"""The least weight of a cause that is picked."""

_CONFIDENCES: Final[tuple[Confidence, ...]] = ("high", "medium", "low")
_SURE_WEIGHTS: Final = (0.7, 0.5)
"""The least weight for high, and for medium confidence."""


def judge(findings: Findings) -> Verdict:
    """Return the cause, its confidence and the evidence.

    Of several kinds of memory that filled the limit only together, the heaviest is picked.
    Confidence is high from a weight of 0.7 on, medium from 0.5 on, and one step less for each doubt.
    """
    suspects = _suspects(findings)
    cause, confidence, doubted = _picked(findings, suspects)
    return Verdict(
        cause=cause,
        confidence=confidence,
        summary=WORDS[cause].sentence(findings),
        evidence=(
            *gathering.of_the_machine(findings),
            *gathering.at_the_kill(findings),
            *gathering.growth(findings),
            *gathering.reclaim(findings),
            *_other_causes(suspects),
            *doubted,
        ),
        contributing=contributing(findings, CAUSES[cause]),
        suspects=suspects,
    )


def pick(findings: Findings) -> Verdict:
    """Return the verdict of `judge` without its words and evidence.

    It reads only the findings that a list of kills measures (`postmortem.PostMortems.listed`).
    """
    cause, confidence, _ = _picked(findings, _suspects(findings))
    return Verdict(cause, confidence, summary="", evidence=(), contributing=())


def worded(picked: Verdict, findings: Findings) -> Verdict:
    """Return the verdict of `pick` with the sentence of `judge`."""
    return replace(picked, summary=WORDS[picked.cause].sentence(findings))


def _picked(
    findings: Findings, suspects: Sequence[Suspect]
) -> tuple[Cause, Confidence, tuple[Evidence, ...]]:
    """Return the cause, its confidence, and the doubts that lower it."""
    cause: Cause = suspects[0].cause if suspects and _is_picked(findings, suspects[0]) else UNKNOWN
    doubted = tuple(doubts(findings, suspects))
    return cause, "low" if cause == UNKNOWN else _confidence(suspects[0].weight, len(doubted)), doubted


def _suspects(findings: Findings) -> tuple[Suspect, ...]:
    """Return all causes that any number points to, the heaviest first, and equals in the order of `Cause`."""
    weighed = (cause.weigh(findings) for cause in CAUSES.values())
    found = [one for one in weighed if one is not None and one.weight > 0]
    return tuple(sorted(found, key=lambda one: -one.weight))


def _is_picked(findings: Findings, first: Suspect) -> bool:
    return first.weight >= _LEAST_WEIGHT or weighing.fill_together(findings, first)


def _confidence(weight: float, doubted: int) -> Confidence:
    steps = sum(weight < least for least in _SURE_WEIGHTS)
    return _CONFIDENCES[min(steps + doubted, 2)]


def _other_causes(suspects: Sequence[Suspect]) -> Iterator[Evidence]:
    """Find up to two suspects after the first that weigh much less; those that weigh nearly as much are
    doubts.
    """
    for other in suspects[1:3]:
        is_far = suspects[0].weight - other.weight >= CLOSE_WEIGHT
        is_stated = "other_cause" in CAUSES[suspects[0].cause].stated
        if is_far and other.weight >= _LEAST_WEIGHT / 2 and not is_stated:
            yield on_suspect("other_cause", other)


NO_OWNER: Final = "the cgroup whose limit was hit is not known"
_NOT_SAMPLED: Final = Grown(why_unknown=LOG_ALONE)


def assemble(
    outline: OomReport,
    findings: Findings,
    selection: Selection,
    sizes: Mapping[str, int | None],
    *,
    judge: Callable[[Findings], Verdict] = judge,
    grown: Callable[[Sequence[str]], Grown] = lambda _kinds: _NOT_SAMPLED,
) -> OomReport:
    """Return the report of a kill: its outline, with what was measured and the conclusions.

    `findings`: without the candidates, which `selection` has. `sizes`: memory.stat of the limit owner at the
    kill, in bytes, by name (`schema.MEMORY_STAT_BYTES`); None is "not known". `judge` gives the verdict on
    the findings. `grown` returns the code that made some kinds of memory grow before the kill.
    """
    quality = outline.quality
    findings = replace(findings, candidates=selection.candidates, kmsg_fields=quality.kmsg_fields)
    if selection.is_contradicted:
        contradiction = sentence_parts.contradiction(selection.candidates)
        quality = replace(quality, disagreements=(*quality.disagreements, contradiction))
    judged = judge(findings)
    grew = grown(CAUSES[judged.cause].grows)
    quality = replace(quality, unknown={**quality.unknown, **grew.unknown()})
    grown_by = replace(findings, code=grew.code)
    return replace(
        outline,
        limit_owner=findings.owner,
        trigger=findings.trigger,
        victims=tuple(findings.victims),
        candidates=selection.candidates,
        composition=findings.composition,
        reclaim=findings.reclaim,
        cushion=findings.cushion,
        allocators=tuple(findings.allocators),
        verdict=judged,
        advice=(*advice.advise(grown_by, judged.cause), *advice.settings(findings, judged.cause)),
        memory_stat_bytes=known(sizes),
        badness_total_pages=selection.total_pages,
        what_if=selection.what_if,
        further_allocators=findings.further_allocators,
        shared_files=tuple(findings.shared_files),
        mappings=tuple(findings.mappings),
        runtime=tuple(findings.runtimes),
        cached=findings.cached,
        **grew.fields(),
        quality=quality,
    )
