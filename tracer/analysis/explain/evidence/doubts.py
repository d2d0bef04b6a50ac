"""Doubts: evidence that lowers the confidence in a verdict, each by one step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from tracer.analysis.explain.evidence.kinds import found, on_suspect
from tracer.analysis.explain.measure import memory_kinds
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.results.conclusions import Evidence, Suspect

CLOSE_WEIGHT: Final = 0.1
"""Two causes whose weights differ by less are about equally likely."""


def doubts(findings: Findings, suspects: Sequence[Suspect]) -> Iterator[Evidence]:
    """Find lost and missing records, unknown kinds, inferred values, and a suspect that weighs nearly as
    much."""
    if findings.lost_records:
        yield found(findings, "doubt_lost_records", lost_records=findings.lost_records)
    if not findings.sampled_at_kill and findings.constraint == "memcg":
        yield found(findings, "doubt_no_sample")
    if findings.kmsg == "only":
        yield found(findings, "doubt_log_alone")
    elif findings.cushion.cache_start_bytes is None and findings.constraint == "memcg":
        yield found(findings, "doubt_no_start_sample")
    locked_bytes = memory_kinds.much_locked_bytes(findings)
    if locked_bytes:
        yield found(findings, "doubt_locked_kind", locked_bytes=locked_bytes)
    if not findings.is_told and findings.kmsg == "missing" and findings.constraint == "memcg":
        yield found(findings, "doubt_inferred_limit")
    if len(suspects) > 1 and suspects[0].weight - suspects[1].weight < CLOSE_WEIGHT:
        yield on_suspect("doubt_close_cause", suspects[1])
