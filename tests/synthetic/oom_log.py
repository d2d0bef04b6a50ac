"""The report that kernel 6.18 logs on an OOM of a cgroup v1, with the numbers that a test chooses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MIB = 1 << 20
KIB = 1 << 10


@dataclass(frozen=True)
class Dump:
    """A report; sizes are in bytes. The task `comm` invokes the OOM killer and is killed."""

    pid: int
    comm: str = "hog"
    oom_memcg: str = "/box"
    task_memcg: str = "/box"
    usage: int = 100 * MIB
    limit: int = 100 * MIB
    anon_rss: int = 90 * MIB
    file_rss: int = 2 * MIB
    pgtables: int = 200 * KIB
    adj: int = 0
    gfp: str = "0xcc0(GFP_KERNEL)"
    order: int = 0
    has_tasks: bool = True
    constraint: str = "CONSTRAINT_MEMCG"
    stack: tuple[str, ...] = ("dump_stack_lvl+0x57/0x80", "try_charge_memcg+0x422/0x6f0")

    def lines(self) -> Iterator[str]:
        """Yield the lines of the whole report."""
        yield (
            f"{self.comm} invoked oom-killer: gfp_mask={self.gfp}, order={self.order}, "
            f"oom_score_adj={self.adj}"
        )
        yield f"CPU: 1 UID: 0 PID: {self.pid} Comm: {self.comm} Not tainted 6.18.44 #1 PREEMPT(none) "
        yield "Call Trace:"
        yield " <TASK>"
        yield from (f" {frame}" for frame in self.stack)
        yield " </TASK>"
        yield from self.counters()
        if self.has_tasks:
            yield from self.tasks()
        yield (
            f"oom-kill:constraint={self.constraint},nodemask=(null),cpuset=/,mems_allowed=0,"
            f"oom_memcg={self.oom_memcg},task_memcg={self.task_memcg},task={self.comm},pid={self.pid},uid=0"
        )
        yield self.kill()

    def counters(self) -> Iterator[str]:
        yield f"memory: usage {self.usage // KIB}kB, limit {self.limit // KIB}kB, failcnt 22"
        yield f"memory+swap: usage {self.usage // KIB}kB, limit 9007199254740988kB, failcnt 0"
        yield "kmem: usage 120kB, limit 9007199254740988kB, failcnt 0"
        yield f"Memory cgroup stats for {self.oom_memcg}:"
        stat = {"cache": 3 * MIB, "rss": self.usage - 5 * MIB, "shmem": MIB, "dirty": 2 * KIB * 4}
        stat |= {"writeback": 0, "workingset_refault_file": 7, "inactive_file": MIB, "active_file": MIB}
        stat |= {"inactive_anon": self.usage - 5 * MIB, "active_anon": MIB, "unevictable": 0, "swapcached": 0}
        for name in stat:
            yield f"{name} 0"
        yield f"hierarchical_memory_limit {self.limit}"
        for name, value in stat.items():
            yield f"total_{name} {value}"

    def tasks(self) -> Iterator[str]:
        yield "Tasks state (memory values in pages):"
        yield (
            "[  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem pgtables_bytes swapents "
            "oom_score_adj name"
        )
        anon, file = self.anon_rss // 4096, self.file_rss // 4096
        for pid, pages, comm in ((self.pid + 1000, 50, "small"), (self.pid, anon + file, self.comm)):
            yield (
                f"[{pid:7}]     0 {pid:5} {pages + 9:8} {pages:8} {pages:8}        0         0 "
                f"{self.pgtables:8}        0         {self.adj:5} {comm}"
            )

    def kill(self) -> str:
        """Return the line of the kill, which the kernel prints even if it leaves out the rest."""
        return (
            f"Memory cgroup out of memory: Killed process {self.pid} ({self.comm}) total-vm:200000kB, "
            f"anon-rss:{self.anon_rss // KIB}kB, file-rss:{self.file_rss // KIB}kB, shmem-rss:0kB, "
            f"UID:0 pgtables:{self.pgtables // KIB}kB oom_score_adj:{self.adj}"
        )


def log(trace: Any, seconds: float, *lines: str, gain: float = 1) -> None:
    """Add lines to the table `kernel_log`, one each microsecond; the clock of the log is 3 s behind.

    With a `gain` below 0, later lines of the log have earlier times in the trace.
    """
    for line in lines:
        sequence = len(trace.recorded()["kernel_log"])
        time_ns = trace.ns(seconds) + sequence * 1000
        escaped = "".join(
            char
            if " " <= char <= "~" and char != "\\"
            else "".join(f"\\x{b:02x}" for b in char.encode("utf-8", "surrogateescape"))
            for char in line
        )
        trace.add(
            "kernel_log",
            seconds + gain * sequence / 1e6,
            ktime_ns=(time_ns - trace.ns(-3)) // 1000 * 1000,
            sequence=sequence,
            level=6,
            text=escaped,
        )
