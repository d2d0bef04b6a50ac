"""The categories of memory that the ledger counts, each with what the kernel calls its counter.

The position in `CATEGORIES` is the number on the wire. `bpf/categories.h` is generated from this table
(tracer/wire/category_header.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Unit = Literal["bytes", "KiB", "pages"]


@dataclass(frozen=True, slots=True)
class Category:
    """A category of memory, named as in memory.stat of cgroup v2.

    `node_items` and `memcg_items` are the names that its counter has or had in enum node_stat_item and in
    enum memcg_stat_item; a kernel has one of them. `unit` is what the kernel counts in
    (memcg_page_state_unit in mm/memcontrol.c). `is_reported_exactly`: the memcg tracepoints report each
    change in full. They round the other counters to pages, and interrupts change these counters unseen.
    """

    name: str
    node_items: tuple[str, ...] = ()
    memcg_items: tuple[str, ...] = ()
    unit: Unit = "pages"
    is_reported_exactly: bool = False

    @property
    def items(self) -> tuple[str, ...]:
        """Every name of its counter, of either enum."""
        return self.node_items + self.memcg_items

    @property
    def item(self) -> str:
        """The name by which its counter is known here, whatever this kernel calls it."""
        return self.items[-1]


CATEGORIES: Final = (
    Category("anon", node_items=("NR_ANON_MAPPED",), is_reported_exactly=True),
    Category("file", node_items=("NR_FILE_PAGES",), is_reported_exactly=True),
    Category("shmem", node_items=("NR_SHMEM",), is_reported_exactly=True),
    Category("slab_reclaimable", node_items=("NR_SLAB_RECLAIMABLE_B",), unit="bytes"),
    Category("slab_unreclaimable", node_items=("NR_SLAB_UNRECLAIMABLE_B",), unit="bytes"),
    Category("kernel_stack", node_items=("NR_KERNEL_STACK_KB",), unit="KiB"),
    Category("page_tables", node_items=("NR_PAGETABLE",)),
    Category("sock", memcg_items=("MEMCG_SOCK",)),
    Category("percpu", memcg_items=("MEMCG_PERCPU_B",), unit="bytes"),
    # A node's counter since "mm: memcontrol: switch to native NR_VMALLOC vmstat counter" (7.1).
    Category("vmalloc", node_items=("NR_VMALLOC",), memcg_items=("MEMCG_VMALLOC",)),
    Category("swap", memcg_items=("MEMCG_SWAP",), is_reported_exactly=True),
    Category("kernel", memcg_items=("MEMCG_KMEM",)),
)
"""`file` is NR_FILE_PAGES and so contains `shmem`. `kernel` is MEMCG_KMEM and so contains slab, stacks, page
tables, percpu, vmalloc, and the remainder that has no counter of its own. Usage is anon + file + kernel +
sock (mm/memcontrol.c, memory_stat_format).
"""
