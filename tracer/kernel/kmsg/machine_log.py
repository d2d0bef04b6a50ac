"""The lines that one kernel printed, assembled into OOM reports.

A line belongs to a report by words that only the OOM killer prints or, within a report, by its shape. So
lines of other subsystems may be in between, and a report may lack its beginning or its end. The kernel writes
one report at a time (oom_lock, mm/oom_kill.c) and ends it with a kill. The other kills of a group follow, and
are joined to the report by their order.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Final

from tracer.kernel.kmsg.assembly import CALL_TRACE, OF_REPORT, SLAB_TITLE, Assembly
from tracer.kernel.kmsg.report import mem_info, printed_lines, summary_line
from tracer.kernel.kmsg.report.log_report import Invoker, Section
from tracer.kernel.kmsg.text import markers, shapes
from tracer.kernel.kmsg.text.styles import Record, RowKind, Run, Stamp

_PANIC: Final = "Kernel panic - not syncing: "
_NO_TASK: Final = "Out of memory and no killable processes"
_DEADLOCKED: Final = "System is deadlocked on memory"
_PANIC_ON_OOM: Final = re.compile(r"panic_on_oom is (?:enabled|selected)")
"""`selected` before v2.6.36, on a line without a level of its own."""

_PANIC_ON_OOM_LINES: Final = (
    "out of memory. ",
    "Out of memory: ",
    "out of memory(memcg). ",
    "out of memory from ",
)
_TITLES: Final = (
    *(
        "memory",
        "swap",
        "kmem",
        "[",
        *CALL_TRACE,
        SLAB_TITLE,
        *mem_info.TITLES,
        *mem_info.OLD_SUMS,
        _NO_TASK,
    ),
    *(
        "Memory cgroup min",
        _PANIC,
        _DEADLOCKED,
        *_PANIC_ON_OOM_LINES,
        "oom_kill",
        "dump_header",
        "out_of_memory",
        "** ",
    ),
    "systemd-journald",
)
GAP_LINES: Final = 1000
GAP_NS: Final = 60_000_000_000
"""A report that gets no line for this long (in lines or in time) has no end in this log."""

_CHOICE_TO_KILL_LINES: Final = 50
_ANNOUNCED_LINES: Final = 200
"""The most lines between the first line on a failed allocation and its `Mem-Info:`, or between SysRq+F and
its report."""
_PANIC_LINES: Final = 5
_MODES_OF: Final[Mapping[RowKind | None, tuple[str, ...]]] = {
    "stat": ("memory.stat",),
    "trace": ("stack", ""),
    "task": ("tasks",),
    None: (),
}
"""Kind of rows -> the modes of a report in which many rows are added at once. Registers follow the frames."""

MOST_PIDS: Final = 4096
"""The number of killed tasks, the latest ones, whose late lines are known as such."""


def _are_close(last: Stamp, run: Run) -> bool:
    """Return whether no gap in lines or in time is between the last line of a report and any of these
    rows."""
    if not 0 <= run.first.stamp.line + len(run.texts) - 1 - last.line <= GAP_LINES:
        return False
    known = [time for time in (last.since_boot_ns, *run.times_ns) if time is not None]
    if known == sorted(known) and len(known) > len(run.times_ns) and known[-1] - known[0] <= GAP_NS:
        return True
    if None in run.times_ns:
        return len(known) <= 1
    return all(0 <= later - earlier <= GAP_NS for earlier, later in pairwise(known))


class MachineLog:
    """The reports of one kernel: the report being printed, and finished reports to which late lines may
    belong.

    Reports are appended to `begun` when they begin. `killed` are the pids that were killed before.
    `above` are lines just before the next message that belong to a report if the message begins one: the head
    of a call trace, or rows of a table of tasks.
    """

    def __init__(self, begun: deque[Assembly], killed: Iterable[int] = ()) -> None:
        self._begun = begun
        self._open: Assembly | None = None
        self._killed: Assembly | None = None
        self._pids = dict.fromkeys(killed)  # of the killed tasks, the latest last
        self._suppressed = 0
        self.above: list[Record] = []
        self._unfinished: Record | None = None
        self._failed: Stamp | None = None
        self._by_hand: Stamp | None = None
        self._named: Final = (
            (markers.INVOKED, self._take_invoked),
            (markers.SUMMARY, self._take_summary),
            (markers.KILLED, self._take_killed),
            (markers.UB_KILLED, self._take_killed),
            (markers.CHOSEN, self._take_chosen),
            (markers.OLD_CHOSEN, self._take_chosen),
            (markers.GROUP, self._take_group),
            (markers.REAPER, self._take_reaped),
            (markers.SYSTEM_OOM, self._take_event),
            (markers.STATS, self._take_stats),
            (markers.LIMIT_OF, self._take_limit_of),
            (markers.BY_HAND, self._take_by_hand),
            *((word, self._take_failed) for word in markers.NO_OOM),
        )

    @property
    def is_within(self) -> bool:
        """Return whether the next line may belong to a report by its shape alone."""
        return self._open is not None or self._unfinished is not None

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns of the table of tasks that is being printed; empty if there is none."""
        return self._open.columns if self._open is not None and self._open.mode == "tasks" else ()

    def take(self, record: Record) -> None:
        """Add a message.

        A message of several lines is either one line with a name that contains line ends, or several lines.
        """
        self._give_up(record)
        if (
            self._open is not None
            and self._open.mode in ("memory.stat", "mem_info")
            and "#012" in record.text
        ):
            record = record.with_text(record.text.replace("#012", "\n"))  # rsyslog's line end
        if "\n" not in record.text:
            self._take_line(record)
        elif not self._take_named(record) and not self._take_named_row(record):
            for text in record.text.split("\n"):
                self._take_line(record.with_text(text))

    def reads(self, kind: RowKind | None) -> bool:
        """Return whether rows of this kind are added at once to the report that is being printed."""
        return self._open is not None and self._unfinished is None and self._open.mode in _MODES_OF[kind]

    def take_rows(self, run: Run) -> None:
        """Add rows of one kind, of one task, as `take` does with one after the other."""
        assembly = self._open
        if (
            assembly is None
            or not self.reads(run.first.row)
            or not self._is_of(assembly, run.first.caller)
            or not _are_close(assembly.last, run)
        ):
            for at in range(len(run.texts)):
                self.take(run.row(at))
            return
        assembly.take_rows(run)

    def _take_plain_row(self, record: Record) -> bool:
        """Add a row of memory.stat or of the table of tasks, as most lines are, before any search for
        words."""
        assembly = self._open
        if (
            assembly is None
            or assembly.mode not in ("memory.stat", "tasks")
            or not self._is_of(assembly, record.caller)
        ):
            return False
        return assembly.take_row(record)

    def _take_named_row(self, record: Record) -> bool:
        return self._open is not None and self._open.take_named_row(record)

    def _take_line(self, record: Record) -> None:
        unfinished, self._unfinished = self._unfinished, None
        is_of_another = self._open is not None and not self._is_of(self._open, record.caller)
        if is_of_another and not self._is_late(record.text):
            return
        if self._take_plain_row(record) or (self._open is None and self._take_frame(record)):
            return
        if record.row is None and self._take_named(record):
            return
        if unfinished is not None and unfinished.stamp.line + 1 == record.stamp.line:
            # A log daemon gives each line of a message its own prefix.
            joined = unfinished.with_text(f"{unfinished.text}\n{record.text}")
            if self._finish_line(joined):
                return
        if (record.row is None and self._take_title(record)) or self._open is None:
            return
        if self._open.take_row(record) and self._open.is_head_cut:
            self._unfinished = record

    def _give_up(self, record: Record) -> None:
        """Close the open report if it has no end in this log."""
        if self._open is None:
            return
        last, now = self._open.last, record.stamp
        elapsed_ns = (now.since_boot_ns or 0) - (last.since_boot_ns or 0)
        is_timed = now.since_boot_ns is not None and last.since_boot_ns is not None
        if now.line - last.line > GAP_LINES or (is_timed and not 0 <= elapsed_ns <= GAP_NS):
            self._open = None

    @staticmethod
    def _is_late(text: str) -> bool:
        """Return whether a task other than the one that writes the report may print this line."""
        return markers.INVOKED in text or text.startswith(markers.REAPER)

    @staticmethod
    def _is_of(assembly: Assembly, caller: str | None) -> bool:
        """Return whether the task that writes the report is `caller`, as far as the log names tasks.

        One task writes a whole report.
        """
        return assembly.caller == caller or None in (assembly.caller, caller)

    # Lines with a name in them, which may contain line ends

    def _take_named(self, record: Record) -> bool:
        text = record.text
        for word, take in self._named:
            if word in text and shapes.path_word(text.lstrip()) in (None, word):
                return take(record)
        return False

    def _begin(self, record: Record) -> Assembly:
        assembly = Assembly(record.stamp, record.stamp, record.caller, suppressed=self._suppressed)
        by_hand, self._suppressed, self._by_hand = self._by_hand, 0, None
        if by_hand is not None and record.stamp.line - by_hand.line <= _ANNOUNCED_LINES:
            assembly.invoker = Invoker(order=-1)  # as the header has it, which may be missing
        above, self.above = self.above, []
        for earlier in above:
            assembly.mode = "header"
            if assembly.take_row(earlier):
                assembly.stamp = earlier.stamp
            assembly.mode = ""
        self._begun.append(assembly)
        return assembly

    def _within(self, record: Record, section: Section) -> Assembly:
        """Return the report to which a line of this section belongs; begin a report if its beginning is
        missing."""
        if self._open is None or self._open.is_past(section):
            self._open = self._begin(record)
        self._open.touch(record, section)
        return self._open

    def _take_invoked(self, record: Record) -> bool:
        # Without a prefix, spaces are the indentation of a paste.
        found = printed_lines.invoked(record.text if record.prefix else record.text.lstrip())
        if found is None:
            return False
        self._open, self._failed = self._begin(record), None
        self._open.invoker, self._open.nodemask = found
        self._open.is_old = found[1] is not None
        self._open.touch(record, "header", "header")
        return True

    def _take_summary(self, record: Record) -> bool:
        summary = summary_line.summary(record.text)
        if summary is None or ("\n" in record.text and summary.chosen is None):
            return False
        if self._open is not None and self._open.summary is not None:
            self._open = None
        assembly = self._within(record, "summary")
        assembly.summary, assembly.summary_text, assembly.mode = summary, record.text, ""
        self._unfinished = record
        return True

    def _take_killed(self, record: Record) -> bool:
        kill = printed_lines.killed(record.text, record.stamp)
        if kill is None:
            return False
        if printed_lines.is_cut_at_pid(kill) and kill.reason is None and self._open is None:
            return False  # words of a program
        assembly = self._open
        if assembly is None or not self._is_kill_of(assembly, kill.pid, kill.comm, record):
            assembly = self._killed if self._is_in_group(record) else None
        if assembly is None:
            assembly = self._begin(record)
        assembly.add_kill(kill)
        assembly.touch(record, "kill", "")
        self._open, self._killed = None, assembly
        self._add_pid(kill.pid)
        if kill.total_vm_bytes is None:
            self._unfinished = record
        return True

    def _add_pid(self, pid: int | None) -> None:
        if pid is None:
            return
        self._pids.pop(pid, None)
        self._pids[pid] = None
        if len(self._pids) > MOST_PIDS:
            del self._pids[next(iter(self._pids))]

    def _take_event(self, record: Record) -> bool:
        kill = printed_lines.system_oom(record.text, record.stamp)
        if kill is not None:
            assembly = self._begin(record)
            assembly.add_kill(kill)
            assembly.touch(record, "kill")
        return kill is not None

    def _is_kill_of(self, assembly: Assembly, pid: int | None, comm: str, record: Record) -> bool:
        """Return whether the killed task is the one that the report chose.

        Old kernels may kill a child of the chosen task, and all kernels may name one of its threads.
        """
        chosen = assembly.chosen if assembly.summary is None else assembly.summary.chosen
        if chosen is None or assembly.is_old or pid == chosen.pid or comm == chosen.comm:
            return True
        return record.stamp.line - assembly.last.line <= _CHOICE_TO_KILL_LINES

    def _is_in_group(self, record: Record) -> bool:
        killed = self._killed
        if killed is None or killed.group_memcg is None:
            return False
        return self._is_of(killed, record.caller) and record.stamp.line - killed.last.line <= GAP_LINES

    def _take_chosen(self, record: Record) -> bool:
        found = printed_lines.chosen(record.text)
        if found is None:
            return False
        if self._open is None or self._open.chosen is not None or self._open.summary is not None:
            self._open = self._begin(record)
        self._open.chosen, self._open.reason = found
        self._open.is_old = True
        self._open.touch(record, None, "")
        return True

    def _take_group(self, record: Record) -> bool:
        path = printed_lines.group(record.text)
        if path is None:
            return False
        assembly = self._killed if self._open is None else self._open
        if assembly is None:
            assembly = self._begin(record)
        elif assembly.group_memcg is not None and len(assembly.kills) > 1:
            # The last kill of what seemed to be this group was the first kill of another group.
            kill = assembly.kills.pop()
            assembly = self._begin(record)
            assembly.stamp = kill.stamp
            assembly.add_kill(kill)
            assembly.touch(record, "kill")
        assembly.group_memcg = path
        assembly.touch(record)
        self._open, self._killed = None, assembly
        return True

    def _take_reaped(self, record: Record) -> bool:
        reaped = printed_lines.reaped(record.text, record.stamp)
        if reaped is None:
            return False
        if reaped.pid not in self._pids and self._open is not None and self._open.has_task(reaped.pid):
            # The line about the kill was lost: the oom_reaper reaps victims only.
            self._open.add_kill(reaped)
            self._open.touch(record, "kill", "")
            self._open = None
            self._add_pid(reaped.pid)
        return True

    def _take_stats(self, record: Record) -> bool:
        stats = printed_lines.memory_stats(record.text)
        if stats is None or ("\n" in record.text and not record.text.rstrip().endswith(":")):
            return False
        self._within(record, "memory.stat").add_stats(stats, record)
        return True

    def _take_limit_of(self, record: Record) -> bool:
        found = summary_line.limit_of(record.text)
        if found is None:
            return False
        assembly = self._within(record, "stack")
        assembly.limit_of, assembly.is_old, assembly.mode = found, True, ""
        return True

    def _take_frame(self, record: Record) -> bool:
        """Begin a report within its call trace, whose beginning is missing; return False for any other line.

        A frame of warn_alloc belongs to an allocation that failed.
        """
        frame = printed_lines.frame(record.text) if "+0x" in record.text else None
        function = "" if frame is None or not frame[2] else frame[1][0]
        if function.startswith(markers.WARNED):
            self._failed = record.stamp
        elif function in OF_REPORT:
            self._open = self._begin(record)
            self._open.touch(record, "stack", "stack")
            self._open.take_row(record)
        return function.startswith(markers.WARNED) or function in OF_REPORT

    def _take_failed(self, record: Record) -> bool:
        """Note that the next `Mem-Info:` belongs to an allocation that failed, or to SysRq+M.

        Both print the state of the machine, and kill nothing.
        """
        if self._open is not None and not self._open.is_past("stack"):
            return False
        self._failed = record.stamp
        return True

    def _take_by_hand(self, record: Record) -> bool:
        """Note that the next report is of an OOM that a user asked for."""
        self._by_hand = record.stamp
        return True

    def _is_without_oom(self, record: Record) -> bool:
        failed, self._failed = self._failed, None
        return failed is not None and record.stamp.line - failed.line <= _ANNOUNCED_LINES

    def _finish_line(self, joined: Record) -> bool:
        """Replace an unfinished line with a name in it by `joined`; return whether that completes the
        line."""
        if self._open is not None and self._open.is_head_cut:
            return self._open.take_row(joined) and not self._open.is_head_cut
        summary = summary_line.summary(joined.text)
        if summary is not None and summary.chosen is not None and self._open is not None:
            self._open.summary, self._open.summary_text = summary, joined.text
            return True
        kill = printed_lines.killed(joined.text, joined.stamp)
        if kill is None or kill.total_vm_bytes is None or self._killed is None or not self._killed.kills:
            return False
        self._killed.kills.pop()
        self._killed.add_kill(kill)
        return True

    # Lines that begin a section of a report, or are a whole section

    def _take_title(self, record: Record) -> bool:
        text = record.text.strip()
        if not text.startswith(_TITLES):
            return False
        if (counter := printed_lines.counter(text)) is not None:
            if self._open is not None and counter[0] in self._open.counters:
                self._open = None
            assembly = self._within(record, "counters")
            assembly.counters[counter[0]] = counter[1]
            assembly.mode = ""
        elif text in mem_info.TITLES and self._is_without_oom(record):
            if self._open is not None and self._open.mode == "mem_info":
                self._open.mode = ""
        elif text in mem_info.TITLES:
            self._within(record, "mem_info").mode = "mem_info"
        elif self._open is not None and text.startswith(mem_info.OLD_SUMS):
            assembly = self._within(record, "mem_info")
            assembly.mode, assembly.is_old = "mem_info", True
            assembly.take_row(record)
        elif (columns := printed_lines.task_columns(text)) is not None:
            assembly = self._within(record, "tasks")
            assembly.columns, assembly.mode = columns, "tasks"
        elif (count := printed_lines.suppressed(text)) is not None:
            self._suppressed += count
        elif _NO_TASK in text or _DEADLOCKED in text or _PANIC_ON_OOM.search(text) is not None:
            of_last = text.startswith(_PANIC) and self._open is None and self._is_last_without_victim(record)
            assembly = self._open or (self._begun[-1] if of_last else self._begin(record))
            is_headless = "header" not in assembly.seen
            assembly.is_panic_on_oom = assembly.is_panic_on_oom or _PANIC_ON_OOM.search(text) is not None
            assembly.is_no_task_killable = not assembly.is_panic_on_oom
            assembly.is_panic = assembly.is_panic or assembly.is_panic_on_oom or _PANIC in text
            # Without a line that names the trigger, the head and the call trace of the panic follow.
            assembly.touch(record, None, "header" if is_headless else None)
            self._open = assembly if is_headless else None
        else:
            return self._open is not None and self._take_title_within(self._open, record, text)
        return True

    def _is_last_without_victim(self, record: Record) -> bool:
        """Return whether the last report ended without a task to kill: the kernel then panics at once."""
        last = self._begun[-1] if self._begun else None
        return (
            last is not None
            and last.is_no_task_killable
            and record.stamp.line - last.last.line <= _PANIC_LINES
        )

    def _take_title_within(self, assembly: Assembly, record: Record, text: str) -> bool:
        """Add a line that has a meaning only within a report; return False for any other."""
        if text in CALL_TRACE and assembly.mode == "header":
            assembly.touch(record, "stack", "stack")
        elif text == SLAB_TITLE:
            assembly.touch(record, None, "slab")
        elif (protection := printed_lines.protection(text)) is not None:
            assembly.min_protection_bytes = protection
            assembly.touch(record)
        elif (count := printed_lines.dropped(text)) is not None:
            assembly.dropped += count
        else:
            return False
        return True
