"""The words of each cause: its label, the sentence that explains the kill, and its cures.

`causes.NAME` weighs the cause and has its traits; a cause without words here is an ImportError.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from tracer.analysis.explain.causes.registry import CAUSES
from tracer.analysis.explain.evidence import gathering
from tracer.analysis.explain.measure import composition, shared_memory
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.words import sentence_parts
from tracer.analysis.explain.words.sentence_parts import (
    anonymous,
    asked,
    at_limit,
    beside,
    cgroup_name,
    killed,
    owner_name,
    process,
)
from tracer.analysis.results.kill import Cause
from tracer.categories import PARTS
from tracer.kernel.cgroups.containers import qos_class, standing
from tracer.units import count, size


@dataclass(frozen=True, slots=True, kw_only=True)
class CauseWords:
    """The words of one cause. They have no defaults: a cause has all of them."""

    label: str
    """What happened, in a few words."""
    sentence: Callable[[Findings], str]
    """Returns the sentence that explains the kill."""
    cure: Callable[[Findings], Iterator[str]]
    """Yields sentences of advice."""
    settings: Callable[[Findings, int], Iterator[str]] | None
    """Yields sentences on settings that cure the kill where a greater limit does not. The number is the room
    that the limit leaves beside memory that reclaim could not free, in bytes. None if there are none."""


def check(causes: Collection[str], worded: Collection[str]) -> None:
    """Raise ImportError if the causes differ from the causes that have words."""
    if silent := sorted(set(causes) - set(worded)):
        raise ImportError(f"no words for the cause {', '.join(silent)}")
    if unknown := sorted(set(worded) - set(causes)):
        raise ImportError(f"words for unknown causes: {', '.join(unknown)}")


def _anon_growth(findings: Findings) -> str:
    anon = anonymous(findings)
    filled = anon + beside(findings, "anonymous memory") if anon else ""
    if not anon and (held := _held_by_killed(findings)):
        several = "es" if len(findings.victims) > 1 else ""
        filled = f"{held} of it in the killed process{several}"
    return at_limit(findings, filled)


def _held_by_killed(findings: Findings) -> str:
    held, _ = gathering.held_by_killed(findings)
    return size(min(held, findings.owner.limit_bytes or held)) if held else ""


def _cure_anon_growth(findings: Findings) -> Iterator[str]:
    limit, anon = size(findings.owner.limit_bytes), findings.composition.anon
    locked = composition.much_locked_bytes(findings)
    but = (
        f", but {size(locked)} of it or of the shared memory is locked and cannot: lock less (RLIMIT_MEMLOCK "
        "bounds it)"
    )
    why = f"the {size(anon)} of anonymous memory can only go to swap{but if locked else ''}"
    zswap = findings.composition.zswap or 0
    if anon is None:
        why = f"the killed ones held {_held_by_killed(findings)} of it"
    elif zswap > anon:
        why = f"{size(zswap)} of it was swapped out, but zswap keeps that in memory"
    yield f"Raise the limit above {limit}, or make the processes need less memory: {why}."
    if anon is not None and zswap > anon:
        yield (
            "Or set memory.zswap.max of the cgroup (Linux 5.19 and later): what is swapped beyond that goes "
            "to the swap device."
        )


SHARED_KINDS: Final[Mapping[str, str]] = {
    "anonymous": "shared anonymous mappings",
    "sysv": "System V segments",
    "memfd": "memfd",
    "tmpfs": "files on tmpfs",
}
_NEARLY_ALL: Final = 0.9
_TMPFS_SIZE: Final = (
    "Give each tmpfs a size below this limit (size= at mount, --shm-size, emptyDir.sizeLimit)."
)
_SHARED_CURES: Final[Mapping[tuple[str, bool], str]] = {
    ("anonymous", True): (
        "Make the shared mapping smaller, or raise the limit above its {size} and the other memory: the "
        "program sets its size (PostgreSQL: shared_buffers). It holds {held}, which is freed when the last "
        "process that maps it ends."
    ),
    ("sysv", True): (
        "Make the System V segment {name} smaller ({size}), or raise the limit above it. It holds {held} and "
        "outlives its processes: ipcs -m lists such segments, and ipcrm -M removes one."
    ),
    ("memfd", True): (
        "Look for the program that makes {name}: it holds {held} until the last process has closed and "
        "unmapped it."
    ),
    ("tmpfs", True): (
        "Delete files on tmpfs, such as {name}, which holds {held}: they outlive their processes."
    ),
    ("anonymous", False): (
        "Make the {count} shared anonymous mappings fewer or smaller, or raise the limit above them and the "
        "other memory. They hold {held}, each until the last process that maps it ends."
    ),
    ("sysv", False): (
        "Make the {count} System V segments fewer or smaller. They hold {held} and outlive their processes: "
        "ipcs -m lists them, and ipcrm -M removes one."
    ),
    ("memfd", False): (
        "Look for the program that makes so many memfd: {count} of them, such as {name}, hold {held}, each "
        "until the last process has closed and unmapped it."
    ),
    ("tmpfs", False): (
        "Delete files on tmpfs: {count} of them, such as {name}, hold {held} and outlive their processes."
    ),
}
"""Kind of shared memory, and whether one file holds most of it -> advice."""


def _shmem(findings: Findings) -> str:
    found, held = shared_memory.kinds(findings), findings.composition.shmem or 0
    kinds = " and ".join(SHARED_KINDS[one.kind] for one in found) or "tmpfs, memfd or shared mappings"
    in_them, least = sum(one.held_bytes for one in found), any(one.is_least for one in found)
    known = f"{_size(in_them, is_least=least)} of that in " if found and in_them < _NEARLY_ALL * held else ""
    shared = f"{size(findings.composition.shmem)} of it shared memory"
    what = f" ({known}{kinds})"
    return at_limit(findings, shared + what + beside(findings, "shared memory"))


def _size(held_bytes: int, *, is_least: bool) -> str:
    return f"at least {size(held_bytes)}" if is_least else size(held_bytes)


def _cure_shmem(findings: Findings) -> Iterator[str]:
    """Yield advice on the kind that holds most; on all kinds if no file is known."""
    kinds = shared_memory.kinds(findings)
    if not kinds:
        yield (
            "Look for files on tmpfs (/dev/shm, /tmp, emptyDir in memory), memfd and shared mappings: they "
            f"hold {size(findings.composition.shmem)} until they are deleted."
        )
        yield _TMPFS_SIZE
        return
    kind, most = kinds[0], kinds[0].files[0]
    yield _SHARED_CURES[kind.kind, kind.is_one_file].format(
        name=most.name,
        held=_size(most.held_bytes, is_least=most.is_least)
        if kind.is_one_file
        else _size(kind.held_bytes, is_least=kind.is_least),
        size=size(most.size_bytes),
        count=count(len(kind.files)),
    )
    if kind.kind == "tmpfs":
        yield _TMPFS_SIZE


def _settings_shmem(findings: Findings, room_bytes: int) -> Iterator[str]:
    """Yield the bound of the files on tmpfs, if the shared memory has some or its kinds are not known."""
    room_bytes += findings.composition.shmem or 0
    kinds = {one.kind for one in shared_memory.kinds(findings)}
    if room_bytes > 0 and (not kinds or "tmpfs" in kinds):
        yield (
            f"Beside its other memory, {owner_name(findings.owner)} has room for {size(room_bytes)} of "
            "files in memory: set the size= of its tmpfs below that."
        )


def _swap_exhausted(findings: Findings) -> str:
    swap = findings.circumstances.swap
    used = "" if swap is None else f" ({size(swap.used_bytes)})"
    return at_limit(findings, f"{anonymous(findings)}, and its swap was full{used}")


_SWAP_OF_A_POD: Final = (
    "(the kubelet sets memory.swap.max: with swapBehavior LimitedSwap, a container of a Burstable pod gets "
    "the share of the node's swap that its memory request has of the node's memory; any other gets none)"
)


def _cure_swap_exhausted(findings: Findings) -> Iterator[str]:
    """Yield advice on what bounds the swap, which need not be the cgroup's own limit."""
    owner, swap = owner_name(findings.owner), findings.circumstances.swap
    how = "(memory.swap.max, memory.memsw.limit_in_bytes)"
    limited = findings.owner.cgroup or ""
    if qos_class(limited) is not None and not standing(limited).below:
        how = _SWAP_OF_A_POD
    more = f"Give {owner} more swap {how} or a higher limit"
    if swap is not None and swap.bound == "above":
        path = swap.bound_cgroup
        above = "a cgroup above" if path is None else f"{cgroup_name(path)}, above {owner},"
        more = f"Give {above} more swap: its limit is the bound {how}; or give {owner} a higher limit"
    elif swap is not None and swap.bound == "machine":
        more = (
            "Give the machine more swap: no cgroup's limit of swap was in the way; or give "
            f"{owner} a higher limit"
        )
    yield (
        f"{more}, or make the processes need less memory: while swap is full, their memory cannot be "
        "reclaimed."
    )


def _unevictable(findings: Findings) -> str:
    held = size(composition.unevictable_bytes(findings.composition))
    is_huge = composition.is_mostly_huge(findings.composition)
    kind = "huge pages (hugetlb)" if is_huge else "locked (mlock) or on ramfs"
    locked = f"{held} of it {kind}, which reclaim may not touch"
    others = beside(findings, "locked memory")
    return at_limit(findings, locked + others.replace(" beside", ", beside", 1))


def _cure_unevictable(findings: Findings) -> Iterator[str]:
    if composition.is_mostly_huge(findings.composition):
        yield (
            f"Find what uses {size(findings.composition.hugetlb)} of huge pages (hugetlbfs, MAP_HUGETLB, "
            "SHM_HUGETLB): this machine charges them to the cgroup (mount option memory_hugetlb_accounting), "
            "so raise the limit by that much, or use fewer."
        )
        return
    yield (
        "Find what locks memory (mlock, MAP_LOCKED, SHM_LOCK) or writes to a ramfs: "
        f"{size(findings.composition.unevictable)} can neither be dropped nor swapped. Lock less "
        "(RLIMIT_MEMLOCK bounds it), use tmpfs instead of ramfs, or raise the limit by that much."
    )


_KERNEL_PARTS: Final[Mapping[str, str]] = {part.name: part.phrase for part in PARTS} | {
    composition.UNCOUNTED: "memory of unknown kinds"
}
_SLAB_CURE: Final = (
    "Slab grows with open files, sockets, pipes, message queues, and the names of many files: count those."
)
_PART_CURES: Final[Mapping[str, str]] = {
    "slab_unreclaimable": _SLAB_CURE,
    "slab_reclaimable": _SLAB_CURE,
    "page_tables": (
        "Page tables grow with memory that is touched in many scattered places: huge pages need far fewer."
    ),
    "sock": "Limit the socket queues (SO_RCVBUF, SO_SNDBUF, net.ipv4.tcp_mem), or read from them sooner.",
    "kernel_stack": "Kernel stacks grow with threads: count those.",
    "other": (
        "Pipes and Unix sockets keep unread data in such pages: count them, find the slow readers, and see "
        "which function of the kernel asked."
    ),
}


def _kernel_memory(findings: Findings) -> str:
    held = composition.kernel_bytes(findings)
    part, most = composition.largest_kernel_part(findings)
    filled = f"{size(held)} of it kernel memory, {size(most)} of that {_KERNEL_PARTS[part]}"
    return at_limit(findings, filled + beside(findings, "kernel memory"))


def _cure_kernel_memory(findings: Findings) -> Iterator[str]:
    part, held = composition.largest_kernel_part(findings)
    yield (
        f"Find what makes the kernel hold {size(held)} as {_KERNEL_PARTS[part]}: the processes' own memory "
        "is not the problem, and their RSS does not show it."
    )
    if part in _PART_CURES:
        yield _PART_CURES[part]


def _dirty_writeback(findings: Findings) -> str:
    unwritten = size(composition.unwritten_bytes(findings.composition))
    evicted = findings.cushion.evicted_bytes
    given = "" if evicted is None else f" (it had given back {size(evicted)})"
    return at_limit(
        findings,
        f"{unwritten} of it file contents that were not yet written to disk",
        cache=f"until it is written, page cache cannot be dropped{given}",
    )


def _cure_dirty_writeback(findings: Findings) -> Iterator[str]:
    unwritten = size(composition.unwritten_bytes(findings.composition))
    yield (
        f"Have data written sooner, so that less than {unwritten} waits for the disk: fsync or "
        "sync_file_range every few MiB, direct I/O for bulk writes, or smaller vm.dirty_background_bytes."
    )
    yield (
        "On cgroup v2, set memory.high some way below the limit: writers are then slowed down before the "
        "limit, instead of killed at it."
    )


def _settings_dirty_writeback(_: Findings, room_bytes: int) -> Iterator[str]:
    if room_bytes > 0:
        yield (
            f"The limit leaves {size(room_bytes)} for page cache, and less than half of that should wait to "
            f"be written: vm.dirty_bytes={room_bytes // 2} is such a bound for the whole machine; there is "
            "none for one cgroup."
        )


def _protected_cache(findings: Findings) -> str:
    protected = size(composition.protected_cache_bytes(findings))
    return at_limit(
        findings, f"{protected} of it page cache that memory.min of cgroups below protects from reclaim"
    )


def _cure_protected_cache(findings: Findings) -> Iterator[str]:
    yield (
        f"Lower memory.min of the cgroups below {owner_name(findings.owner)}, or raise its limit: "
        f"{size(findings.circumstances.protected_bytes)} are protected from all reclaim."
    )


def _gfp_constrained(findings: Findings) -> str:
    barred = size(composition.barred_bytes(findings.composition))
    return at_limit(
        findings, f"{barred} of it cache and slab that reclaim could not free for this request (gfp)"
    )


def _cure_gfp_constrained(_: Findings) -> Iterator[str]:
    yield (
        "Leave more room below the limit: this request of the kernel could not free memory that other "
        "requests can. With memory.high below the limit (cgroup v2), reclaim begins earlier."
    )


def _global_pressure(findings: Findings) -> str:
    """Return the sentence by the kernel log, or else by the constraint."""
    shortage = findings.circumstances.shortage
    short = (
        sentence_parts.none_left(findings.constraint)
        if shortage is None
        else sentence_parts.shortage_clause(shortage)
    )
    return f"{asked(findings)} memory{killed(findings)}: {short}."


def _cure_global_pressure(findings: Findings) -> Iterator[str]:
    growing = max(findings.circumstances.machine_holders, key=lambda one: one.charged_bytes, default=None)
    large = gathering.much_of_machine(findings)
    is_growing = growing is not None and growing.charged_bytes > 0
    if growing is not None and large is not None:
        of_others = large.held_bytes - gathering.killed_bytes(findings, large.comm, growing.cgroup)
        is_growing = is_growing and 2 * growing.held_bytes >= of_others
    if growing is not None and is_growing:
        yield (
            f"Look at {growing.cgroup} first: of the traced cgroups, it charged most just before the kill "
            f"({size(growing.charged_bytes)})."
        )
    unused = gathering.unused_huge_pages(findings)
    if unused:
        yield f"Lower vm.nr_hugepages: {size(unused)} of huge pages (hugetlb) were kept and not in use."
    if large is None:
        yield "No cgroup's limit was hit: find what filled the machine (or the NUMA nodes that were allowed)."
    else:
        usable = gathering.usable_bytes(findings)
        of_machine = "" if usable is None else f" of the machine's {size(usable)}"
        rank = "also" if is_growing else "first"
        yield f"No cgroup's limit was hit. Look {rank} at {_large(large)}{of_machine}."
    yield "Set limits that together fit into the machine, so that a growing cgroup hits its own limit first."


def _large(large: gathering.Large) -> str:
    if large.processes > 1:
        several = f"the {count(large.processes)} processes {large.comm}"
        return f"{several}: together they held {size(large.held_bytes)}"
    was_killed = ", which was killed" if large.was_killed else ""
    return f"{process(large.comm, large.pid)}{was_killed}: it held {size(large.held_bytes)}"


def _unknown(findings: Findings) -> str:
    """Return the sentence with the known facts."""
    shortage = findings.circumstances.shortage
    if shortage is not None:
        return f"{asked(findings)} memory{killed(findings)}: {sentence_parts.shortage_clause(shortage)}."
    if findings.constraint != "memcg":
        what = f"{asked(findings)} memory that was not available{killed(findings)}"
        return f"{what}; it is not known whose limit was hit."
    filled = anonymous(findings)
    filled = filled and filled + beside(findings, "anonymous memory")
    fits = " No known cause fits these numbers." if findings.composition.total is not None else ""
    return f"{at_limit(findings, filled)}{fits}"


WORDS: Final[dict[Cause, CauseWords]] = {
    "anon_growth": CauseWords(
        label="process memory grew", sentence=_anon_growth, cure=_cure_anon_growth, settings=None
    ),
    "shmem": CauseWords(
        label="tmpfs or shared memory filled the limit",
        sentence=_shmem,
        cure=_cure_shmem,
        settings=_settings_shmem,
    ),
    "swap_exhausted": CauseWords(
        label="swap was full", sentence=_swap_exhausted, cure=_cure_swap_exhausted, settings=None
    ),
    "unevictable": CauseWords(
        label="locked memory, files on ramfs or huge pages filled the limit",
        sentence=_unevictable,
        cure=_cure_unevictable,
        settings=None,
    ),
    "kernel_memory": CauseWords(
        label="kernel memory filled the limit",
        sentence=_kernel_memory,
        cure=_cure_kernel_memory,
        settings=None,
    ),
    "dirty_writeback": CauseWords(
        label="page cache had to be written to disk before it could be dropped",
        sentence=_dirty_writeback,
        cure=_cure_dirty_writeback,
        settings=_settings_dirty_writeback,
    ),
    "protected_cache": CauseWords(
        label="memory.min protects the page cache that was left",
        sentence=_protected_cache,
        cure=_cure_protected_cache,
        settings=None,
    ),
    "gfp_constrained": CauseWords(
        label="the request did not allow reclaim to enter file systems or to start I/O",
        sentence=_gfp_constrained,
        cure=_cure_gfp_constrained,
        settings=None,
    ),
    "global_pressure": CauseWords(
        label="the machine had no memory that this request could use",
        sentence=_global_pressure,
        cure=_cure_global_pressure,
        settings=None,
    ),
    "unknown": CauseWords(
        label="the records do not show why",
        sentence=_unknown,
        cure=lambda _: iter(()),
        settings=None,
    ),
}
"""The words by cause, in the order of `Cause`."""

check(CAUSES, WORDS)
