"""The total that badness is measured against: the memory that was short, in pages.

For a cgroup it is the limit that was hit, and the swap that may be used beside it (mm/memcontrol.c,
`mem_cgroup_get_max`); limits of ancestors do not count. For the whole machine it is its memory and its swap.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import optional
from tracer.analysis.core.limits import limit_of
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import page_size
from tracer.kernel.kmsg.report.log_report import LogReport


def recorded_total_pages(subtree: Subtree, time_ns: int, first: Mapping[str, Any]) -> int | None:
    """Return the total of a recorded kill, in pages; None if it is not known.

    `first` is the first row of the table `oom` for this kill at `time_ns`, `subtree` that of the limit owner.
    The kernel's own number is used if a hook saw it; else the limits and the machine's memory give it.
    """
    trace = subtree.whole
    size = page_size(trace)
    if (seen := optional(first["total_bytes"])) is not None:
        return seen // size
    machine = trace.meta.get("memory") or {}
    swap_total = _pages(machine.get("swap_total_bytes"), size)
    if first["constraint"] == "global":
        return _sum(_pages(machine.get("total_bytes"), size), swap_total)
    owner, limit = optional(first["limit_owner_cgroup_id"]), _pages(limit_of(first), size)
    if first["constraint"] != "memcg" or owner is None or limit is None:
        return None
    swap_limit = _pages(ledger.reading(subtree, "swap_limit_bytes").at(time_ns), size)
    if trace.meta.get("cgroup_version") == 2:
        return memcg_total_pages(limit, swap_limit, swap_total, machine.get("swappiness"))
    swap_room = None if swap_limit is None else swap_limit - limit
    swappiness = ledger.reading(subtree, "swappiness").at(time_ns)
    return memcg_total_pages(limit, swap_room, swap_total, swappiness)


def logged_total_pages(log: LogReport, page_size_bytes: int) -> int | None:
    """Return the total of a kill in a kernel log, in pages; None if it is not known.

    A log does not have the swappiness, and has the machine's swap only if the whole machine was short.
    """
    if log.constraint == "global":
        machine = log.mem_info
        if machine is None or machine.ram_pages is None or machine.reserved_pages is None:
            return None
        return _sum(
            machine.ram_pages - machine.reserved_pages, _pages(machine.total_swap_bytes, page_size_bytes)
        )
    memory = log.counters.get("memory")
    if log.constraint != "memcg" or memory is None:
        return None
    limit = memory.limit_bytes // page_size_bytes
    if (swap := log.counters.get("swap")) is not None:
        return memcg_total_pages(limit, swap.limit_bytes // page_size_bytes, None, None)
    together = log.counters.get("memory+swap")
    room = None if together is None else together.limit_bytes // page_size_bytes - limit
    return memcg_total_pages(limit, room, None, None)


def memcg_total_pages(
    limit_pages: int, swap_room_pages: int | None, swap_total_pages: int | None, swappiness: int | None
) -> int | None:
    """Return the total of a cgroup: its limit, and the part of the machine's swap that it may use.

    `swap_room_pages` is memory.swap.max; on v1 memory.memsw.limit_in_bytes less the limit. With a swappiness
    of 0 (vm.swappiness; on v1 the cgroup's own memory.swappiness) swap does not count. None: it is not known
    how much swap counts.
    """
    if 0 in (swap_room_pages, swap_total_pages, swappiness):
        return limit_pages
    if swap_room_pages is None or swap_total_pages is None or swappiness is None:
        return None
    return limit_pages + min(swap_room_pages, swap_total_pages)


def _pages(size_bytes: int | None, page_size_bytes: int) -> int | None:
    return None if size_bytes is None else size_bytes // page_size_bytes


def _sum(memory_pages: int | None, swap_pages: int | None) -> int | None:
    return None if memory_pages is None or swap_pages is None else memory_pages + swap_pages
