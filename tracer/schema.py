"""The tables of a trace: `TABLES` has the Arrow schema of each (docs/trace-format.md), and `value_range` the
numbers that a column may have.

Units are in the names: `_bytes`, `_pages`, `_ns`, `_us`. NULL means "not known"; 0 is zero. A limit that is
not set is known: it is `UNLIMITED_BYTES`, the number that the kernel prints for it on cgroup v1.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from tracer import categories
from tracer.categories import RECLAIM_COUNTS

SCHEMA_VERSION: Final = 1

UNLIMITED_BYTES: Final = 0x7FFF_FFFF_FFFF_F000
"""PAGE_COUNTER_MAX in bytes with 4-KiB pages (include/linux/page_counter.h): "max" on v2."""

LIMITS: Final = {
    "limit_bytes": "is_limited",
    "high_bytes": "is_high_limited",
    "low_bytes": "is_low_limited",
    "min_bytes": "is_min_limited",
    "soft_limit_bytes": "is_soft_limited",
    "swap_high_bytes": "is_swap_high_limited",
    "swap_limit_bytes": "is_swap_limited",
    "kmem_limit_bytes": "is_kmem_limited",
    "effective_limit_bytes": "is_effective_limited",
    "effective_high_bytes": "is_effective_high_limited",
    "effective_low_bytes": "is_effective_low_limited",
    "effective_min_bytes": "is_effective_min_limited",
    "effective_swap_limit_bytes": "is_effective_swap_limited",
    "swap_room_bytes": "is_swap_room_limited",
}
"""Column of a limit -> its flag column in DataFrames, where `UNLIMITED_BYTES` becomes NA. True: there is a
limit; false: there is none; NA: not known."""

SAMPLE_SOURCES: Final = ("start", "periodic", "oom", "end")

TIME: Final = pa.timestamp("ns", tz="UTC")
_NAME: Final = pa.dictionary(pa.int32(), pa.string())


def _table(**columns: pa.DataType | tuple[pa.DataType, bool]) -> pa.Schema:
    """Return a schema in which a bare type is never null and `(type, True)` may be."""
    return pa.schema(
        [
            pa.field(name, *(spec if isinstance(spec, tuple) else (spec, False)))
            for name, spec in columns.items()
        ]
    )


def _nullable(kind: pa.DataType) -> tuple[pa.DataType, bool]:
    return (kind, True)


_ID = pa.int64()
_PID = pa.int32()
_MAYBE_INT = _nullable(pa.int64())

MEMORY_STAT_BYTES: Final = tuple(counter.name for counter in categories.COUNTERS)
"""The sizes of memory.stat, by their v2 names."""

MEMORY_STAT_COLUMNS: Final = {name: f"{name}_bytes" for name in MEMORY_STAT_BYTES}
"""Size of memory.stat -> its column in `samples`."""

MEMORY_STAT_COUNTS: Final = (*categories.WORKINGSET_ITEMS, "pgscan", "pgsteal", "pgfault", "pgmajfault")
"""The running counts of memory.stat (pages, or faults), since the cgroup was made."""

TABLES: Final[dict[str, pa.Schema]] = {
    "charge": _table(
        time=TIME,
        cgroup_id=_ID,
        tgid=_nullable(_PID),  # null: the record was lost, its sum was not
        category=_NAME,
        pages=pa.int64(),
        bytes=pa.int64(),
        updates=pa.int64(),  # kernel counter updates that this row sums
        usage_bytes=_MAYBE_INT,
        limit_bytes=_MAYBE_INT,
    ),
    "pagecache": _table(
        time=TIME,  # of the first folio of the run
        duration_ns=pa.int64(),  # from the first folio to the last
        folios=pa.int64(),
        cgroup_id=_MAYBE_INT,  # owner; null: the folio was charged to no cgroup
        tgid=_nullable(_PID),  # null: a sum over processes and files
        task_cgroup_id=_ID,
        op=_NAME,
        cause=_NAME,
        inode_id=_MAYBE_INT,
        dev=pa.int64(),
        ino=_nullable(pa.uint64()),
        index=_MAYBE_INT,  # page offset in the file of the first page; the run has no gap; null: a sum
        nr_pages=pa.int64(),
    ),
    "reclaim": _table(
        time=TIME,
        duration_ns=pa.int64(),
        kind=_NAME,
        cgroup_id=_MAYBE_INT,
        target_source=_NAME,
        tgid=_PID,
        pid=_PID,
        task_cgroup_id=_ID,
        scanned=pa.int64(),
        reclaimed=pa.int64(),
        priority=_nullable(pa.int64()),  # the lowest; 12: easy, 0: desperate; null: no scan
        order=_nullable(pa.int64()),
        gfp=pa.int64(),
        scanned_anon=pa.int64(),
        scanned_file=pa.int64(),
        reclaimed_anon=pa.int64(),
        reclaimed_file=pa.int64(),
        **dict.fromkeys(RECLAIM_COUNTS, pa.int64()),  # of both lists
        usage_bytes=_MAYBE_INT,
        limit_bytes=_MAYBE_INT,
        **{f"{count}_{lru}": _MAYBE_INT for count in RECLAIM_COUNTS for lru in ("anon", "file")},
        written_anon=_MAYBE_INT,  # pages given to swap
        written_file=_MAYBE_INT,
        slab_scanned=_MAYBE_INT,  # objects
        slab_reclaimed=_MAYBE_INT,
        throttles=_MAYBE_INT,  # waits of the thread (rows of `stalls`)
        cpu_ns=_MAYBE_INT,  # of duration_ns, as the scheduler counts it at ticks and switches
    ),
    "stalls": _table(
        time=TIME,
        duration_ns=pa.int64(),
        kind=_NAME,
        cgroup_id=_ID,  # of the task that waited
        tgid=_PID,
        pid=_PID,
    ),
    "file_waits": _table(
        time=TIME,  # when the first wait began
        duration_ns=pa.int64(),  # until the last one ended
        cgroup_id=_ID,  # of the task that waited
        tgid=_PID,
        inode_id=_MAYBE_INT,  # null: not known, or not for the content of a file
        waits=pa.int64(),
        wait_ns=pa.int64(),
    ),
    "task_time": _table(time=TIME, begin=TIME, cgroup_id=_ID, cpu_ns=pa.int64()),
    "swap_io": _table(
        time=TIME,  # when it was queued
        duration_ns=_MAYBE_INT,  # null: its end was not seen
        cgroup_id=_MAYBE_INT,  # owner; null: the pages were charged to no cgroup
        tgid=_PID,
        pid=_PID,
        task_cgroup_id=_ID,
        op=_NAME,
        nr_pages=pa.int64(),
    ),
    "oom": _table(
        time=TIME,
        ktime_ns=pa.int64(),
        kill_id=pa.int64(),  # one for each decision; the victims of a group kill share it
        constraint=_NAME,
        limit_owner_cgroup_id=_MAYBE_INT,
        usage_bytes=_MAYBE_INT,
        limit_bytes=_MAYBE_INT,
        trigger_pid=_PID,
        trigger_tgid=_PID,
        trigger_comm=pa.string(),
        trigger_cgroup_id=_ID,
        is_told=_nullable(pa.bool_()),  # constraint, owner, gfp, order: from the kernel, not inferred
        gfp=_MAYBE_INT,  # of the charge, else of the trigger's last reclaim; null: it did not reclaim
        order=_MAYBE_INT,
        total_bytes=_MAYBE_INT,  # the memory to which badness is relative
        kernel_stack_id=_MAYBE_INT,
        user_stack_id=_MAYBE_INT,
        pid=_PID,
        tgid=_PID,
        start_ns=_MAYBE_INT,  # with tgid, the key of `tasks`
        comm=pa.string(),
        cgroup_id=_ID,
        uid=pa.int64(),
        anon_rss_bytes=_MAYBE_INT,
        file_rss_bytes=_MAYBE_INT,
        shmem_rss_bytes=_MAYBE_INT,
        pgtables_bytes=_MAYBE_INT,
        swap_bytes=_MAYBE_INT,
        total_vm_bytes=_MAYBE_INT,
        data_vm_bytes=_MAYBE_INT,  # the private and writable part, without the stack
        exec_vm_bytes=_MAYBE_INT,
        stack_vm_bytes=_MAYBE_INT,
        threads=_MAYBE_INT,
        oom_score_adj=pa.int64(),
    ),
    "oom_candidates": _table(
        time=TIME,
        kill_id=pa.int64(),
        pid=_PID,  # of the thread whose memory was weighed
        tgid=_PID,
        comm=pa.string(),
        cgroup_id=_ID,
        badness=_MAYBE_INT,  # oom_badness() in mm/oom_kill.c, in pages; null: not to be killed
        oom_score_adj=pa.int64(),
        rss_bytes=_MAYBE_INT,
        anon_rss_bytes=_MAYBE_INT,
        file_rss_bytes=_MAYBE_INT,
        shmem_rss_bytes=_MAYBE_INT,
        pgtables_bytes=_MAYBE_INT,
        swap_bytes=_MAYBE_INT,
        chosen=pa.bool_(),
    ),
    "sigkills": _table(
        time=TIME,
        tgid=_PID,
        start_ns=_MAYBE_INT,  # with tgid, the key of `tasks`
        comm=pa.string(),
        cgroup_id=_ID,
        way=_NAME,
        sender_tgid=_nullable(_PID),  # null: the kernel sent it, for no task
        sender_comm=_nullable(pa.string()),
        sender_cgroup_id=_MAYBE_INT,
        parent1_tgid=_nullable(_PID),  # of the sender
        parent1_comm=_nullable(pa.string()),
        parent2_tgid=_nullable(_PID),
        parent2_comm=_nullable(pa.string()),
        parent3_tgid=_nullable(_PID),
        parent3_comm=_nullable(pa.string()),
        since_sigterm_ns=_MAYBE_INT,  # null: it got none
        usage_bytes=_MAYBE_INT,
        limit_bytes=_MAYBE_INT,
    ),
    "kernel_log": _table(
        time=TIME,
        ktime_ns=pa.int64(),  # printk's clock, which is not CLOCK_MONOTONIC
        sequence=pa.int64(),
        level=pa.int64(),  # 0 KERN_EMERG to 7 KERN_DEBUG
        caller=_nullable(pa.string()),  # T<thread> or C<CPU>; null: CONFIG_PRINTK_CALLER is off
        text=pa.string(),
    ),
    "code_samples": _table(
        time=TIME,
        cgroup_id=_ID,
        tgid=_PID,
        tid=_PID,
        category=_NAME,
        bytes=pa.int64(),
        again_bytes=_MAYBE_INT,
        stack_id=_MAYBE_INT,
        kernel_stack_id=_MAYBE_INT,
        mapping=_nullable(pa.string()),
        is_followed=_nullable(pa.bool_()),  # a row will say when it is freed; null: nothing was followed
        sampled=_nullable(TIME),  # the time of the sample that is freed here; null: this is a sample
    ),
    "samples": _table(
        time=TIME,
        cgroup_id=_ID,
        source=_NAME,  # `oom`: read by the BPF program at the instant of the kill
        kill_id=_MAYBE_INT,
        usage_bytes=_MAYBE_INT,
        limit_bytes=_MAYBE_INT,
        high_bytes=_MAYBE_INT,  # v2 memory.high; v1 has none
        low_bytes=_MAYBE_INT,
        min_bytes=_MAYBE_INT,
        soft_limit_bytes=_MAYBE_INT,  # v1 only
        swap_usage_bytes=_MAYBE_INT,
        swap_high_bytes=_MAYBE_INT,
        swap_limit_bytes=_MAYBE_INT,  # v1: memory.memsw.limit_in_bytes, which bounds memory + swap
        kmem_limit_bytes=_MAYBE_INT,  # v1 only
        effective_limit_bytes=_MAYBE_INT,  # the least of the cgroup and all above it, traced or not
        effective_high_bytes=_MAYBE_INT,
        effective_low_bytes=_MAYBE_INT,  # as reclaim last computed it
        effective_min_bytes=_MAYBE_INT,
        effective_swap_limit_bytes=_MAYBE_INT,
        swap_room_bytes=_MAYBE_INT,  # the least room below these limits of swap
        swap_bound_levels=_MAYBE_INT,  # from the cgroup up to the one with that limit
        protected_bytes=_MAYBE_INT,  # usage of the children that memory.min protects
        peak_bytes=_MAYBE_INT,
        swappiness=_MAYBE_INT,  # v1 only; v2 uses vm.swappiness, which meta.json has
        oom_group=_MAYBE_INT,  # v2 memory.oom.group
        oom_kill_disable=_MAYBE_INT,  # v1 memory.oom_control
        use_hierarchy=_MAYBE_INT,  # v1 only
        **dict.fromkeys(MEMORY_STAT_COLUMNS.values(), _MAYBE_INT),
        **dict.fromkeys(MEMORY_STAT_COUNTS, _MAYBE_INT),
        max_events=_MAYBE_INT,  # v2 memory.events max; v1 memory.failcnt
        high_events=_MAYBE_INT,
        low_events=_MAYBE_INT,
        oom_events=_MAYBE_INT,
        oom_kill_events=_MAYBE_INT,
        oom_group_kill_events=_MAYBE_INT,
        swap_high_events=_MAYBE_INT,  # memory.swap.events
        swap_max_events=_MAYBE_INT,  # v1: memory.memsw.failcnt
        swap_fail_events=_MAYBE_INT,
        sock_throttled_events=_MAYBE_INT,
        under_oom=_MAYBE_INT,  # v1 memory.oom_control
        psi_some_total_us=_MAYBE_INT,
        psi_full_total_us=_MAYBE_INT,
    ),
    "shmem_files": _table(
        time=TIME,
        cgroup_id=_ID,  # whose shared memory had grown
        tgid=_PID,  # has the file mapped or open
        kind=_NAME,
        name=pa.string(),
        dev=pa.string(),  # "major:minor"
        ino=pa.uint64(),
        size_bytes=pa.int64(),
        held_bytes=pa.int64(),
        is_mapped=pa.bool_(),
    ),
    "contents": _table(
        time=TIME,
        duration_ns=pa.int64(),  # of the pass over the pages
        cgroup_id=_ID,
        kind=_NAME,
        inode_id=_MAYBE_INT,  # null: files that are not named, together
        files=pa.int64(),
        bytes=pa.int64(),
        dirty_bytes=pa.int64(),
        writeback_bytes=pa.int64(),
        active_bytes=_MAYBE_INT,  # null: the kernel has generations in place of lists
        unevictable_bytes=pa.int64(),
    ),
    "mappings": _table(
        time=TIME,
        cgroup_id=_ID,  # whose limit was near
        tgid=_PID,
        kind=_NAME,
        name=pa.string(),
        count=pa.int64(),
        size_bytes=pa.int64(),
        rss_bytes=pa.int64(),
        pss_bytes=_MAYBE_INT,  # null: a part of private mappings of files
        anon_bytes=pa.int64(),
        swap_bytes=pa.int64(),
    ),
    "runtimes": _table(
        time=TIME,
        cgroup_id=_ID,  # whose limit was near
        tgid=_PID,
        kind=_NAME,
        name=_NAME,
        value=_MAYBE_INT,  # null: the text is all
        text=_nullable(pa.string()),  # null: the number is all
    ),
    "loss": _table(time=TIME, begin=TIME, stream=_NAME, lost=pa.int64()),
    "summed": _table(time=TIME, begin=TIME, stream=_NAME, reason=_NAME),
    "armed": _table(time=TIME, begin=TIME, kind=_NAME),
    "cgroups": _table(
        cgroup_id=_ID,
        parent_id=_MAYBE_INT,
        path=pa.string(),  # below the memory controller's mount; starts with /
        version=pa.int64(),
        created=_nullable(TIME),  # null: it existed before the trace began
        removed=_nullable(TIME),  # null: it existed at the end
        runtime=_nullable(pa.string()),
        container_id=_nullable(pa.string()),
        container=_nullable(pa.string()),
        pod=_nullable(pa.string()),
        namespace=_nullable(pa.string()),
        image=_nullable(pa.string()),
        unit=_nullable(pa.string()),  # systemd unit
    ),
    "tasks": _table(
        tgid=_PID,
        start_ns=pa.int64(),  # CLOCK_BOOTTIME, as the kernel's task_struct.start_boottime
        ppid=_PID,
        uid=pa.int64(),
        comm=pa.string(),
        cgroup_id=_ID,
        first_seen=TIME,
        exited=_nullable(TIME),
        exe_inode_id=_MAYBE_INT,  # the program that it executes; null: none (kernel threads), or not known
        cmdline=_nullable(pa.string()),  # /proc/PID/cmdline, its first 256 bytes; null: it was never read
    ),
    "inodes": _table(
        inode_id=_ID,
        dev=pa.string(),  # "major:minor"
        ino=pa.uint64(),
        path=_nullable(pa.string()),  # null: the kernel knew no name for it
        path_kind=_nullable(pa.string()),  # null: there is no path
        container_path=_nullable(pa.string()),
        rdev=_nullable(pa.string()),  # "major:minor"; null: not a block device's own cache
        deleted=pa.bool_(),
        fs_type=pa.string(),
        mode=pa.int64(),
        size_bytes=pa.int64(),
    ),
    "stacks": _table(
        stack_id=_ID,
        frames=pa.list_(pa.string()),
        left_code=_nullable(pa.bool_()),  # null: the trace is older than the column
    ),
}
"""Table name -> Arrow schema of its Parquet file. docs/trace-format.md explains each column."""

ADDED_COLUMNS: Final[dict[str, dict[str, int]]] = {"pagecache": {"duration_ns": 0, "folios": 1}}
"""Table -> columns that older traces lack, and their value there: a row of `pagecache` was one folio."""

LATEST_NS: Final = 7_258_118_400_000_000_000
"""2200-01-01: times up to this one, and their differences, fit an int64."""

MOST_RECORDS: Final = 1 << 52
"""The most records that a row of `loss` may count."""

_LONGEST_NS: Final = 1_000_000_000_000_000_000  # 31 years
_LARGEST_BYTES: Final = 1 << 60
_MOST_PAGES: Final = 1 << 52  # twice those of a file of 8 EiB, the largest offset
_LARGEST: Final = (1 << 63) - 1


def value_range(table: str, field: pa.Field) -> tuple[int, int] | None:
    """Return the least and the largest number that a column may have (times: ns since 1970); None: any
    number.

    Counts, ids and times are never negative. Changes may be, and sizes may be slightly negative: the kernel
    reads per-CPU counters while other CPUs change them. The bounds keep sums, differences and products within
    64 bits.
    """
    name, kind = field.name, field.type
    signed = {"pages": _MOST_PAGES, "oom_score_adj": 1000, "badness": _MOST_PAGES, "bytes": _LARGEST_BYTES}
    most = _LARGEST
    if pa.types.is_timestamp(kind):
        return 0, LATEST_NS
    if not pa.types.is_integer(kind) or kind == pa.uint64():
        return None
    if (table, name) == ("runtimes", "value"):
        return -1, most  # gc_percent of Go: off
    if name in signed:
        return -signed[name], signed[name]
    if name.endswith("_ns"):
        most = _LONGEST_NS
    elif name == "lost":
        most = MOST_RECORDS
    elif name in ("nr_pages", "folios", "index", "updates", "waits"):
        most = _MOST_PAGES
    elif name.endswith("_bytes") and name not in LIMITS and table != "inodes":
        return -_LARGEST_BYTES, _LARGEST_BYTES
    return 0, most
