"""What the kernel log says about an OOM, as frozen dataclasses: one `LogReport` for each decision.

Names are the kernel's (mm/oom_kill.c, mm/memcontrol.c, mm/show_mem.c), sizes are bytes where the kernel
prints KB, and pages where the name says so. None is "the log does not say", and so is an empty tuple or
mapping whose section is in `LogReport.missing`.

Text of the log is as it was printed. Names in it (comm, cgroup path) are chosen by whoever runs there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Constraint = Literal["unknown", "memcg", "global", "cpuset", "mempolicy"]
CounterName = Literal["memory", "memory+swap", "swap", "kmem"]
"""As the lines begin: `memory+swap` and `kmem` on v1, `swap` on v2."""

Section = Literal["header", "stack", "counters", "memory.stat", "mem_info", "tasks", "summary", "kill"]
"""The parts of a report in the order of printing: `X invoked oom-killer`, the call trace, usage and limit and
memory.stat (memcg) or the zones (global), the table of tasks, `oom-kill:constraint=` (since Linux 5.0), and
`Killed process`."""

SECTIONS: Final[tuple[Section, ...]] = (
    "header",
    "stack",
    "counters",
    "memory.stat",
    "mem_info",
    "tasks",
    "summary",
    "kill",
)


@dataclass(frozen=True, slots=True)
class Stamp:
    """When and where in the log a line stood.

    `since_boot_ns` is printk's clock (near CLOCK_MONOTONIC, but not it). `wall` is the date and time that a
    log daemon or `dmesg -T` wrote before the line, as text. `line` counts from 1.
    """

    line: int
    since_boot_ns: int | None = None
    wall: str | None = None


@dataclass(frozen=True, slots=True)
class Invoker:
    """The task whose allocation invoked the OOM killer; from the header and the head of the call trace.

    `gfp_names` is what the kernel printed for the mask (`GFP_KERNEL|__GFP_ZERO`), `gfp` the number: which bit
    means what differs by kernel. `taint` is `Not tainted` or `Tainted: …`.
    """

    comm: str | None = None
    pid: int | None = None
    uid: int | None = None
    cpu: int | None = None
    gfp: int | None = None
    gfp_names: str | None = None
    order: int | None = None
    oom_score_adj: int | None = None
    kernel_release: str | None = None
    taint: str | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """Whom the `oom-kill:` line names, or on kernels before 5.0 `Kill process … or sacrifice child`: the task
    that was chosen, before it is killed. Those older kernels may then have killed a child of it instead.

    `score`, which only they print, is badness in thousandths of the memory that was allowed.
    """

    comm: str
    pid: int
    uid: int | None = None
    score: int | None = None


@dataclass(frozen=True, slots=True)
class Counter:
    """A page counter of the cgroup whose limit was hit.

    Without a limit `limit_bytes` is `schema.UNLIMITED_BYTES`. `failcnt`: how often it was hit (v2: the event
    `max`).
    """

    usage_bytes: int
    limit_bytes: int
    failcnt: int | None


@dataclass(frozen=True, slots=True)
class MemoryStat:
    """memory.stat of one cgroup, under the names that were printed.

    `values` are bytes, or counts of what the kernel counts (`pgfault`). `resolution_bytes` is 1024 where the
    kernel printed KB (v1 before Linux 5.3, `cache:4KB rss:…`), else 1. `is_cut`: the last line ended early.
    """

    cgroup: str
    values: Mapping[str, int]
    resolution_bytes: int = 1
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class SlabCache:
    """A row of `Unreclaimable slab info`."""

    name: str
    used_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A row of the table of tasks that could have been chosen. The kernel prints pages, here as there.

    `rss_anon_pages` and its like since Linux 6.9; `pgtables_bytes` since 4.15.
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


@dataclass(frozen=True, slots=True)
class Kill:
    """A `Killed process` line: a task that was sent SIGKILL.

    `reason` is what the line begins with (`Memory cgroup out of memory`).
    """

    stamp: Stamp
    pid: int
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
class Reaped:
    """What the oom_reaper says of a victim; `is_reaped` False: it was unable to."""

    stamp: Stamp
    pid: int
    comm: str
    is_reaped: bool
    anon_rss_bytes: int | None = None
    file_rss_bytes: int | None = None
    shmem_rss_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone's line of the report of a global OOM: `Node 0 DMA32 free:…kB min:…kB low:…kB high:…kB`."""

    node: int
    name: str
    free_bytes: int
    min_bytes: int | None
    low_bytes: int | None
    high_bytes: int | None
    managed_bytes: int | None


@dataclass(frozen=True, slots=True)
class MemInfo:
    """The state of the whole machine (show_mem). `pages` are the sums that follow `Mem-Info:` in pages
    (`active_anon`, `slab_unreclaimable`, `free`, …); `nodes` the same for each node, in bytes."""

    pages: Mapping[str, int] = field(default_factory=dict)
    nodes: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    zones: tuple[Zone, ...] = ()
    pagecache_pages: int | None = None
    swap_cache_pages: int | None = None
    free_swap_bytes: int | None = None
    total_swap_bytes: int | None = None
    ram_pages: int | None = None
    reserved_pages: int | None = None


@dataclass(frozen=True, slots=True)
class LogReport:
    """One decision of the OOM killer, as far as the log tells it.

    `missing`: the sections that a whole report of this kind has and this one lacks, because the log begins or
    ends within it, lines were lost, `vm.oom_dump_tasks` is 0, or the kernel printed only the kill since its
    rate limit was reached. `suppressed` is how many reports the kernel says, just before this one, that it
    did not print; `constraint` is a `Constraint`, or the word that a BPF policy printed for its own
    (`CONSTRAINT_…`); `dropped` how many lines of this one the log itself says were lost. `oom_memcg` is the
    cgroup whose limit was hit, `task_memcg` the victim's, `group_memcg` the one whose memory.oom.group had
    all its tasks killed. `counters` are `oom_memcg`'s, and so are `min_protection_bytes` and
    `low_protection_bytes`: what memory.min and memory.low protect in the cgroups below it (v2, new kernels).
    """

    stamp: Stamp
    last_line: int
    invoker: Invoker = Invoker()
    stack: tuple[str, ...] = ()
    constraint: str = "unknown"
    nodemask: str | None = None
    cpuset: str | None = None
    mems_allowed: str | None = None
    oom_memcg: str | None = None
    task_memcg: str | None = None
    group_memcg: str | None = None
    chosen: Chosen | None = None
    counters: Mapping[CounterName, Counter] = field(default_factory=dict)
    stats: tuple[MemoryStat, ...] = ()
    slabs: tuple[SlabCache, ...] = ()
    min_protection_bytes: int | None = None
    low_protection_bytes: int | None = None
    tasks: tuple[TaskRow, ...] = ()
    kills: tuple[Kill, ...] = ()
    reaped: tuple[Reaped, ...] = ()
    is_no_task_killable: bool = False
    is_panic_on_oom: bool = False
    mem_info: MemInfo | None = None
    suppressed: int = 0
    dropped: int = 0
    missing: tuple[Section, ...] = ()
