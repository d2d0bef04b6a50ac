"""Evidence of the state of the whole machine, from the Mem-Info part of a report in the kernel log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from tracer.analysis.explain.evidence import large_processes
from tracer.analysis.explain.evidence.kinds import found
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.results.conclusions import Evidence

_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "anon_bytes": ("active_anon", "inactive_anon"),
    "file_bytes": ("active_file", "inactive_file"),
    "shmem_bytes": ("shmem",),
    "lru_bytes": ("active", "inactive"),  # before v2.6.28, which does not separate the two
    "slab_bytes": ("slab_reclaimable", "slab_unreclaimable", "slab"),
    "unevictable_bytes": ("unevictable",),
    "free_bytes": ("free",),
}
"""Number of the evidence -> the counters of Mem-Info that it sums."""

_COUNTERS: Final = frozenset(name for names in _PARTS.values() for name in names)


def evidence(findings: Findings) -> Iterator[Evidence]:
    """Find the use of the machine's memory, the largest processes, the swap that was free, and zones below
    their minimum.

    Only a report on a machine that was short of memory has Mem-Info (show_free_areas in mm/show_mem.c).
    """
    info = findings.circumstances.machine
    if info is None:
        yield from _largest(findings)
        return
    if info.usable_pages is not None and not info.pages.keys().isdisjoint(_COUNTERS):
        parts: dict[str, int | None] = {
            number: sum(info.pages.get(name, 0) for name in names) * findings.page_size
            for number, names in _PARTS.items()
        }
        usable = info.usable_pages * findings.page_size
        parts["lru_bytes"] = parts["lru_bytes"] or None
        yield found(
            findings,
            "machine_memory",
            usable_bytes=usable,
            **parts,
            hugetlb_bytes=info.hugetlb_bytes,
            gpu_bytes=info.gpu_bytes,
        )
    yield from _largest(findings)
    if info.total_swap_bytes:
        yield found(
            findings, "machine_swap", free_bytes=info.free_swap_bytes, total_bytes=info.total_swap_bytes
        )
    for zone in info.zones:
        if zone.min_bytes is not None and zone.free_bytes < zone.min_bytes:
            yield found(
                findings,
                "short_zone",
                zone=zone.name,
                node=zone.node,
                free_bytes=zone.free_bytes,
                min_bytes=zone.min_bytes,
            )


def _largest(findings: Findings) -> Iterator[Evidence]:
    largest = tuple(
        {"comm": one.comm, "pid": one.pid, "held_bytes": one.held_bytes, "processes": one.processes}
        for one in large_processes.largest(findings)
    )
    if largest and findings.candidates:
        yield found(findings, "largest_processes", largest=largest)
