"""The verdict on a kill: each cause is weighed, the heaviest is picked, and doubts lower the confidence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from tracer.analysis.explain import weighing
from tracer.analysis.explain.causes.registry import CAUSES
from tracer.analysis.explain.evidence import gathering
from tracer.analysis.explain.evidence.contributing import contributing
from tracer.analysis.explain.evidence.gathering import CLOSE_WEIGHT, doubts
from tracer.analysis.explain.evidence.kinds import on_suspect
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.words.cause_words import WORDS
from tracer.analysis.results.kill import (
    CONFIDENCES,
    UNKNOWN,
    Cause,
    Confidence,
    Evidence,
    Suspect,
    Verdict,
)

_LEAST_WEIGHT: Final = 0.4
"""The least weight of a cause that is picked."""

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
    return CONFIDENCES[min(steps + doubted, 2)]


def _other_causes(suspects: Sequence[Suspect]) -> Iterator[Evidence]:
    """Find up to two suspects after the first that weigh much less; those that weigh nearly as much are
    doubts.
    """
    for other in suspects[1:3]:
        is_far = suspects[0].weight - other.weight >= CLOSE_WEIGHT
        is_stated = "other_cause" in CAUSES[suspects[0].cause].stated
        if is_far and other.weight >= _LEAST_WEIGHT / 2 and not is_stated:
            yield on_suspect("other_cause", other)
