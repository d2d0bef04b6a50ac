"""Sums over the composition at a kill, in bytes, by which causes are weighed; and whether the limit was
lowered, or the victim of an earlier kill still held memory."""

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

_SOON_NS: Final = 1_000_000_000
_LEAST_FREEING_SHARE: Final = 0.05
_MUCH_SHARE: Final = 0.05

UNCOUNTED: Final = "uncounted"
"""The name of kernel memory whose kind no counter gives, beside the classes of `Composition`."""


def kernel_bytes(findings: Findings) -> int:
    """Return the memory that the kernel holds for the limit owner, in bytes.

    It includes memory without a counter of its own if all other counters are known. zswap is no memory of the
    kernel's own: it holds pages of processes.
    """
    return max(_counted_bytes(findings.composition) + _other_bytes(findings), _all_bytes(findings) or 0)


def largest_kernel_part(findings: Findings) -> tuple[str, int]:
    """Return the kind of kernel memory that holds most, and its size in bytes.

    The kind is a class of `Composition`, or `UNCOUNTED`.
    """
    made_of = findings.composition
    sizes = {part: getattr(made_of, part) or 0 for part in _KERNEL} | {"other": _other_bytes(findings)}
    part = max(sizes, key=lambda name: sizes[name])
    if part == "other" and any(getattr(made_of, name) is None for name in _KERNEL):
        return UNCOUNTED, sizes[part]
    return part, sizes[part]


def much_locked_bytes(findings: Findings) -> int:
    """Return the locked memory that is anonymous or shared (the kernel does not show which), in bytes; 0 if
    it is a small part of usage."""
    locked = findings.circumstances.locked_in_unknown_bytes
    return locked if locked > _MUCH_SHARE * (findings.composition.total or 0) else 0


def cache_left_bytes(made_of: Composition) -> int:
    """Return the page cache with a file behind it, in bytes: the memory that reclaim takes first."""
    return sum(part or 0 for part in (made_of.file_clean, made_of.file_dirty, made_of.writeback))


def kept_bytes(findings: Findings) -> int | None:
    """Return the part of usage that reclaim could not free, in bytes; None if it is not known."""
    made_of = findings.composition
    if made_of.total is None or made_of.file_clean is None:
        return None
    cache = max(cache_left_bytes(made_of) - findings.circumstances.protected_bytes, 0)
    return made_of.total - cache - (made_of.slab_reclaimable or 0)


def unwritten_bytes(made_of: Composition) -> int:
    """Return the page cache that cannot be dropped before it is on disk, in bytes."""
    return (made_of.file_dirty or 0) + (made_of.writeback or 0)


def unevictable_bytes(made_of: Composition) -> int:
    """Return the locked memory, files on ramfs and huge pages, in bytes: reclaim never takes them."""
    return (made_of.unevictable or 0) + (made_of.hugetlb or 0)


def is_mostly_huge(made_of: Composition) -> bool:
    """Return whether most of `unevictable_bytes` is huge pages."""
    return (made_of.hugetlb or 0) > (made_of.unevictable or 0)


def protected_cache_bytes(findings: Findings) -> int:
    """Return the page cache that was left and that memory.min of cgroups below protects, in bytes."""
    return min(findings.circumstances.protected_bytes, cache_left_bytes(findings.composition))


def barred_bytes(made_of: Composition) -> int:
    """Return the clean page cache and slab, in bytes.

    Reclaim can free these, except for a request that may not enter file systems or start I/O. It cannot drop
    dirty cache for any request.
    """
    return (made_of.file_clean or 0) + (made_of.slab_reclaimable or 0)


def may_not_enter_fs(gfp: int | None) -> bool:
    """Return whether the request may not call into file systems or start I/O (GFP_NOFS, GFP_NOIO)."""
    return gfp is not None and (gfp & (_GFP_IO | _GFP_FS)) != _GFP_IO | _GFP_FS


def in_transit_bytes(findings: Findings) -> int:
    """Return the memory that is charged but in no counter, in bytes; 0 if that is not known.

    These are pages that exiting processes have unmapped but not yet freed (struct mmu_gather in
    include/asm-generic/tlb.h), and charges that CPUs hold in stock.
    """
    made_of = findings.composition
    if not _is_rest_known(made_of) or _all_bytes(findings) is None:
        return 0
    return max((made_of.other or 0) - _other_bytes(findings), 0)


def is_limit_lowered(findings: Findings) -> bool:
    """Return whether the kill came because the limit was lowered below usage.

    The trigger wrote it, or memory that reclaim could not free is above it, where no charge could bring it.
    """
    lowered = findings.owner.lowered
    if lowered is None or findings.constraint != "memcg":
        return False
    kept = kept_bytes(findings)
    return lowered.by_trigger or (kept is not None and kept > (findings.owner.limit_bytes or 0))


def freeing_bytes(findings: Findings) -> int:
    """Return the memory that the victim of the kill before had not freed yet, or had freed since the request
    failed, in bytes; 0 if that was little of the limit, or if there was no such kill within a second.

    The OOM killer spares others while a victim is alive with its memory (oom_evaluate_task in mm/oom_kill.c).
    It looks for another one as soon as the reaper is done, or the address space is gone. Unmapped pages may
    still be charged then.
    """
    previous, total, limit = findings.previous, findings.composition.total, findings.owner.limit_bytes
    if previous is None or previous.age_ns > _SOON_NS or total is None or not findings.owner.has_limit:
        return 0
    found = in_transit_bytes(findings) + max((limit or 0) - total, 0)
    return found if found >= _LEAST_FREEING_SHARE * (limit or 0) else 0


def _all_bytes(findings: Findings) -> int | None:
    """Return the kernel's count of all its memory without zswap, in bytes; None: not known."""
    counted = findings.circumstances.kernel_bytes
    return None if counted is None else max(counted - (findings.composition.zswap or 0), 0)


def _counted_bytes(made_of: Composition) -> int:
    """Return the kernel memory that has counters of its own, in bytes."""
    return sum(getattr(made_of, part) or 0 for part in _KERNEL if part != "other")


def _other_bytes(findings: Findings) -> int:
    """Return the part of `other` that is kernel memory, in bytes: what is in the count of all kernel memory
    but in no other counter.

    Without that count it is all of `other`, if each class that is not kernel memory is known: `other` also
    holds every class that is null.
    """
    made_of, held = findings.composition, _all_bytes(findings)
    other = max(made_of.other or 0, 0)
    if held is None:
        return other if _is_rest_known(made_of) else 0
    sock = made_of.sock or 0  # sockets are charged apart from the other kernel memory
    return min(max(held - (_counted_bytes(made_of) - sock), 0), other)


def _is_rest_known(made_of: Composition) -> bool:
    """Return whether each class that is not kernel memory is known, as far as `other` could hold it."""
    held_elsewhere = ("file_dirty", "writeback", "zswap", "hugetlb")
    return all(
        value is not None for part, value in made_of.parts() if part not in (*_KERNEL, *held_elsewhere)
    )
