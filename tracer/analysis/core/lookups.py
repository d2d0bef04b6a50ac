"""Look-ups into tables: processes by tgid and time, stacks by number, reports of the kernel log."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from tracer.analysis.core.columns import (
    NO_ID,
    Int64s,
    column_times_ns,
    integers,
    known,
    optional_text,
    positions,
    times_ns,
)
from tracer.analysis.core.rows import RowIndex
from tracer.schema import LATEST_NS
from tracer.stored_names import IN_SOURCE

if TYPE_CHECKING:
    from tracer.kernel.kmsg.report.log_report import LogReport, OwnerMemory

_SIGNAL_TO_REPORT_NS: Final = 100_000_000


class Processes:
    """The table `tasks`, by tgid; `oom` has the kills, `epoch_ns` is CLOCK_REALTIME at CLOCK_MONOTONIC 0.

    The kernel may give a tgid to several processes, one after the other.
    """

    def __init__(self, tasks: pd.DataFrame, oom: pd.DataFrame, epoch_ns: int) -> None:
        self._rows = RowIndex.from_keys(integers(tasks["tgid"]))
        self._reused = set(self._rows.keys[np.diff(self._rows.firsts) > 1].tolist())
        self._seen_ns = column_times_ns(tasks["first_seen"])
        self._by_time = np.lexsort((self._seen_ns, integers(tasks["tgid"])))
        self._is_left = ~known(tasks["exited"])
        self._exited_ns = column_times_ns(tasks["exited"]).copy()
        self._killed_ns: dict[int, int] = {}
        self._end_after_kill(oom)
        self._start_ns = integers(tasks["start_ns"])
        self._forked_ns = _forked_ns(self._start_ns, self._seen_ns, epoch_ns)
        comms, cmdlines = (tasks[name].to_numpy(dtype=object) for name in ("comm", "cmdline"))
        self._comms, self._cmdlines = np.append(comms, np.array([None], dtype=object)), cmdlines
        self._cgroup_id, self._ppid = integers(tasks["cgroup_id"]), integers(tasks["ppid"])
        self._rows_of_cgroups = RowIndex.from_keys(self._cgroup_id)
        self._programs = integers(tasks["exe_inode_id"])
        self._is_any_program_known = bool(known(tasks["exe_inode_id"]).any())

    def _end_after_kill(self, oom: pd.DataFrame) -> None:
        """Move the end of each killed process behind its kill.

        The kernel sends the signal first, and then reports the victim (__oom_kill_process in mm/oom_kill.c);
        on another CPU, the victim may have ended in between.
        """
        for tgid, kill_ns in zip(integers(oom["tgid"]).tolist(), times_ns(oom).tolist(), strict=True):
            self._killed_ns.setdefault(tgid, kill_ns)
            rows = self._rows.rows_for(tgid)
            since_ns = kill_ns - self._exited_ns[rows]
            self._exited_ns[rows[(since_ns >= 0) & (since_ns < _SIGNAL_TO_REPORT_NS)]] = kill_ns + 1

    def was_killed(self, tgid: int, time_ns: int) -> bool:
        """Return whether the OOM killer had killed a process with this tgid by a moment."""
        killed_ns = self._killed_ns.get(tgid)
        return killed_ns is not None and killed_ns <= time_ns

    def is_any_reused(self, tgids: Iterable[int | None]) -> bool:
        """Return whether several processes had any of these tgids, one after the other."""
        return not self._reused.isdisjoint(tgids)

    def positions_at(self, tgids: Int64s, times_ns: Int64s) -> Int64s:
        """Return for each tgid and time the position in `tasks` of the process that had the tgid then.

        It is the last one that was first seen by then, else the first one seen later: the recorder learns the
        name of a process after it has acted, and the row of a wait stands at the wait's begin. -1: there is
        no process with this tgid.
        """
        code, distinct = pd.factorize(tgids)
        keys = self._rows.ordered_keys()
        firsts, ends = (np.searchsorted(keys, distinct, side) for side in ("left", "right"))
        position = np.append(self._by_time, -1)[np.where(firsts < ends, firsts, -1)][code]
        is_shared = ends - firsts > 1
        if is_shared.any():
            shared = np.flatnonzero(is_shared[code])
            position[shared] = self._by_time[
                self._last_seen(tgids[shared], times_ns[shared], firsts[code[shared]])
            ]
        return np.asarray(position, dtype=np.int64)

    def comms(self, positions: Int64s) -> npt.NDArray[np.object_]:
        """Return the names of the processes at these positions in `tasks`; None for -1."""
        return np.asarray(self._comms[positions], dtype=np.object_)

    def _last_seen(self, tgids: Int64s, times_ns: Int64s, firsts: Int64s) -> Int64s:
        """Return for each tgid and time the position in `_by_time` of the process that was first seen last by
        then."""
        seen_ns = self._seen_ns[self._by_time]
        moments = np.unique(seen_ns)
        owners = self._rows.keys
        # A tgid and the rank of a time, as one number.
        places = np.searchsorted(owners, self._rows.ordered_keys()) * (len(moments) + 1)
        places += np.searchsorted(moments, seen_ns, side="right")
        wanted = np.searchsorted(owners, tgids) * (len(moments) + 1)
        wanted += np.searchsorted(moments, times_ns, side="right")
        return np.maximum(np.searchsorted(places, wanted, side="right") - 1, firsts)

    def comm_at(self, tgid: int, begin_ns: int, end_ns: int) -> str | None:
        """Return the name of the process that had this tgid within an interval, None if it is not known.

        If several processes had it, it is the last to start. If none had been seen by then, it is the first
        one seen later: the recorder learns the name of a process after the process has acted.
        """
        row = self._row_at(tgid, begin_ns, end_ns)
        return None if row is None else str(self._comms[row])

    def cmdline_at(self, tgid: int, begin_ns: int, end_ns: int) -> str | None:
        """Return the command line of the process that `comm_at` finds.

        None if it was never read, or contains no more than the name.
        """
        row = self._row_at(tgid, begin_ns, end_ns)
        if row is None or pd.isna(self._cmdlines[row]):
            return None
        title = str(self._cmdlines[row])
        return None if title.rpartition("/")[2] == str(self._comms[row]) else title

    def titles(self, cgroup_ids: Int64s) -> list[tuple[str, str | None]]:
        """Return (name, command line, if it was read) of each process of these (distinct) cgroups."""
        rows = self._rows_of_cgroups.rows_for_any(cgroup_ids)
        return [
            (str(comm), optional_text(cmdline))
            for comm, cmdline in zip(self._comms[rows], self._cmdlines[rows], strict=True)
        ]

    def exited_at(self, tgid: int, begin_ns: int, end_ns: int) -> int | None:
        """Return when the process that `comm_at` finds ended, in ns since the epoch.

        None if it was still there at the end of the interval, or if that is not known.
        """
        row = self._row_at(tgid, begin_ns, end_ns)
        is_there = row is None or self._is_left[row] or self._exited_ns[row] > end_ns
        return None if row is None or is_there else int(self._exited_ns[row])

    def fork_of(self, tgid: int, time_ns: int) -> tuple[int, int] | None:
        """Return (parent's tgid, own fork in ns since the epoch) of the process with this tgid at that time.

        The parent is the one that it had when it was first seen. None if the process is not known.
        """
        row = self._row_at(tgid, time_ns, time_ns)
        return None if row is None else (int(self._ppid[row]), int(self._forked_ns[row]))

    def _row_at(self, tgid: int, begin_ns: int, end_ns: int) -> int | None:
        rows = self._rows.rows_for(tgid)
        if not len(rows):
            return None
        if len(rows) == 1:  # nearly all pids were used once
            row = int(rows[0])
            return row if self._is_left[row] or self._exited_ns[row] >= begin_ns else None
        seen_ns = self._seen_ns[rows]
        is_there = seen_ns <= max(end_ns, int(seen_ns.min()))
        rows = rows[is_there & (self._is_left[rows] | (self._exited_ns[rows] >= begin_ns))]
        return int(rows[self._start_ns[rows].argmax()]) if len(rows) else None

    def programs(self, tgids: Int64s, cgroup_ids: Int64s) -> set[int] | None:
        """Return the files (`inode_id`) that processes with these tgids, or in these cgroups, execute.

        None if the trace does not know any program. The ids in each array are distinct.
        """
        if not self._is_any_program_known:
            return None
        rows = (self._rows.rows_for_any(tgids), self._rows_of_cgroups.rows_for_any(cgroup_ids))
        return set(self._programs[np.concatenate(rows)].tolist()) - {NO_ID}

    def spans_of(self, tgids: Int64s) -> tuple[Int64s, Int64s]:
        """Return for each tgid when a process with it was first seen, and when the last one ended, in ns
        since the epoch.

        An end at `LATEST_NS`: it was still there at the end of the trace. If no process had the tgid, they
        are `LATEST_NS` and 0.
        """
        if not len(self._rows.keys):
            return np.full(len(tgids), LATEST_NS), np.zeros(len(tgids), np.int64)
        order, firsts = self._rows.order, self._rows.firsts[:-1]
        ended_ns = np.where(self._is_left, LATEST_NS, self._exited_ns)[order]
        row = positions(self._rows.keys, tgids)
        seen = np.where(row < 0, LATEST_NS, np.minimum.reduceat(self._seen_ns[order], firsts)[row])
        return seen, np.where(row < 0, 0, np.maximum.reduceat(ended_ns, firsts)[row])

    def cgroup_at(self, tgid: int, time_ns: int, apart_ns: int = 0) -> int | None:
        """Return the cgroup of the process that had this tgid at that time, or else of the one that had it
        nearest to that time, at most `apart_ns` from it. None: it is not known.
        """
        rows = self._rows.rows_for(tgid)
        since_exit_ns = np.where(self._is_left[rows], 0, time_ns - self._exited_ns[rows])
        away_ns = np.maximum(self._seen_ns[rows] - time_ns, since_exit_ns).clip(0)
        rows = rows[away_ns == min(away_ns.min(initial=apart_ns + 1), apart_ns)]
        return int(self._cgroup_id[rows[self._start_ns[rows].argmax()]]) if len(rows) else None


def _forked_ns(start_ns: Int64s, seen_ns: Int64s, epoch_ns: int) -> Int64s:
    """Return the times of the forks, in ns since the epoch: the latest possible, never after `seen_ns`.

    A child is seen when it first acts, and on a busy machine it may wait 0.2 s for a CPU before that. The
    kernel's start is CLOCK_BOOTTIME, which is ahead of CLOCK_MONOTONIC by the time for which the machine was
    suspended. This lead only grows. It is at least the time by which any earlier process would otherwise have
    been seen before its start.
    """
    forked_ns = start_ns + epoch_ns
    order = np.lexsort((seen_ns, start_ns))
    suspended_ns = np.zeros(len(order), np.int64)
    suspended_ns[order] = np.maximum.accumulate(np.maximum(forked_ns - seen_ns, 0)[order])
    return forked_ns - suspended_ns


Frames = tuple[str, ...]

_OFFSET: Final = re.compile(r"\+0x[0-9a-f]+$")
_NO_NAMES: Final = ("[unknown]",)
"""The functions of a stack whose names were not written before the recorder was killed."""


class Functions:
    """The table `stacks`, by `stack_id`."""

    def __init__(self, stacks: pd.DataFrame) -> None:
        self._frames = dict(zip(integers(stacks["stack_id"]).tolist(), stacks["frames"], strict=True))
        told = stacks[stacks["left_code"].notna()]
        self._left_code = dict(
            zip(integers(told["stack_id"]).tolist(), told["left_code"].astype(bool).tolist(), strict=True)
        )
        self._known: dict[int, Frames] = {NO_ID: ()}
        self._texts: dict[int, Frames] = {}
        self._is_named: dict[int, bool] = {}

    def frames_for(self, stack_id: int) -> Frames | None:
        """Return the frames as they were recorded, innermost first; None if there is no such stack."""
        if stack_id not in self._texts and (frames := self._frames.get(stack_id)) is not None:
            self._texts[stack_id] = tuple(map(str, frames))
        return self._texts.get(stack_id)

    def is_named(self, stack_id: int) -> bool:
        """Return whether a stack is known and has names (`is_named`); many kills have the same one."""
        if stack_id not in self._is_named:
            self._is_named[stack_id] = is_named(self._frames.get(stack_id))
        return self._is_named[stack_id]

    def functions_for(self, stack_id: int) -> Frames:
        """Return the functions, innermost first; () for `NO_ID`: no stack was taken."""
        if stack_id not in self._known:
            frames = self.frames_for(stack_id)
            known = _NO_NAMES if frames is None else tuple(map(function_of, frames))
            self._known[stack_id] = known
        return self._known[stack_id]

    def left_code(self, stack_id: int) -> bool | None:
        """Return whether unwinding ended at an address that is no code; None: not known, as in older
        traces."""
        return self._left_code.get(stack_id)

    def cut_off(self) -> int | None:
        """Return how many stacks ended at an address that is no code; None: not known."""
        return sum(self._left_code.values()) if self._left_code or not self._frames else None

    def unnamed(self) -> int:
        """Return the number of stacks that consist of addresses only."""
        return sum(not is_named(frames) for frames in self._frames.values())


def function_of(frame: str) -> str:
    """Return `symbol` of `symbol+0xoffset`, `symbol [module]` and `symbol [module] (file:line)`; a frame
    without a symbol unchanged."""
    if frame.startswith("["):
        return frame
    if in_source := IN_SOURCE.fullmatch(frame):
        frame = in_source["native"]
    return frame.rpartition(" [")[0] if frame.endswith("]") else _OFFSET.sub("", frame)


def is_named(frames: Iterable[object] | None) -> bool:
    """Return whether a stack is known and has names: the recorder may have had no time to find them."""
    return frames is not None and not all(str(frame).startswith("0x") for frame in frames)


class Shown(NamedTuple):
    """What the first and the last lines of a report show: the header, the summary, and the kill.

    `has_header` is False if the first line is missing; `gfp`, `gfp_names` and `order` are those of the
    request.
    """

    has_header: bool
    has_kill: bool
    constraint: str
    oom_memcg: str | None
    gfp: int | None
    gfp_names: str | None
    order: int | None

    @classmethod
    def from_report(cls, report: LogReport) -> Shown:
        """Return what a report shows."""
        return cls(
            "header" not in report.missing,
            bool(report.kills),
            report.constraint,
            report.oom_memcg,
            report.invoker.gfp,
            report.invoker.gfp_names,
            report.invoker.order,
        )


class Logged:
    """A report of the log, and the times of its kill lines by pid, in ns since the epoch.

    The times may be late by the delay of the recorder's wake-up, from which the offset between the clocks is
    estimated (capture/rows/kmsg_stream.py). `shown` is known without the report. `read_memory` returns the
    memory of the limit owner for less than `read`; None if only `read` shows it.
    """

    def __init__(
        self,
        killed_ns: Mapping[int | None, int],
        shown: Shown,
        read: Callable[[], LogReport],
        read_memory: Callable[[], OwnerMemory | None] = lambda: None,
        read_stack: Callable[[], Frames | None] = lambda: None,
    ) -> None:
        self.killed_ns = killed_ns
        self.shown = shown
        self._read = read
        self._read_memory = read_memory
        self._read_stack = read_stack

    @cached_property
    def report(self) -> LogReport:
        """Return the report, which is parsed at the first use."""
        return self._read()

    def memory(self) -> OwnerMemory:
        """Return the memory of the limit owner in the report, which is read at each use."""
        found = self._read_memory()
        return self.report.memory if found is None else found

    @cached_property
    def stack(self) -> Frames:
        """Return the frames of the trigger's call trace in the report, innermost first."""
        found = self._read_stack()
        return self.report.stack if found is None else found


@dataclass(frozen=True, slots=True)
class LogKill:
    """A decision that only the log has.

    `owner_id` is the cgroup whose limit was hit, `victim_ids` the cgroup of each victim; `NO_ID`: not known.
    """

    kill_id: int
    time_ns: int
    report: LogReport
    owner_id: int
    victim_ids: tuple[int, ...]
