"""Rows of `kernel_log`: the lines that /dev/kmsg gives while recording. Nothing is ever written to it.

Only the kernel's own lines are kept. Lines that a program writes to /dev/kmsg have another facility
(Documentation/ABI/testing/dev-kmsg).

printk stamps records with local_clock(). NTP adjusts CLOCK_MONOTONIC and not local_clock(), so the two are
seconds apart after weeks. The difference is measured while reading. A record is read after it was stamped, so
each delay (CLOCK_MONOTONIC at the read minus the stamp) is the difference of the clocks plus the time until
the recorder woke up; the smallest delay is the best estimate.

A trace of some cgroups keeps no OOM reports on other cgroups. The kernel writes one report at a time
(oom_lock in mm/oom_kill.c). A report names its cgroup near its end, so its lines are held until then. Lines
outside of reports are kept, and so are reports that name no cgroup.

The import of the parsers of reports takes a tenth of a recorder's start, and most recorders see no report. So
it waits for the first one; `load_parsers` imports them early.
"""

from __future__ import annotations

import os
import re
import select
import stat
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from tracer.kernel.kmsg.text import markers

KMSG: Final = Path("/dev/kmsg")
READ: Final = "read"
"""The state of a log that can be read, for meta.json; any other state is the reason why it cannot."""

_KMSG_DEVICE: Final = os.makedev(1, 11)  # Documentation/admin-guide/devices.txt
_RECORD_BYTES: Final = 16384  # more than any record (CONSOLE_EXT_LOG_MAX, PRINTK_MESSAGE_MAX: kernel/printk)
_RECORDS_AT_ONCE: Final = 4096
_KILL_LINE_WITHIN_NS: Final = 200_000_000
_STEERED_MOST: Final = 2000  # 500 ppm, the largest adjustment of a clock (MAXFREQ in include/linux/timex.h)
_KERNEL_FACILITY: Final = 0
_KILLED: Final = re.compile(r"Killed process (\d+)")


def open_kernel_log(device: Path = KMSG) -> KernelLog:
    """Open the kernel log at its end. If it cannot be read, `state` of the result gives the reason."""
    try:
        fd = os.open(device, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return KernelLog(None, f"{device}: {error.strerror}")
    if not _is_kernel_log(fd):
        os.close(fd)
        return KernelLog(None, f"{device} is not the kernel log here")
    os.lseek(fd, 0, os.SEEK_END)
    return KernelLog(fd, READ)


class KernelLog:
    """The unread records of /dev/kmsg; without `fd` there are none.

    `lost` counts the records, of any facility, that were overwritten before they were read.
    """

    def __init__(self, fd: int | None, state: str) -> None:
        self.state = state
        self.lost = 0
        self._fd = fd
        self._next_sequence: int | None = None
        self._clock_ns: int | None = None  # CLOCK_MONOTONIC minus the log's clock, and when it was measured
        self._clock_found_ns = 0
        self._last_time_ns = 0
        self._killed_ns: dict[int, int] = {}

    def fds(self) -> list[int]:
        """Return the descriptor to poll, if any: readable when a record waits."""
        return [] if self._fd is None else [self._fd]

    def read(self) -> list[dict[str, Any]]:
        """Return the lines since the last call as rows of `kernel_log`, with `time` as CLOCK_MONOTONIC.

        No line is earlier than the one before it, although a better estimate of the clocks' difference may
        have come between them.
        """
        if self._fd is None:
            return []
        rows = []
        for _ in range(_RECORDS_AT_ONCE):
            try:
                record = os.read(self._fd, _RECORD_BYTES)
            except BlockingIOError:
                break
            except BrokenPipeError:  # overrun: the next sequence number shows by how many
                self.lost += self._next_sequence is None
                continue
            if (row := self._take(record)) is not None:
                rows.append(row)
        return [row | {"time": self._time_ns(row["ktime_ns"])} for row in rows]

    def read_until_killed(self, marked_ns: Mapping[int, int]) -> list[dict[str, Any]]:
        """Return what `read` returns, once the lines about these victims (pid -> time of the mark) came.

        The kernel marks a victim before it logs the kill (__oom_kill_process in mm/oom_kill.c). Waits for at
        most 200 ms after the mark.
        """
        rows = self.read()
        while self._fd is not None:
            now_ns = time.monotonic_ns()
            awaited = [ns for pid, ns in marked_ns.items() if self._killed_ns.get(pid, 0) < ns]
            left_ns = max(awaited, default=0) + _KILL_LINE_WITHIN_NS - now_ns
            if left_ns <= 0:
                break
            poll = select.poll()
            poll.register(self._fd, select.POLLIN)
            poll.poll(left_ns / 1e6)
            rows += self.read()
        return rows

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _time_ns(self, ktime_ns: int) -> int:
        self._last_time_ns = max(self._last_time_ns, ktime_ns + (self._clock_ns or 0))
        return self._last_time_ns

    def _take(self, record: bytes) -> dict[str, Any] | None:
        """Return a row without `time`; None for a line that is not the kernel's own.

        A record is `6,1832,520011607,-[,caller=T5];text`, followed by lines of KEY=VALUE for programs.
        """
        read_ns = time.monotonic_ns()
        head, _, body = record.decode("ascii", "backslashreplace").partition(";")
        priority, sequence, microseconds, _, *more = head.split(",")
        facility, level = divmod(int(priority), 8)
        ktime_ns = int(microseconds) * 1000
        self._compare_clocks(ktime_ns, read_ns)
        if self._next_sequence is not None:
            self.lost += max(int(sequence) - self._next_sequence, 0)
        self._next_sequence = int(sequence) + 1
        if facility != _KERNEL_FACILITY:
            return None
        text = body.partition("\n")[0]
        if killed := _KILLED.search(text):
            self._killed_ns[int(killed[1])] = read_ns
        callers = [field.removeprefix("caller=") for field in more if field.startswith("caller=")]
        return {
            "ktime_ns": ktime_ns,
            "sequence": int(sequence),
            "level": level,
            "caller": callers[0] if callers else None,
            "text": text,
        }

    def _compare_clocks(self, ktime_ns: int, read_ns: int) -> None:
        late_ns = read_ns - ktime_ns
        if self._clock_ns is not None:
            steered_ns = (read_ns - self._clock_found_ns) // _STEERED_MOST
            late_ns = min(late_ns, self._clock_ns + steered_ns)
        self._clock_ns, self._clock_found_ns = late_ns, read_ns


def _is_kernel_log(fd: int) -> bool:
    """Return whether `fd` is /dev/kmsg itself: some containers have a link to another device there."""
    status = os.fstat(fd)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == _KMSG_DEVICE


def load_parsers() -> None:
    """Import what parses reports, so that the first report does not wait for it."""
    from tracer.kernel.kmsg.report import printed_lines, summary_line  # noqa: F401, PLC0415


Row = dict[str, Any]

_MOST_HELD: Final = 20_000
"""The most lines held; a longer report is kept. The table of tasks has a line for each process."""

_HELD_AT_MOST_NS: Final = 1_000_000_000
_KILL_WITHIN_LINES: Final = 50
"""The most lines from the line that names the cgroup to the kill (`_CHOICE_TO_KILL_LINES` of
kmsg.machine_log)."""

_MOST_VICTIMS: Final = 4096
_MAY_BE_CUT: Final = 900
"""A line of so many characters may be cut: the kernel cuts at about a thousand (LOG_LINE_MAX in
kernel/printk/printk.c)."""


class LogFilter:
    """Takes rows of `kernel_log` and returns the rows to keep.

    `concerns` is called for each cgroup that a report names, with the kernel's path; its results may change
    as the set of traced cgroups grows. `left_out` counts the reports on other cgroups, and their lines.
    """

    def __init__(self, concerns: Callable[[str], bool]) -> None:
        self._concerns = concerns
        self._held: list[Row] = []
        self._others: deque[int] = deque(maxlen=_MOST_VICTIMS)  # pids of victims in other cgroups
        self._left_to_kill = 0
        self._is_group = False
        self.left_out = {"reports": 0, "lines": 0}

    def take(self, rows: Iterable[Row]) -> list[Row]:
        """Return the rows to keep, from these and from the held ones."""
        kept: list[Row] = []
        for row in rows:
            self._take(row, kept)
            is_late = self._held and row["ktime_ns"] - self._held[0]["ktime_ns"] > _HELD_AT_MOST_NS
            if is_late or len(self._held) > _MOST_HELD:
                kept += self.end()
        return kept

    def end(self) -> list[Row]:
        """Return the held rows: no later line will name their cgroup."""
        held, self._held = self._held, []
        return held

    def _take(self, row: Row, kept: list[Row]) -> None:
        text = row["text"]
        if markers.INVOKED in text:
            kept += self.end()
            self._left_to_kill, self._is_group = 0, False
            self._held.append(row)
        elif self._left_to_kill or self._is_after_one_of_others(text):
            self._leave_out_rest(row)
        elif self._held:
            self._held.append(row)
            named = _cgroups_named(text)
            if named and not any(map(self._concerns, named)):
                self._leave_out()
            elif named or markers.KILLED in text:
                kept += self.end()
        else:
            kept.append(row)

    def _leave_out(self) -> None:
        self.left_out["lines"] += len(self._held)
        self.left_out["reports"] += 1
        self._held.clear()
        self._left_to_kill = _KILL_WITHIN_LINES

    def _leave_out_rest(self, row: Row) -> None:
        from tracer.kernel.kmsg.report import printed_lines  # noqa: PLC0415
        from tracer.kernel.kmsg.text.styles import Stamp  # noqa: PLC0415

        self.left_out["lines"] += 1
        if self._left_to_kill:
            self._left_to_kill -= 1
        killed = printed_lines.killed(row["text"], Stamp(0))
        if killed is not None:
            if killed.pid is not None:
                self._others.append(killed.pid)
            self._left_to_kill = 0

    def _is_after_one_of_others(self, text: str) -> bool:
        """Return whether a line belongs to an earlier report: a group kill, or the oom_reaper's line."""
        if not (self._is_group or markers.REAPER in text or markers.GROUP in text):
            return False
        from tracer.kernel.kmsg.report import printed_lines  # noqa: PLC0415
        from tracer.kernel.kmsg.text.styles import Stamp  # noqa: PLC0415

        if markers.REAPER in text:
            reaped = printed_lines.reaped(text, Stamp(0))
            return reaped is not None and reaped.pid in self._others
        if (group := printed_lines.group(text)) is not None:
            self._is_group = not self._concerns(group)
            return self._is_group
        if self._is_group:
            self._is_group = markers.KILLED in text
        return self._is_group


def _cgroups_named(text: str) -> tuple[str, ...]:
    """Return the cgroups that a line names: the limit owner's, and the chosen task's.

    Returns () if the kernel may have cut a path, or wrote it with escapes
    (Documentation/ABI/testing/dev-kmsg).
    """
    from tracer.kernel.kmsg.report import summary_line  # noqa: PLC0415

    if len(text) >= _MAY_BE_CUT or "\\" in text:
        return ()
    if text.startswith(markers.SUMMARY) and (summary := summary_line.summary(text)) is not None:
        named = (summary.oom_memcg, summary.task_memcg) if summary.constraint == "memcg" else ()
        return tuple(path for path in named if path)
    return tuple(path for path in summary_line.limit_of(text) or () if path is not None)
