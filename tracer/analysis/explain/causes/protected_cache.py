"""The page cache that was left belongs to cgroups whose memory.min protects it from reclaim."""

from __future__ import annotations

from typing import Final

from tracer.analysis.explain import weighing
from tracer.analysis.explain.cause_record import ALL_GROWN, CauseRecord
from tracer.analysis.explain.measure import composition
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.results.kill import Suspect


def weigh(findings: Findings) -> Suspect | None:
    """Weigh protected memory, where it is half of the cache that was left or more."""
    protected = composition.protected_cache_bytes(findings)
    if 2 * protected < composition.cache_left_bytes(findings.composition):
        return None
    return weighing.blocker(findings, "protected_cache", protected, kind="protected_cache")


CAUSE: Final = CauseRecord(
    weigh=weigh,
    is_limit_too_small=False,
    grows=ALL_GROWN,
    stated=("protected_memory", "clean_cache_left"),
    concerns=(),
)
