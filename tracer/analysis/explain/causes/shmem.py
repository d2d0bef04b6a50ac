"""tmpfs files, memfd, System V segments or shared anonymous mappings filled the limit."""

from __future__ import annotations

from typing import Final

from tracer.analysis.explain import weighing
from tracer.analysis.explain.cause_record import CauseRecord
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.results.kill import Suspect


def weigh(findings: Findings) -> Suspect | None:
    """Weigh shared memory as a filler of the limit."""
    return weighing.swappable_filler(findings, "shmem", "shmem", findings.composition.shmem)


CAUSE: Final = CauseRecord(
    weigh=weigh,
    is_limit_too_small=True,
    grows=("shmem",),
    stated=("shmem",),
    concerns=("no_swap", "unmapped_shmem", "ended_writer"),
)
