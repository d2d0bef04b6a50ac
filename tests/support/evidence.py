"""Evidence of a kind, picked out of a verdict."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tracer.analysis.results.kill import Evidence


def numbers_of(evidence: Iterable[Evidence], kind: str) -> list[dict[str, Any]]:
    """Return the numbers of each item of this kind."""
    return [dict(item.numbers) for item in evidence if item.kind == kind]


def kinds_of(evidence: Iterable[Evidence]) -> list[str]:
    """Return the kinds in order."""
    return [item.kind for item in evidence]
