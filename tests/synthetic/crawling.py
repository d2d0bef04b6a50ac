"""Synthetic work that crawls: tasks that read their own program again, or wait above memory.high."""

from __future__ import annotations

from typing import Any

MIB = 1 << 20
PROGRAM = 55
DATA = 56


def livelock(
    trace: Any,
    *,
    seconds: int = 20,
    tasks: int = 4,
    wait_s: float = 0.9,
    cpu_s: float = 0.1,
    born_s: int = 0,
    idle_s: int = 2,
) -> None:
    """Add cgroup 7, made at `born_s`, in which `tasks` compilers read their program again in each second.

    In the first `idle_s` of their `seconds` they use a CPU alone. Each second, each task waits `wait_s` for
    the program, of which 4 MiB are evicted and come back, and all of them together use `tasks * cpu_s` of CPU
    time.
    """
    trace.add("cgroups", cgroup_id=7, path="/build", created=trace.ns(born_s))
    trace.add("inodes", inode_id=PROGRAM, path="/usr/lib/gcc/cc1plus")
    trace.charged(born_s, 7, "file", 40 * MIB, usage_bytes=40 * MIB, limit_bytes=40 * MIB)
    for task in range(tasks):
        trace.add(
            "tasks",
            tgid=40 + task,
            comm="cc1plus",
            cgroup_id=7,
            first_seen=trace.ns(born_s),
            exe_inode_id=PROGRAM,
        )
    row = {"cgroup_id": 7, "inode_id": PROGRAM, "nr_pages": 1024, "tgid": 40}
    trace.add("pagecache", born_s, op="add", cause="fault", **row)
    for second in range(born_s, born_s + seconds):
        spent = tasks * cpu_s if second >= born_s + idle_s else tasks * 0.5
        begin, end = trace.ns(second), trace.ns(second + 1)
        trace.add("task_time", begin=begin, time=end, cgroup_id=7, cpu_ns=round(spent * 1e9))
        if second < born_s + idle_s:
            continue
        trace.add("pagecache", second + 0.01, op="delete", cause="reclaim_memcg", **row)
        trace.add("pagecache", second + 0.02, op="add", cause="fault", **row)
        for task in range(tasks):
            trace.add(
                "file_waits",
                second + 0.05,
                duration_ns=10_000_000,
                cgroup_id=7,
                tgid=40 + task,
                inode_id=PROGRAM,
                waits=90,
                wait_ns=round(wait_s * 1e9),
            )


def throttled(trace: Any, *, seconds: int = 10, **read: int | None) -> None:
    """Add cgroup 8, whose only task is held back above memory.high for 0.9 s of each second.

    `read` replaces columns of its samples; by default, its own memory.high is exceeded once a second.
    """
    trace.meta["cgroup_version"] = 2
    trace.add("cgroups", cgroup_id=8, path="/api", created=trace.ns(0))
    trace.add("tasks", tgid=60, comm="python3", cgroup_id=8, first_seen=trace.ns(0))
    counters = {"usage_bytes": 30 * MIB, "limit_bytes": 64 * MIB, "high_bytes": 28 * MIB}
    trace.charged(0, 8, "anon", 30 * MIB, usage_bytes=30 * MIB, limit_bytes=64 * MIB)
    for second in range(seconds):
        trace.add(
            "samples",
            second,
            cgroup_id=8,
            source="periodic",
            psi_some_total_us=900_000 * second,
            **{"high_events": second + 1} | counters | read,
        )
        trace.add("stalls", second, kind="high", cgroup_id=8, tgid=60, pid=60, duration_ns=900_000_000)
        begin, end = trace.ns(second), trace.ns(second + 1)
        trace.add("task_time", begin=begin, time=end, cgroup_id=8, cpu_ns=90_000_000)
