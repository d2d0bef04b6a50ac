"""Process memory (heap, stack, private mappings) grew until it filled the limit."""

from __future__ import annotations

from typing import Final

from tracer.analysis.explain import weighing
from tracer.analysis.explain.cause_record import CauseRecord
from tracer.analysis.explain.evidence import gathering
from tracer.analysis.explain.measure import composition
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.weighing import is_composition_known, is_limit_hit
from tracer.analysis.results.kill import Suspect

_KILLED_WEIGHT: Final = 0.6
_RSS_WEIGHT: Final = 0.5
"""RSS can also be shared memory or page cache."""


def weigh(findings: Findings) -> Suspect | None:
    """Weigh anonymous memory, with what zswap keeps of it, as a filler of the limit.

    Without a composition, killed processes that held nearly all of the limit are the evidence.
    """
    if is_limit_hit(findings) and not is_composition_known(findings):
        held = next(gathering.killed_held_limit(findings), None)
        if held is None:
            return None
        is_anon = "anon_rss_bytes" in held.numbers
        return Suspect("anon_growth", _KILLED_WEIGHT if is_anon else _RSS_WEIGHT, held)
    held_bytes = composition.process_bytes(findings.composition)
    return weighing.swappable_filler(findings, "anon_growth", "anon", held_bytes)


CAUSE: Final = CauseRecord(
    weigh=weigh,
    is_limit_too_small=True,
    grows=("anon",),
    stated=("anon", "zswap"),
    concerns=("no_swap", "same_command", "cow"),
)
