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
_MUCH_SLAB_SHARE: Final = 0.5
_MUCH_HUGE_SHARE: Final = 0.3
_MUCH_GPU_SHARE: Final = 0.3
_MUCH_UNNAMED_SHARE: Final = 0.3

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
_PANIC: Final = ("Set vm.panic_on_oom to 0, so that the kernel kills a process instead.",)
_NODES: Final = (
    "Allow more memory nodes (cpuset.mems, set_mempolicy, numactl), or place less memory on these.",
)


def from_log(log: LogReport, page_size: int) -> Shortage | None:
    """Return the shortage; None if a cgroup's limit was hit, or if the log shows no shortage."""
    free = _free(log.mem_info, page_size)
    if log.constraint == "memcg":
        return _below_limits(log)
    if log.is_no_task_killable:
        return Shortage(f"there was no process that the kernel could kill{free}", advice=_UNKILLABLE)
    if log.constraint not in CONSTRAINT.names:
        return Shortage(f"a BPF policy had it killed ({log.constraint}); no limit was hit{free}", "unknown")
    if log.constraint == "unknown":
        return None
    if log.constraint != "global":
        nodes = f"nodes {log.mems_allowed}" if log.mems_allowed else "the log does not show which"
        return Shortage(global_pressure.clause(log.constraint, f" ({nodes})") + free, advice=_NODES)
    found = next(_of_machine(log, page_size), Shortage(global_pressure.clause(log.constraint)))
    return Shortage(found.clause + free, found.cause, found.advice)


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
        "unknown",
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
        yield Shortage(clause, "unknown", _BY_HAND)
    if "bpf_out_of_memory" in functions:
        yield Shortage("a BPF policy invoked the OOM killer", "unknown")
    if log.invoker.gfp == 0 and "pagefault_out_of_memory" in functions:
        yield Shortage(
            "a page fault got no memory (pagefault_out_of_memory, gfp 0x0), and the log does not show why",
            "unknown",
        )
    if log.is_panic_on_oom:
        yield Shortage("vm.panic_on_oom makes the kernel panic instead of kill", advice=_PANIC)
    if (filled := _filled(log.mem_info, page_size)) is not None:
        yield Shortage(f"{global_pressure.clause(log.constraint)}; {filled}")
    if order and order > 0 and _roomy(zones):
        yield Shortage(
            f"memory was free, but not in one piece of {size(page_size << order)} (order {order}): it is "
            "fragmented",
            advice=_IN_PIECES,
        )
    exhausted = [zone for zone in zones if zone.min_bytes and zone.free_bytes < zone.min_bytes]
    if exhausted and any(zone.name in _HIGH_ZONES for zone in _roomy(zones)):
        names = " and ".join(dict.fromkeys(zone.name for zone in exhausted))
        yield Shortage(
            f"low memory (zone {names}) was exhausted, while high memory was free, which this request cannot "
            "use",
            advice=_LOW_ZONES,
        )


def _roomy(zones: tuple[Zone, ...]) -> list[Zone]:
    """Return the zones with more free memory than their high watermark, at which kswapd sleeps."""
    return [zone for zone in zones if zone.high_bytes and zone.free_bytes > zone.high_bytes]


def _filled(info: MemInfo | None, page_size: int) -> str | None:
    """Return a clause on the memory that fills the machine, if that is slab, huge pages, memory of GPU
    drivers, or memory that no counter names."""
    if info is None or not info.ram_pages or "free" not in info.pages:
        return None
    usable = info.ram_pages - (info.reserved_pages or 0)
    slab = _sum(info, "slab_reclaimable", "slab_unreclaimable")
    huge_bytes = info.hugetlb_bytes
    gpu_bytes = info.gpu_bytes or 0
    unnamed = usable - _sum(info, *_COUNTED) - ((huge_bytes or 0) + gpu_bytes) // page_size
    if usable <= 0:
        return None
    if slab >= _MUCH_SLAB_SHARE * usable:
        held = f"{size(slab * page_size)} of its {size(usable * page_size)}"
        return f"{held} was slab, objects of the kernel"
    if huge_bytes is not None and huge_bytes >= _MUCH_HUGE_SHARE * usable * page_size:
        held = f"{size(huge_bytes)} of its {size(usable * page_size)}"
        unused = size(info.unused_hugetlb_bytes)
        return f"{held} was kept for huge pages (hugetlb), and {unused} of that was not in use"
    return _uncharged(
        unnamed * page_size, gpu_bytes, usable * page_size, is_pool_known=huge_bytes is not None
    )


def _uncharged(unnamed: int, of_gpus: int, usable: int, *, is_pool_known: bool) -> str | None:
    """Return a clause on much memory that no cgroup is charged for: of GPU drivers, or of no known kind."""
    if of_gpus >= _MUCH_GPU_SHARE * usable:
        return f"{size(of_gpus)} of its {size(usable)} was memory of GPU drivers"
    if unnamed >= _MUCH_UNNAMED_SHARE * usable:
        held = f"{size(unnamed)} of its {size(usable)} ({percent(unnamed, usable)})"
        huge = "" if is_pool_known else "huge pages, "
        return f"{held} was memory that no counter names: {huge}pages of drivers, or a leak in the kernel"
    return None


_COUNTED: Final = (
    *("active_anon", "inactive_anon", "isolated_anon", "active_file", "inactive_file", "isolated_file"),
    *("unevictable", "slab_reclaimable", "slab_unreclaimable", "pagetables", "sec_pagetables", "bounce"),
    *("free", "free_pcp", "kernel_misc_reclaimable"),
)
"""Counters of Mem-Info that do not overlap."""


def _sum(info: MemInfo, *names: str) -> int:
    return sum(info.pages.get(name, 0) for name in names)


def _free(info: MemInfo | None, page_size: int) -> str:
    """Return the end of the clause: the memory that was free; empty where the log does not show it."""
    if info is None or "free" not in info.pages:
        return ""
    free = info.pages["free"] * page_size
    if not info.ram_pages:
        return f"; {size(free)} of the machine was free"
    return f"; {size(free)} of the machine's {size(info.ram_pages * page_size)} was free"
