"""The shortage behind a kill for which no limit was full, from the report in a kernel log.

Such a kill does not always mean a full machine. Memory can be free, but in pieces that are too small
(order > 0), or in zones and on nodes that the request may not use. Nothing may have been short at all: SysRq
and BPF policies also kill. And the counters of a cgroup can be far below its limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tracer.analysis.explain.causes import global_pressure
from tracer.analysis.explain.measure.findings import Shortage
from tracer.enumerations import CONSTRAINT
from tracer.kernel.kmsg.report.log_report import Counter, LogReport, MemInfo, Zone
from tracer.schema import UNLIMITED_BYTES
from tracer.units import percent, size

_HIGH_ZONES: Final = ("HighMem", "Movable")
_MUCH_SLAB_SHARE: Final = 0.3
_MUCH_HUGE_SHARE: Final = 0.3
_MUCH_GPU_SHARE: Final = 0.3
_MUCH_UNNAMED_SHARE: Final = 0.3

_MUCH_FREE_SHARE: Final = 0.1
"""From this share of free memory on, "none left" would contradict it."""

_MUCH_CACHE_SHARE: Final = 0.1
_FULL_SWAP_SHARE: Final = 0.02

_FAR_SHARE: Final = 0.1
_FAR_BYTES: Final = 1 << 20
"""The room below a limit that shows that it was not hit: a charge that fits never fails."""

# kernel.sysrq restricts the keys, not the file (Documentation/admin-guide/sysrq.rst).
_BY_HAND: Final = (
    "Find who invoked it: SysRq+F on a keyboard or a serial console, or a program that wrote `f` to "
    "/proc/sysrq-trigger. Without bit 64, kernel.sysrq forbids the keys, but not the file.",
)
_IN_PIECES: Final = (
    "More memory may not help: the request was for contiguous pages. Raise vm.min_free_kbytes, write 1 to "
    "/proc/sys/vm/compact_memory, or find what asks for so large a piece (the call trace).",
)
_LOW_ZONES: Final = (
    "More memory does not help: only low memory was short, which 32-bit kernels use for their own objects. "
    "Use a 64-bit kernel, or keep less there (slab, page tables, tasks).",
)
_UNKILLABLE: Final = (
    "Look for processes with oom_score_adj -1000, which the kernel may not kill, and for memory that no "
    "process holds.",
)
_OF_SLAB: Final = (
    "Find what makes the kernel hold so much slab (slabtop, /proc/slabinfo): the processes' own memory is "
    "not the problem, and killing them does not free it.",
)
_NODES: Final = (
    "Allow more memory nodes (cpuset.mems, set_mempolicy, numactl), or place less memory on these.",
)


def from_log(log: LogReport, page_size: int) -> Shortage | None:
    """Return the shortage; None if a cgroup's limit was hit, or if the log shows no shortage."""
    if log.constraint == "memcg":
        return _below_limits(log)
    if log.constraint == "unknown":
        return None
    if log.constraint not in CONSTRAINT.names:
        free = _free(log, page_size)
        return Shortage(
            f"a BPF policy had it killed ({log.constraint}); no limit was hit{free}", is_seen=False
        )
    advice = _UNKILLABLE if log.is_no_task_killable else ()
    found = next(_of_machine(log, page_size), None)
    if found is None:
        return Shortage(_none_left(log, page_size), advice=advice or _advice_on(log))
    return Shortage(found.clause + _free(log, page_size), found.is_seen, advice or found.advice)


def no_victim(log: LogReport) -> str:
    """Return a clause on the end of a decision that killed nothing; empty if a task was killed, or if the log
    does not show the end."""
    if log.kills or not (log.is_panic_on_oom or log.is_no_task_killable):
        return ""
    why = "vm.panic_on_oom is set" if log.is_panic_on_oom else "it found no process that it could kill"
    if log.is_panic or log.is_panic_on_oom:
        return f"the kernel panicked, because {why}"
    return "there was no process that the kernel could kill"


def _advice_on(log: LogReport) -> tuple[str, ...]:
    return () if log.constraint == "global" else _NODES


def _none_left(log: LogReport, page_size: int) -> str:
    """Return the clause for a report without another explanation.

    If much was free, the clause does not say that there was none.
    """
    free, whole = _free_and_whole(log, page_size)
    short = global_pressure.clause(log.constraint, nodes_of(log))
    if free is None or not whole or free < _MUCH_FREE_SHARE * whole:
        return short + _free(log, page_size)
    where = global_pressure.SHORT[log.constraint] + nodes_of(log)
    return (
        f"the kernel found no memory that this request may use, although {size(free)} of {size(whole)} was "
        f"free on {where}; the log does not show why"
    )


def _below_limits(log: LogReport) -> Shortage | None:
    """Return the shortage if the counters of the cgroup are far below all of its limits.

    Linux 3.10 and similar kernels can carry the OOM of another charge over to a later page fault.
    """
    memory = log.counters.get("memory")
    limited = [
        counter
        for name, counter in log.counters.items()
        if name != "swap" and counter.limit_bytes < UNLIMITED_BYTES
    ]
    if memory is None or memory not in limited or not all(map(_is_far, limited)):
        return None
    return Shortage(
        f"by the kernel log, the limit was not reached: usage was {size(memory.usage_bytes)}, and "
        f"the limit {size(memory.limit_bytes)}, so it is not known what was short",
        is_seen=False,
    )


def _is_far(counter: Counter) -> bool:
    room = counter.limit_bytes - counter.usage_bytes
    return room > max(_FAR_SHARE * counter.limit_bytes, _FAR_BYTES)


def _of_machine(log: LogReport, page_size: int) -> Iterator[Shortage]:
    """Yield the shortages that fit the report, the most certain first."""
    order, zones = log.invoker.order, () if log.mem_info is None else log.mem_info.zones
    functions = {frame.partition("+")[0] for frame in log.stack}
    if order == -1 or "moom_callback" in functions:
        clause = "somebody invoked the OOM killer by hand (SysRq-F), whether or not memory was short"
        yield Shortage(clause, is_seen=False, advice=_BY_HAND)
    if "bpf_out_of_memory" in functions:
        yield Shortage("a BPF policy invoked the OOM killer", is_seen=False)
    if log.invoker.gfp == 0 and "pagefault_out_of_memory" in functions:
        yield Shortage(
            "a page fault got no memory (pagefault_out_of_memory, gfp 0x0), and the log does not show why",
            is_seen=False,
        )
    if (filled := _filled(log.mem_info, page_size)) is not None:
        yield Shortage(f"{global_pressure.clause(log.constraint)}; {filled[0]}", advice=filled[1])
    if order and order > 0 and _roomy(zones):
        yield Shortage(
            f"memory was free, but not in one piece of {size(page_size << order)} (order {order}): it is "
            "fragmented",
            advice=_IN_PIECES,
        )
    high = [zone for zone in _roomy(zones) if not _may_use(zone, log)]
    exhausted = [] if log.constraint != "global" else _exhausted(zones)
    if exhausted and high:
        names = " and ".join(dict.fromkeys(zone.name for zone in exhausted))
        yield Shortage(
            f"low memory (zone {names}) was exhausted, while high memory was free, which this request cannot "
            "use",
            advice=_LOW_ZONES,
        )
    elif high and log.constraint != "global":
        names = " and ".join(dict.fromkeys(zone.name for zone in high))
        yield Shortage(
            f"{global_pressure.SHORT[log.constraint]}{nodes_of(log)} had memory left only in zone {names}, "
            "which this request cannot use",
            advice=_NODES,
        )


def _may_use(zone: Zone, log: LogReport) -> bool:
    """Return whether the request may use a zone of high memory (gfp_zone, include/linux/gfp.h)."""
    names = log.invoker.gfp_names or ""
    is_high = "HIGHUSER" in names or "__GFP_HIGHMEM" in names
    return {"HighMem": is_high, "Movable": is_high and "MOVABLE" in names}.get(zone.name, True)


def _exhausted(zones: tuple[Zone, ...]) -> list[Zone]:
    """Return the zones below their minimum; or else those that have only memory kept for drivers (CMA)."""
    below = [zone for zone in zones if zone.min_bytes and zone.free_bytes < zone.min_bytes]
    return below or [
        zone
        for zone in zones
        if zone.free_cma_bytes and zone.high_bytes and zone.free_bytes - zone.free_cma_bytes < zone.high_bytes
    ]


def _roomy(zones: tuple[Zone, ...]) -> list[Zone]:
    """Return the zones with more free memory than their high watermark, at which kswapd sleeps."""
    return [zone for zone in zones if zone.high_bytes and zone.free_bytes > zone.high_bytes]


def _filled(info: MemInfo | None, page_size: int) -> tuple[str, tuple[str, ...]] | None:
    """Return a clause on the memory that fills the machine, with advice, if that is slab, huge pages, memory
    of GPU drivers, or memory that no counter names."""
    usable = None if info is None else info.usable_pages
    if info is None or usable is None or usable <= 0 or "free" not in info.pages:
        return None
    slab, anon = (
        _sum(info, "slab_reclaimable", "slab_unreclaimable", "slab"),
        _sum(info, "active_anon", "inactive_anon"),
    )
    huge_bytes = info.hugetlb_bytes
    gpu_bytes = info.gpu_bytes or 0
    unnamed = usable - _sum(info, *_COUNTED) - ((huge_bytes or 0) + gpu_bytes) // page_size
    if slab >= _MUCH_SLAB_SHARE * usable and slab >= anon:
        held = f"{size(slab * page_size)} of its {size(usable * page_size)}"
        return f"{held} was slab, objects of the kernel{_largest_cache(info, slab * page_size)}", _OF_SLAB
    if huge_bytes is not None and huge_bytes >= _MUCH_HUGE_SHARE * usable * page_size:
        held = f"{size(huge_bytes)} of its {size(usable * page_size)}"
        unused = size(info.unused_hugetlb_bytes)
        return f"{held} was kept for huge pages (hugetlb), and {unused} of that was not in use", ()
    uncharged = _uncharged(
        unnamed * page_size, gpu_bytes, usable * page_size, is_pool_known=huge_bytes is not None
    )
    return None if uncharged is None else (uncharged, ())


def _uncharged(unnamed: int, of_gpus: int, usable: int, *, is_pool_known: bool) -> str | None:
    """Return a clause on much memory that no cgroup is charged for: of GPU drivers, or of no known kind."""
    if of_gpus >= _MUCH_GPU_SHARE * usable:
        return f"{size(of_gpus)} of its {size(usable)} was memory of GPU drivers"
    if unnamed >= _MUCH_UNNAMED_SHARE * usable:
        held = f"{size(unnamed)} of its {size(usable)} ({percent(unnamed, usable)})"
        huge = "" if is_pool_known else "huge pages, "
        return f"{held} was memory that no counter names: {huge}pages of drivers, or a leak in the kernel"
    return None


def _largest_cache(info: MemInfo, slab_bytes: int) -> str:
    """Return the end of the clause: the largest cache that cannot be reclaimed, if it is a good part."""
    name, held = max(info.unreclaimable_caches.items(), key=lambda one: one[1], default=("", 0))
    return f", {size(held)} of it in {name}" if held >= _MUCH_CACHE_SHARE * slab_bytes > 0 else ""


_COUNTED: Final = (
    *("active_anon", "inactive_anon", "isolated_anon", "active_file", "inactive_file", "isolated_file"),
    *("active", "inactive", "slab"),  # before v2.6.31
    *("unevictable", "slab_reclaimable", "slab_unreclaimable", "pagetables", "sec_pagetables", "bounce"),
    *("free", "free_pcp", "kernel_misc_reclaimable"),
)
"""Counters of Mem-Info that do not overlap."""


def _sum(info: MemInfo, *names: str) -> int:
    return sum(info.pages.get(name, 0) for name in names)


def nodes_of(log: LogReport) -> str:
    """Return ` (node 3)`, or ` (nodes 0-1)`: those that the request was confined to; empty for all nodes."""
    if log.constraint == "global":
        return ""
    listed = log.nodemask if log.constraint == "mempolicy" and log.nodemask else log.mems_allowed
    if not listed:
        return " (the log does not show which)"
    return f" (node {listed})" if listed.isdigit() else f" (nodes {listed})"


def _free_and_whole(log: LogReport, page_size: int) -> tuple[int | None, int | None]:
    """Return the free bytes, and all bytes, of the memory that the request was confined to.

    The kernel prints only the zones of these nodes (show_free_areas, mm/show_mem.c).
    """
    info = log.mem_info
    if info is None:
        return None, None
    if log.constraint == "global":
        usable = info.usable_pages or (_sum(info, *_COUNTED) if "free" in info.pages else None)
        return _in_bytes(info.pages.get("free"), page_size), _in_bytes(usable, page_size)
    if not info.zones or any(zone.managed_bytes is None for zone in info.zones):
        return None, None
    return sum(zone.free_bytes for zone in info.zones), sum(zone.managed_bytes or 0 for zone in info.zones)


def _in_bytes(pages: int | None, page_size: int) -> int | None:
    return None if pages is None else pages * page_size


def _free(log: LogReport, page_size: int) -> str:
    """Return the end of the clause: the memory and the swap that were free; empty where the log does not show
    it."""
    info = log.mem_info
    if info is None or "free" not in info.pages:
        return ""
    free, usable = info.pages["free"] * page_size, info.usable_pages
    whole = "the machine" if usable is None else f"the machine's {size(usable * page_size)}"
    of_nodes, on_nodes = _free_and_whole(log, page_size)
    if log.constraint in ("cpuset", "mempolicy"):
        there = "" if of_nodes is None else f"; {size(of_nodes)} of {size(on_nodes)} was free there"
        return f"{there}; on all nodes, {size(free)} of {whole} was free"
    return f"; {size(free)} of {whole} was free{_swap(info)}"


def _swap(info: MemInfo) -> str:
    """Return ` and its swap of 2 GiB was full`, if the log shows that or that there is no swap."""
    free, total = info.free_swap_bytes, info.total_swap_bytes
    if total == 0:
        return ", and it has no swap"
    if free is None or total is None or free > _FULL_SWAP_SHARE * total:
        return ""
    return f", and its swap of {size(total)} was full"
