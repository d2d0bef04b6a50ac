"""What the kernel itself says of the time of tasks: CPU time, and the time that they waited for block I/O."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SWITCH: Final = Path("/proc/sys/kernel/task_delayacct")
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Spent:
    """The time of a process so far, in seconds.

    `cpu` and `queued` (runnable, without a CPU) are of /proc/PID/schedstat; `user` and `blocked` (for block
    I/O, counted since v5.14 only with kernel.task_delayacct) of /proc/PID/stat.
    """

    cpu: float
    queued: float
    user: float
    blocked: float


def spent_in(memcg: Path, comm: str) -> list[Spent]:
    """Return the times of the processes of a cgroup that have this name."""
    found = []
    for pid in (memcg / "cgroup.procs").read_text(encoding="ascii").split():
        head, _, rest = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")
        if head.partition("(")[2] != comm:
            continue
        fields = rest.split()
        cpu, queued, _ = map(int, Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split())
        # man 5 proc_pid_stat: fields 14 and 42; the rest begins with field 3.
        user, blocked = int(fields[11]), int(fields[39])
        found.append(Spent(cpu / 1e9, queued / 1e9, user / _TICKS, blocked / _TICKS))
    return found


@contextmanager
def delays_counted() -> Iterator[bool]:
    """Have the kernel count block I/O delays; yield whether it can."""
    if not SWITCH.exists():
        yield False
        return
    before = SWITCH.read_text(encoding="ascii")
    SWITCH.write_text("1", encoding="ascii")
    try:
        yield True
    finally:
        SWITCH.write_text(before, encoding="ascii")
