"""Evidence of a fork whose parent and child share memory, and copy each page that one of them writes to."""

from __future__ import annotations

from typing import Final

from tracer.analysis.explain.evidence.kinds import found
from tracer.analysis.explain.measure import forks
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.results.conclusions import Evidence

_LEAST_SHARE: Final = 0.05
_COPY: Final = ("do_wp_page", "wp_page_copy")  # mm/memory.c; the compiler may inline the second


def evidence(findings: Findings) -> Evidence | None:
    """Return the evidence of copy-on-write, if at least 5 % of usage is mapped more than once, and copies
    matter: as much was copied since a fork, or the request that failed was for a copy."""
    fork, stack, shared = findings.circumstances.fork, findings.trigger.stack, forks.shared_bytes(findings)
    copies = None if stack is None else any(frame.partition("+")[0] in _COPY for frame in stack)
    least = _LEAST_SHARE * (findings.composition.total or 0)
    copied = fork.copied_bytes if fork is not None else 0
    if shared is None or shared <= least or (copied <= least and not copies):
        return None
    return found(
        findings,
        "cow",
        **{
            name: None if fork is None else getattr(fork, name)
            for name in ("parent_comm", "parent_pid", "child_comm", "child_pid", "copied_bytes")
        },
        shared_bytes=shared,
        is_copying=copies,
    )
