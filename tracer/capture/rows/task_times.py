"""The CPU time of the tasks of each traced cgroup (bpf/shared/task_time.h), as rows of `task_time`."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Final

import numpy as np
import pyarrow as pa

from tracer.capture.bpf.load import Programs
from tracer.capture.bpf.ring import Records
from tracer.schema import TABLES, TIME
from tracer.trace.arrow_columns import numbers

_SPENT: Final = np.dtype([(name, "<u8") for name in ("time_ns", "begin_ns", "cgroup_id", "cpu_ns")])


class TaskTimes:
    """The CPU time that the programs add up, in an array of (CPU, slot of the account) that they share."""

    def __init__(self, programs: Programs) -> None:
        """Map the array of `programs`. Raises OSError if the kernel refuses."""
        self._programs = programs
        self._shared = programs.map("task_times").share()
        spent_ns = np.frombuffer(self._shared, "<u8", programs.cpus * programs.accounts)
        self._spent_ns = spent_ns.reshape(-1, programs.accounts)
        self._taken_ns = np.zeros(programs.accounts, np.uint64)
        self._cgroup_ids: dict[int, int] = {}  # by slot
        self._closed: list[tuple[int, int]] = []  # (cgroup id, CPU time that was not taken)
        self._closed_ns = 0
        self._begin_ns = time.monotonic_ns()

    def close(self) -> None:
        del self._spent_ns
        self._shared.close()

    def close_account(self, slot: int, cgroup_id: int, cpu_ns: int) -> None:
        """Note that an account was closed. Its tasks had run for `cpu_ns` since it was opened."""
        self._closed_ns += cpu_ns
        self._closed.append((cgroup_id, cpu_ns - int(self._taken_ns[slot])))
        self._taken_ns[slot] = 0
        self._cgroup_ids.pop(slot, None)

    def work_ns(self) -> int:
        """Return the CPU time of all traced tasks since the recording began.

        The tasks that run now are counted up to the last timer tick.
        """
        for cpu in range(self._programs.cpus):
            with suppress(OSError):  # the CPU is offline: no task runs there
                self._programs.run("tick", cpu=cpu)
        return int(self._spent_ns.sum()) + self._closed_ns

    def add_left(self) -> None:
        """Add the time that slices still hold once the programs are detached: their CPUs are offline."""
        for cpu, left in enumerate(self._programs.map("slices")[0]):
            self._spent_ns[cpu, left.slot] += left.ran_ns

    def take(self) -> Records:
        """Return the CPU time that each cgroup used since the last call, if any: time_ns, begin_ns (the
        interval, CLOCK_MONOTONIC), cgroup_id and cpu_ns."""
        begin_ns, self._begin_ns = self._begin_ns, time.monotonic_ns()
        now_ns = self._spent_ns.sum(axis=0)
        slots = np.flatnonzero(now_ns != self._taken_ns).tolist()
        spent = [(self._cgroup_id(slot), int(now_ns[slot] - self._taken_ns[slot])) for slot in slots]
        self._taken_ns = now_ns
        closed, self._closed = [one for one in self._closed if one[1]], []
        rows = [(self._begin_ns, begin_ns, cgroup_id, cpu_ns) for cgroup_id, cpu_ns in (*closed, *spent)]
        return np.array(rows, _SPENT)

    def _cgroup_id(self, slot: int) -> int:
        """Return the cgroup of an open account. Only this process closes accounts."""
        if slot not in self._cgroup_ids:
            self._cgroup_ids[slot] = int(self._programs.map("accounts")[slot].cgroup_id)
        return self._cgroup_ids[slot]


def task_time_rows(records: Records, clock_offset_ns: int) -> pa.RecordBatch:
    """Return the rows of `task_time`. `clock_offset_ns` is CLOCK_REALTIME minus CLOCK_MONOTONIC."""
    columns = {
        "time": numbers(records["time_ns"].astype(np.int64) + clock_offset_ns, TIME),
        "begin": numbers(records["begin_ns"].astype(np.int64) + clock_offset_ns, TIME),
        "cgroup_id": numbers(records["cgroup_id"].astype(np.int64)),
        "cpu_ns": numbers(records["cpu_ns"].astype(np.int64)),
    }
    return pa.record_batch(columns, TABLES["task_time"])
