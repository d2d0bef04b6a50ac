"""The streams: the record, the ring and the table of each. Other lists of streams follow from this one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tracer.enumerations import Enumeration
from tracer.wire import records
from tracer.wire.fields import Record


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
    Stream(records.CHARGE, "charge", 2 << 20, is_bulk=True),
    Stream(records.PAGECACHE, "pagecache", 8 << 20, actors=("task_cgroup_id",), is_bulk=True),
    Stream(records.RECLAIM, "reclaim", 2 << 20, actors=("task_cgroup_id", "cgroup_id"), is_bulk=True),
    Stream(records.STALL, "stalls", 1 << 20, is_bulk=True),
    Stream(records.FILE_WAIT, "file_waits", 512 << 10, is_bulk=True),
    Stream(records.SWAP_IO, "swap_io", 1 << 20, actors=("task_cgroup_id",), is_bulk=True),
    Stream(
        records.OOM,
        "oom",
        256 << 10,
        owners=("owner_cgroup_id", "trigger_cgroup_id", "victim_cgroup_id"),
        actors=("trigger_cgroup_id", "owner_cgroup_id", "victim_cgroup_id"),
    ),
    Stream(records.CANDIDATE, "oom_candidates", 1 << 20, owners=()),
    Stream(records.SIGKILL, "sigkills", 64 << 10, actors=("sender_cgroup_id", "cgroup_id")),
    Stream(records.CGROUP, "cgroups", 1 << 20, owners=()),
    Stream(records.TASK, "tasks", 256 << 10, actors=("cgroup_id",)),
    Stream(records.INODE, "inodes", 2 << 20),
    Stream(records.CODE_SAMPLE, "code_samples", 4 << 20, is_bulk=True, needs_stacks=True),
)

STREAM_AT: Final = {stream.name: stream for stream in STREAMS}
"""Name -> stream."""

LOSSES: Final = Enumeration(
    "stream",
    "STREAM_",
    (*STREAM_AT, records.STACK_COPY.name, "residue", "task_time"),
    "The things that can be lost: the records of each ring, sums of charges, and CPU time.",
    {
        records.STACK_COPY.name: "copies of stacks: frames without a frame pointer are missing",
        "residue": "sums of charges that found no room anywhere: from then on totals are not exact",
        "task_time": "stays of a traced task on a CPU whose begin the kernel did not report",
    },
    count="STREAM_COUNT",
)

UNREPORTED: Final = "task_time"
"""What the kernel does not report, and no recorder can keep. A virtual machine does not report a few
thousandths of its switches, so nearly every recording of a whole machine lacks some CPU time."""

TABLE_THAT_LOSES: Final = {name: stream.table for name, stream in STREAM_AT.items()} | {
    records.STACK_COPY.name: "code_samples",
    "residue": "charge",
    "task_time": "task_time",
}
"""Name in `LOSSES` -> the table that such a loss makes incomplete."""

RING_BYTES: Final = {stream.name: stream.ring_bytes for stream in STREAMS} | {
    records.STACK_COPY.name: 8 << 20,
    records.WATCHED.name: 4 << 20,
    "wake": 64 << 10,
}
"""Name of a ring -> its size: the streams' rings, the ring
of copies of stacks, that of calibration, and the ring that only wakes."""
