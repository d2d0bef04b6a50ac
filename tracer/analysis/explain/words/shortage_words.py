"""The words of a shortage: the clause of the summary that names it, and advice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from tracer.analysis.explain.measure.findings import FreeMemory, NoVictim, Shortage, ShortageKind
from tracer.units import percent, size

_SHORT: Final[Mapping[str, str]] = {
    "global": "the whole machine",
    "cpuset": "the memory nodes that its cpuset allows",
    "mempolicy": "the memory nodes that its memory policy allows",
}
"""Constraint -> what had no memory left."""

NO_VICTIM: Final[Mapping[NoVictim, str]] = {
    "panic_on_oom": "the kernel panicked, because vm.panic_on_oom is set",
    "panic": "the kernel panicked, because it found no process that it could kill",
    "none_killable": "there was no process that the kernel could kill",
}

# kernel.sysrq restricts the keys, not the file (Documentation/admin-guide/sysrq.rst).
_ADVICE: Final[Mapping[ShortageKind, str]] = {
    "by_hand": (
        "Find who invoked it: SysRq+F on a keyboard or a serial console, or a program that wrote `f` to "
        "/proc/sysrq-trigger. Without bit 64, kernel.sysrq forbids the keys, but not the file."
    ),
    "slab": (
        "Find what makes the kernel hold so much slab (slabtop, /proc/slabinfo): the processes' own memory "
        "is not the problem, and killing them does not free it."
    ),
    "pieces": (
        "More memory may not help: the request was for contiguous pages. Raise vm.min_free_kbytes, write 1 "
        "to /proc/sys/vm/compact_memory, or find what asks for so large a piece (the call trace)."
    ),
    "low_zones": (
        "More memory does not help: only low memory was short, which 32-bit kernels use for their own "
        "objects. Use a 64-bit kernel, or keep less there (slab, page tables, tasks)."
    ),
}
_UNKILLABLE: Final = (
    "Look for processes with oom_score_adj -1000, which the kernel may not kill, and for memory that no "
    "process holds."
)
_NODES: Final = (
    "Allow more memory nodes (cpuset.mems, set_mempolicy, numactl), or place less memory on these."
)
_BY_NODES: Final[tuple[ShortageKind, ...]] = ("high_zones", "none_left", "not_shown")
_FULL_SWAP_SHARE: Final = 0.02


def clause(shortage: Shortage) -> str:
    """Return the part of the summary that names the shortage, and the memory that was free."""
    words = CLAUSES[shortage.kind](shortage, shortage.numbers)
    if shortage.free is None or shortage.kind == "not_shown":
        return words
    return words + _free(shortage.free, shortage.constraint)


def none_left(constraint: str, nodes: str | None = None) -> str:
    """Return a clause on memory that was short; `nodes` as in `Shortage`, None: without them."""
    return f"{_SHORT[constraint]}{'' if nodes is None else _nodes(constraint, nodes)} had none left"


def advice(shortage: Shortage) -> tuple[str, ...]:
    """Return sentences to act on; empty if the advice on the cause applies."""
    if shortage.no_task_killable and shortage.kind != "policy_constraint":
        return (_UNKILLABLE,)
    if shortage.kind in _BY_NODES and shortage.constraint != "global":
        return (_NODES,)
    return (_ADVICE[shortage.kind],) if shortage.kind in _ADVICE else ()


def _nodes(constraint: str, nodes: str) -> str:
    """Return ` (node 3)`, or ` (nodes 0-1)`; empty for all nodes."""
    if constraint == "global":
        return ""
    if not nodes:
        return " (the log does not show which)"
    return f" (node {nodes})" if nodes.isdigit() else f" (nodes {nodes})"


def _filled(what: str) -> Callable[[Shortage, Mapping[str, Any]], str]:
    def words(it: Shortage, of: Mapping[str, Any]) -> str:
        held = f"{size(of['held_bytes'])} of its {size(of['machine_bytes'])}"
        return f"{none_left(it.constraint)}; {held} was {what}"

    return words


def _slab(it: Shortage, of: Mapping[str, Any]) -> str:
    cache = f", {size(of['cache_bytes'])} of it in {of['cache']}" if "cache" in of else ""
    return _filled("slab, objects of the kernel")(it, of) + cache


def _unnamed(it: Shortage, of: Mapping[str, Any]) -> str:
    share = percent(of["held_bytes"], of["machine_bytes"])
    held = f"{size(of['held_bytes'])} of its {size(of['machine_bytes'])} ({share})"
    huge = "" if of["is_hugetlb_known"] else "huge pages, "
    none = none_left(it.constraint)
    return f"{none}; {held} was memory that no counter names: {huge}pages of drivers, or a leak in the kernel"


CLAUSES: Final[Mapping[ShortageKind, Callable[[Shortage, Mapping[str, Any]], str]]] = {
    "below_limit": lambda _, of: (
        f"by the kernel log, the limit was not reached: usage was {size(of['usage_bytes'])}, and the limit "
        f"{size(of['limit_bytes'])}, so it is not known what was short"
    ),
    "policy_constraint": lambda it, _: f"a BPF policy had it killed ({it.constraint}); no limit was hit",
    "by_hand": lambda *_: (
        "somebody invoked the OOM killer by hand (SysRq-F), whether or not memory was short"
    ),
    "policy": lambda *_: "a BPF policy invoked the OOM killer",
    "page_fault": lambda *_: (
        "a page fault got no memory (pagefault_out_of_memory, gfp 0x0), and the log does not show why"
    ),
    "slab": _slab,
    "huge_pages": lambda it, of: (
        _filled("kept for huge pages (hugetlb)")(it, of)
        + f", and {size(of['unused_bytes'])} of that was not in use"
    ),
    "gpu": _filled("memory of GPU drivers"),
    "unnamed": _unnamed,
    "pieces": lambda _, of: (
        f"memory was free, but not in one piece of {size(of['piece_bytes'])} (order {of['order']}): it is "
        "fragmented"
    ),
    "low_zones": lambda _, of: (
        f"low memory (zone {' and '.join(of['zones'])}) was exhausted, while high memory was free, which "
        "this request cannot use"
    ),
    "high_zones": lambda it, of: (
        f"{_SHORT[it.constraint]}{_nodes(it.constraint, it.nodes)} had memory left only in zone "
        f"{' and '.join(of['zones'])}, which this request cannot use"
    ),
    "none_left": lambda it, _: none_left(it.constraint, it.nodes),
    "not_shown": lambda it, of: (
        f"the kernel found no memory that this request may use, although {size(of['free_bytes'])} of "
        f"{size(of['whole_bytes'])} was free on {_SHORT[it.constraint]}{_nodes(it.constraint, it.nodes)}; "
        "the log does not show why"
    ),
}
"""Kind of shortage -> its clause, from the shortage and its numbers."""


def _free(free: FreeMemory, constraint: str) -> str:
    """Return the end of the clause: the memory that was free, and the swap if it was full or absent."""
    machine = free.machine_bytes
    whole = "the machine" if machine is None else f"the machine's {size(machine)}"
    if constraint in ("cpuset", "mempolicy"):
        of_nodes = free.nodes_free_bytes
        there = "" if of_nodes is None else f"; {size(of_nodes)} of {size(free.nodes_bytes)} was free there"
        return f"{there}; on all nodes, {size(free.free_bytes)} of {whole} was free"
    return f"; {size(free.free_bytes)} of {whole} was free{_swap(free.free_swap_bytes, free.swap_bytes)}"


def _swap(free: int | None, total: int | None) -> str:
    if total == 0:
        return ", and it has no swap"
    if free is None or total is None or free > _FULL_SWAP_SHARE * total:
        return ""
    return f", and its swap of {size(total)} was full"
