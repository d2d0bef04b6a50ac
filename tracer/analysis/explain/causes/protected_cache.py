"""The page cache that was left belongs to cgroups whose memory.min protects it from reclaim."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tracer.analysis.explain.cause_record import ALL_GROWN, CauseRecord
from tracer.analysis.explain.measure import memory_kinds
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.weighing import blocking
from tracer.analysis.explain.words import sentence_parts
from tracer.analysis.explain.words.wording import owner_name
from tracer.analysis.results.conclusions import Suspect
from tracer.units import size


def weigh(findings: Findings) -> Suspect | None:
    """Weigh protected memory, where it is half of the cache that was left or more."""
    protected = _protected_bytes(findings)
    if 2 * protected < memory_kinds.cache_left_bytes(findings.composition):
        return None
    return blocking.suspect(findings, "protected_cache", protected, kind="protected_cache")


def sentence(findings: Findings) -> str:
    """Return the sentence that explains the kill."""
    protected = size(_protected_bytes(findings))
    return sentence_parts.at_limit(
        findings, f"{protected} of it page cache that memory.min of cgroups below protects from reclaim"
    )


def cure(findings: Findings) -> Iterator[str]:
    """Yield sentences of advice."""
    yield (
        f"Lower memory.min of the cgroups below {owner_name(findings.owner)}, or raise its limit: "
        f"{size(findings.circumstances.protected_bytes)} are protected from all reclaim."
    )


def _protected_bytes(findings: Findings) -> int:
    left = memory_kinds.cache_left_bytes(findings.composition)
    return min(findings.circumstances.protected_bytes, left)


CAUSE: Final = CauseRecord(
    label="memory.min protects the page cache that was left",
    weigh=weigh,
    sentence=sentence,
    cure=cure,
    settings=None,
    is_limit_too_small=False,
    grows=ALL_GROWN,
    stated=("protected_memory", "clean_cache_left"),
    concerns=(),
)
