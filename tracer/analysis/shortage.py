"""Why the OOM killer came although no cgroup's limit was hit, in the words of that case, from a kernel log.

Not every such kill is a full machine: memory can be free and in pieces (order > 0), in zones or on nodes that
the request may not use, or nothing was short at all, and somebody had a process killed (SysRq, a BPF policy).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tracer.kernel.kmsg.facts import LogReport, MemInfo, Zone
from tracer.units import percent, size

_KNOWN: Final = ("memcg", "global", "cpuset", "mempolicy", "unknown")
_NARROWED: Final = {
    "cpuset": "the memory nodes that its cpuset allows ({nodes}) had none left",
    "mempolicy": "the memory nodes that its memory policy allows ({nodes}) had none left",
}
_HIGH_ZONES: Final = ("HighMem", "Movable")
_MUCH: Final = 0.5
_UNNAMED: Final = 0.3


def words(log: LogReport, page_size: int) -> str | None:
    """The clause that says what was short; None where the usual words fit: a cgroup's limit, or not known."""
    free = _free(log.mem_info, page_size)
    if log.is_no_task_killable and log.constraint != "memcg":
        return f"there was no process that the kernel could kill{free}"
    if log.constraint not in _KNOWN:
        return f"a BPF policy had it killed ({log.constraint}), not a limit that was hit{free}"
    if log.constraint in _NARROWED:
        nodes = f"nodes {log.mems_allowed}" if log.mems_allowed else "which, the log does not say"
        return _NARROWED[log.constraint].format(nodes=nodes) + free
    if log.constraint != "global":
        return None
    return next(_of_machine(log, page_size), "the whole machine had none left") + free


def _of_machine(log: LogReport, page_size: int) -> Iterator[str]:
    """What fits, the most certain first."""
    order, zones = log.invoker.order, () if log.mem_info is None else log.mem_info.zones
    functions = {frame.partition("+")[0] for frame in log.stack}
    if order == -1 or "moom_callback" in functions:
        yield "somebody invoked the OOM killer by hand (SysRq-F), whether or not memory was short"
    if "bpf_out_of_memory" in functions:
        yield "a BPF policy invoked the OOM killer"
    if log.invoker.gfp == 0 and "pagefault_out_of_memory" in functions:
        yield (
            "a page fault failed for want of memory (pagefault_out_of_memory, gfp 0x0), which does not say "
            "what was short"
        )
    if log.is_panic_on_oom:
        yield "vm.panic_on_oom has the machine panic instead of a kill"
    if (filled := _filled(log.mem_info, page_size)) is not None:
        yield f"the whole machine had none left, {filled}"
    if order and order > 0 and _roomy(zones):
        yield (
            f"memory was free, but not in one piece of {size(page_size << order)} (order {order}): it is "
            "fragmented"
        )
    exhausted = [zone for zone in zones if zone.min_bytes and zone.free_bytes < zone.min_bytes]
    if exhausted and any(zone.name in _HIGH_ZONES for zone in _roomy(zones)):
        names = " and ".join(dict.fromkeys(zone.name for zone in exhausted))
        yield f"low memory (zone {names}) was exhausted, while high memory, which it cannot use, was free"


def _roomy(zones: tuple[Zone, ...]) -> list[Zone]:
    """Zones with more free than makes kswapd sleep."""
    return [zone for zone in zones if zone.high_bytes and zone.free_bytes > zone.high_bytes]


def _filled(info: MemInfo | None, page_size: int) -> str | None:
    """What fills the machine where that is not the memory of processes: slab, or what no counter names."""
    if info is None or not info.ram_pages or "free" not in info.pages:
        return None
    usable = info.ram_pages - (info.reserved_pages or 0)
    slab = _sum(info, "slab_reclaimable", "slab_unreclaimable")
    unnamed = usable - _sum(info, *_COUNTED)
    if usable <= 0:
        return None
    if slab >= _MUCH * usable:
        held = f"{size(slab * page_size)} of its {size(usable * page_size)}"
        return f"{held} slab, objects that the kernel itself holds"
    if unnamed >= _UNNAMED * usable:
        held = f"{size(unnamed * page_size)} of its {size(usable * page_size)} ({percent(unnamed, usable)})"
        return f"and {held} are memory that no counter names: pages of drivers, or a leak of the kernel's"
    return None


_COUNTED: Final = (
    *("active_anon", "inactive_anon", "isolated_anon", "active_file", "inactive_file", "isolated_file"),
    *("unevictable", "slab_reclaimable", "slab_unreclaimable", "pagetables", "sec_pagetables", "bounce"),
    *("free", "free_pcp", "kernel_misc_reclaimable"),
)
"""Kinds that overlap no other."""


def _sum(info: MemInfo, *names: str) -> int:
    return sum(info.pages.get(name, 0) for name in names)


def _free(info: MemInfo | None, page_size: int) -> str:
    """How much was free, for the end of the clause."""
    if info is None or "free" not in info.pages:
        return ""
    free = info.pages["free"] * page_size
    if not info.ram_pages:
        return f"; {size(free)} of the machine were free"
    return f"; {size(free)} of the machine's {size(info.ram_pages * page_size)} were free"
