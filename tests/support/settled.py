"""Cgroups whose memory.stat is up to date and does not change any more.

memory.stat lags. A reader flushes it only if more than 64 pages per CPU have changed (MEMCG_CHARGE_BATCH and
memcg_vmstats_needs_flush() in mm/memcontrol.c), and the flush every 2 s is deferred while CPUs are idle. So
this module changes that many pages elsewhere and reads the root's file, which flushes all cgroups below.

Other memory is freed after an RCU grace period, which membarrier(2) waits for, or by a worker after it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import time
from pathlib import Path
from typing import Final

from support.memcg_files import Columns, read_columns
from support.slowdown import SLOWDOWN

from tracer.kernel.cgroups.cgroupfs import memory_hierarchy

QUIET_S: Final = 0.5 * min(SLOWDOWN, 3)  # for memory that a worker frees
_SETTLES_WITHIN_S: Final = 30.0 * SLOWDOWN
_CHANGE_BYTES: Final = 2 * 64 * mmap.PAGESIZE * (1 + (os.cpu_count() or 1))
_MEMBARRIER: Final = {"x86_64": 324, "aarch64": 283}[os.uname().machine]
_GLOBAL: Final = 1  # MEMBARRIER_CMD_GLOBAL: synchronize_rcu() in kernel/sched/membarrier.c


def settle(memcg: Path) -> dict[str, int]:
    """Wait until the cgroup's flushed statistics do not change any more, and return them (0: not printed).

    The kernel may evict page cache of an idle cgroup at any time. DAMON does so on some hosts: it pages out
    what is idle (Documentation/admin-guide/mm/damon). A later reading without a flush may not show it.
    """
    hierarchy = memory_hierarchy()
    last: Columns | None = None
    since = time.monotonic()
    deadline = since + _SETTLES_WITHIN_S
    while time.monotonic() - since < QUIET_S:
        assert time.monotonic() < deadline, "the cgroup does not become quiet"
        time.sleep(0.05)
        ctypes.CDLL(None).syscall(_MEMBARRIER, _GLOBAL, 0, 0)  # refused with nohz_full, where QUIET_S must do
        _flush(hierarchy.mount)
        now = read_columns(memcg, hierarchy.version)
        if now != last:
            last, since = now, time.monotonic()
    assert last is not None
    return {name: value or 0 for name, value in last.items()}


def count_on_each_cpu(memcg: Path) -> None:
    """Run a short process in the cgroup on each CPU, after its other work and before `settle`.

    A CPU that counts tests without a lock whether the next flush will visit it, which "may race leading to
    temporary inaccuracies" (kernel/cgroup/rstat.c): a flush at that moment misses what the CPU counted, until
    it counts for the cgroup again. What the process charges is freed at its end, and its slab is less than a
    page of each CPU.
    """
    before = os.sched_getaffinity(0)
    enter = f'echo 0 > "{memcg}/cgroup.procs" && exec /bin/true'
    try:
        for cpu in sorted(before):
            os.sched_setaffinity(0, {cpu})
            subprocess.run(["sh", "-c", enter], check=True)
    finally:
        os.sched_setaffinity(0, before)


def _flush(root: Path) -> None:
    with mmap.mmap(-1, _CHANGE_BYTES) as memory:
        memory[:: mmap.PAGESIZE] = bytes(_CHANGE_BYTES // mmap.PAGESIZE)
    (root / "memory.stat").read_bytes()
