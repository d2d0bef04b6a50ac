"""The facts of an OOM report as immutable records: one `LogReport` for each decision of the OOM killer.

Names are the kernel's (mm/oom_kill.c, mm/memcontrol.c, mm/show_mem.c). Sizes are in bytes, even if the kernel
prints KB, or in pages if the name says so. None means that the log does not have the fact. So does an empty
tuple or mapping whose section is in `LogReport.missing`.

A log has millions of rows and kills, and a tuple is made in a fifth of the time of a dataclass. So what many
lines show is a named tuple.

Text is kept as it was printed. Users of the machine choose the names in it (comm, cgroup path).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, get_args

from tracer.kernel.kmsg.text.styles import Stamp

Constraint = Literal["unknown", "memcg", "global", "cpuset", "mempolicy"]
CounterName = Literal["memory", "memory+swap", "swap", "kmem"]
"""The first word of a counter's line: `memory+swap` and `kmem` exist on v1, `swap` on v2."""

Section = Literal["header", "stack", "counters", "memory.stat", "mem_info", "tasks", "summary", "kill"]
"""A part of a report: `X invoked oom-killer`, the call trace, usage and limit and memory.stat (memcg) or the
zones (global), the table of tasks, `oom-kill:constraint=` (since v5.0), and `Killed process`."""

SECTIONS: Final[tuple[Section, ...]] = get_args(Section)
"""The sections in the order of printing."""


class Invoker(NamedTuple):
    """The task whose allocation invoked the OOM killer, from the header and the head of the call trace.

    `gfp` is the number of the mask, whose bits differ by release, and `gfp_names` are the names that the
    kernel printed for it (`GFP_KERNEL|__GFP_ZERO`). `taint` is `Not tainted` or `Tainted: …`.
    """

    comm: str | None = None
    pid: int | None = None
    gfp: int | None = None
    gfp_names: str | None = None
    order: int | None = None
    kernel_release: str | None = None
    taint: str | None = None


NOBODY: Final = Invoker()


class Chosen(NamedTuple):
    """The task that was chosen, before it is killed: from the `oom-kill:` line, or without one from
    `Kill process … or sacrifice child` (`summary_line`).

    Before bbbe48029720 ("mm, oom: remove 'prefer children over parent' heuristic"), v5.2, the kernel may kill
    a child of this task instead.
    """

    comm: str
    pid: int
    uid: int | None = None


class Counter(NamedTuple):
    """A page counter of the cgroup whose limit was hit.

    Without a limit, `limit_bytes` is `schema.UNLIMITED_BYTES`. `failcnt` is the number of times that the
    limit was hit (v2: the event `max`).
    """

    usage_bytes: int
    limit_bytes: int
    failcnt: int | None


class MemoryStat(NamedTuple):
    """memory.stat of one cgroup, under the names that were printed.

    `values` are bytes, or counts of events (`pgfault`). `resolution_bytes` is 1024 if the kernel printed KB
    (v1 before v5.3: `cache:4KB rss:…`), else 1. `is_cut`: the end is missing.
    """

    cgroup: str
    values: Mapping[str, int]
    resolution_bytes: int = 1
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class OwnerMemory:
    """The memory of the cgroup whose limit was hit: `counters` and `stats` as `LogReport` has them."""

    counters: Mapping[CounterName, Counter]
    stats: tuple[MemoryStat, ...]


class TaskRow(NamedTuple):
    """A row of the table of tasks that could have been chosen; sizes are in pages, as the kernel prints them.

    `rss_anon_pages`, `rss_file_pages` and `rss_shmem_pages` exist since "mm, oom:dump_tasks add rss detailed
    information printing", v6.8; `pgtables_bytes` since af5b0f6a09e4 ("mm: consolidate page table
    accounting"), v4.15.
    """

    pid: int
    uid: int
    tgid: int
    total_vm_pages: int
    rss_pages: int
    rss_anon_pages: int | None
    rss_file_pages: int | None
    rss_shmem_pages: int | None
    pgtables_bytes: int | None
    swapents_pages: int
    oom_score_adj: int
    comm: str

    def sizes_bytes(self, page_size: int) -> dict[str, int | None]:
        """Return what the task held, in bytes, by the names of the columns of the table `oom`."""
        pages = {
            "anon_rss_bytes": self.rss_anon_pages,
            "file_rss_bytes": self.rss_file_pages,
            "shmem_rss_bytes": self.rss_shmem_pages,
            "swap_bytes": self.swapents_pages,
        }
        sizes = {name: None if count is None else count * page_size for name, count in pages.items()}
        return sizes | {"pgtables_bytes": self.pgtables_bytes}


class Kill(NamedTuple):
    """A task that was sent SIGKILL, from a `Killed process` line.

    `pid` is None if the line names the task without it, as some users post it. `reason` is the beginning of
    the line (`Memory cgroup out of memory`).
    """

    stamp: Stamp
    pid: int | None
    comm: str
    reason: str | None = None
    uid: int | None = None
    total_vm_bytes: int | None = None
    anon_rss_bytes: int | None = None
    file_rss_bytes: int | None = None
    shmem_rss_bytes: int | None = None
    pgtables_bytes: int | None = None
    oom_score_adj: int | None = None


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone in the report of a global OOM, from `Node 0 DMA32 free:…kB min:…kB low:…kB high:…kB`.

    `free_cma_bytes` is the part of free memory that is kept for drivers (CMA), and that only movable
    allocations may use. `reserve_pages` are kept from requests that may use the highest zone (the last number
    of lowmem_reserve).
    """

    node: int
    name: str
    free_bytes: int
    min_bytes: int | None
    high_bytes: int | None
    managed_bytes: int | None
    free_cma_bytes: int = 0
    reserve_pages: int = 0


PAGE_SIZES: Final = (4096, 8192, 16384, 32768, 65536)


@dataclass(frozen=True, slots=True)
class MemInfo:
    """The memory of the whole machine (show_mem, mm/show_mem.c).

    `pages` are the sums after `Mem-Info:`, in pages (`active_anon`, `slab_unreclaimable`, `free`, …).
    `hugetlb_bytes` is the pool of huge pages of all sizes on all nodes; no sum contains it.
    `unused_hugetlb_bytes` is the part of the pool that is not in use. `unreclaimable_caches` are the slab
    caches that cannot be reclaimed, with their sizes in bytes: the kernel lists them if unreclaimable slab is
    more than the processes' memory and the page cache (should_dump_unreclaim_slab, mm/oom_kill.c).
    `gpu_bytes` is the memory of GPU drivers on all nodes, in use or kept for reuse (NR_GPU_ACTIVE,
    NR_GPU_RECLAIM); no sum contains it.
    """

    pages: Mapping[str, int] = field(default_factory=dict)
    zones: tuple[Zone, ...] = ()
    free_swap_bytes: int | None = None
    total_swap_bytes: int | None = None
    ram_pages: int | None = None
    reserved_pages: int | None = None
    hugetlb_bytes: int | None = None
    unused_hugetlb_bytes: int | None = None
    unreclaimable_caches: Mapping[str, int] = field(default_factory=dict)
    gpu_bytes: int | None = None

    @property
    def usable_pages(self) -> int | None:
        """Return the pages of the machine that are not reserved; None: not known."""
        return None if self.ram_pages is None else self.ram_pages - (self.reserved_pages or 0)

    @property
    def page_size(self) -> int | None:
        """Return the size of a page in bytes, if all zones are shown: their sizes are in kB, and the size of
        the machine is in pages; None: not known."""
        managed_bytes, pages = sum(zone.managed_bytes or 0 for zone in self.zones), self.usable_pages or 0
        return next(
            (size for size in PAGE_SIZES if 0.9 * size * pages < managed_bytes < 1.1 * size * pages), None
        )


@dataclass(frozen=True, slots=True)
class LogReport:
    """One decision of the OOM killer, as far as the log shows it.

    `constraint` is a `Constraint`, or the word (`CONSTRAINT_…`) of a BPF policy. `oom_memcg` is the cgroup
    whose limit was hit, `task_memcg` the cgroup of the victim, and `group_memcg` the cgroup all of whose
    tasks were killed because of its memory.oom.group. `container` is the number or the UUID of the container
    of OpenVZ that was at its limit. `counters` belong to `oom_memcg`, as does
    `min_protection_bytes`: the bytes that memory.min protects in the cgroups below it (v2, new kernels).

    `nodemask` are the nodes of a memory policy, and `mems_allowed` the nodes of the cpuset.
    `may_be_confined`: no line shows that the request could use all nodes of the machine, although
    `constraint` is `global`: `Out of memory` is also printed for a cpuset or a memory policy. `is_panic`: the
    kernel panicked instead of killing, under vm.panic_on_oom (`is_panic_on_oom`) or without a task to kill.

    `missing` are the sections that a complete report of this kind has and this one lacks: the log begins or
    ends within it, lines were lost, `vm.oom_dump_tasks` is 0, or the kernel printed only the kill because its
    rate limit was reached. The log itself states two numbers: `suppressed`, the reports that the kernel did
    not print before this report, and `dropped`, the lost lines of this report.
    """

    stamp: Stamp
    last_line: int
    invoker: Invoker = NOBODY
    stack: tuple[str, ...] = ()
    constraint: str = "unknown"
    nodemask: str | None = None
    mems_allowed: str | None = None
    may_be_confined: bool = False
    oom_memcg: str | None = None
    task_memcg: str | None = None
    group_memcg: str | None = None
    container: str | None = None
    chosen: Chosen | None = None
    counters: Mapping[CounterName, Counter] = field(default_factory=dict)
    stats: tuple[MemoryStat, ...] = ()
    min_protection_bytes: int | None = None
    tasks: tuple[TaskRow, ...] = ()
    kills: tuple[Kill, ...] = ()
    is_no_task_killable: bool = False
    is_panic_on_oom: bool = False
    is_panic: bool = False
    mem_info: MemInfo | None = None
    suppressed: int = 0
    dropped: int = 0
    missing: tuple[Section, ...] = ()

    @property
    def memory(self) -> OwnerMemory:
        """Return the memory of the limit owner."""
        return OwnerMemory(self.counters, self.stats)
