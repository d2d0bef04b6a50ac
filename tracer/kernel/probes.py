"""The signals that the tracer records: for each, the ways to get it, best first, and the cost of its absence.

This module is data. tracer/capture/bpf/hooks.py takes the first way that the running kernel offers. It looks
at the kernel, never at a version number.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """The way in which a program is attached, the cheapest first."""

    TYPED_TRACEPOINT = "typed_tracepoint"  # BPF_TRACE_RAW_TP: the verifier knows the types of the arguments
    FENTRY = "fentry"  # BPF trampolines: kernel/bpf/trampoline.c
    FEXIT = "fexit"
    KPROBE = "kprobe"  # Documentation/trace/kprobes.rst
    KRETPROBE = "kretprobe"

    @property
    def family(self) -> str:
        """Return the kind that a user can force by MEMCG_TRACER_HOOKS; entry and exit of a function belong
        together."""
        return {Kind.FEXIT: Kind.FENTRY, Kind.KRETPROBE: Kind.KPROBE}.get(self, self).value


@dataclass(frozen=True)
class Hook:
    """A function of bpf/ that is attached to one place in the kernel.

    `argument` is the type of the first argument at that place, if several forms of it exist and the function
    reads only one.
    """

    kind: Kind
    target: str
    function: str
    argument: str = ""

    @property
    def program(self) -> str:
        """Return the name of its BPF program (by the macros in bpf/shared/kernel.h)."""
        return self.function if self.kind is Kind.TYPED_TRACEPOINT else f"{self.kind}_{self.function}"


@dataclass(frozen=True)
class Way:
    """The hooks that together give a signal."""

    hooks: tuple[Hook, ...]

    @property
    def family(self) -> str:
        """Return the family of its hooks."""
        return self.hooks[0].kind.family

    def __str__(self) -> str:
        return " + ".join(f"{hook.kind} {hook.target}" for hook in self.hooks)


@dataclass(frozen=True)
class Signal:
    """A kind of event that the tracer records; `stream` is the ring that it feeds (`tracer.wire.streams`).

    `is_calibration`: its hooks are attached for a moment, at the start, to find the kernel's counters.
    `samples`: the kinds of memory for whose growth its hooks sample the code. They are attached only while a
    traced cgroup grows in such memory. `only_with`: a function; a kernel without it does not need the signal.
    """

    name: str
    stream: str
    ways: tuple[Way, ...]
    meaning: str
    without: str  # what the user loses without it
    required: bool = False
    only_version: int | None = None  # of cgroups; None: both
    is_calibration: bool = False
    samples: tuple[str, ...] = ()
    only_with: str = ""


def _tracepoint(*names: str, end: str = "", argument: str = "") -> tuple[Way, ...]:
    """Return the way by tracepoints; a program has the name of its tracepoint, but all ends of reclaim
    (`end`) share one."""
    begins = [Hook(Kind.TYPED_TRACEPOINT, name, name, argument) for name in names]
    ends = [Hook(Kind.TYPED_TRACEPOINT, end, "reclaim_end")] if end else []
    return (Way((*begins, *ends)),)


def _entry(function: str, *targets: str, argument: str) -> tuple[Way, ...]:
    """Return the ways by the entry of the first of these functions that exists: fentry, else kprobe."""
    return tuple(
        Way((Hook(kind, target, function, argument),))
        for kind in (Kind.FENTRY, Kind.KPROBE)
        for target in targets
    )


def _both_ends(enter: str, leave: str, *targets: str, argument: str = "") -> tuple[Way, ...]:
    """Return the ways by entry and exit of the first of these functions that exists."""
    return tuple(
        Way((Hook(begin, target, enter, argument), Hook(end, target, leave, argument)))
        for begin, end in ((Kind.FENTRY, Kind.FEXIT), (Kind.KPROBE, Kind.KRETPROBE))
        for target in targets
    )


SIGNALS: Final = (
    Signal(
        "memory by kind",
        "charge",
        _tracepoint("sched_switch"),
        "every change of every kind of memory: the counters of a task's cgroup are read when it leaves a CPU",
        "no ledger: the processes that charged memory are not known",
        required=True,
    ),
    Signal(
        "task moved",
        "charge",
        _tracepoint("cgroup_attach_task"),
        "a process moves itself into another cgroup: what it changes from then on is its own",
        "what a process changes between its move and its next context switch is of no known process",
    ),
    Signal(
        "timers",
        "charge",
        _tracepoint("hrtimer_expire_entry"),
        "a timer expires on a CPU: every 10 ms, the sums and runs of the CPU are sent",
        "they are sent every 200 ms only, so a change of memory may be seen so much later",
    ),
    Signal(
        "node counters",
        "charge",
        (
            *_tracepoint("mod_memcg_lruvec_state"),
            # Later kernels pass the node's counters instead of its lists (seen on 7.3).
            *_entry("enter_lruvec_state", "__mod_memcg_lruvec_state", argument="lruvec"),
            *_entry("enter_node_state", "__mod_memcg_lruvec_state", argument="mem_cgroup_per_node"),
            *_entry("enter_lruvec_state", "mod_memcg_lruvec_state", argument="lruvec"),
        ),
        "shows at the start where the kernel counts anon, file, shmem, slab, kernel stacks, page tables",
        "no ledger: the counters of memory are not found",
        required=True,
        is_calibration=True,
        samples=("shmem",),
    ),
    Signal(
        "memcg counters",
        "charge",
        (
            *_tracepoint("mod_memcg_state"),
            *_entry("enter_memcg_state", "__mod_memcg_state", "mod_memcg_state", argument="mem_cgroup"),
        ),
        "shows at the start where the kernel counts socket, percpu, vmalloc, swap and all kernel memory",
        "no ledger of kernel memory, sockets and swap",
        required=True,
        is_calibration=True,
        samples=("kernel",),
    ),
    Signal(
        "event counters",
        "charge",
        (
            *_tracepoint("count_memcg_events"),
            *_entry(
                "enter_count_events", "__count_memcg_events", "count_memcg_events", argument="mem_cgroup"
            ),
        ),
        "shows at the start where the kernel counts pages scanned and stolen",
        "the kernel's count of evictions is not known on v1, whose memory.stat does not print it",
        is_calibration=True,
    ),
    Signal(
        "anonymous growth",
        "code_sample",
        _tracepoint("rss_stat"),
        "the code that makes a process's anonymous memory grow, while a traced cgroup grows",
        "the code that grew is not known",
        samples=("anon",),
    ),
    Signal(
        "anonymous page",
        "code_sample",
        _entry("enter_anon_page", "page_add_new_anon_rmap", argument="page"),
        "the code that touches a page, where the counter that shows growth is late",
        "the code that makes a process's anonymous memory grow by small pages is not known",
        samples=("anon",),
        # until f1a7941243c1 ("mm: convert mm's rss stats into percpu_counter"), v6.2
        only_with="sync_mm_rss",
    ),
    Signal(
        "memory moved",
        "code_sample",
        _tracepoint("vm_unmapped_area"),
        "where mremap(2) moves memory that was sampled, so that its freeing is seen",
        "samples of memory that mremap(2) moves count as held, also after it is freed",
        samples=("anon",),
    ),
    Signal(
        "cache growth",
        "code_sample",
        (Way((Hook(Kind.TYPED_TRACEPOINT, "mm_filemap_add_to_page_cache", "cache_growth"),)),),
        "the code that fills the page cache, while a traced cgroup grows",
        "the code that fills the page cache is not known",
        samples=("file",),
    ),
    Signal(
        "cache added",
        "pagecache",
        _tracepoint("mm_filemap_add_to_page_cache"),
        "every folio that enters the page cache",
        "cache growth is seen in samples only, without file or process",
        required=True,
    ),
    Signal(
        "cache deleted",
        "pagecache",
        _tracepoint("mm_filemap_delete_from_page_cache"),
        "every folio that leaves the page cache",
        "evictions are not known: neither their size nor their cause",
        required=True,
    ),
    Signal(
        "file fault",
        "pagecache",
        (
            *_tracepoint("mm_filemap_fault"),
            *_entry("enter_filemap_fault", "filemap_fault", argument="vm_fault"),
        ),
        "distinguishes folios added for a page fault from folios added for read(2)",
        "faults on files are counted as reads or as other, and waits in them are for no known file",
    ),
    Signal(
        "memcg reclaim",
        "reclaim",
        _tracepoint("mm_vmscan_memcg_reclaim_begin", end="mm_vmscan_memcg_reclaim_end"),
        "start and end of reclaim in a cgroup, at its limit or on request; pages freed",
        "no reclaim attempts of cgroups",
        required=True,
    ),
    Signal(
        "reclaim target",
        "reclaim",
        _entry("enter_memcg_reclaim", "try_to_free_mem_cgroup_pages", argument="mem_cgroup"),
        "the cgroup that is reclaimed from, and whether reclaim was requested, from the kernel's own call",
        "the target is found by its page counter, and reclaim below every limit is assumed to be proactive",
    ),
    Signal(
        "soft-limit reclaim",
        "reclaim",
        _tracepoint("mm_vmscan_memcg_softlimit_reclaim_begin", end="mm_vmscan_memcg_softlimit_reclaim_end"),
        "soft-limit reclaim (v1), start and end",
        "no soft-limit reclaim",
        only_version=1,
    ),
    Signal(
        "direct reclaim",
        "reclaim",
        _tracepoint("mm_vmscan_direct_reclaim_begin", end="mm_vmscan_direct_reclaim_end"),
        "start and end of reclaim by a task when the machine is short of memory; pages freed",
        "no direct reclaim",
        required=True,
    ),
    Signal(
        "kswapd",
        "reclaim",
        _tracepoint("mm_vmscan_kswapd_wake", end="mm_vmscan_kswapd_sleep"),
        "background reclaim, start and end",
        "no kswapd activity",
    ),
    Signal(
        "lists shrunk",
        "reclaim",
        _tracepoint("mm_vmscan_lru_shrink_inactive"),
        "pages scanned and freed by list, dirty, under writeback, referenced; the priority",
        "reclaim attempts have no numbers of scanned pages",
        required=True,
    ),
    Signal(
        "slab shrunk",
        "reclaim",
        _tracepoint("mm_shrink_slab_start", "mm_shrink_slab_end"),
        "the cgroup whose slab is shrunk, and by how much: names a reclaim target that no other signal names",
        "the target of reclaim on request may stay unknown",
    ),
    Signal(
        "pages written",
        "reclaim",
        _tracepoint("mm_vmscan_write_folio"),
        "pages that reclaim writes to swap or to a file system",
        "the number of pages that reclaim swapped out is not known",
    ),
    Signal(
        "reclaim waits",
        "stall",
        _tracepoint("mm_vmscan_throttled"),
        "a reclaiming task waits: for writeback, for other tasks, or because it freed nothing",
        "waits in reclaim are only a part of its duration",
    ),
    Signal(
        "writer waits",
        "stall",
        _tracepoint("balance_dirty_pages"),
        "a writing task waits, because too many pages are dirty",
        "the waits of writers are not known",
    ),
    Signal(
        "memory.high",
        "stall",
        # Later kernels have the common case in a header, and a new name for the rest (seen on 6.18).
        _both_ends(
            "enter_over_high",
            "leave_over_high",
            "__mem_cgroup_handle_over_high",
            "mem_cgroup_handle_over_high",
        ),
        "a task in a cgroup above memory.high reclaims and sleeps",
        "the waits of tasks for memory.high are only a part of their cgroup's pressure",
        only_version=2,
    ),
    Signal(
        "swap-in",
        "stall",
        _both_ends("enter_swap_in", "leave_swap_in", "do_swap_page", argument="vm_fault"),
        "a task faults on swapped memory, and waits for it",
        "the waits of tasks for swapped memory are not known, only the time to read it",
    ),
    Signal(
        "swap IO",
        "swap_io",
        _tracepoint("block_bio_queue", "block_bio_complete", "block_rq_complete"),
        "pages written to swap or read from it: their cgroup, the process, and the duration",
        "the durations of writes to swap, and of reads from it, are not known",
    ),
    Signal(
        "kill signal",
        "oom",
        _tracepoint("signal_generate"),
        "the kernel sends SIGKILL: an OOM kill, and not only the mark of a task that was dying already",
        "no OOM kills",
        required=True,
    ),
    Signal(
        "OOM kill",
        "oom",
        (
            # Before 72ba14deb40a ("mm: update mark_victim tracepoints fields"), v6.9, the tracepoint passes
            # only a pid.
            *_tracepoint("mark_victim", argument="task_struct"),
            *_entry("enter_mark_victim", "mark_oom_victim", argument="task_struct"),
        ),
        "a task is chosen to be killed",
        "no OOM kills",
        required=True,
    ),
    Signal(
        "memory at a kill",
        "charge",
        (Way((Hook(Kind.TYPED_TRACEPOINT, "mark_victim", "kill_levels"),)),),
        "what each cgroup below the limit held at the kill, as its own counters had it",
        "what a task reclaimed from other cgroups just before a kill may be found up to 200 ms after it",
    ),
    Signal(
        "OOM decision",
        "oom",
        _both_ends("enter_oom", "leave_oom", "out_of_memory", argument="oom_control"),
        "the limit that was hit, the allocation (gfp, order) and the allowed pages, as the kernel has them",
        "limit owner and gfp are inferred from page counters and the last reclaim; the order is not known",
    ),
    Signal(
        "OOM candidates",
        "candidate",
        _both_ends("enter_badness", "leave_badness", "oom_badness", argument="task_struct"),
        "the badness of each task that the kernel weighed",
        "the processes that the kernel weighed are not known",
    ),
    Signal(
        "SIGKILL",
        "sigkill",
        (Way((Hook(Kind.TYPED_TRACEPOINT, "signal_generate", "sigkill"),)),),
        "a process gets SIGKILL: the sender, its parents, and the way",
        "a process that was killed, but not by the OOM killer, ends for no known reason",
    ),
    Signal(
        "strict seccomp",
        "sigkill",
        (Way((Hook(Kind.TYPED_TRACEPOINT, "sched_process_exit", "seccomp_exit"),)),),
        "a process ends as by SIGKILL, because seccomp forbids its system call",
        "the ends by strict seccomp, for which the kernel sends no signal, are not known",
    ),
    Signal(
        "cgroup made",
        "cgroup",
        _tracepoint("cgroup_mkdir"),
        "a cgroup is made",
        "cgroups made during the trace have no name",
    ),
    Signal(
        "cgroup removed",
        "cgroup",
        _tracepoint("cgroup_rmdir"),
        "a cgroup is removed",
        "removal times are not known",
    ),
    Signal(
        "cgroup renamed",
        "cgroup",
        _tracepoint("cgroup_rename"),
        "a cgroup gets another name",
        "a renamed cgroup keeps its old name, and is not found by the new one",
        only_version=1,
    ),
    Signal(
        "process name",
        "task",
        _tracepoint("sched_process_exec"),
        "a process takes its program's name",
        "names may be the parent's",
    ),
    Signal(
        "process end",
        "task",
        _tracepoint("sched_process_exit"),
        "a process ends",
        "reused process ids may be mixed up",
    ),
)


def needed(version: int) -> tuple[Signal, ...]:
    """Return the signals of a trace of cgroups of `version`."""
    return tuple(signal for signal in SIGNALS if signal.only_version in (None, version))


UNREAD: Final = {
    "mm_vmscan_balance_pgdat_begin": "the runs of kswapd one by one",
    "mm_vmscan_kswapd_reclaim_fail": "the runs in which kswapd freed nothing",
    "mm_vmscan_kswapd_clear_hopeless": "that kswapd tries again",
    "mm_vmscan_reclaim_pages": "what DAMON and madvise had reclaimed",
    "memcg_flush_stats": "when the kernel adds up its statistics",
}
"""Tracepoint of newer kernels that no signal uses -> what it would show."""
