"""Page cache that was not yet on disk could not be dropped in time.

Memcg reclaim does not write file pages itself (shrink_folio_list in mm/vmscan.c). It waits for the flusher,
for a short time only.
"""

from __future__ import annotations

from typing import Final

from tracer.analysis.explain import weighing
from tracer.analysis.explain.cause_record import CauseRecord
from tracer.analysis.explain.measure import composition
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.results.kill import Suspect


def weigh(findings: Findings) -> Suspect | None:
    """Weigh dirty cache and cache under writeback, where they are half of the cache that was left or more."""
    unwritten = composition.unwritten_bytes(findings.composition)
    if 2 * unwritten < composition.cache_left_bytes(findings.composition):
        return None
    return weighing.blocker(findings, "dirty_writeback", unwritten, kind="unwritten_cache")


CAUSE: Final = CauseRecord(
    weigh=weigh,
    is_limit_too_small=False,
    grows=("file",),
    stated=("unwritten",),
    concerns=(),
)
