"""Swap was allowed, in use and full, so that process and shared memory could not be reclaimed.

Its weight comes from process and shared memory, so `other_cause` would state these twice.
"""

from __future__ import annotations

from typing import Final

from tracer.analysis.explain import weighing
from tracer.analysis.explain.cause_record import CauseRecord
from tracer.analysis.explain.evidence.kinds import found
from tracer.analysis.explain.measure import composition
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.results.kill import Suspect


def weigh(findings: Findings) -> Suspect | None:
    """Weigh a full swap as much as the process and shared memory together that it could have held."""
    swap = findings.circumstances.swap
    if swap is None or not weighing.is_swap_exhausted(findings):
        return None
    swappable = (
        weighing.filler(findings, "swap_exhausted", "anon", composition.process_bytes(findings.composition)),
        weighing.filler(findings, "swap_exhausted", "shmem", findings.composition.shmem),
    )
    weight = round(min(sum(one.weight for one in swappable if one is not None), 1), 3)
    evidence = found(findings, "full_swap", used_bytes=swap.used_bytes, allowed_bytes=swap.allowed_bytes)
    return Suspect("swap_exhausted", weight, evidence)


CAUSE: Final = CauseRecord(
    weigh=weigh,
    is_limit_too_small=True,
    grows=("anon", "shmem"),
    stated=("anon", "zswap", "swap_in_use", "other_cause"),
    concerns=("same_command", "cow"),
)
