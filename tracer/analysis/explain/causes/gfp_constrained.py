"""The request may not enter file systems or start I/O (GFP_NOFS, GFP_NOIO), so reclaim could free less."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tracer.analysis.explain.cause_record import ALL_GROWN, CauseRecord
from tracer.analysis.explain.measure import memory_kinds
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.weighing import blocking
from tracer.analysis.explain.words import sentence_parts
from tracer.analysis.results.conclusions import Suspect
from tracer.units import size


def weigh(findings: Findings) -> Suspect | None:
    """Weigh clean cache and reclaimable slab, which reclaim could have freed for another request."""
    if not memory_kinds.may_not_enter_fs(findings.trigger.gfp):
        return None
    barred = memory_kinds.barred_bytes(findings.composition)
    return blocking.suspect(findings, "gfp_constrained", barred, kind="barred_memory")


def sentence(findings: Findings) -> str:
    """Return the sentence that explains the kill."""
    barred = size(memory_kinds.barred_bytes(findings.composition))
    return sentence_parts.at_limit(
        findings, f"{barred} of it cache and slab that reclaim could not free for this request (gfp)"
    )


def cure(_: Findings) -> Iterator[str]:
    """Yield sentences of advice."""
    yield (
        "Leave more room below the limit: this request of the kernel could not free memory that other "
        "requests can. With memory.high below the limit (cgroup v2), reclaim begins earlier."
    )


CAUSE: Final = CauseRecord(
    label="the request did not allow reclaim to enter file systems or to start I/O",
    weigh=weigh,
    sentence=sentence,
    cure=cure,
    settings=None,
    is_limit_too_small=False,
    grows=ALL_GROWN,
    stated=("restricted_request", "clean_cache_left"),
    concerns=(),
)
