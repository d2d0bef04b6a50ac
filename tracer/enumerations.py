"""The enumerations of the wire records: names for numbers.

Each becomes an enum of bpf/events.h (`tracer.wire.c_headers`). A trace stores the names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tracer import categories


@dataclass(frozen=True)
class Enumeration:
    """Names in the order of their numbers, from 0.

    `enum` is the name of the enumeration in C, `prefix` begins each of its enumerators. `comments` explain
    single names. `count` names one more enumerator, whose value is the number of names; "": there is none.
    """

    enum: str
    prefix: str
    names: tuple[str, ...]
    comment: str = ""
    comments: Mapping[str, str] = field(default_factory=dict)
    count: str = ""

    def number(self, name: str) -> int:
        """Return the number that stands for a name on the wire. Raises ValueError for an unknown name."""
        return self.names.index(name)

    def enumerators(self) -> dict[str, int]:
        """Return the enumerators of C with their numbers, `count` included."""
        names = [self.prefix + name.upper() for name in self.names]
        return {name: number for number, name in enumerate([*names, *filter(None, [self.count])])}


CATEGORY: Final = Enumeration(
    "category",
    "CATEGORY_",
    tuple(category.name for category in categories.CATEGORIES),
    "The kind of memory that a page is charged as.",
    count="CATEGORY_COUNT",
)
OP: Final = Enumeration("op", "OP_", ("add", "delete"))
CAUSE: Final = Enumeration(
    "cause",
    "CAUSE_",
    (
        *("other", "read", "write", "readahead", "fault"),
        *("reclaim_memcg", "reclaim_direct", "reclaim_kswapd"),
        *("truncate", "invalidate", "drop_caches"),
    ),
    "The reason why a folio entered or left the page cache.",
)
EVICTION_CAUSES: Final = ("reclaim_memcg", "reclaim_direct", "reclaim_kswapd")
"""The values of `CAUSE` with which reclaim takes a folio."""

RECLAIM_KIND: Final = Enumeration(
    "reclaim_kind", "RECLAIM_", ("memcg", "direct", "kswapd", "softlimit", "proactive")
)
TARGET_SOURCE: Final = Enumeration(
    "target_source",
    "TARGET_",
    ("none", "limit", "high", "scanned", "named"),
    "The source of the target memcg of a reclaim attempt. Only `named` is certain.",
    {
        "limit": "its page counter was at its limit",
        "high": "it was above memory.high",
        "scanned": "its pages were scanned",
        "named": "the kernel named it",
    },
)
STALL_KIND: Final = Enumeration(
    "stall_kind",
    "STALL_",
    ("other", "dirty", "writeback", "isolated", "noprogress", "congested", "swap_in", "high"),
    "The reason why a task had to wait.",
    {
        "dirty": "too many pages are dirty: balance_dirty_pages()",
        "writeback": "reclaim found too many pages under writeback",
        "isolated": "other tasks have isolated too many pages from the lists",
        "noprogress": "reclaim freed nothing",
        "swap_in": "a page fault on memory that is swapped out",
        "high": "above memory.high: the task reclaims, then sleeps for a penalty",
    },
)
SUMMED_REASON: Final = Enumeration(
    "summed_reason",
    "SUMMED_",
    ("nothing", "ring_full", "max_overhead"),
    "The reason why runs of the page cache are summed; nothing: they are sent.",
)
"""The table `summed` has one more reason, which user space gives (tracer/trace/history/thinning.py)."""
SWAP_OP: Final = Enumeration("swap_io_op", "SWAP_IO_", ("write", "read"))
CONSTRAINT: Final = Enumeration(
    "constraint",
    "CONSTRAINT_",
    ("unknown", "memcg", "global", "cpuset", "mempolicy"),
    "The scope of the shortage of memory (enum oom_constraint in include/linux/oom.h).",
)
CGROUP_EVENT: Final = Enumeration("cgroup_event_kind", "CGROUP_", ("seen", "mkdir", "rmdir", "rename"))
CONTENTS: Final = Enumeration(
    "contents",
    "CONTENTS_",
    ("anon", "file", "shmem", "hugetlb", "slab", "kernel"),
    "What a page holds.",
    {
        "file": "page cache, without shmem",
        "kernel": "page tables, stacks and other pages of the kernel, without slab",
    },
)
FOLLOW: Final = Enumeration(
    "follow",
    "FOLLOW_",
    ("no", "yes", "undecided"),
    "The decision whether to record the events of a cgroup, made when the cgroup is made.",
    {"undecided": "recorded until user space, which knows more names than the kernel, decides"},
)
TASK_EVENT: Final = Enumeration("task_event_kind", "TASK_", ("seen", "exec", "exit"))

KILL_WAY: Final = Enumeration(
    "kill_way",
    "KILL_WAY_",
    ("other", "kill", "group", "pidfd", "parent_death", "pid_namespace", "cgroup_kill", "seccomp"),
    "The way in which SIGKILL came to a process.",
    {
        "other": "from the kernel, for another reason",
        "kill": "kill(2), tgkill(2), rt_sigqueueinfo(2) and their like",
        "group": "kill(2) of a process group, or of all processes",
        "pidfd": "pidfd_send_signal(2)",
        "parent_death": "its parent ended: PR_SET_PDEATHSIG",
        "pid_namespace": "the init of its pid namespace ended",
        "cgroup_kill": "a write to cgroup.kill",
        "seccomp": "a forbidden system call in strict mode; no signal is sent",
    },
)

ENUMERATIONS: Final = (
    *(CONTENTS, CATEGORY, OP, CAUSE, RECLAIM_KIND, TARGET_SOURCE, STALL_KIND, SUMMED_REASON, SWAP_OP),
    *(CONSTRAINT, CGROUP_EVENT, FOLLOW, TASK_EVENT, KILL_WAY),
)
"""The enumerations of fields, and of the switch that turns the summing of runs on."""
