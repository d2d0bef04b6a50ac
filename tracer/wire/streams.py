"""The wire: the records that each BPF program sends, field by field, and the ring and the table of each.

It is the one definition of both. bpf/events.h (`tracer.wire.c_headers`), the NumPy dtypes
(`tracer.wire.dtypes`), the decoding of columns that have the name of a field (`tracer.capture.rows.decode`)
and other lists of streams are derived from it. All numbers are little-endian.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tracer import enumerations
from tracer.categories import RECLAIM_COUNTS
from tracer.wire.fields import Field, Record

_COUNTS_OF_LISTS: Final = ("scanned", "reclaimed", *RECLAIM_COUNTS)
"""Counts that a reclaim attempt has for each of the two LRU lists."""


def _plain(kind: str, *names: str) -> tuple[Field, ...]:
    """Return fields of one kind that need no comment."""
    return tuple(Field(name, kind) for name in names)


CHARGE: Final = Record(
    "charge",
    "The sum of `updates` differences of the counters of one cgroup, by one process.",
    (
        Field("time_ns", "u64"),
        Field("cgroup_id", "u64"),
        Field("usage_pages", "u64", "page_counter `memory` of the cgroup when the record was made"),
        Field("limit_pages", "u64"),
        Field("delta_bytes", "s64", "by category", length="TRACER_CATEGORIES"),
        Field("tgid", "u32", "0 = not known", null="zero"),
        Field("updates", "u32"),
    ),
)

PAGECACHE: Final = Record(
    "pagecache",
    "A run of folios of one file that entered or left the page cache one after the other.",
    (
        Field("time_ns", "u64", "of the first folio"),
        Field("cgroup_id", "u64", "the owner, to which the folio is charged; 0 = none", null="zero"),
        Field("task_cgroup_id", "u64", "of the acting task"),
        Field("inode_id", "u64"),
        Field("ino", "u64"),
        Field("index", "u64", "of the first folio's first page"),
        Field("dev", "u32"),
        Field("tgid", "u32"),
        Field("duration_ns", "u32", "from the first folio to the last"),
        Field("folios", "u32"),
        Field("nr_pages", "u32", "of all folios"),
        Field("op", "u8", enumeration=enumerations.OP),
        Field("cause", "u8", enumeration=enumerations.CAUSE),
    ),
)

RECLAIM: Final = Record(
    "reclaim",
    "One reclaim attempt, from start to end; time_ns is the start.",
    (
        Field("time_ns", "u64"),
        Field("duration_ns", "u64"),
        Field("cpu_ns", "u64", "run time of the thread, to a timer tick"),
        Field("cgroup_id", "u64", "the target; 0 = none, or not known", null="zero"),
        Field("task_cgroup_id", "u64"),
        Field("usage_pages", "u64", "of the target at the end"),
        Field("limit_pages", "u64"),
        Field("reclaimed", "u64"),
        *_plain("u32", *(f"{count}_{lru}" for count in _COUNTS_OF_LISTS for lru in ("anon", "file"))),
        Field("written_anon", "u32", "pages given to swap"),
        Field("written_file", "u32", "pages given to the file system"),
        Field("slab_scanned", "u32", "objects"),
        Field("slab_reclaimed", "u32"),
        Field("throttles", "u32", "waits of the thread"),
        *_plain("u32", "gfp", "tgid", "pid"),
        Field("kind", "u8", enumeration=enumerations.RECLAIM_KIND),
        Field("target_source", "u8", enumeration=enumerations.TARGET_SOURCE),
        Field(
            "priority",
            "s8",
            "the lowest at which a list was shrunk; -1 = no list was shrunk",
            null="negative",
        ),
        Field("order", "s8", "-1 = not known", null="negative"),
    ),
)

STALL: Final = Record(
    "stall",
    "One wait of a task for memory; time_ns is the start.",
    (
        Field("time_ns", "u64"),
        Field("duration_ns", "u64"),
        Field("cgroup_id", "u64", "of the task"),
        Field("tgid", "u32"),
        Field("pid", "u32"),
        Field("kind", "u8", enumeration=enumerations.STALL_KIND),
    ),
)

FILE_WAIT: Final = Record(
    "file_wait",
    "The waits for I/O of one process on one file that ended on a CPU within 10 ms.",
    (
        Field("time_ns", "u64", "when the first began"),
        Field("duration_ns", "u64", "until the last ended"),
        Field("cgroup_id", "u64", "of the task"),
        Field("inode_id", "u64", "0 = not known, or not for the content of a file", null="zero"),
        Field("wait_ns", "u64", "the sum"),
        Field("tgid", "u32"),
        Field("waits", "u32"),
    ),
)

SWAP_IO: Final = Record(
    "swap_io",
    "Pages of one owner that a bio writes to swap or reads from it; time_ns is when it was queued.",
    (
        Field("time_ns", "u64"),
        Field("duration_ns", "u64", "0 = its end was not seen", null="zero"),
        Field("cgroup_id", "u64", "the owner; 0 = none", null="zero"),
        Field("task_cgroup_id", "u64", "of the acting task"),
        Field("tgid", "u32"),
        Field("pid", "u32"),
        Field("nr_pages", "u32"),
        Field("op", "u8", enumeration=enumerations.SWAP_OP),
    ),
)

_MM_COUNTERS: Final = (
    Field("anon_pages", "s64", "mm counters of the task; -1 = it had no mm left"),
    Field("file_pages", "s64"),
    Field("shmem_pages", "s64"),
    Field("swap_entries", "s64"),
    Field("pgtables_bytes", "s64"),
)

EFFECTIVE: Final = (
    Field("effective_limit_pages", "s64", "the least of the memcg and its ancestors"),
    *_plain("s64", "effective_high_pages", "effective_swap_limit_pages"),
    Field("swap_room_pages", "s64", "the least room below a limit of swap"),
    Field("swap_bound_levels", "s64", "up to the memcg with that limit; -1 = none is limited"),
    Field("effective_min_pages", "s64", "as reclaim last computed it"),
    Field("effective_low_pages", "s64"),
    Field("protected_pages", "s64", "usage of the children that memory.min protects"),
    Field("peak_pages", "s64"),
)
"""The values of a memcg together with its ancestors and children; -1 = not in this version of cgroups."""

OOM: Final = Record(
    "oom",
    "One task marked as OOM victim.",
    (
        Field("time_ns", "u64"),
        Field("invocation", "u64", "the same for all victims of one decision"),
        Field(
            "owner_cgroup_id",
            "u64",
            "the memcg whose limit was hit; 0 = not a memcg OOM, or not known",
            null="zero",
        ),
        *_plain("u64", "owner_usage_pages", "owner_limit_pages", "trigger_cgroup_id", "victim_cgroup_id"),
        *_MM_COUNTERS,
        Field("total_vm_pages", "u64", "of the victim's address space"),
        Field("data_vm_pages", "u64", "private and writable"),
        Field("exec_vm_pages", "u64", "code"),
        Field("stack_vm_pages", "u64", "the stack"),
        Field("pgscan", "u64", "of the owner alone, since it was made"),
        Field("pgsteal", "u64"),
        Field(
            "total_pages",
            "u64",
            "the memory that badness is measured against (oom_control.totalpages); 0 = not known",
        ),
        *EFFECTIVE,
        Field("start_ns", "u64", "of the victim's process, CLOCK_BOOTTIME"),
        Field("start_code", "u64", "of the trigger's program, as in code_sample_event"),
        Field("start_stack", "u64"),
        *_plain("u32", "trigger_tgid", "trigger_pid"),
        *_plain("u32", "victim_tgid", "victim_pid", "victim_uid", "victim_threads"),
        Field("kernel_stack_id", "s32", "negative = no stack", null="negative"),
        Field("user_stack_id", "s32", "negative = no stack", null="negative"),
        Field(
            "gfp",
            "u32",
            "of the decision, or else of the trigger's last reclaim attempt; 0 = there was none",
            null="zero",
        ),
        Field("oom_score_adj", "s16"),
        Field("constraint", "u8", enumeration=enumerations.CONSTRAINT),
        Field("owner_has_children", "u8"),
        Field("state_items", "u8", "number of items of `state` that were read; 0 = none"),
        Field("is_told", "u8", "constraint, owner, gfp and order are from struct oom_control, not inferred"),
        Field("order", "s8", "-1 = not known", null="negative"),
        Field("trigger_comm", "char", length="TRACER_COMM_LEN"),
        Field("victim_comm", "char", length="TRACER_COMM_LEN"),
        Field(
            "state",
            "s64",
            "the owner's own counters (memcg_vmstats_percpu), summed over the CPUs",
            length="TRACER_STATE_ITEMS",
        ),
    ),
)

CANDIDATE: Final = Record(
    "candidate",
    "One task that an OOM decision weighed.",
    (
        Field("time_ns", "u64"),
        Field("invocation", "u64", "as in the records of the tasks that the decision killed"),
        Field("cgroup_id", "u64"),
        Field("total_pages", "u64"),
        Field("badness", "s64", "the result of oom_badness(); LONG_MIN = not to be killed"),
        *_MM_COUNTERS,
        Field("trigger_pid", "u32"),
        Field("tgid", "u32"),
        Field("pid", "u32"),
        Field("oom_score_adj", "s16"),
        Field("comm", "char", length="TRACER_COMM_LEN"),
    ),
)

_PARENTS: Final = ("parent1", "parent2", "parent3")

SIGKILL: Final = Record(
    "sigkill",
    "One SIGKILL that ends a process; the OOM killer's are included.",
    (
        Field("time_ns", "u64"),
        Field("start_ns", "u64", "of the process, CLOCK_BOOTTIME"),
        Field("cgroup_id", "u64", "of the process"),
        Field("usage_pages", "u64", "page_counter `memory` of that cgroup"),
        Field("limit_pages", "u64"),
        Field("since_sigterm_ns", "u64", "since the last SIGTERM to the process; 0 = none", null="zero"),
        Field("sender_cgroup_id", "u64", "0 = the sender is not known", null="zero"),
        Field("tgid", "u32"),
        Field("sender_tgid", "u32", "0 = not known", null="zero"),
        Field("sender_tid", "u32", "the current thread", null="zero"),
        *(Field(f"{parent}_tgid", "u32", "0 = none", null="zero") for parent in _PARENTS),
        Field("way", "u8", enumeration=enumerations.KILL_WAY),
        Field("is_privileged", "u8", "by the kernel (SEND_SIG_PRIV), as the OOM killer does"),
        Field("comm", "char", length="TRACER_COMM_LEN"),
        Field("sender_comm", "char", length="TRACER_COMM_LEN"),
        *(Field(f"{parent}_comm", "char", length="TRACER_COMM_LEN") for parent in _PARENTS),
    ),
)

CGROUP: Final = Record(
    "cgroup",
    "One cgroup that was found, made, removed or renamed.",
    (
        Field("time_ns", "u64"),
        Field("cgroup_id", "u64"),
        Field("parent_id", "u64", "0 = it is the root"),
        Field("memcg", "u64", "address of its struct mem_cgroup, to read its counters; 0 = not known"),
        Field("event", "u8", enumeration=enumerations.CGROUP_EVENT),
        Field("follow", "u8", enumeration=enumerations.FOLLOW),
        Field("path", "char", "as in /proc/PID/cgroup; a longer one is cut", length="TRACER_PATH_LEN"),
    ),
)

TASK: Final = Record(
    "task",
    "One process: seen for the first time, executing a program, or exiting.",
    (
        Field("time_ns", "u64"),
        Field("start_ns", "u64", "CLOCK_BOOTTIME"),
        Field("cgroup_id", "u64"),
        Field("exe_inode_id", "u64", "the program that it executes; 0 = none, or not known", null="zero"),
        *_plain("u64", "start_code", "start_stack"),
        *_plain("u32", "tgid", "ppid", "uid"),
        Field("event", "u8", enumeration=enumerations.TASK_EVENT),
        Field("comm", "char", length="TRACER_COMM_LEN"),
    ),
)

INODE: Final = Record(
    "inode",
    "One file, with its name as the kernel knows it.",
    (
        Field("time_ns", "u64"),
        Field("inode_id", "u64"),
        Field("cgroup_id", "u64", "owner of the folio by which the file was seen; 0 = none"),
        Field("ino", "u64"),
        Field("size_bytes", "u64"),
        Field("dev", "u32"),
        Field("rdev", "u32", "the device, if this is the cache of a block device"),
        Field("mode", "u32"),
        Field("nlink", "u32"),
        Field("mount_ns", "u32", "of the acting task; 0 = it is exiting"),
        Field("tgid", "u32", "the acting task; its parent and the init of its pid namespace follow"),
        Field("ppid", "u32"),
        Field("reaper_tgid", "u32"),
        Field("path_len", "u16"),
        Field("depth", "u8", "names in `path`"),
        Field("truncated", "u8", "the path has more names than fit, or longer ones"),
        Field("is_pseudo", "u8", "the one name is the kernel's: the file is in no directory"),
        Field("fs_type", "char", length="TRACER_FS_TYPE_LEN"),
        Field(
            "path",
            "char",
            "names from the leaf to the root of the file system, '/' after each",
            length="TRACER_PATH_LEN",
        ),
    ),
)

CODE_SAMPLE: Final = Record(
    "code_sample",
    "The stacks of a task whose memory grew: a sample that stands for `bytes` of its process. A sample that "
    "is freed has another record, without stacks, whose `bytes` are negative.",
    (
        Field("time_ns", "u64"),
        Field("sampled_ns", "u64", "the time of the sample that is freed; 0 = this is a sample", null="zero"),
        Field("cgroup_id", "u64"),
        Field("bytes", "s64"),
        Field("again_bytes", "u64", "growth since the last sample that a sample before stood for, and lost"),
        Field("start_code", "u64", "of struct mm_struct: tells the programs of one process apart"),
        Field("start_stack", "u64"),
        Field("tgid", "u32"),
        Field("tid", "u32"),
        Field("category", "u8", enumeration=enumerations.CATEGORY),
        Field("is_followed", "u8", "a record will say when it is freed"),
        Field("kernel", "u64", "addresses, innermost first, 0 after the last", length="TRACER_KERNEL_FRAMES"),
        Field("user", "u64", length="TRACER_USER_FRAMES"),
        Field("codes", "u64", "of CPython: code objects, innermost first", length="TRACER_PYTHON_FRAMES"),
        Field(
            "fingerprints",
            "u32",
            "of these: others were, or will be, at their addresses",
            length="TRACER_PYTHON_FRAMES",
        ),
        Field("offsets", "u32", "of the instruction in each of these", length="TRACER_PYTHON_FRAMES"),
    ),
)

STACK_COPY: Final = Record(
    "stack_copy",
    "The registers and the stack of a task in user mode, at the sample with the same time and task.",
    (
        Field("time_ns", "u64"),
        Field("tid", "u32"),
        Field("nr_bytes", "u32", "of the stack that could be read"),
        Field("registers", "u64", "as in struct pt_regs", length="TRACER_REGISTERS"),
        Field("stack", "u8", "from the stack pointer on", length="TRACER_STACK_COPY_BYTES"),
    ),
)

SAMPLE: Final = Record(
    "sample",
    "The state of one memcg, with its descendants; -1 = not in this version of cgroups.",
    (
        Field("time_ns", "u64"),
        Field("cgroup_id", "u64"),
        *_plain("s64", "usage_pages", "limit_pages", "high_pages", "low_pages", "min_pages"),
        *_plain("s64", "soft_limit_pages", "swap_usage_pages", "swap_high_pages"),
        Field("swap_limit_pages", "s64", "v1: of memory and swap together"),
        Field("kernel_pages", "s64", "v1: the page counter `kmem`"),
        *_plain("s64", "kmem_limit_pages", "swappiness", "oom_group", "oom_kill_disable", "under_oom"),
        Field("max_events", "s64", "v1: failcnt of the page counter"),
        *_plain("s64", "high_events", "low_events", "oom_events", "oom_kill_events"),
        *_plain("s64", "oom_group_kill_events", "swap_high_events"),
        Field("swap_max_events", "s64", "v1: failcnt of memory and swap together"),
        *_plain("s64", "swap_fail_events", "sock_throttled_events", "psi_some_total_us", "psi_full_total_us"),
        *EFFECTIVE,
        Field("has_psi", "u8"),
        Field("source", "u8", "the position in SAMPLE_SOURCES (tracer/schema.py), by user space"),
        Field(
            "counters",
            "s64",
            "of memcg_vmstats, as of the last flush: state; from TRACER_STATE_ITEMS on, events",
            length="TRACER_COUNTERS",
        ),
    ),
)

WATCHED: Final = Record(
    "watched",
    "A memcg's counters of one CPU at an update; calibration finds the order of the counters with them.",
    (
        Field("memcg", "u64"),
        Field("cpu", "u32"),
        Field("item", "u32"),
        Field("state", "s64", length="TRACER_STATE_ITEMS"),
    ),
)


@dataclass(frozen=True)
class Stream:
    """A type of record, with its ring and its table.

    Each stream has its own ring: a flood in one cannot starve another, and a ring is an array with a constant
    stride.

    `table`: the table whose rows the records become.
    `ring_bytes`: a power of two, and whole pages of any size that a kernel has (up to 64 KiB). The ring is
    allocated once, not charged per event.
    `owners`: fields with the cgroups that a record concerns. It is recorded if any of them is traced. Empty:
    it is always recorded.
    `actors`: fields with cgroups that need not be traced; a row in `cgroups` is added for each of them.
    `is_bulk`: records come in large numbers and are decoded as whole arrays. Rows of the other streams are
    few and more important.
    `needs_stacks`: the stream has a ring only with `--stacks`.
    """

    record: Record
    table: str
    ring_bytes: int
    owners: tuple[str, ...] = ("cgroup_id",)
    actors: tuple[str, ...] = ()
    is_bulk: bool = False
    needs_stacks: bool = False

    @property
    def name(self) -> str:
        """Return the name of the stream, and of its record."""
        return self.record.name


STREAMS: Final = (
    Stream(CHARGE, "charge", 2 << 20, is_bulk=True),
    Stream(PAGECACHE, "pagecache", 8 << 20, actors=("task_cgroup_id",), is_bulk=True),
    Stream(RECLAIM, "reclaim", 2 << 20, actors=("task_cgroup_id", "cgroup_id"), is_bulk=True),
    Stream(STALL, "stalls", 1 << 20, is_bulk=True),
    Stream(FILE_WAIT, "file_waits", 512 << 10, is_bulk=True),
    Stream(SWAP_IO, "swap_io", 1 << 20, actors=("task_cgroup_id",), is_bulk=True),
    Stream(
        OOM,
        "oom",
        256 << 10,
        owners=("owner_cgroup_id", "trigger_cgroup_id", "victim_cgroup_id"),
        actors=("trigger_cgroup_id", "owner_cgroup_id", "victim_cgroup_id"),
    ),
    Stream(CANDIDATE, "oom_candidates", 1 << 20, owners=()),
    Stream(SIGKILL, "sigkills", 64 << 10, actors=("sender_cgroup_id", "cgroup_id")),
    Stream(CGROUP, "cgroups", 1 << 20, owners=()),
    Stream(TASK, "tasks", 256 << 10, actors=("cgroup_id",)),
    Stream(INODE, "inodes", 2 << 20),
    Stream(CODE_SAMPLE, "code_samples", 4 << 20, is_bulk=True, needs_stacks=True),
)

STREAM_AT: Final = {stream.name: stream for stream in STREAMS}
"""Name -> stream."""

LOSSES: Final = enumerations.Enumeration(
    "stream",
    "STREAM_",
    (*STREAM_AT, STACK_COPY.name, "residue", "task_time"),
    "The things that can be lost: the records of each ring, sums of charges, and CPU time.",
    {
        STACK_COPY.name: "copies of stacks: frames without a frame pointer are missing",
        "residue": "sums of charges that found no room anywhere: from then on totals are not exact",
        "task_time": "stays of a traced task on a CPU whose begin the kernel did not report",
    },
    count="STREAM_COUNT",
)

UNREPORTED: Final = "task_time"
"""What the kernel does not report, and no recorder can keep. A virtual machine does not report a few
thousandths of its switches, so nearly every recording of a whole machine lacks some CPU time."""

TABLE_THAT_LOSES: Final = {name: stream.table for name, stream in STREAM_AT.items()} | {
    STACK_COPY.name: "code_samples",
    "residue": "charge",
    "task_time": "task_time",
}
"""Name in `LOSSES` -> the table that such a loss makes incomplete."""

RING_BYTES: Final = {stream.name: stream.ring_bytes for stream in STREAMS} | {
    STACK_COPY.name: 8 << 20,
    WATCHED.name: 4 << 20,
    "wake": 64 << 10,
}
"""Name of a ring -> its size: the streams' rings, the ring
of copies of stacks, that of calibration, and the ring that only wakes."""
