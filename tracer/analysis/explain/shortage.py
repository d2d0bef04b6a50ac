"""Why the OOM killer came where no limit was full, in the words of that case, from a kernel log.

Not every such kill is a full machine: memory can be free and in pieces (order > 0), in zones or on nodes that
the request may not use, or nothing was short at all, and somebody had a process killed (SysRq, a BPF policy).
And a cgroup's counters can be far below its limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tracer.analysis.explain.measure.findings import Shortage
from tracer.kernel.kmsg.report.log_report import Counter, LogReport, MemInfo, Zone
from tracer.schema import UNLIMITED_BYTES
from tracer.units import percent, size

_KNOWN: Final = ("memcg", "global", "cpuset", "mempolicy", "unknown")
_NARROWED: Final = {
    "cpuset": "the memory nodes that its cpuset allows ({nodes}) had none left",
    "mempolicy": "the memory nodes that its memory policy allows ({nodes}) had none left",
}
_HIGH_ZONES: Final = ("HighMem", "Movable")
_MUCH: Final = 0.5
_UNNAMED: Final = 0.3


_FAR_SHARE: Final = 0.1
_FAR_BYTES: Final = 1 << 20
"""What must be free below a limit that was not the one hit: the kernel lets no request that fits fail."""

_BY_HAND: Final = (
    "Find who asked for it: SysRq+F on a keyboard or a serial console, or `f` written to /proc/sysrq-trigger "
    "by a program. kernel.sysrq without the bit 64 forbids it.",
)
_IN_PIECES: Final = (
    "More memory need not help: the request was for pages that lie side by side. Raise vm.min_free_kbytes, "
    "write 1 to /proc/sys/vm/compact_memory, or find what asks for so large a piece (the call trace).",
)
_LOW_ZONES: Final = (
    "More memory does not help: only low memory was short, which 32-bit kernels use for their own objects. "
    "Use a 64-bit kernel, or less that lives there (slab, page tables, many tasks).",
)
_UNKILLABLE: Final = (
    "Look for processes with oom_score_adj -1000, which the kernel may not kill, and for what filled memory "
    "beside processes.",
)
_OF_PANIC: Final = ("Set vm.panic_on_oom to 0 to have a process killed instead.",)
_OF_NODES: Final = ("Allow more memory nodes (cpuset.mems, set_mempolicy, numactl), or place less on these.",)


def of_log(log: LogReport, page_size: int) -> Shortage | None:
    """What was short; None where the usual words fit: a cgroup's limit, or not known."""
    free = _free(log.mem_info, page_size)
    if log.constraint == "memcg":
        return _below_limits(log)
    if log.is_no_task_killable:
        return Shortage(f"there was no process that the kernel could kill{free}", advice=_UNKILLABLE)
    if log.constraint not in _KNOWN:
        clause = f"a BPF policy had it killed ({log.constraint}), not a limit that was hit{free}"
        return Shortage(clause, "unknown")
    if log.constraint in _NARROWED:
        nodes = f"nodes {log.mems_allowed}" if log.mems_allowed else "which, the log does not say"
        return Shortage(_NARROWED[log.constraint].format(nodes=nodes) + free, advice=_OF_NODES)
    if log.constraint != "global":
        return None
    found = next(_of_machine(log, page_size), Shortage("the whole machine had none left"))
    return Shortage(found.clause + free, found.cause, found.advice)


def _below_limits(log: LogReport) -> Shortage | None:
    """A kill for the limit of a cgroup, none of whose counters is near its limit.

    Linux 3.10 and its like can carry the OOM of another charge over to a later page fault.
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
        f"the limit {size(memory.limit_bytes)}, so what was short is not known",
        "unknown",
    )


def _is_far(counter: Counter) -> bool:
    room = counter.limit_bytes - counter.usage_bytes
    return room > max(_FAR_SHARE * counter.limit_bytes, _FAR_BYTES)


def _of_machine(log: LogReport, page_size: int) -> Iterator[Shortage]:
    """What fits, the most certain first."""
    order, zones = log.invoker.order, () if log.mem_info is None else log.mem_info.zones
    functions = {frame.partition("+")[0] for frame in log.stack}
    if order == -1 or "moom_callback" in functions:
        clause = "somebody invoked the OOM killer by hand (SysRq-F), whether or not memory was short"
        yield Shortage(clause, "unknown", _BY_HAND)
    if "bpf_out_of_memory" in functions:
        yield Shortage("a BPF policy invoked the OOM killer", "unknown")
    if log.invoker.gfp == 0 and "pagefault_out_of_memory" in functions:
        yield Shortage(
            "a page fault failed for want of memory (pagefault_out_of_memory, gfp 0x0), which does not say "
            "what was short",
            "unknown",
        )
    if log.is_panic_on_oom:
        yield Shortage("vm.panic_on_oom has the machine panic instead of a kill", advice=_OF_PANIC)
    if (filled := _filled(log.mem_info, page_size)) is not None:
        yield Shortage(f"the whole machine had none left, {filled}")
    if order and order > 0 and _roomy(zones):
        yield Shortage(
            f"memory was free, but not in one piece of {size(page_size << order)} (order {order}): it is "
            "fragmented",
            advice=_IN_PIECES,
        )
    exhausted = [zone for zone in zones if zone.min_bytes and zone.free_bytes < zone.min_bytes]
    if exhausted and any(zone.name in _HIGH_ZONES for zone in _roomy(zones)):
        names = " and ".join(dict.fromkeys(zone.name for zone in exhausted))
        clause = f"low memory (zone {names}) was exhausted, while high memory, which it cannot use, was free"
        yield Shortage(clause, advice=_LOW_ZONES)


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
