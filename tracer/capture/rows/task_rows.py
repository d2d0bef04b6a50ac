"""Rows of `tasks`, the processes that acted, and of `task_time`, the CPU time of the tasks of each traced
cgroup (bpf/shared/task_time.h).
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from tracer.capture.bpf.load import Programs
from tracer.capture.bpf.ring import Records
from tracer.capture.rows.decode import text
from tracer.enumerations import TASK_EVENT
from tracer.kernel.process.bounded_call import bounded
from tracer.kernel.process.resident import command_line
from tracer.schema import TABLES, TIME
from tracer.stored_names import stored_name
from tracer.trace.arrow_columns import numbers

_Key = tuple[int, int]  # tgid, start_ns: a tgid may be used again

MOST_BYTES: Final = 256
"""The most bytes of a title; the rest is left out."""

_PROC: Final = Path("/proc")
_NS_PER_TICK: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def read_title(tgid: int, start_ns: int, proc: Path = _PROC) -> str | None:
    """Return /proc/PID/cmdline of the process that started at `start_ns` (CLOCK_BOOTTIME), with spaces
    between words.

    None if the process has ended, has no address space left, is a kernel thread, or has its command line in
    swap: to read that could kill it.
    """
    try:
        title = command_line(proc / str(tgid), MOST_BYTES, start_ns // _NS_PER_TICK)
    except OSError:
        return None
    return stored_name(title.rstrip(b"\0 ").replace(b"\0", b" ")) or None


def _titles_in_time(keys: Collection[_Key]) -> dict[_Key, str | None]:
    """Return the titles of processes as `read_title` does, without those that block who reads their memory.

    One call reads them all, unless one process did not answer: then there is a call for each.
    """
    found: dict[_Key, str | None] = {}
    if not keys:
        return found

    def read() -> None:
        for key in keys:
            found[key] = read_title(*key)

    with suppress(OSError):
        bounded("command lines", read)
        return found
    titles = dict(found)
    for key in keys:
        if key not in titles:
            with suppress(OSError):
                titles[key] = bounded(f"process {key[0]}", read_title, *key)
    return titles


_TITLES_AT_ONCE: Final = 128  # of about 20 us each
_TITLE_AFTER_S: Final = 1.0
_YOUNG_KEPT: Final = 4096
ALIVE_UNCHECKED: Final = 20_000
"""If more processes than this have no known exit, their existence is checked."""
_EXITED_KEPT: Final = 1024  # a dying task acts within milliseconds of its exit


class TaskRows:
    """A row for each process; the owner takes new and changed rows from `rows`."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._alive: dict[_Key, dict[str, Any]] = {}
        self._exited: dict[_Key, dict[str, Any]] = {}  # the most recent ones, oldest first
        self._young: deque[tuple[float, _Key]] = deque()
        self._most_alive = ALIVE_UNCHECKED

    @property
    def has_young(self) -> bool:
        """Return whether a command line will be read again."""
        return bool(self._young)

    def reread_titles(self, tgids: Collection[int] = ()) -> None:
        """Read the command lines of these processes, and of those that were first seen a second ago.

        A process that was just forked has its parent's command line.
        """
        now_s = time.monotonic()
        asked = (key for key in self._alive if key[0] in tgids) if tgids else ()
        due = set(islice(asked, _TITLES_AT_ONCE))
        while self._young and self._young[0][0] <= now_s and len(due) < _TITLES_AT_ONCE:
            due.add(self._young.popleft()[1])
        for key, title in _titles_in_time(due & self._alive.keys()).items():
            row = self._alive[key]
            if title not in (None, row["cmdline"]):
                row["cmdline"] = title
                self.rows.append(row)

    def take_events(self, records: Records, clock_offset_ns: int) -> None:
        """Take records of first sights, execs (which change the name) and exits.

        A task reports its exit before it frees its memory, and acts again after that (do_exit in
        kernel/exit.c, since "exit: move and extend sched_process_exit() tracepoint", v6.16). A first sight
        after the exit is of the dead process and makes no new row.
        """
        fresh: dict[_Key, dict[str, Any]] = {}
        for record in records:
            event = TASK_EVENT.names[record["event"]]
            time_ns = int(record["time_ns"]) + clock_offset_ns
            key = (int(record["tgid"]), int(record["start_ns"]))
            if event == "seen" and key in self._exited:
                continue
            # Two threads that exit together may both report the end of their process.
            row = self._alive.setdefault(key, self._exited.pop(key, {"first_seen": time_ns, "cmdline": None}))
            row |= {
                "tgid": key[0],
                "start_ns": key[1],
                "ppid": int(record["ppid"]),
                "uid": int(record["uid"]),
                "comm": text(record["comm"]),
                "cgroup_id": int(record["cgroup_id"]),
                # A task that exits may have no memory left, and then shows no program.
                "exe_inode_id": int(record["exe_inode_id"]) or row.get("exe_inode_id"),
                "exited": None,
            }
            if event == "exit":
                row["exited"] = time_ns
                self._exited[key] = self._alive.pop(key)
                if len(self._exited) > _EXITED_KEPT:
                    del self._exited[next(iter(self._exited))]
            elif len(self._young) < _YOUNG_KEPT:
                self._young.append((time.monotonic() + _TITLE_AFTER_S, key))
                if len(fresh) < _TITLES_AT_ONCE:
                    fresh[key] = row
            self.rows.append(row)
        for key, title in _titles_in_time(fresh).items():
            fresh[key]["cmdline"] = title or fresh[key]["cmdline"]
        if len(self._alive) > self._most_alive:
            self._forget_lost_exits()

    def _forget_lost_exits(self) -> None:
        """Forget the processes that are gone: the records of some exits were lost."""
        self._alive = {key: row for key, row in self._alive.items() if Path(f"/proc/{key[0]}").exists()}
        self._most_alive = max(ALIVE_UNCHECKED, 2 * len(self._alive))


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
