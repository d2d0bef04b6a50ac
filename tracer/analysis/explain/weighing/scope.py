"""The conditions under which the causes of a kill can be weighed."""

from __future__ import annotations

from tracer.analysis.explain.measure.findings import Findings


def memory_was_short(findings: Findings) -> bool:
    """Return whether memory was short at the kill; False if the log shows no shortage."""
    shortage = findings.circumstances.shortage
    return shortage is None or shortage.is_seen


def is_limit_hit(findings: Findings) -> bool:
    """Return whether a cgroup's limit was hit."""
    return findings.constraint == "memcg" and memory_was_short(findings)


def is_composition_known(findings: Findings) -> bool:
    """Return whether the composition of usage is known."""
    return bool(findings.composition.total) and findings.composition.anon is not None
