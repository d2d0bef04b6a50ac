"""The request may not enter file systems or start I/O (GFP_NOFS, GFP_NOIO), so reclaim could free less."""

from __future__ import annotations

from typing import Final

from tracer.analysis.explain import weighing
from tracer.analysis.explain.cause_record import ALL_GROWN, CauseRecord
from tracer.analysis.explain.measure import composition
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.results.kill import Suspect


def weigh(findings: Findings) -> Suspect | None:
    """Weigh clean cache and reclaimable slab, which reclaim could have freed for another request."""
    if not composition.may_not_enter_fs(findings.trigger.gfp):
        return None
    barred = composition.barred_bytes(findings.composition)
    return weighing.blocker(findings, "gfp_constrained", barred, kind="barred_memory")


CAUSE: Final = CauseRecord(
    weigh=weigh,
    is_limit_too_small=False,
    grows=ALL_GROWN,
    stated=("restricted_request", "clean_cache_left"),
    concerns=(),
)
