"""Memory that the kernel keeps for the cgroup filled the limit: slab, page tables, stacks, socket buffers."""

from __future__ import annotations

from typing import Final

from tracer.analysis.explain import weighing
from tracer.analysis.explain.cause_record import CauseRecord
from tracer.analysis.explain.measure import composition
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.results.kill import Suspect


def weigh(findings: Findings) -> Suspect | None:
    """Weigh all kernel memory together as a filler of the limit."""
    return weighing.filler(findings, "kernel_memory", "kernel", composition.kernel_bytes(findings))


CAUSE: Final = CauseRecord(
    weigh=weigh,
    is_limit_too_small=True,
    grows=("kernel",),
    stated=("page_tables", "sock"),
    concerns=(),
)
