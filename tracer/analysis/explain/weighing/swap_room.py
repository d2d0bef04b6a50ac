"""Full swap: process and shared memory could not be reclaimed, because swap had no room."""

from __future__ import annotations

from typing import Final

from tracer.analysis.explain.measure.findings import Findings

_FULL_SHARE: Final = 0.95
_IN_USE_SHARE: Final = 0.05  # of usage


def is_exhausted(findings: Findings) -> bool:
    """Return whether swap held 5 % of usage or more, and had no room left.

    There is no room at 95 % of the allowed size, or where the kernel counted that it could not swap.
    """
    swap, total = findings.circumstances.swap, findings.composition.total
    if swap is None or not total or swap.used_bytes < _IN_USE_SHARE * total:
        return False
    allowed = swap.allowed_bytes
    return swap.refused or (allowed is not None and swap.used_bytes >= _FULL_SHARE * allowed)
