"""Evidence of the state of the whole machine, from the Mem-Info part of a report in the kernel log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from tracer.analysis.explain.evidence.kinds import found
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.results.conclusions import Evidence

_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "anon_bytes": ("active_anon", "inactive_anon"),
    "file_bytes": ("active_file", "inactive_file"),
    "shmem_bytes": ("shmem",),
    "slab_bytes": ("slab_reclaimable", "slab_unreclaimable"),
    "unevictable_bytes": ("unevictable",),
    "free_bytes": ("free",),
}
"""Number of the evidence -> the counters of Mem-Info that it sums."""


def evidence(findings: Findings) -> Iterator[Evidence]:
    """Find the use of the machine's memory, zones below their minimum, and the swap that was free.

    Only a report on a machine that was short of memory has Mem-Info (show_free_areas in mm/show_mem.c).
    """
    info = findings.circumstances.machine
    if info is None:
        return
    if info.ram_pages is not None:
        usable = (info.ram_pages - (info.reserved_pages or 0)) * findings.page_size
        parts = {
            number: sum(info.pages.get(name, 0) for name in names) * findings.page_size
            for number, names in _PARTS.items()
        }
        yield found(
            findings,
            "machine_memory",
            usable_bytes=usable,
            **parts,
            hugetlb_bytes=info.hugetlb_bytes,
            gpu_bytes=info.gpu_bytes,
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
    if info.total_swap_bytes:
        yield found(
            findings, "machine_swap", free_bytes=info.free_swap_bytes, total_bytes=info.total_swap_bytes
        )
