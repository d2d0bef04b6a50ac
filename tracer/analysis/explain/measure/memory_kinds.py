"""Sums over the composition at a kill that several causes are weighed by, in bytes."""

from __future__ import annotations

from typing import Final

from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.results.memory import Composition
from tracer.categories import PARTS

# include/linux/gfp_types.h: these two flags have had the same bits since 2.6, unlike __GFP_DIRECT_RECLAIM.
_GFP_IO: Final = 0x40
_GFP_FS: Final = 0x80

_KERNEL: Final = tuple(part.name for part in PARTS if part.phrase)
"""The classes of `Composition` that are kernel memory."""

UNCOUNTED: Final = "uncounted"
"""The name of kernel memory whose kind no counter gives, beside the classes of `Composition`."""


def kernel_bytes(findings: Findings) -> int:
    """Return the memory that the kernel holds for the limit owner, in bytes.

    It includes memory without a counter of its own if all other counters are known.
    """
    made_of = findings.composition
    parts = [getattr(made_of, part) or 0 for part in _KERNEL if part != "other"]
    return max(sum(parts) + _other_bytes(made_of), findings.circumstances.kmem_bytes)


def largest_kernel_part(findings: Findings) -> tuple[str, int]:
    """Return the kind of kernel memory that holds most, and its size in bytes.

    The kind is a class of `Composition`, or `UNCOUNTED`.
    """
    made_of, kmem = findings.composition, findings.circumstances.kmem_bytes
    sizes = {part: getattr(made_of, part) or 0 for part in _KERNEL} | {"other": _other_bytes(made_of)}
    part = max(sizes, key=lambda name: sizes[name])
    if kmem > 2 * sizes[part]:
        return UNCOUNTED, kmem
    if part == "other" and any(getattr(made_of, name) is None for name in _KERNEL):
        return UNCOUNTED, sizes[part]
    return part, sizes[part]


def cache_left_bytes(made_of: Composition) -> int:
    """Return the page cache with a file behind it, in bytes: the memory that reclaim takes first."""
    return sum(part or 0 for part in (made_of.file_clean, made_of.file_dirty, made_of.writeback))


def unwritten_bytes(made_of: Composition) -> int:
    """Return the page cache that cannot be dropped before it is on disk, in bytes."""
    return (made_of.file_dirty or 0) + (made_of.writeback or 0)


def barred_bytes(made_of: Composition) -> int:
    """Return the clean page cache and slab, in bytes.

    Reclaim can free these, except for a request that may not enter file systems or start I/O. It cannot drop
    dirty cache for any request.
    """
    return (made_of.file_clean or 0) + (made_of.slab_reclaimable or 0)


def may_not_enter_fs(gfp: int | None) -> bool:
    """Return whether the request may not call into file systems or start I/O (GFP_NOFS, GFP_NOIO)."""
    return gfp is not None and (gfp & (_GFP_IO | _GFP_FS)) != _GFP_IO | _GFP_FS


def _other_bytes(made_of: Composition) -> int:
    """Return the part of `other` that is kernel memory.

    `other` also holds every class that is null: it is kernel memory only if each of these is known.
    """
    is_known = all(
        value is not None
        for part, value in made_of.parts()
        if part not in (*_KERNEL, "file_dirty", "writeback")
    )
    return max(made_of.other or 0, 0) if is_known else 0
