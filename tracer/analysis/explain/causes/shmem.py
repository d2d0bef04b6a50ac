"""tmpfs files, memfd, System V segments or shared anonymous mappings filled the limit."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tracer.analysis.explain import weighing
from tracer.analysis.explain.cause_record import CauseRecord
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.results.kill import Suspect


def weigh(findings: Findings) -> Suspect | None:
    """Weigh shared memory as a filler of the limit, at half of that where swap was full."""
    found = weighing.filler(findings, "shmem", "shmem", findings.composition.shmem)
    if found is not None and weighing.is_swap_exhausted(findings):
        return replace(found, weight=found.weight / 2)
    return found


CAUSE: Final = CauseRecord(
    weigh=weigh,
    is_limit_too_small=True,
    grows=("shmem",),
    stated=("shmem",),
    concerns=("no_swap", "unmapped_shmem", "ended_writer"),
)
