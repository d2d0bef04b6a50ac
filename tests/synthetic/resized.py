"""A kill for a limit that was lowered below usage, as by a resize of a pod in place."""

from __future__ import annotations

from typing import Any, Final

from synthetic.memcg_kill import record_kill

MIB: Final = 1 << 20
OLD: Final = 64 * MIB
NEW: Final = 24 * MIB
IN_USE: Final = 41 * MIB
WRITE: Final = (
    "out_of_memory+0x1fd/0x5b0",
    "mem_cgroup_out_of_memory+0x134/0x150",
    "memory_max_write+0x123/0x1d0",
)


def resized(trace: Any, stack: tuple[str, ...] = WRITE, *, old: int = OLD, **row: Any) -> None:
    """Record 40 MiB of anonymous memory and 1 MiB of slab; at 9.96 s kubelet sets the limit to 24 MiB."""
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    trace.add("cgroups", cgroup_id=2, path="/kubelet", created=trace.ns(0))
    trace.add("stacks", stack_id=3, frames=list(stack))
    trace.charged(2, 1, "anon", 40 * MIB, tgid=50, usage_bytes=40 * MIB, limit_bytes=old)
    trace.charged(2.1, 1, "kernel", MIB, tgid=50, usage_bytes=IN_USE, limit_bytes=old)
    for number in range(16):
        tried = {"cgroup_id": 1, "task_cgroup_id": 2, "tgid": 7, "pid": 7, "duration_ns": 1000}
        trace.add("reclaim", 9.96 + number / 1e3, kind="memcg", usage_bytes=IN_USE, limit_bytes=NEW, **tried)
    sizes = {"anon_bytes": 40 * MIB, "file_bytes": 0, "shmem_bytes": 0, "kernel_bytes": MIB}
    sizes |= dict.fromkeys(("unevictable_bytes", "file_dirty_bytes", "file_writeback_bytes"), 0)
    sizes |= {"slab_unreclaimable_bytes": MIB, "slab_reclaimable_bytes": 0}
    trace.add(
        "samples", 10, cgroup_id=1, source="oom", kill_id=1, usage_bytes=IN_USE, limit_bytes=NEW, **sizes
    )
    writer = {"trigger_pid": 7, "trigger_tgid": 7, "trigger_comm": "kubelet", "trigger_cgroup_id": 2}
    asked = {"usage_bytes": IN_USE, "limit_bytes": NEW, "is_told": True, "kernel_stack_id": 3}
    record_kill(trace, 10, **asked | writer | row)
