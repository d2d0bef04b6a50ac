"""From wire records to rows of the trace's tables: whole arrays at a time, no loop per event."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer.capture.bpf.ring import Records
from tracer.schema import (
    CATEGORIES,
    CAUSES,
    CONSTRAINTS,
    OPS,
    RECLAIM_COUNTS,
    RECLAIM_KINDS,
    SAMPLE_SOURCES,
    STALL_KINDS,
    SWAP_OPS,
    TABLES,
    TARGET_SOURCES,
    TIME,
    UNLIMITED_BYTES,
)
from tracer.stored_names import stored_name
from tracer.trace.arrow_columns import names, numbers

PAGE_BYTES: Final = mmap.PAGESIZE

_STATE_UNITS: Final = {"NR_KERNEL_STACK_KB": 1024}
_BYTE_ITEMS: Final = frozenset({"NR_SLAB_RECLAIMABLE_B", "NR_SLAB_UNRECLAIMABLE_B", "MEMCG_PERCPU_B"})
_PARTIAL_PAGES: Final = [CATEGORIES.index(c) for c in ("slab_reclaimable", "slab_unreclaimable", "percpu")]

STATE_COLUMNS: Final[Mapping[str, str]] = {
    "anon_bytes": "NR_ANON_MAPPED",
    "file_bytes": "NR_FILE_PAGES",
    "shmem_bytes": "NR_SHMEM",
    "file_mapped_bytes": "NR_FILE_MAPPED",
    "file_dirty_bytes": "NR_FILE_DIRTY",
    "file_writeback_bytes": "NR_WRITEBACK",
    "inactive_anon_bytes": "NR_INACTIVE_ANON",
    "active_anon_bytes": "NR_ACTIVE_ANON",
    "inactive_file_bytes": "NR_INACTIVE_FILE",
    "active_file_bytes": "NR_ACTIVE_FILE",
    "unevictable_bytes": "NR_UNEVICTABLE",
    "slab_reclaimable_bytes": "NR_SLAB_RECLAIMABLE_B",
    "slab_unreclaimable_bytes": "NR_SLAB_UNRECLAIMABLE_B",
    "kernel_bytes": "MEMCG_KMEM",
    "kernel_stack_bytes": "NR_KERNEL_STACK_KB",
    "page_tables_bytes": "NR_PAGETABLE",
    "sock_bytes": "MEMCG_SOCK",
    "percpu_bytes": "MEMCG_PERCPU_B",
    "vmalloc_bytes": "MEMCG_VMALLOC",
    "swap_bytes": "MEMCG_SWAP",
    "workingset_refault_anon": "WORKINGSET_REFAULT_ANON",
    "workingset_refault_file": "WORKINGSET_REFAULT_FILE",
    "workingset_activate_anon": "WORKINGSET_ACTIVATE_ANON",
    "workingset_activate_file": "WORKINGSET_ACTIVATE_FILE",
}
"""Column of `samples` -> the item of memcg_vmstats_percpu.state that memory.stat prints there
(memory_stats[] and memcg1_stats[] in mm/memcontrol*.c)."""


def state_reading(values: Mapping[str, int]) -> dict[str, int]:
    """Item name -> value in the kernel's unit, as `samples` columns: sizes in bytes, counts as they are."""
    reading = {}
    for column, item in STATE_COLUMNS.items():
        if item in values:
            unit = 1 if item in _BYTE_ITEMS else _STATE_UNITS.get(item, PAGE_BYTES)
            reading[column] = values[item] * (unit if column.endswith("_bytes") else 1)
    return reading


def _ids(values: npt.NDArray[np.uint64]) -> pa.Array:
    """Ids, null where the kernel program wrote 0 for "none"."""
    return numbers(values, pa.int64(), values == 0)


_NOT_TO_BE_KILLED: Final = -(1 << 63)
"""LONG_MIN, by which oom_badness() says so (mm/oom_kill.c)."""


def _pages(values: npt.NDArray[np.uint64], null: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    return numbers(values.astype(np.int64) * PAGE_BYTES, null=null)


def limit_bytes(pages: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Limits as sizes. PAGE_COUNTER_MAX is no limit: LONG_MAX / PAGE_SIZE (include/linux/page_counter.h)."""
    is_set = pages < np.iinfo(np.int64).max // PAGE_BYTES
    return np.where(is_set, pages.astype(np.int64) * PAGE_BYTES, UNLIMITED_BYTES)


@dataclass
class Decoder:
    """Turns records into rows. `clock_offset_ns` is realtime minus monotonic.

    It carries, for the categories that the kernel counts in bytes, what of a page is not yet shown as one,
    so that the sum of `pages` is right to the page over any number of rows.
    """

    clock_offset_ns: int
    _carried: dict[tuple[int, int], int] = field(default_factory=dict)
    _kills: dict[tuple[int, int], int] = field(default_factory=dict)

    def times(self, time_ns: npt.NDArray[np.uint64]) -> pa.Array:
        """Monotonic stamps as UTC timestamps."""
        return numbers(time_ns.astype(np.int64) + self.clock_offset_ns, TIME)

    def charge(self, records: Records) -> pa.RecordBatch:
        """Rows of `charge`."""
        return pa.record_batch(
            {
                "time": self.times(records["time_ns"]),
                "cgroup_id": numbers(records["cgroup_id"].astype(np.int64)),
                "tgid": numbers(records["tgid"].astype(np.int32)),
                "category": names(records["category"], CATEGORIES),
                "pages": numbers(self._whole_pages(records)),
                "bytes": numbers(records["delta_bytes"]),
                "updates": numbers(records["updates"].astype(np.int64)),
                "usage_bytes": _pages(records["usage_pages"]),
                "limit_bytes": numbers(limit_bytes(records["limit_pages"])),
            }
        )

    def residue(self, time_ns: int, sums: Mapping[tuple[int, int], int]) -> pa.RecordBatch:
        """Rows of `charge` for sums whose record was lost: (cgroup id, category) -> bytes."""
        records = np.zeros(len(sums), [("cgroup_id", "<u8"), ("category", "u1"), ("delta_bytes", "<i8")])
        for row, ((cgroup_id, category), delta_bytes) in zip(records, sums.items(), strict=True):
            row["cgroup_id"], row["category"], row["delta_bytes"] = cgroup_id, category, delta_bytes
        unknown = np.ones(len(records), np.bool_)
        zeros = np.zeros(len(records), np.int64)
        return pa.record_batch(
            {
                "time": self.times(np.full(len(records), time_ns, np.uint64)),
                "cgroup_id": numbers(records["cgroup_id"].astype(np.int64)),
                "tgid": numbers(zeros.astype(np.int32), null=unknown),
                "category": names(records["category"], CATEGORIES),
                "pages": numbers(self._whole_pages(records)),
                "bytes": numbers(records["delta_bytes"]),
                "updates": numbers(zeros),
                "usage_bytes": numbers(zeros, null=unknown),
                "limit_bytes": numbers(zeros, null=unknown),
            }
        )

    def _whole_pages(self, records: Records) -> npt.NDArray[np.int64]:
        delta_bytes = records["delta_bytes"]
        pages = delta_bytes // PAGE_BYTES
        partial = np.flatnonzero(np.isin(records["category"], _PARTIAL_PAGES))
        if not len(partial):
            return pages
        # Few rows are of this kind; group them, and take differences of the rounded running sums.
        keys = np.rec.fromarrays([records["cgroup_id"][partial], records["category"][partial]])
        groups, member_of = np.unique(keys, return_inverse=True)
        for number, group in enumerate(groups):
            rows = partial[member_of == number]
            key = (int(group[0]), int(group[1]))
            running = self._carried.get(key, 0) + np.cumsum(delta_bytes[rows])
            shown = np.floor_divide(running, PAGE_BYTES)
            pages[rows] = np.diff(shown, prepend=0)
            self._carried[key] = int(running[-1] - shown[-1] * PAGE_BYTES)
        return pages

    def pagecache(self, records: Records) -> pa.RecordBatch:
        """Rows of `pagecache`."""
        return pa.record_batch(
            {
                "time": self.times(records["time_ns"]),
                "cgroup_id": _ids(records["cgroup_id"]),
                "tgid": numbers(records["tgid"].astype(np.int32)),
                "task_cgroup_id": numbers(records["task_cgroup_id"].astype(np.int64)),
                "op": names(records["op"], OPS),
                "cause": names(records["cause"], CAUSES),
                "inode_id": numbers(records["inode_id"].astype(np.int64)),
                "dev": numbers(records["dev"].astype(np.int64)),
                "ino": numbers(records["ino"]),
                "index": numbers(records["index"].astype(np.int64)),
                "nr_pages": numbers(records["nr_pages"].astype(np.int64)),
            }
        )

    def reclaim(self, records: Records) -> pa.RecordBatch:
        """Rows of `reclaim`."""
        no_target = records["cgroup_id"] == 0
        lists = [f"{count}_{lru}" for count in RECLAIM_COUNTS for lru in ("anon", "file")]
        names_of_counts = (
            *("scanned_anon", "scanned_file", "reclaimed_anon", "reclaimed_file", *lists),
            *("written_anon", "written_file", "slab_scanned", "slab_reclaimed", "throttles"),
        )
        counts = {name: records[name].astype(np.int64) for name in names_of_counts}
        both = {name: counts[f"{name}_anon"] + counts[f"{name}_file"] for name in RECLAIM_COUNTS}
        signed = {name: records[name].astype(np.int64) for name in ("priority", "order")}
        columns = {
            "time": self.times(records["time_ns"]),
            "duration_ns": numbers(records["duration_ns"].astype(np.int64)),
            "kind": names(records["kind"], RECLAIM_KINDS),
            "cgroup_id": _ids(records["cgroup_id"]),
            "target_source": names(records["target_source"], TARGET_SOURCES),
            "tgid": numbers(records["tgid"].astype(np.int32)),
            "pid": numbers(records["pid"].astype(np.int32)),
            "task_cgroup_id": numbers(records["task_cgroup_id"].astype(np.int64)),
            "scanned": numbers(counts["scanned_anon"] + counts["scanned_file"]),
            "reclaimed": numbers(records["reclaimed"].astype(np.int64)),
            **{name: numbers(values, null=values < 0) for name, values in signed.items()},
            "gfp": numbers(records["gfp"].astype(np.int64)),
            **{name: numbers(values) for name, values in (counts | both).items()},
            "usage_bytes": _pages(records["usage_pages"], no_target),
            "limit_bytes": numbers(limit_bytes(records["limit_pages"]), null=no_target),
        }
        return pa.record_batch({name: columns[name] for name in TABLES["reclaim"].names})

    def stall(self, records: Records) -> pa.RecordBatch:
        """Rows of `stalls`."""
        return pa.record_batch(
            {
                "time": self.times(records["time_ns"]),
                "duration_ns": numbers(records["duration_ns"].astype(np.int64)),
                "kind": names(records["kind"], STALL_KINDS),
                "cgroup_id": numbers(records["cgroup_id"].astype(np.int64)),
                "tgid": numbers(records["tgid"].astype(np.int32)),
                "pid": numbers(records["pid"].astype(np.int32)),
            }
        )

    def swap_io(self, records: Records) -> pa.RecordBatch:
        """Rows of `swap_io`."""
        duration_ns = records["duration_ns"].astype(np.int64)
        return pa.record_batch(
            {
                "time": self.times(records["time_ns"]),
                "duration_ns": numbers(duration_ns, null=duration_ns == 0),
                "cgroup_id": _ids(records["cgroup_id"]),
                "tgid": numbers(records["tgid"].astype(np.int32)),
                "pid": numbers(records["pid"].astype(np.int32)),
                "task_cgroup_id": numbers(records["task_cgroup_id"].astype(np.int64)),
                "op": names(records["op"], SWAP_OPS),
                "nr_pages": numbers(records["nr_pages"].astype(np.int64)),
            }
        )

    def stack_sample(
        self, records: Records, kernel_stacks: npt.NDArray[np.int64], user_stacks: npt.NDArray[np.int64]
    ) -> pa.RecordBatch:
        """Rows of `stack_samples`, with the numbers of their stacks; negative: there is none."""
        return pa.record_batch(
            {
                "time": self.times(records["time_ns"]),
                "cgroup_id": numbers(records["cgroup_id"].astype(np.int64)),
                "tgid": numbers(records["tgid"].astype(np.int32)),
                "pid": numbers(records["pid"].astype(np.int32)),
                "category": names(records["category"], CATEGORIES),
                "weight_bytes": numbers(records["weight_bytes"].astype(np.int64)),
                "kernel_stack_id": numbers(kernel_stacks, null=kernel_stacks < 0),
                "user_stack_id": numbers(user_stacks, null=user_stacks < 0),
            }
        )

    def kill_id(self, record: np.void) -> int:
        """The number of the decision that an OOM record belongs to, from 1; the victims of one share it."""
        key = (int(record["trigger_pid"]), int(record["invocation"]))
        return self._kills.setdefault(key, len(self._kills) + 1)

    def oom(self, record: np.void) -> dict[str, Any]:
        """One row of `oom`. Kills are few: they are decoded one by one."""
        owner = int(record["owner_cgroup_id"])
        return {
            "time": int(record["time_ns"]) + self.clock_offset_ns,
            "ktime_ns": int(record["time_ns"]),
            "kill_id": self.kill_id(record),
            "constraint": CONSTRAINTS[record["constraint"]],
            "limit_owner_cgroup_id": owner or None,
            "usage_bytes": int(record["owner_usage_pages"]) * PAGE_BYTES if owner else None,
            "limit_bytes": int(limit_bytes(record["owner_limit_pages"])) if owner else None,
            "trigger_pid": int(record["trigger_pid"]),
            "trigger_tgid": int(record["trigger_tgid"]),
            "trigger_comm": text(record["trigger_comm"]),
            "trigger_cgroup_id": int(record["trigger_cgroup_id"]),
            "is_told": bool(record["is_told"]),
            "gfp": int(record["gfp"]) or None,
            "order": int(record["order"]) if record["order"] >= 0 else None,
            "total_bytes": int(record["total_pages"]) * PAGE_BYTES or None,
            "kernel_stack_id": _stack(record["kernel_stack_id"]),
            "user_stack_id": _stack(record["user_stack_id"]),
            "pid": int(record["victim_pid"]),
            "tgid": int(record["victim_tgid"]),
            "comm": text(record["victim_comm"]),
            "cgroup_id": int(record["victim_cgroup_id"]),
            "uid": int(record["victim_uid"]),
            **_mapped_sizes(record),
            "threads": int(record["victim_threads"]),
            **mm_sizes(record),
            "oom_score_adj": int(record["oom_score_adj"]),
        }

    def candidates(self, records: Records, kill_id: int, chosen_tgid: int) -> list[dict[str, Any]]:
        """Rows of `oom_candidates`: whom the decision of a kill weighed, of whom one process was chosen."""
        return [
            {
                "time": int(record["time_ns"]) + self.clock_offset_ns,
                "kill_id": kill_id,
                "pid": int(record["pid"]),
                "tgid": int(record["tgid"]),
                "comm": text(record["comm"]),
                "cgroup_id": int(record["cgroup_id"]),
                "badness": None if record["badness"] == _NOT_TO_BE_KILLED else int(record["badness"]),
                "oom_score_adj": int(record["oom_score_adj"]),
                "rss_bytes": None if no_mm(record) else sum(_rss(record).values()),
                "chosen": int(record["tgid"]) == chosen_tgid,
                **mm_sizes(record),
            }
            for record in records
        ]

    def oom_sample(
        self, record: np.void, positions: Mapping[str, int], *, version: int, counted: bool
    ) -> dict[str, Any] | None:
        """The `samples` row of the limit owner at the instant of a kill; None where no memcg's limit was hit.

        The counters are the owner's own: with children below it they are not the whole, so they stay null
        then. `counted`: the kernel's scan and steal events were counted (probes.py, count_memcg_events).
        """
        owner = int(record["owner_cgroup_id"])
        if not owner:
            return None
        row = sample_row(int(record["time_ns"]) + self.clock_offset_ns, owner, "oom")
        row["kill_id"] = self.kill_id(record)
        row["usage_bytes"] = int(record["owner_usage_pages"]) * PAGE_BYTES
        row["limit_bytes"] = int(limit_bytes(record["owner_limit_pages"]))
        if record["owner_has_children"]:
            return row
        if record["state_items"]:
            row |= state_reading({name: int(record["state"][at]) for name, at in positions.items()})
        if version == 1:
            row["sock_bytes"] = 0  # as in Sampler: tcpmem is no part of usage
        if counted:
            row |= {"pgscan": int(record["pgscan"]), "pgsteal": int(record["pgsteal"])}
        return row


def no_mm(record: np.void) -> bool:
    """Whether a task had no memory of its own any more."""
    return bool(record["anon_pages"] == -1)


def _rss(record: np.void) -> dict[str, int]:
    kinds = ("anon", "file", "shmem")
    return {f"{kind}_rss_bytes": int(record[f"{kind}_pages"]) * PAGE_BYTES for kind in kinds}


def mm_sizes(record: np.void) -> dict[str, int | None]:
    """The sizes of a task's memory, as columns of `oom` and `oom_candidates`."""
    sizes = {
        **_rss(record),
        "pgtables_bytes": int(record["pgtables_bytes"]),
        "swap_bytes": int(record["swap_entries"]) * PAGE_BYTES,
    }
    return dict.fromkeys(sizes) if no_mm(record) else dict(sizes)


def _mapped_sizes(record: np.void) -> dict[str, int | None]:
    """What of its address space is what, touched or not, as columns of `oom`."""
    kinds = ("total", "data", "exec", "stack")
    return {
        f"{kind}_vm_bytes": None if no_mm(record) else int(record[f"{kind}_vm_pages"]) * PAGE_BYTES
        for kind in kinds
    }


def _stack(stack_id: np.int32) -> int | None:
    return int(stack_id) if stack_id >= 0 else None


def sample_row(time_ns: int, cgroup_id: int, source: str) -> dict[str, Any]:
    """A row of `samples` with nothing known yet. `time_ns` is realtime."""
    assert source in SAMPLE_SOURCES
    row: dict[str, Any] = dict.fromkeys(TABLES["samples"].names)
    return row | {"time": time_ns, "cgroup_id": cgroup_id, "source": source}


def text(name: bytes) -> str:
    """Return a name from the kernel as a trace keeps it."""
    return stored_name(bytes(name).split(b"\0", 1)[0])
