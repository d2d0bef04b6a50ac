"""The wire records, once: the NumPy dtype of each record that a BPF program puts in its ring.

`bpf/events.h` is the same in C; `tests/test_schema.py` compiles that header and compares every size, offset
and number. Enumerations on the wire are numbers, whose names are in `tracer.schema`.
"""

from __future__ import annotations

from typing import Final

import numpy as np

COMM_LEN: Final = 16
PATH_LEN: Final = 416
STATE_ITEMS: Final = 64
KERNEL_FRAMES: Final = 64
USER_FRAMES: Final = 127


def _wire(fields: list[tuple[str, str] | tuple[str, str, int]], size: int) -> np.dtype[np.void]:
    """A packed record type; every field is naturally aligned, so that C agrees without attributes."""
    dtype = np.dtype(fields, align=False)
    if dtype.itemsize != size:
        raise AssertionError(f"record of {dtype.itemsize} bytes, meant to be {size}")
    return dtype


WIRE: Final[dict[str, np.dtype[np.void]]] = {
    "charge": _wire(
        [
            ("time_ns", "<u8"),
            ("cgroup_id", "<u8"),
            ("usage_pages", "<u8"),
            ("limit_pages", "<u8"),
            ("delta_bytes", "<i8"),
            ("tgid", "<u4"),
            ("updates", "<u4"),
            ("category", "u1"),
            ("pad", "u1", 7),
        ],
        56,
    ),
    "pagecache": _wire(
        [
            ("time_ns", "<u8"),
            ("cgroup_id", "<u8"),
            ("task_cgroup_id", "<u8"),
            ("inode_id", "<u8"),
            ("ino", "<u8"),
            ("index", "<u8"),
            ("dev", "<u4"),
            ("tgid", "<u4"),
            ("nr_pages", "<u4"),
            ("op", "u1"),
            ("cause", "u1"),
            ("pad", "u1", 2),
        ],
        64,
    ),
    "reclaim": _wire(
        [
            ("time_ns", "<u8"),
            ("duration_ns", "<u8"),
            ("cgroup_id", "<u8"),
            ("task_cgroup_id", "<u8"),
            ("usage_pages", "<u8"),
            ("limit_pages", "<u8"),
            ("reclaimed", "<u8"),
            ("scanned_anon", "<u4"),
            ("scanned_file", "<u4"),
            ("reclaimed_anon", "<u4"),
            ("reclaimed_file", "<u4"),
            ("nr_dirty_anon", "<u4"),
            ("nr_dirty_file", "<u4"),
            ("nr_unqueued_dirty_anon", "<u4"),
            ("nr_unqueued_dirty_file", "<u4"),
            ("nr_writeback_anon", "<u4"),
            ("nr_writeback_file", "<u4"),
            ("nr_immediate_anon", "<u4"),
            ("nr_immediate_file", "<u4"),
            ("nr_activate_anon", "<u4"),
            ("nr_activate_file", "<u4"),
            ("nr_ref_keep_anon", "<u4"),
            ("nr_ref_keep_file", "<u4"),
            ("nr_unmap_fail_anon", "<u4"),
            ("nr_unmap_fail_file", "<u4"),
            ("written_anon", "<u4"),
            ("written_file", "<u4"),
            ("slab_scanned", "<u4"),
            ("slab_reclaimed", "<u4"),
            ("throttles", "<u4"),
            ("gfp", "<u4"),
            ("tgid", "<u4"),
            ("pid", "<u4"),
            ("kind", "u1"),
            ("target_source", "u1"),
            ("priority", "i1"),
            ("order", "i1"),
            ("pad", "u1", 4),
        ],
        168,
    ),
    "stall": _wire(
        [
            ("time_ns", "<u8"),
            ("duration_ns", "<u8"),
            ("cgroup_id", "<u8"),
            ("tgid", "<u4"),
            ("pid", "<u4"),
            ("kind", "u1"),
            ("pad", "u1", 7),
        ],
        40,
    ),
    "swap_io": _wire(
        [
            ("time_ns", "<u8"),
            ("duration_ns", "<u8"),
            ("cgroup_id", "<u8"),
            ("task_cgroup_id", "<u8"),
            ("tgid", "<u4"),
            ("pid", "<u4"),
            ("nr_pages", "<u4"),
            ("op", "u1"),
            ("pad", "u1", 3),
        ],
        48,
    ),
    "oom": _wire(
        [
            ("time_ns", "<u8"),
            ("invocation", "<u8"),
            ("owner_cgroup_id", "<u8"),
            ("owner_usage_pages", "<u8"),
            ("owner_limit_pages", "<u8"),
            ("trigger_cgroup_id", "<u8"),
            ("victim_cgroup_id", "<u8"),
            ("anon_pages", "<i8"),
            ("file_pages", "<i8"),
            ("shmem_pages", "<i8"),
            ("swap_entries", "<i8"),
            ("pgtables_bytes", "<i8"),
            ("total_vm_pages", "<u8"),
            ("data_vm_pages", "<u8"),
            ("exec_vm_pages", "<u8"),
            ("stack_vm_pages", "<u8"),
            ("pgscan", "<u8"),
            ("pgsteal", "<u8"),
            ("total_pages", "<u8"),
            ("start_code", "<u8"),
            ("start_stack", "<u8"),
            ("trigger_tgid", "<u4"),
            ("trigger_pid", "<u4"),
            ("victim_tgid", "<u4"),
            ("victim_pid", "<u4"),
            ("victim_uid", "<u4"),
            ("victim_threads", "<u4"),
            ("kernel_stack_id", "<i4"),
            ("user_stack_id", "<i4"),
            ("gfp", "<u4"),
            ("oom_score_adj", "<i2"),
            ("constraint", "u1"),
            ("owner_has_children", "u1"),
            ("state_items", "u1"),
            ("is_told", "u1"),
            ("order", "i1"),
            ("pad", "u1", 5),
            ("trigger_comm", f"S{COMM_LEN}"),
            ("victim_comm", f"S{COMM_LEN}"),
            ("state", "<i8", STATE_ITEMS),
        ],
        760,
    ),
    "candidate": _wire(
        [
            ("time_ns", "<u8"),
            ("invocation", "<u8"),
            ("cgroup_id", "<u8"),
            ("total_pages", "<u8"),
            ("badness", "<i8"),
            ("anon_pages", "<i8"),
            ("file_pages", "<i8"),
            ("shmem_pages", "<i8"),
            ("swap_entries", "<i8"),
            ("pgtables_bytes", "<i8"),
            ("trigger_pid", "<u4"),
            ("tgid", "<u4"),
            ("pid", "<u4"),
            ("oom_score_adj", "<i2"),
            ("pad", "u1", 2),
            ("comm", f"S{COMM_LEN}"),
        ],
        112,
    ),
    "cgroup": _wire(
        [
            ("time_ns", "<u8"),
            ("cgroup_id", "<u8"),
            ("parent_id", "<u8"),
            ("memcg", "<u8"),
            ("event", "u1"),
            ("follow", "u1"),
            ("pad", "u1", 6),
            ("path", f"S{PATH_LEN}"),
        ],
        456,
    ),
    "task": _wire(
        [
            ("time_ns", "<u8"),
            ("start_ns", "<u8"),
            ("cgroup_id", "<u8"),
            ("tgid", "<u4"),
            ("ppid", "<u4"),
            ("uid", "<u4"),
            ("event", "u1"),
            ("pad", "u1", 3),
            ("comm", f"S{COMM_LEN}"),
        ],
        56,
    ),
    "inode": _wire(
        [
            ("time_ns", "<u8"),
            ("inode_id", "<u8"),
            ("cgroup_id", "<u8"),
            ("ino", "<u8"),
            ("size_bytes", "<u8"),
            ("dev", "<u4"),
            ("rdev", "<u4"),
            ("mode", "<u4"),
            ("nlink", "<u4"),
            ("mount_ns", "<u4"),
            ("tgid", "<u4"),
            ("ppid", "<u4"),
            ("reaper_tgid", "<u4"),
            ("path_len", "<u2"),
            ("depth", "u1"),
            ("truncated", "u1"),
            ("is_pseudo", "u1"),
            ("pad", "u1", 3),
            ("fs_type", "S16"),
            ("path", f"S{PATH_LEN}"),
        ],
        512,
    ),
    "stack_sample": _wire(
        [
            ("time_ns", "<u8"),
            ("cgroup_id", "<u8"),
            ("weight_bytes", "<u8"),
            ("start_code", "<u8"),
            ("start_stack", "<u8"),
            ("tgid", "<u4"),
            ("pid", "<u4"),
            ("category", "u1"),
            ("pad", "u1", 7),
            ("kernel", "<u8", KERNEL_FRAMES),
            ("user", "<u8", USER_FRAMES),
        ],
        1584,
    ),
}
"""Ring name -> record. One ring for each, so that a flood in one cannot starve another, and so that a ring is
an array with a constant stride."""

TABLE_OF: Final = {
    "charge": "charge",
    "pagecache": "pagecache",
    "reclaim": "reclaim",
    "stall": "stalls",
    "swap_io": "swap_io",
    "oom": "oom",
    "candidate": "oom_candidates",
    "cgroup": "cgroups",
    "task": "tasks",
    "inode": "inodes",
    "stack_sample": "stack_samples",
}
"""Ring name -> the table whose rows its records become."""

LOSSES: Final = (*WIRE, "residue")
"""What loss is counted of: the records of each ring, and sums of charges that were lost whole, so that totals
of the ledger are not exact."""
