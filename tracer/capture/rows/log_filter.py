"""The part of the kernel log that a trace of some cgroups keeps: no OOM reports on other cgroups.

The kernel writes one report at a time (oom_lock in mm/oom_kill.c). A report names its cgroup near its end,
so its lines are held until then. Lines outside of reports are kept, and so are reports that name no cgroup.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from tracer.kernel.kmsg.report import printed_lines, summary_line
from tracer.kernel.kmsg.text import shapes
from tracer.kernel.kmsg.text.log_record import Stamp

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
        if shapes.INVOKED in text:
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
            elif named or shapes.KILLED in text:
                kept += self.end()
        else:
            kept.append(row)

    def _leave_out(self) -> None:
        self.left_out["lines"] += len(self._held)
        self.left_out["reports"] += 1
        self._held.clear()
        self._left_to_kill = _KILL_WITHIN_LINES

    def _leave_out_rest(self, row: Row) -> None:
        self.left_out["lines"] += 1
        if self._left_to_kill:
            self._left_to_kill -= 1
        killed = printed_lines.killed(row["text"], Stamp(0))
        if killed is not None:
            self._others.append(killed.pid)
            self._left_to_kill = 0

    def _is_after_one_of_others(self, text: str) -> bool:
        """Return whether a line belongs to an earlier report: a group kill, or the oom_reaper's line."""
        if shapes.REAPER in text:
            reaped = printed_lines.reaped(text, Stamp(0))
            return reaped is not None and reaped.pid in self._others
        if (group := printed_lines.group(text)) is not None:
            self._is_group = not self._concerns(group)
            return self._is_group
        if self._is_group:
            self._is_group = shapes.KILLED in text
        return self._is_group


def _cgroups_named(text: str) -> tuple[str, ...]:
    """Return the cgroups that a line names: the limit owner's, and the chosen task's.

    Returns () if the kernel may have cut a path, or wrote it with escapes
    (Documentation/ABI/testing/dev-kmsg).
    """
    if len(text) >= _MAY_BE_CUT or "\\" in text:
        return ()
    if text.startswith(shapes.SUMMARY) and (summary := summary_line.summary(text)) is not None:
        named = (summary.oom_memcg, summary.task_memcg) if summary.constraint == "memcg" else ()
        return tuple(path for path in named if path)
    return tuple(path for path in summary_line.limit_of(text) or () if path is not None)
