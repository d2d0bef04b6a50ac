"""No cgroup's limit was hit: the machine had no memory that the request could use."""

from __future__ import annotations

from typing import Final

from tracer.analysis.explain.cause_record import ALL_GROWN, CauseRecord
from tracer.analysis.explain.evidence.kinds import found
from tracer.analysis.explain.measure.findings import OF_MACHINE, Findings
from tracer.analysis.explain.weighing import memory_was_short
from tracer.analysis.results.kill import Suspect


def weigh(findings: Findings) -> Suspect | None:
    """Weigh the constraint that the kernel reported, which is certain."""
    if findings.constraint not in OF_MACHINE or not memory_was_short(findings):
        return None
    return Suspect("global_pressure", 1.0, found(findings, "constraint", constraint=findings.constraint))


CAUSE: Final = CauseRecord(
    weigh=weigh,
    is_limit_too_small=False,
    grows=ALL_GROWN,
    stated=(),
    concerns=(),
)
