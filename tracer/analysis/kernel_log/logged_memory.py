"""The memory of a cgroup from a report of the kernel log, under the names of the columns of `samples`.

The report has the lines of memory.stat:

* on v2, those of v2;
* on v1, those of v1, with `total_` for the cgroup with all below it, since dddb44ffa0d5 ("memcg: dump
  memory.stat during cgroup OOM for v1"), v6.5;
* before that, those of v2 on v1 as well, since c8713d0b2312 ("mm: memcontrol: dump memory.stat during cgroup
  OOM"), v5.3;
* before that, a line for each cgroup, in KB, without the cgroups below it. Here they are added up.

Kernel memory is `kernel`; in logs of v1 it is one number, the counter `kmem`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tracer.categories import COUNTERS
from tracer.kernel.cgroups.memory_files import V1_STAT
from tracer.kernel.kmsg.report.log_report import LogReport
from tracer.schema import MEMORY_STAT_BYTES, UNLIMITED_BYTES

Sizes = dict[str, int | None]

DEFAULT_PAGE_SIZE: Final = 4096
_NEAR_BYTES: Final = 1 << 20  # more than the batches of charges that all CPUs hold back
_MOST_OF_USAGE: Final = 4
"""A size of more than this many times usage was misread from a broken line."""

_MOSTLY: Final = 0.8
"""The least share of usage that the parts in v1's memory.stat add up to if none is missing."""

_NOT_IN_USAGE: Final = frozenset({"swap", "zswapped", "swapcached"})
_PAGE_SIZES: Final = frozenset({4096, 8192, 16384, 32768, 65536})
_V2: Final = {counter.name: counter.v2_line for counter in COUNTERS}
_V1: Final = {column.removesuffix("_bytes"): name for name, column in V1_STAT.items()}
_V1_HIERARCHICAL: Final = {column: f"total_{name}" for column, name in _V1.items()}


def sizes(log: LogReport) -> Sizes:
    """Return the sizes of memory.stat (`schema.MEMORY_STAT_BYTES`) of the limit owner, in bytes."""
    values, names = ({}, {}) if is_in_part(log) else _values(log)
    found: Sizes = {name: values.get(names.get(name, "")) for name in MEMORY_STAT_BYTES}
    memory = log.counters.get("memory")
    if memory is not None:
        most = _MOST_OF_USAGE * max(memory.usage_bytes, _NEAR_BYTES)
        found = {
            name: value if value is None or value <= most or name in _NOT_IN_USAGE else None
            for name, value in found.items()
        }
    for name in _without_line(log, names):
        found[name] = 0 if found[name] is None else found[name]
    kmem, swap = log.counters.get("kmem"), log.counters.get("swap")
    if found["kernel"] is None and kmem is not None:
        found["kernel"] = kmem.usage_bytes
    if found["swap"] is None and swap is not None:
        found["swap"] = swap.usage_bytes
    return found


def is_in_part(log: LogReport) -> bool:
    """Return whether memory.stat of cgroups below the limit owner is missing.

    Where each cgroup has a line of its own, usage of the limit owner is the anonymous memory, the cache and
    the kernel memory of all of them. Lines are missing if what was printed adds up to much less.
    """
    memory, kmem = log.counters.get("memory"), log.counters.get("kmem")
    if memory is None or kmem is None or not log.stats or log.stats[0].resolution_bytes == 1:
        return False
    charged = sum(stat.values.get(name, 0) for stat in log.stats for name in ("cache", "rss"))
    return charged + kmem.usage_bytes < _MOSTLY * memory.usage_bytes - _NEAR_BYTES


def why_not(log: LogReport, name: str) -> str:
    """Return the reason why a size is not known."""
    if not any(stat.values for stat in log.stats):
        return "the kernel log has no memory.stat of it"
    if log.stats[0].is_cut or is_in_part(log):
        return "the kernel log has its memory.stat only in part"
    kmem = log.counters.get("kmem")
    if kmem is not None and name not in _V1:
        return f"the kernel log gives the kernel's memory as one number, {kmem.usage_bytes} bytes"
    return "the memory.stat in the kernel log has no line for it"


def swap(log: LogReport) -> tuple[int, int | None] | None:
    """Return (bytes in swap, the most that could be there; None: no known bound); None if the log has
    neither.

    On v1 the counter memory+swap bounds the two together.
    """
    memory, own, both = (log.counters.get(name) for name in ("memory", "swap", "memory+swap"))
    if own is not None:
        return own.usage_bytes, _bound(own.limit_bytes)
    if memory is None or both is None:
        return None
    used = max(both.usage_bytes - memory.usage_bytes, 0)
    room = max(both.limit_bytes - memory.limit_bytes, 0)
    return used, None if both.limit_bytes >= UNLIMITED_BYTES else room


def full_swap_limit(log: LogReport) -> int | None:
    """Return v1's limit of memory and swap together, in bytes, if it was the limit that was hit.

    Usage is then at this limit, and below the limit of memory alone.
    """
    memory, both = log.counters.get("memory"), log.counters.get("memory+swap")
    if memory is None or both is None or both.limit_bytes >= UNLIMITED_BYTES:
        return None
    is_full = both.limit_bytes - both.usage_bytes <= _NEAR_BYTES
    return both.limit_bytes if is_full and memory.limit_bytes - memory.usage_bytes > _NEAR_BYTES else None


def page_size(log: LogReport) -> int | None:
    """Return the size of a page in bytes, None if it is not known.

    It follows from the total_vm of a killed task, which is in pages in the table of tasks, and in kB in its
    kill line.
    """
    rows = {row.pid: row.total_vm_pages for row in log.tasks}
    for kill in log.kills:
        pages = rows.get(kill.pid)
        if pages and kill.total_vm_bytes is not None and kill.total_vm_bytes % pages == 0:
            found = kill.total_vm_bytes // pages
            if found in _PAGE_SIZES:
                return found
    return None


def _without_line(log: LogReport, names: Mapping[str, str]) -> tuple[str, ...]:
    """Return the sizes that are 0 if memory.stat has no line for them.

    On v2 a missing line proves nothing for huge pages, which were charged before they had a line
    (`categories.COUNTERS`).
    """
    if not log.stats or log.stats[0].is_cut or not names:
        return ()
    return ("zswap",) if names is _V2 else ("zswap", "hugetlb")


def _values(log: LogReport) -> tuple[Mapping[str, int], Mapping[str, str]]:
    """Return (name -> bytes as printed, name of a size -> its name in the report)."""
    if not log.stats:
        return {}, {}
    first = log.stats[0]
    if first.resolution_bytes > 1:
        added: dict[str, int] = {}
        for stat in log.stats:
            for name, value in stat.values.items():
                added[name] = added.get(name, 0) + value
        return added, _V1
    is_v1 = "total_rss" in first.values or "cache" in first.values
    return first.values, _V1_HIERARCHICAL if is_v1 else _V2


def _bound(limit_bytes: int) -> int | None:
    return None if limit_bytes >= UNLIMITED_BYTES else limit_bytes
