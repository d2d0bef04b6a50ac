"""Process memory (heap, stack, private mappings) grew until it filled the limit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from tracer.analysis.explain.cause_record import CauseRecord
from tracer.analysis.explain.evidence import at_the_kill
from tracer.analysis.explain.measure import memory_kinds
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.weighing import filling, swap_room
from tracer.analysis.explain.weighing.scope import is_composition_known, is_limit_hit
from tracer.analysis.explain.words import sentence_parts
from tracer.analysis.results.conclusions import Suspect
from tracer.units import size

_KILLED_WEIGHT: Final = 0.6
_RSS_WEIGHT: Final = 0.5
"""RSS can also be shared memory or page cache."""


def weigh(findings: Findings) -> Suspect | None:
    """Weigh anonymous memory as a filler of the limit, at half of that where swap was full.

    Without a composition, killed processes that held nearly all of the limit are the evidence.
    """
    if is_limit_hit(findings) and not is_composition_known(findings):
        held = next(at_the_kill.killed_held_limit(findings), None)
        if held is None:
            return None
        is_anon = "anon_rss_bytes" in held.numbers
        return Suspect("anon_growth", _KILLED_WEIGHT if is_anon else _RSS_WEIGHT, held)
    found = filling.suspect(findings, "anon_growth", "anon", findings.composition.anon)
    if found is not None and swap_room.is_exhausted(findings):
        return replace(found, weight=found.weight / 2)
    return found


def sentence(findings: Findings) -> str:
    """Return the sentence that explains the kill."""
    anon = sentence_parts.anonymous(findings)
    filled = anon + sentence_parts.beside(findings, "anonymous memory") if anon else ""
    if not anon and (held := _held_by_killed(findings)):
        several = "es" if len(findings.victims) > 1 else ""
        filled = f"{held} of it in the killed process{several}"
    return sentence_parts.at_limit(findings, filled)


def _held_by_killed(findings: Findings) -> str:
    held, _ = at_the_kill.held_by_killed(findings)
    return size(min(held, findings.owner.limit_bytes or held)) if held else ""


def cure(findings: Findings) -> Iterator[str]:
    """Yield sentences of advice."""
    limit, anon = size(findings.owner.limit_bytes), findings.composition.anon
    why = f"the {size(anon)} of anonymous memory {swappable(findings)}"
    if anon is None:
        why = f"the killed ones held {_held_by_killed(findings)} of it"
    yield f"Raise the limit above {limit}, or make the processes need less memory: {why}."


def swappable(findings: Findings) -> str:
    """Return `can only go to swap`, without the locked memory."""
    locked = memory_kinds.much_locked_bytes(findings)
    if not locked:
        return "can only go to swap"
    return (
        f"can only go to swap, but {size(locked)} of it or of the shared memory is locked and cannot: "
        "lock less (RLIMIT_MEMLOCK bounds it)"
    )


CAUSE: Final = CauseRecord(
    label="process memory grew",
    weigh=weigh,
    sentence=sentence,
    cure=cure,
    settings=None,
    is_limit_too_small=True,
    grows=("anon",),
    stated=("anon",),
    concerns=("no_swap", "same_command", "cow"),
)
