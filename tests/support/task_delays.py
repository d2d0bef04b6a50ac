"""What the kernel itself says of the time of tasks: on a CPU, waiting for one, and asleep."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Spent:
    """The time of a process of one thread so far, in seconds.

    `cpu` and `queued` (runnable, without a CPU) are of /proc/PID/schedstat, `user` of /proc/PID/stat.
    `asleep` is the rest of the time since the process began: a compiler, which waits for no other process, is
    asleep only for I/O.

    The kernel's own sum of such waits (/proc/PID/stat, delayacct_blkio_ticks) is no truth. A task that went
    to sleep can stay in the queue of its CPU, and be taken out in the context of another task. The begin of
    the wait is then noted for `current`, the other one (delayacct_blkio_start() in __block_task() of
    kernel/sched/sched.h, since 152e11f6df29 ("sched/fair: Implement delayed dequeue"), v6.12), and the end
    is measured from the begin of an earlier wait, or from the boot where there was none: a reader of one
    second had waited for 13 hours.
    """

    cpu: float
    queued: float
    user: float
    asleep: float


def spent_in(memcg: Path, comm: str) -> list[Spent]:
    """Return the times of the processes of a cgroup that have this name."""
    pids = (memcg / "cgroup.procs").read_text(encoding="ascii").split()
    return [_spent_by(Path("/proc", pid)) for pid in pids if _comm_of(Path("/proc", pid)) == comm]


def _comm_of(process: Path) -> str:
    return (process / "comm").read_text(encoding="utf-8", errors="replace").removesuffix("\n")


def _spent_by(process: Path) -> Spent:
    # man 5 proc_pid_stat: fields 14 (utime) and 22 (starttime); what is after the name begins with field 3.
    fields = (process / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    user, began = int(fields[11]) / _TICKS, int(fields[19]) / _TICKS
    cpu_ns, queued_ns, _ = map(int, (process / "schedstat").read_text(encoding="ascii").split())
    lived = time.clock_gettime(time.CLOCK_BOOTTIME) - began
    return Spent(cpu_ns / 1e9, queued_ns / 1e9, user, lived - (cpu_ns + queued_ns) / 1e9)
