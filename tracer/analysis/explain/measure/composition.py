"""Composition: the parts of a cgroup's usage at the instant of a kill (`tracer.categories`), and sums.

A trace and a kernel log each give an `Instant`; all else about the memory at the kill follows from it.

For a limit owner with children, `zswap` and `hugetlb` are those of its last sample before the kill.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, Final

from tracer.analysis.core.columns import optional
from tracer.analysis.core.ledger import Steps, level, reading
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import TraceTables, unrecorded_categories
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.results.memory import Composition, Cushion
from tracer.analysis.results.quality import Unknown
from tracer.categories import COUNTERS, PARTS, usage_parts
from tracer.enumerations import CATEGORY
from tracer.schema import MEMORY_STAT_COLUMNS

_LEDGER: Final = ("charge", "samples")
_STEADY: Final = ("zswap", "hugetlb")
_LEAST_HUGE_PAGE: Final = {"x86_64": 2 << 20, "aarch64": 64 << 10}  # HPAGE_SIZE, CONT_PTE_SIZE
_HUGETLB_OPTION: Final = "memory_hugetlb_accounting"
_NO_SAMPLE: Final = "the kernel program took no sample of this counter at the kill"
_NOT_FOUND: Final = "the recorder found no counter of it in this kernel"


Origins = dict[str, tuple[str, ...]]
"""Name of a size of memory.stat -> the tables that it is from; empty for a 0 that follows from the kernel."""


def _not_sampled(_: str) -> str:
    return _NO_SAMPLE


@dataclass(frozen=True, slots=True)
class Instant:
    """The counters of the limit owner at the kill.

    `sizes`: memory.stat (`schema.MEMORY_STAT_BYTES`), in bytes, by name. `usage_bytes`: the page counter.
    None: not known; `absent` returns the reason for a size. `unknown`: reasons that stand in place of those
    for the parts of usage. `origins` finds the tables of each part (`origins_of_parts`).
    """

    sizes: Mapping[str, int | None]
    usage_bytes: int | None
    absent: Callable[[str], str] = _not_sampled
    unknown: Unknown = field(default_factory=dict)
    origins: Callable[[], Mapping[str, tuple[str, ...]]] = dict


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of the limit owner at the kill: an instant, and what follows from it.

    `locked_cache_bytes`: as in `Circumstances`.
    """

    at: Instant
    made_of: Composition
    working_set_bytes: int | None
    cushion: Cushion
    locked_cache_bytes: int

    @property
    def known_sizes(self) -> dict[str, int]:
        """Return the sizes of memory.stat that are known, by name."""
        return {name: size for name, size in self.at.sizes.items() if size is not None}

    @property
    def locked_shmem_bytes(self) -> int:
        """Return the shared memory that is locked: `made_of` has it in `unevictable`."""
        in_all, locked = self.at.sizes.get("shmem"), self.made_of.unevictable
        if in_all is None or locked is None or self.made_of.shmem is None:
            return 0
        return min(max(in_all - self.made_of.shmem, 0), locked)

    def circumstances(self) -> dict[str, Any]:
        """Return the fields of `Circumstances` that follow from it."""
        return {
            "kernel_bytes": self.at.sizes.get("kernel"),
            "locked_cache_bytes": self.locked_cache_bytes,
            "locked_shmem_bytes": self.locked_shmem_bytes,
            "incompressible_bytes": self.at.sizes.get("zswap_incomp"),
            "locked_in_unknown_bytes": locked_in_unknown(self.at.sizes, self.made_of),
        }


def memory(at: Instant, measure: Callable[..., Cushion], unknown: Unknown) -> Memory:
    """Return the memory at the kill. `measure` returns the cushion, from `cache_end_bytes` and `locked_bytes`
    (`window.measure_cushion`)."""
    made_of, why = compose(at.sizes, at.usage_bytes, at.absent)
    if made_of.anon is None and not any(size for name, size in made_of.parts() if name != "other"):
        # All of usage is in `other`, which does not mean that no counter has it.
        why = {"composition": at.absent("anon")}
    unknown |= at.unknown or why
    lacking: Unknown = {}
    working_set_bytes = working_set(at.sizes, at.usage_bytes, lacking)
    unknown |= {name: at.unknown.get(name, why) for name, why in lacking.items()}
    locked = _locked_cache(at.sizes, made_of)
    used = measure(cache_end_bytes=cache_bytes(at.sizes), locked_bytes=locked, unknown=unknown)
    return Memory(at, made_of, working_set_bytes, used, locked)


def at_kill(
    subtree: Subtree,
    kill_ns: int,
    sample: Mapping[str, Any] | None,
    total: int | None,
    *,
    usage_table: str,
    is_logged: bool,
    origins: Mapping[str, str],
) -> Instant:
    """Return the counters of a recorded kill: the kernel's own `oom` sample, else the start sample plus the
    ledger.

    `usage_table` is the table of the page counter `total`, and `origins` are those of what is not the
    sample's own (`kernel_log.comparison.Told.origins`).

    `is_logged`: the sample is from the kernel log. Its memory.stat lags where the limit owner has children
    (seen on 6.18: 19 of 31 MiB), and the ledger may lack the last 10 ms. The page counter `total` does not
    lag: the one of the two that explains more of it is taken.

    A 0 of a category that was not recorded is not known: the kernel may print 0 for what it does not count.
    """
    read: dict[str, int | None] = dict.fromkeys(MEMORY_STAT_COLUMNS)
    if sample is not None:
        read = {name: optional(sample[column]) for name, column in MEMORY_STAT_COLUMNS.items()}
    wanted = [name for name in CATEGORY.names if is_logged or read[name] is None]
    levels = subtree.once(("composition.levels", *wanted), lambda: _levels(subtree, wanted))
    counted = {name: steps.at(kill_ns) for name, steps in levels.items()}
    added = {name: size for name, size in counted.items() if read[name] is None}
    if is_logged and _unexplained(read | counted, total) < _unexplained(read | added, total):
        added = counted
    sizes = read | added
    tables: Origins = {name: (origins.get(name, "samples"),) for name in sizes} | dict.fromkeys(
        added, _LEDGER
    )
    sizes |= {name: sizes[name] or None for name in sizes.keys() & unrecorded_categories(subtree.whole)}
    for name in _STEADY:
        if sizes[name] is None:
            sizes[name] = _last_read(subtree, name, kill_ns)
            tables[name] = ("samples",) if sizes[name] else ()
    if sizes["hugetlb"] is None and not _has_room_for_huge_page(subtree, sizes, total):
        sizes["hugetlb"], tables["hugetlb"] = 0, ()
    absent = partial(_why_not, subtree.whole)
    return Instant(sizes, total, absent, origins=partial(origins_of_parts, sizes, tables, usage_table))


def _levels(subtree: Subtree, names: Sequence[str]) -> dict[str, Steps]:
    """Return the level of each of these categories that is known."""
    levels = {name: level(subtree, {name: 1}) for name in names}
    return {name: steps for name, steps in levels.items() if steps is not None}


def origins_of_parts(
    sizes: Mapping[str, int | None], tables: Mapping[str, tuple[str, ...]], usage_table: str
) -> Mapping[str, tuple[str, ...]]:
    """Return the tables that each part of the composition is from, and `usage` itself.

    A part is from a table if it would be another without the sizes from there. `other` is from all of them.
    `kernel`, `zswap_incomp` and an `unevictable` that is no part are the counters of these names.
    """
    whole, _ = usage_parts(sizes, None, lambda _: "")
    found: dict[str, list[str]] = {name: [] for name in whole}
    for origin in dict.fromkeys(tables.values()):
        rest = {name: None if tables[name] == origin else size for name, size in sizes.items()}
        without, _ = usage_parts(rest, None, lambda _: "")
        for name in whole:
            found[name] += origin if without[name] != whole[name] else ()
    every = [usage_table, *chain(*found.values())]
    found |= {"usage": [usage_table], "other": every}
    found["unevictable"] += () if whole["unevictable"] is not None else tables["unevictable"]
    counted = [part.name for part in PARTS if part.phrase]
    whole_kernel = [tables["kernel"], found["sock"]]
    found["zswap_incomp"] = list(tables["zswap_incomp"])
    found["kernel"] = list(chain(*(whole_kernel if sizes["kernel"] else (found[name] for name in counted))))
    return {name: tuple(dict.fromkeys(names)) for name, names in found.items()}


def _unexplained(sizes: Mapping[str, int | None], total: int | None) -> int:
    """Return by how much the parts of usage differ from usage."""
    return abs((total or 0) - sum(sizes[counter.name] or 0 for counter in COUNTERS if counter.is_in_usage))


def _has_room_for_huge_page(subtree: Subtree, sizes: Mapping[str, int | None], total: int | None) -> bool:
    """Return whether all other memory leaves room for one huge page in usage."""
    others = [sizes[counter.name] for counter in COUNTERS if counter.is_in_usage]
    if total is None or None in others:
        return True
    least = _LEAST_HUGE_PAGE.get(subtree.whole.meta.get("architecture", ""), 0)
    return total - sum(size or 0 for size in others) >= least


def _last_read(subtree: Subtree, name: str, kill_ns: int) -> int | None:
    """Return a size that no ledger counts, by the owner's last sample before the kill."""
    meta = subtree.whole.meta
    if meta.get("cgroup_version") == 1:
        return 0  # v1 charges neither
    options = meta.get("cgroup_mount_options")
    if name == "hugetlb" and options is not None and _HUGETLB_OPTION not in options:
        return 0
    return reading(subtree, f"{name}_bytes").at(kill_ns)


def _why_not(trace: TraceTables, name: str) -> str:
    """Return why the size of a name is not known at a kill."""
    return _NOT_FOUND if name in unrecorded_categories(trace) else _NO_SAMPLE


def compose(
    sizes: Mapping[str, int | None], total: int | None, absent: Callable[[str], str] = _not_sampled
) -> tuple[Composition, Unknown]:
    """Return the parts, which add up to `total`, the usage in bytes, and why any of them is null. `absent`
    gives the reason for a size that is not known."""
    parts, unknown = usage_parts(sizes, total, absent)
    return Composition(**parts, total=total), {f"composition.{name}": why for name, why in unknown.items()}


def cache_bytes(sizes: Mapping[str, int | None]) -> int | None:
    """Return the page cache without shmem in bytes, from the sizes of memory.stat; None if either is not
    known."""
    file, shmem = sizes["file"], sizes["shmem"]
    return None if file is None or shmem is None else file - shmem


def _locked_cache(sizes: Mapping[str, int | None], made_of: Composition) -> int:
    """Return the page cache with a file behind it that is unevictable, in bytes; 0 if it is not known."""
    cache, parts = cache_bytes(sizes), (made_of.file_clean, made_of.file_dirty, made_of.writeback)
    if cache is None or made_of.unevictable is None or None in parts:
        return 0
    return max(cache - sum(part or 0 for part in parts), 0)


def locked_in_unknown(sizes: Mapping[str, int | None], made_of: Composition) -> int:
    """Return the unevictable memory that is inside other parts, since its kind is not known, in bytes."""
    return (sizes.get("unevictable") or 0) if made_of.unevictable is None else 0


def working_set(sizes: Mapping[str, int | None], total: int | None, unknown: Unknown) -> int | None:
    """Return usage without the inactive file list, at least 0, in bytes: the working set of kubelet and
    cAdvisor."""
    inactive_file = sizes["inactive_file"]
    if total is None or inactive_file is None:
        lacking = "inactive_file" if inactive_file is None else "usage"
        unknown["working_set_bytes"] = f"{lacking} was not known at the instant of the kill"
        return None
    return max(total - inactive_file, 0)


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


def process_bytes(made_of: Composition) -> int | None:
    """Return anonymous memory with the swapped pages that zswap keeps in memory, in bytes; None: not
    known."""
    return None if made_of.anon is None else made_of.anon + (made_of.zswap or 0)


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
