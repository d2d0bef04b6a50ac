"""Which cause a kill had: each that could be is weighed by the numbers, and the heaviest is the verdict.

A cgroup is killed in when its limit is full of what reclaim could not take. So there are two kinds of cause:

* What filled it: `anon_growth`, `shmem`, `unevictable`, `kernel_memory`. The weight is the mean of two
  shares: of usage at the kill, and of what had grown since usage was last below half of the limit (where that
  is known). Clean page cache that was left speaks against all of them, since it should have been dropped.
* What kept reclaim from taking what it should have: `dirty_writeback`, `protected_cache`, `gfp_constrained`
  where at least 10 % of usage was of that kind, weighed by how much more; and `swap_exhausted`, which is
  what process memory is where swap was in use and full.

`global_pressure` is no matter of weighing: the kernel says that no cgroup's limit was hit. docs/causes.md has
the definitions for users.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from tracer.analysis.explain.measure.findings import Findings, Swap
from tracer.analysis.explain.wording import no_limit
from tracer.analysis.results.conclusions import Cause, Suspect
from tracer.analysis.results.memory import Composition
from tracer.units import percent, size

LEAST_WEIGHT: Final = 0.4
"""What a cause must weigh to be named at all."""

_BLOCKED_SHARE: Final = 0.1
_BLOCKED_WEIGHT: Final = 0.5  # what it weighs at once, more than a half is then a matter of how much
_LITTLE_CACHE_SHARE: Final = 0.05  # clean cache that is left at a kill as a rule: mapped, or just read
_DISTRUST: Final = 3  # how fast more of it speaks against what filled the limit: at 38 % nothing is explained
_LEAST_GROWTH_SHARE: Final = 0.1
_SWAP_FULL: Final = 0.95
_SWAP_IN_USE_SHARE: Final = 0.05

# include/linux/gfp_types.h: these two have had these bits since 2.6; __GFP_DIRECT_RECLAIM moves.
_GFP_IO: Final = 0x40
_GFP_FS: Final = 0x80

_KERNEL: Final = {
    "slab_unreclaimable": "slab (kernel objects in use)",
    "slab_reclaimable": "slab (kernel objects that could be dropped once unused)",
    "kernel_stack": "kernel stacks, one for each thread",
    "page_tables": "page tables",
    "sock": "socket buffers",
    "percpu": "per-CPU memory",
    "vmalloc": "vmalloc memory",
    "other": "whole pages that no counter tells apart",
}
_KILLED_SHARE: Final = 0.9
_KILLED_WEIGHT: Final = 0.6
_UNTOLD: Final = "memory of unknown kinds"


def suspects(findings: Findings) -> tuple[Suspect, ...]:
    """All causes that anything speaks for, the likeliest first."""
    shortage = findings.circumstances.shortage
    if shortage is not None and shortage.cause == "unknown":
        return ()
    if findings.constraint in ("global", "cpuset", "mempolicy"):
        return (Suspect("global_pressure", 1.0, f"the kernel's constraint was {findings.constraint}"),)
    if findings.constraint != "memcg":
        return ()
    if not findings.composition.total or findings.composition.anon is None:
        return tuple(by_the_killed(findings))
    found = [*_with_swap(findings, _fillers(findings)), *_blockers(findings)]
    return tuple(sorted((one for one in found if one.weight > 0), key=lambda one: -one.weight))


def by_the_killed(findings: Findings) -> Iterator[Suspect]:
    """Where nothing says what filled the limit: whether what was killed had nearly all of it in use."""
    limit = findings.owner.limit_bytes
    killed = [victim.anon_rss_bytes or 0 for victim in findings.victims]
    if no_limit(findings.owner) or not limit or not killed or sum(killed) < _KILLED_SHARE * limit:
        return
    share = percent(min(sum(killed), limit), limit)
    yield Suspect(
        "anon_growth",
        _KILLED_WEIGHT,
        f"anonymous memory of what was killed was {size(sum(killed))}, {share} of the limit",
    )


def kernel_bytes(findings: Findings) -> int:
    """Memory that the kernel holds for the cgroup; what no counter tells apart included, if all others are
    known."""
    made_of = findings.composition
    parts = [getattr(made_of, part) or 0 for part in _KERNEL if part != "other"]
    return max(sum(parts) + _other_bytes(made_of), findings.circumstances.kmem_bytes)


def largest_kernel_part(findings: Findings) -> tuple[str, int]:
    """(what it is, bytes)."""
    made_of, kmem = findings.composition, findings.circumstances.kmem_bytes
    sizes = {part: getattr(made_of, part) or 0 for part in _KERNEL} | {"other": _other_bytes(made_of)}
    part = max(sizes, key=lambda name: sizes[name])
    if kmem > 2 * sizes[part]:
        return _UNTOLD, kmem
    if part == "other" and any(getattr(made_of, name) is None for name in _KERNEL):
        return _UNTOLD, sizes[part]
    return _KERNEL[part], sizes[part]


def cache_left_bytes(made_of: Composition) -> int:
    """Page cache with a file behind it: what reclaim is there to take."""
    return sum(part or 0 for part in (made_of.file_clean, made_of.file_dirty, made_of.writeback))


def unwritten_bytes(made_of: Composition) -> int:
    """Page cache that cannot be dropped before it is on disk."""
    return (made_of.file_dirty or 0) + (made_of.writeback or 0)


def barred_bytes(made_of: Composition) -> int:
    """Clean page cache and slab: what others could have had freed, but not a request that may not enter file
    systems or start I/O. What is dirty nobody can drop."""
    return (made_of.file_clean or 0) + (made_of.slab_reclaimable or 0)


def may_not_enter_fs(gfp: int | None) -> bool:
    """Whether the request was not allowed to call into file systems or to start I/O (NOFS, NOIO)."""
    return gfp is not None and (gfp & (_GFP_IO | _GFP_FS)) != _GFP_IO | _GFP_FS


def _other_bytes(made_of: Composition) -> int:
    """`other` holds every class that is null, too: it is the kernel's only where each of these is."""
    told = all(
        value is not None
        for part, value in made_of.parts()
        if part not in (*_KERNEL, "file_dirty", "writeback")
    )
    return max(made_of.other or 0, 0) if told else 0


def _fillers(findings: Findings) -> list[Suspect]:
    made_of = findings.composition
    held: dict[Cause, int | None] = {
        "anon_growth": made_of.anon,
        "shmem": made_of.shmem,
        "unevictable": made_of.unevictable,
        "kernel_memory": kernel_bytes(findings),
    }
    grown = _grown(findings)
    return [_filler(cause, bytes_, grown, made_of) for cause, bytes_ in held.items() if bytes_ is not None]


def _filler(cause: Cause, held: int, grown: Mapping[Cause, int], made_of: Composition) -> Suspect:
    share, all_grown = min(held / _total(made_of), 1.0), sum(grown.values())
    reason = f"{size(held)} of {size(made_of.total)} in use, {percent(held, made_of.total)}"
    if grown:
        # Where next to nothing grew, that is no sign for any of them.
        share = (share + grown[cause] / max(all_grown, _LEAST_GROWTH_SHARE * _total(made_of))) / 2
        reason += f"; {size(grown[cause])} of the {size(all_grown)} that had grown"
    left = (made_of.file_clean or 0) / _total(made_of)
    trust = min(max(1 - _DISTRUST * (left - _LITTLE_CACHE_SHARE), 0), 1)
    return Suspect(cause, round(share * trust, 3), reason)


def _grown(findings: Findings) -> dict[Cause, int]:
    """Filler -> how much it had grown. No ledger tells locked from other memory: what is locked is taken to
    have grown with its kind."""
    grown = findings.circumstances.grown_bytes
    if not grown:
        return {}
    locked, anon = findings.composition.unevictable or 0, findings.composition.anon or 0
    locked_anon = grown["anon"] * locked // (locked + anon) if locked else 0
    return {
        "anon_growth": grown["anon"] - locked_anon,
        "shmem": grown["shmem"],
        "unevictable": locked,
        "kernel_memory": grown["kernel"] + grown["sock"],
    }


def _blockers(findings: Findings) -> list[Suspect]:
    made_of, found = findings.composition, []
    left, unwritten = cache_left_bytes(made_of), unwritten_bytes(made_of)
    protected = min(findings.circumstances.protected_bytes, left)
    if 2 * unwritten >= left:
        found.append(_blocker("dirty_writeback", unwritten, "of page cache not yet written to disk", made_of))
    if 2 * protected >= left:
        found.append(
            _blocker("protected_cache", protected, "that memory.min of cgroups below keeps", made_of)
        )
    if may_not_enter_fs(findings.trigger.gfp):
        reason = "of cache and slab, for which the request was not allowed to enter file systems or start I/O"
        found.append(_blocker("gfp_constrained", barred_bytes(made_of), reason, made_of))
    return [one for one in found if one is not None]


def _blocker(cause: Cause, held: int, what: str, made_of: Composition) -> Suspect | None:
    share = held / _total(made_of)
    if share < _BLOCKED_SHARE:
        return None
    reason = f"{size(held)} {what}, {percent(held, made_of.total)} of usage"
    return Suspect(cause, round(min(_BLOCKED_WEIGHT + share, 1), 3), reason)


def _with_swap(findings: Findings, fillers: list[Suspect]) -> list[Suspect]:
    """Where swap was full, that is the better word for what swap is for: it weighs as much as these together,
    and they are left with half."""
    swap, total = findings.circumstances.swap, _total(findings.composition)
    if swap is None or swap.used_bytes < _SWAP_IN_USE_SHARE * total or not _is_full(swap):
        return fillers
    swappable = [one for one in fillers if one.cause in ("anon_growth", "shmem")]
    allowed = "" if swap.allowed_bytes is None else f" of {size(swap.allowed_bytes)}"
    weight = round(min(sum(one.weight for one in swappable), 1), 3)
    return [
        Suspect("swap_exhausted", weight, f"{size(swap.used_bytes)}{allowed} of swap were in use"),
        *(replace(one, weight=one.weight / 2) if one in swappable else one for one in fillers),
    ]


def _is_full(swap: Swap) -> bool:
    allowed = swap.allowed_bytes
    return swap.refused or (allowed is not None and swap.used_bytes >= _SWAP_FULL * allowed)


def _total(made_of: Composition) -> int:
    return made_of.total or 1
