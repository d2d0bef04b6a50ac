"""The weight of a cause that kept reclaim from freeing one kind of memory."""

from __future__ import annotations

from typing import Final

from tracer.analysis.explain.evidence.kinds import found
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.weighing.scope import is_limit_hit
from tracer.analysis.results.conclusions import Cause, Suspect

_LEAST_SHARE: Final = 0.1  # of usage
_WEIGHT: Final = 0.5


def suspect(findings: Findings, cause: Cause, held_bytes: int, *, kind: str) -> Suspect | None:
    """Return the cause with its weight: a half and the share of usage, at most 1.

    None where no limit was hit, or `held_bytes` is less than 10 % of usage. `kind` names the evidence.
    """
    total = findings.composition.total
    if not is_limit_hit(findings) or not total:  # the other kinds of memory may be unknown
        return None
    share = held_bytes / total
    if share < _LEAST_SHARE:
        return None
    evidence = found(findings, kind, held_bytes=held_bytes, usage_bytes=total)
    return Suspect(cause, round(min(_WEIGHT + share, 1), 3), evidence)
