"""The signals: which tracepoint carries each, which program reads it, and what is lost without it.

Data, not code. A signal is there when the kernel's BTF has its tracepoint and its program loads; nothing
looks at a version number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Signal:
    """A tracepoint that a program is attached to as a raw one (Documentation/trace/tracepoints.rst)."""

    stream: str  # ring (a key of schema.WIRE) that it feeds
    tracepoint: str
    meaning: str
    without: str  # what the user does not get where it is missing
    required: bool = True
    only_v1: bool = False

    @property
    def program(self) -> str:
        """The BPF program in bpf/ that reads it: of the tracepoint's name, but reclaim's ends share one."""
        ends_reclaim = self.stream == "reclaim" and self.tracepoint.endswith(("_end", "_sleep"))
        return "reclaim_end" if ends_reclaim else self.tracepoint


SIGNALS: Final = (
    Signal(
        "charge",
        "mod_memcg_lruvec_state",
        "every change of anon, file, shmem, slab, kernel stack and page-table memory, exact",
        "no ledger: who charged what is not known",
    ),
    Signal(
        "charge",
        "mod_memcg_state",
        "every change of socket, percpu, vmalloc, swap and all kernel memory, exact",
        "no ledger of kernel memory, sockets and swap",
    ),
    Signal(
        "pagecache",
        "mm_filemap_add_to_page_cache",
        "every folio that enters the page cache",
        "cache growth is seen in samples only, without file or process",
    ),
    Signal(
        "pagecache",
        "mm_filemap_delete_from_page_cache",
        "every folio that leaves the page cache",
        "evictions are not known: neither how much nor by whom",
    ),
    Signal(
        "pagecache",
        "mm_filemap_fault",
        "tells folios added for a page fault from those added for read(2)",
        "faults on files are counted as reads or as other (the tracepoint came with 6.12)",
        required=False,
    ),
    Signal(
        "reclaim",
        "mm_vmscan_memcg_reclaim_begin",
        "a cgroup at its limit begins to reclaim; the target is found by its page counter",
        "no reclaim attempts of cgroups",
    ),
    Signal(
        "reclaim",
        "mm_vmscan_memcg_reclaim_end",
        "and ends, with the pages freed",
        "no reclaim attempts of cgroups",
    ),
    Signal(
        "reclaim",
        "mm_vmscan_memcg_softlimit_reclaim_begin",
        "soft-limit reclaim (v1) begins",
        "no soft-limit reclaim",
        required=False,
    ),
    Signal(
        "reclaim",
        "mm_vmscan_memcg_softlimit_reclaim_end",
        "and ends",
        "no soft-limit reclaim",
        required=False,
    ),
    Signal(
        "reclaim",
        "mm_vmscan_direct_reclaim_begin",
        "the machine is short: a task reclaims",
        "no direct reclaim",
    ),
    Signal("reclaim", "mm_vmscan_direct_reclaim_end", "and ends, with the pages freed", "no direct reclaim"),
    Signal(
        "reclaim", "mm_vmscan_kswapd_wake", "background reclaim begins", "no kswapd activity", required=False
    ),
    Signal("reclaim", "mm_vmscan_kswapd_sleep", "and ends", "no kswapd activity", required=False),
    Signal(
        "reclaim",
        "mm_vmscan_lru_shrink_inactive",
        "pages scanned and freed by list, dirty, under writeback, referenced; the priority",
        "reclaim attempts without what they scanned",
    ),
    Signal(
        "reclaim",
        "mm_shrink_slab_start",
        "whose slab is shrunk: names the target of reclaim that no limit explains",
        "the target of reclaim on request stays unknown",
        required=False,
    ),
    Signal(
        "reclaim",
        "count_memcg_events",
        "the kernel's own count of pages scanned and stolen, which memory.stat of v1 does not print",
        "evictions cannot be checked against the kernel's count on v1",
        required=False,
        only_v1=True,
    ),
    Signal("oom", "mark_victim", "a task is chosen to be killed; trigger and limit owner", "no OOM kills"),
    Signal(
        "cgroup",
        "cgroup_mkdir",
        "a cgroup is made",
        "cgroups made during the trace have no name",
        required=False,
    ),
    Signal("cgroup", "cgroup_rmdir", "a cgroup is removed", "removal times are not known", required=False),
    Signal(
        "task",
        "sched_process_exec",
        "a process takes its program's name",
        "names may be the parent's",
        required=False,
    ),
    Signal(
        "task", "sched_process_exit", "a process ends", "reused process ids may be mixed up", required=False
    ),
)


def needed(version: int) -> tuple[Signal, ...]:
    """The signals that a trace of cgroups of `version` is made from."""
    return tuple(signal for signal in SIGNALS if version == 1 or not signal.only_v1)
