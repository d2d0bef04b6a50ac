"""A kill for which no limit was full: the shortage behind it, and the cgroups that held the machine's memory.

Such a kill does not always mean a full machine. Memory can be free, but in pieces that are too small
(order > 0), or in zones and on nodes that the request may not use. Nothing may have been short at all: SysRq
and BPF policies also kill. And the counters of a cgroup can be far below its limit.

A cgroup holds its own memory: what is charged to the cgroups below it counts for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from tracer.analysis.core import ledger, naming
from tracer.analysis.core.columns import Int64s
from tracer.analysis.core.rows import TableRows
from tracer.analysis.core.tables import TraceTables, unrecorded_categories
from tracer.analysis.explain.measure.findings import (
    LATELY_NS,
    Circumstances,
    FreeMemory,
    MachineHolder,
    NoVictim,
    Shortage,
    ShortageKind,
)
from tracer.enumerations import CONSTRAINT
from tracer.kernel.kmsg.report.log_report import Counter, LogReport, MemInfo, Zone
from tracer.schema import UNLIMITED_BYTES

_MUCH_SHARE: Final = 0.3
"""From this share of the machine on, slab, huge pages, memory of GPU drivers or memory without a name fill
it."""

_MUCH_FREE_SHARE: Final = 0.1
"""From this share of free memory on, "none left" would contradict it."""

_MUCH_CACHE_SHARE: Final = 0.1

_FAR_SHARE: Final = 0.1
_FAR_BYTES: Final = 1 << 20
"""The room below a limit that shows that it was not hit: a charge that fits never fails."""


def circumstances(log: LogReport, page_size: int) -> Circumstances:
    """Return the circumstances that a report gives of a kill for which no limit was full."""
    return Circumstances(shortage=_shortage(log, page_size), no_victim=_no_victim(log), machine=log.mem_info)


def _shortage(log: LogReport, page_size: int) -> Shortage | None:
    """Return the shortage; None if a cgroup's limit was hit, or if the log shows no shortage."""
    if log.constraint == "memcg":
        return _below_limits(log)
    if log.constraint == "unknown":
        return None
    kind, is_seen, numbers = next(_kinds(log, page_size))
    return Shortage(
        kind,
        numbers,
        is_seen,
        constraint=log.constraint,
        nodes=nodes_of(log),
        may_be_confined=log.may_be_confined,
        no_task_killable=log.is_no_task_killable,
        free=_free(log, page_size),
    )


def _no_victim(log: LogReport) -> NoVictim | None:
    """Return why a decision killed nothing; None if a task was killed, or if the log does not show the
    end."""
    if log.kills or not (log.is_panic_on_oom or log.is_no_task_killable):
        return None
    if log.is_panic_on_oom:
        return "panic_on_oom"
    return "panic" if log.is_panic else "none_killable"


def nodes_of(log: LogReport) -> str:
    """Return the nodes that the request was confined to, as in `0-1,3`; empty for all nodes, and if the log
    does not show them."""
    if log.constraint == "global":
        return ""
    return (log.nodemask if log.constraint == "mempolicy" and log.nodemask else log.mems_allowed) or ""


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
    numbers = {"usage_bytes": memory.usage_bytes, "limit_bytes": memory.limit_bytes}
    return Shortage("below_limit", numbers, is_seen=False, constraint=log.constraint)


def _is_far(counter: Counter) -> bool:
    room = counter.limit_bytes - counter.usage_bytes
    return room > max(_FAR_SHARE * counter.limit_bytes, _FAR_BYTES)


def _kinds(log: LogReport, page_size: int) -> Iterator[tuple[ShortageKind, bool, dict[str, Any]]]:
    """Yield the shortages that fit the report, the most certain first: the kind, whether the log shows that
    memory was short, and the numbers."""
    if log.constraint not in CONSTRAINT.names:
        yield "policy_constraint", False, {}
    order, zones = log.invoker.order, () if log.mem_info is None else log.mem_info.zones
    functions = {frame.partition("+")[0] for frame in log.stack}
    if order == -1 or "moom_callback" in functions:
        yield "by_hand", False, {}
    if "bpf_out_of_memory" in functions:
        yield "policy", False, {}
    if log.invoker.gfp == 0:  # only pagefault_out_of_memory (mm/oom_kill.c) asks with an empty mask
        yield "page_fault", False, {}
    if (filled := _filled(log.mem_info, page_size)) is not None:
        yield filled[0], True, filled[1]
    usable = [zone for zone in zones if _may_use(zone, log)]
    high = [zone for zone in zones if zone not in usable and _is_roomy(zone)]
    if order and order > 0 and _has_room(usable, page_size):
        yield "pieces", True, {"piece_bytes": page_size << order, "order": order}
    if order and order > 0 and log.mem_info is None:
        yield "large_request", True, {"order": order}
    exhausted = [] if log.constraint != "global" else _exhausted(zones)
    if exhausted and high:
        yield "low_zones", True, {"zones": _names(exhausted)}
    elif high and log.constraint != "global":
        yield "high_zones", True, {"zones": _names(high)}
    free, whole = _free_and_whole(log, page_size)
    if free is None or not whole or free < _MUCH_FREE_SHARE * whole:
        yield "none_left", True, {}
    yield "not_shown", True, {"free_bytes": free, "whole_bytes": whole}


def _names(zones: list[Zone]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(zone.name for zone in zones))


_HIGHMEM: Final = 0x02
"""The bit of a gfp mask that allows high memory, in all releases (include/linux/gfp.h)."""


def _may_use(zone: Zone, log: LogReport) -> bool:
    """Return whether the request may use a zone of high memory (gfp_zone, include/linux/gfp.h), as far as the
    log shows its mask."""
    gfp = log.invoker.gfp
    if gfp is None or zone.name not in ("HighMem", "Movable"):
        return True
    return bool(gfp & _HIGHMEM) and (zone.name == "HighMem" or "MOVABLE" in (log.invoker.gfp_names or ""))


def _exhausted(zones: tuple[Zone, ...]) -> list[Zone]:
    """Return the zones below their minimum; or else those that have only memory kept for drivers (CMA)."""
    below = [zone for zone in zones if zone.min_bytes and zone.free_bytes < zone.min_bytes]
    return below or [
        zone
        for zone in zones
        if zone.free_cma_bytes and zone.high_bytes and zone.free_bytes - zone.free_cma_bytes < zone.high_bytes
    ]


def _is_roomy(zone: Zone, kept_bytes: int = 0) -> bool:
    """Return whether a zone has more free memory than its high watermark, at which kswapd sleeps, and the
    memory that it keeps from the request."""
    return bool(zone.high_bytes) and zone.free_bytes > (zone.high_bytes or 0) + kept_bytes


_ZONES: Final = ("DMA", "DMA32", "Normal", "HighMem", "Movable", "Device")
"""The names of zones, from the lowest up (enum zone_type, include/linux/mmzone.h)."""


def _has_room(usable: list[Zone], page_size: int) -> bool:
    """Return whether a zone that the request may use is roomy. All of these zones but the highest keep memory
    from the request (lowmem_reserve), so that a full machine has free memory in them."""
    highest = max((_ZONES.index(zone.name) for zone in usable), default=0)
    return any(
        _is_roomy(zone, 0 if _ZONES.index(zone.name) == highest else zone.reserve_pages * page_size)
        for zone in usable
    )


def _filled(info: MemInfo | None, page_size: int) -> tuple[ShortageKind, dict[str, Any]] | None:
    """Return the kind of memory that fills the machine, with its numbers, if that is slab, huge pages, memory
    of GPU drivers, or memory that no counter names and no cgroup is charged for."""
    pages = None if info is None else info.usable_pages
    if info is None or pages is None or pages <= 0 or "free" not in info.pages:
        return None
    usable = pages * page_size
    slab, anon = (
        _sum(info, "slab_reclaimable", "slab_unreclaimable", "slab") * page_size,
        _sum(info, "active_anon", "inactive_anon") * page_size,
    )
    huge, gpu = info.hugetlb_bytes, info.gpu_bytes or 0
    if slab >= _MUCH_SHARE * usable and slab >= anon:
        cache, held = max(info.unreclaimable_caches.items(), key=lambda one: one[1], default=("", 0))
        largest = {"cache": cache, "cache_bytes": held} if held >= _MUCH_CACHE_SHARE * slab > 0 else {}
        return "slab", {"held_bytes": slab, "machine_bytes": usable, **largest}
    if huge is not None and huge >= _MUCH_SHARE * usable:
        numbers = {"held_bytes": huge, "machine_bytes": usable, "unused_bytes": info.unused_hugetlb_bytes}
        return "huge_pages", numbers
    if gpu >= _MUCH_SHARE * usable:
        return "gpu", {"held_bytes": gpu, "machine_bytes": usable}
    unnamed = (pages - _sum(info, *_COUNTED) - ((huge or 0) + gpu) // page_size) * page_size
    if unnamed >= _MUCH_SHARE * usable:
        numbers = {"held_bytes": unnamed, "machine_bytes": usable, "is_hugetlb_known": huge is not None}
        return "unnamed", numbers
    return None


_COUNTED: Final = (
    *("active_anon", "inactive_anon", "isolated_anon", "active_file", "inactive_file", "isolated_file"),
    *("active", "inactive", "slab"),  # before v2.6.31
    *("unevictable", "slab_reclaimable", "slab_unreclaimable", "pagetables", "sec_pagetables", "bounce"),
    *("free", "free_pcp", "kernel_misc_reclaimable"),
)
"""Counters of Mem-Info that do not overlap."""


def _sum(info: MemInfo, *names: str) -> int:
    return sum(info.pages.get(name, 0) for name in names)


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


def _free(log: LogReport, page_size: int) -> FreeMemory | None:
    info = log.mem_info
    if info is None or "free" not in info.pages:
        return None
    free, usable = info.pages["free"] * page_size, _in_bytes(info.usable_pages, page_size)
    if log.constraint in ("cpuset", "mempolicy"):
        return FreeMemory(free, usable, *_free_and_whole(log, page_size))
    return FreeMemory(free, usable, free_swap_bytes=info.free_swap_bytes, swap_bytes=info.total_swap_bytes)


_MOST: Final = 10


def machine_holders(trace: TraceTables, kill_ns: int) -> tuple[MachineHolder, ...]:
    """Return up to ten cgroups, those first that held most, and among them that which charged most lately.

    Cgroups whose memory at the start of the trace is not known are left out.
    """
    ids = naming.with_data(trace)
    if not ids:
        return ()
    above = naming.positions_above(trace.cgroups, ids)
    base, is_known = ledger.base_levels(
        TableRows.whole(trace.samples), trace.places, ids, ledger.CHARGED, unrecorded_categories(trace)
    )
    held = _own(base, above, ids) + _charged(trace, ids, 0, kill_ns)
    lately = _charged(trace, ids, kill_ns - LATELY_NS, kill_ns)
    order = [position for position in np.argsort(-held, kind="stable").tolist() if is_known[position]]
    first = order[:_MOST]
    growing = max(order, key=lately.__getitem__, default=None)
    if growing is not None and growing not in first and lately[growing] > 0:
        first[-1] = growing
    return tuple(
        MachineHolder(
            cgroup=trace.places.label_of(ids[position]),
            container=trace.places.container_of(ids[position])[0],
            held_bytes=int(held[position]),
            charged_bytes=int(lately[position]),
        )
        for position in first
        if held[position] > 0
    )


def _own(levels: Int64s, above: dict[int, list[int]], ids: list[int]) -> Int64s:
    """Return the levels, which include those of cgroups below, without these."""
    own = levels.copy()
    for position, number in enumerate(ids):
        parents = above[number][1:]
        if parents:
            nearest = max(parents, key=lambda one: len(above[ids[one]]))
            own[nearest] -= levels[position]
    return own


def _charged(trace: TraceTables, ids: list[int], begin_ns: int, end_ns: int) -> Int64s:
    """Return what was charged to each cgroup after `begin_ns` until `end_ns`, less what was freed."""
    counted, bytes_ = trace.charges.weighted(ledger.CHARGED)
    rows = counted & (trace.charges.time > begin_ns) & (trace.charges.time <= end_ns)
    numbers = np.array(ids, dtype=np.int64)
    order = np.argsort(numbers)
    position = order[np.searchsorted(numbers[order], trace.charges.cgroup_id[rows])]
    summed = np.zeros(len(ids), dtype=np.int64)
    np.add.at(summed, position, bytes_[rows])
    return summed
