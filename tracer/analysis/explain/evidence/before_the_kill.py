"""Evidence of the time before the kill: growth, evictions, and the attempts of reclaim."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tracer.analysis.explain.evidence.kinds import found, resolution_ns
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.results.conclusions import Evidence

_GROWING: Final = ("anon", "shmem", "locked_cache", "kernel")


def growth(findings: Findings) -> Iterator[Evidence]:
    """Find the memory that grew, the evicted cache, and the memory that took its place.

    Growth below a tenth of the largest growth, or below a hundredth of usage, is left out.
    """
    window, cushion = findings.window, findings.cushion
    if window is None:
        return
    grown = findings.circumstances.grown_bytes
    least = max(max(grown.values(), default=0) // 10, (findings.composition.total or 0) // 100, 1)
    for part in _GROWING:
        if grown.get(part, 0) >= least:
            yield found(
                findings,
                "growth",
                part=part,
                grown_bytes=grown[part],
                span_ns=window.end - window.begin,
                resolution_ns=resolution_ns(findings, window.begin),
            )
    if cushion.evicted_bytes is not None:
        yield found(
            findings,
            "evicted_cache",
            evicted_bytes=cushion.evicted_bytes,
            span_ns=window.end - window.at_limit,
            resolution_ns=resolution_ns(findings, window.at_limit),
        )
    if cushion.absorbed_bytes and cushion.evicted_bytes:
        yield found(findings, "absorbed_memory", absorbed_bytes=cushion.absorbed_bytes)


def reclaim(findings: Findings) -> Iterator[Evidence]:
    """Find the pages that reclaim scanned and freed, and those that the last attempts could not free."""
    steal, tried, last = findings.steal, findings.reclaim, findings.reclaim.transcript
    if steal is not None and (steal.evicted_pages or steal.swapped_pages or steal.pgsteal_pages):
        yield found(
            findings,
            "steal_count",
            evicted_pages=steal.evicted_pages,
            swapped_pages=steal.swapped_pages,
            pgsteal_pages=steal.pgsteal_pages,
        )
    if tried.attempts is not None and tried.stall_ms is not None:
        yield found(
            findings,
            "reclaim_attempts",
            attempts=tried.attempts,
            scanned_pages=tried.scanned_pages,
            reclaimed_pages=tried.reclaimed_pages,
            stall_ms=tried.stall_ms,
        )
    if last and last[-1].reclaimed_pages == 0:
        yield found(findings, "fruitless_attempt", scanned_pages=last[-1].scanned_pages)
    scanned = sum(attempt.scanned_file_pages for attempt in last)
    # A page can be both dirty and under writeback.
    unwritten = sum(max(attempt.nr_dirty, attempt.nr_writeback) for attempt in last)
    if unwritten * 2 > scanned:
        yield found(
            findings,
            "unwritten_scanned",
            attempts=len(last),
            scanned_pages=scanned,
            unwritten_pages=unwritten,
        )
