"""No cause fits the numbers, or the kernel log does not show that memory was short."""

from __future__ import annotations

from typing import Final

from tracer.analysis.explain.cause_record import ALL_GROWN, CauseRecord
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.results.kill import Suspect


def weigh(_: Findings) -> Suspect | None:
    """Return None: this is the verdict where no other cause weighs enough."""
    return None


CAUSE: Final = CauseRecord(
    weigh=weigh,
    is_limit_too_small=True,
    grows=ALL_GROWN,
    stated=(),
    concerns=(),
)
