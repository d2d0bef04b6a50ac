"""One OOM report, assembled from its lines in the order of the log.

Impossible sizes, which come from lines that were broken or joined wrongly, are removed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from sys import intern
from typing import Final

from tracer.kernel.kmsg.report import mem_info, printed_lines, summary_line
from tracer.kernel.kmsg.report.log_report import (
    NOBODY,
    PAGE_SIZES,
    SECTIONS,
    Chosen,
    Counter,
    CounterName,
    Invoker,
    Kill,
    LogReport,
    MemoryStat,
    Section,
    TaskRow,
)
from tracer.kernel.kmsg.text import shapes
from tracer.kernel.kmsg.text.styles import Record, Run, Stamp

# Before 5b42360c73b0 ("memcg: use seq_buf_do_printk() with mem_cgroup_print_oom_meminfo()"), v6.5, all of
# memory.stat is one message of several lines. The kernel cuts a message at 1024 characters minus the room for
# a prefix, which differs by release (LOG_LINE_MAX, kernel/printk/printk.c). A reader that uses syslog(2) gets
# each line with a prefix, and as many whole lines as fit (record_print_text).
_CUT_MESSAGE: Final = range(960, 1025)
_CUT_LINES: Final = range(940, 1031)
_PREFIX: Final = 19  # characters of a prefix such as <6>[12345.678901]


@dataclass(slots=True)
class StatRows:
    """memory.stat of one cgroup, collected line by line; `printed` is the line that names the cgroup."""

    printed: MemoryStat
    values: dict[str, int]
    first: Stamp | None = None
    last: Stamp | None = None
    last_name: str = ""
    rows: int = 0
    characters: int = 0
    has_prefix: bool = False

    def take(self, record: Record) -> bool:
        """Add a row; return False for any other line."""
        row = printed_lines.memory_stat(record.text)
        if row is None:
            return False
        self.first = record.stamp if self.first is None else self.first
        self.last, self.has_prefix = record.stamp, record.prefix > 0
        self.last_name = row[0]
        self.values[intern(row[0])] = row[1]
        self.rows += 1
        self.characters += len(record.text) + 1
        return True

    def take_rows(self, run: Run) -> None:
        """Add rows, as `take` does."""
        for text in run.texts:
            name, _, number = text.partition(" ")
            self.values[intern(name)] = int(number)
        self.first = run.first.stamp if self.first is None else self.first
        self.last, self.has_prefix, self.last_name = run.row(len(run.texts) - 1).stamp, True, name
        self.rows += len(run.texts)
        self.characters += sum(map(len, run.texts)) + len(run.texts)

    def result(self) -> MemoryStat:
        """Return the values, without the last one if the kernel may have cut the message within its
        number."""
        if self.first is None or self.last is None:
            return self.printed
        values = self.values
        is_one_line_each = self.first.line != self.last.line and self.has_prefix
        if is_one_line_each:
            is_one_message = self.last[1:] == self.first[1:]
            is_cut = is_one_message and self.characters + self.rows * _PREFIX in _CUT_LINES
        else:
            is_cut = self.characters in _CUT_MESSAGE
            if is_cut:
                values = {name: value for name, value in values.items() if name != self.last_name}
        return self.printed._replace(values=values, is_cut=is_cut)


_MARGIN_BYTES: Final = 16 << 20
_MARGIN_PAGES: Final = 4096
"""The error that a per-CPU counter may have: rss is such a counter since f1a7941243c1 ("mm: convert mm's rss
stats into percpu_counter"), v6.2."""


def _agree(row: TaskRow | None, kill: Kill) -> bool:
    """Return whether a row of the table and a line on a kill have the same sizes, for a known size of a
    page."""
    whole, anon, file = kill.total_vm_bytes, kill.anon_rss_bytes, kill.file_rss_bytes
    if row is None or not row.total_vm_pages or whole is None or anon is None or file is None:
        return False
    size, rest = divmod(whole, row.total_vm_pages)
    resident = anon + file + (kill.shmem_rss_bytes or 0)
    apart = abs(row.rss_pages * size - resident)
    return not rest and size in PAGE_SIZES and apart <= max(_MARGIN_BYTES, resident // 10)


def _bounded_kill(told: Kill, row: TaskRow | None, machine_bytes: int | None) -> Kill:
    """Return the kill without sizes above the machine's memory, or above the victim's address space.

    Kernels before 941f762bcb27 ("mm/oom: fix pgtables units mismatch in Killed process message"), v5.5, print
    pgtables in bytes with the unit kB.
    """
    whole = told.total_vm_bytes
    resident = sum(filter(None, (told.anon_rss_bytes, told.file_rss_bytes, told.shmem_rss_bytes)))
    if whole is not None and resident > whole + _MARGIN_BYTES:
        return told._replace(
            total_vm_bytes=None, anon_rss_bytes=None, file_rss_bytes=None, shmem_rss_bytes=None
        )
    tables = told.pgtables_bytes
    is_of_bytes = row is not None and tables is not None and tables == (row.pgtables_bytes or 0) * 1024 > 0
    if is_of_bytes or (tables is not None and whole is not None and tables > whole + _MARGIN_BYTES):
        told = told._replace(pgtables_bytes=None)
    if machine_bytes is None:
        return told
    return told._replace(
        anon_rss_bytes=_within(told.anon_rss_bytes, machine_bytes),
        file_rss_bytes=_within(told.file_rss_bytes, machine_bytes),
        shmem_rss_bytes=_within(told.shmem_rss_bytes, machine_bytes),
    )


def _untitled_rows(records: Sequence[Record]) -> list[TaskRow]:
    """Return the rows of a table of tasks without its title; empty if no release has such columns."""
    texts = [record.text.lstrip() for record in records]
    columns = printed_lines.untitled_columns(texts) if texts else None
    if columns is None:
        return []
    return [row for text in texts if (row := printed_lines.task_row(text, columns)) is not None]


def of_rows(records: Sequence[Record]) -> LogReport | None:
    """Return the report of which a log has only these rows of the table of tasks; None if these are no such
    rows."""
    rows = _untitled_rows(records)
    if not rows:
        return None
    found = Assembly(records[0].stamp, records[-1].stamp, tasks=rows)
    found.seen.add("tasks")
    return found.finish()


def _within(size: int | None, most: int) -> int | None:
    return None if size is not None and size > most else size


def _bounded_rows(tasks: Iterable[TaskRow], machine_pages: int | None) -> tuple[TaskRow, ...]:
    """Return the rows, except rows that claim more resident memory than is possible."""
    return tuple(
        row
        for row in tasks
        if row.rss_pages <= row.total_vm_pages + _MARGIN_PAGES
        and (machine_pages is None or row.rss_pages <= machine_pages)
    )


CALL_TRACE: Final = ("Call Trace:", "Call trace:", "Backtrace:")
SLAB_TITLE: Final = "Unreclaimable slab info:"

TRACE_ENDS: Final = ("</TASK>", "RIP:", "Code:")
OF_REPORT: Final = frozenset({"dump_header", "oom_kill_process"})
"""Functions that are in a call trace only if the OOM killer prints a report (mm/oom_kill.c)."""

_OF_MEMCG: Final = frozenset({"mem_cgroup_out_of_memory", "mem_cgroup_oom_synchronize"})
_OF_MACHINE: Final = frozenset(
    {
        *("__alloc_pages", "__alloc_pages_nodemask", "__alloc_pages_slowpath", "__alloc_pages_internal"),
        "moom_callback",
    }
)
"""Functions that are in a call trace only if the limit of a cgroup was hit (`_OF_MEMCG`), or only if no limit
was hit (`_OF_MACHINE`)."""

_NO_SUMMARY: Final = summary_line.Summary("unknown")
_ALLOCATING: Final = "(oom_kill_allocating_task)"
_MEMCG_REASONS: Final = ("Memory cgroup out of memory", "Out of memory in UB")


def _are_one(asked: str | None, comm: str | None) -> bool:
    """Return whether the comm of the header and the comm of the call trace's head belong to one task; either
    may have a prefix."""
    one, other = (asked or "").strip(), (comm or "").strip()
    return one.endswith(other) or other.endswith(one)


_HOST: Final = re.compile(r"(?:\d\d:\d\d:\d\d\S*|\S+:|[^\s.]\S*[-.]\S*|\S+ [|>-]{1,2}) ")
"""A time, or a word that may be the name of a host, before the name of a task: `node-1: java`."""

_AFTER: Final = {section: frozenset(SECTIONS[at + 1 :]) for at, section in enumerate(SECTIONS)}
"""Section -> the sections that are printed after it."""


@dataclass(slots=True)
class Assembly:
    """A report that is being assembled.

    `seen` are the sections with at least one line. `mode` is the section to which a line without words of its
    own belongs by its shape. `is_old`: the report has lines of kernels before v5.0.
    """

    stamp: Stamp
    last: Stamp
    caller: str | None = None
    suppressed: int = 0
    dropped: int = 0
    seen: set[Section] = field(default_factory=set)
    mode: str = ""
    is_old: bool = False
    invoker: Invoker = NOBODY
    stack: list[str] = field(default_factory=list)
    functions: set[str] = field(default_factory=set)
    nodemask: mem_info.Nodemask | None = None
    cpuset: tuple[str, str] | None = None
    limit_of: tuple[str, str | None] | None = None
    summary: summary_line.Summary | None = None
    summary_text: str = ""
    chosen: Chosen | None = None
    reason: str | None = None
    group_memcg: str | None = None
    counters: dict[CounterName, Counter] = field(default_factory=dict)
    stats: list[StatRows] = field(default_factory=list)
    min_protection_bytes: int | None = None
    columns: tuple[str, ...] = ()
    tasks: list[TaskRow] = field(default_factory=list)
    untitled: list[Record] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    is_no_task_killable: bool = False
    is_panic_on_oom: bool = False
    is_panic: bool = False
    machine: mem_info.MemInfoReader = field(default_factory=mem_info.MemInfoReader)

    def is_past(self, section: Section) -> bool:
        """Return whether the report has lines of a later section, so that a line of this section begins
        another report.

        The line about the chosen task has no section, and follows all sections but those about the kill.
        """
        is_chosen = self.chosen is not None and section not in ("summary", "kill")
        return is_chosen or not self.seen.isdisjoint(_AFTER[section])

    def touch(self, record: Record, section: Section | None = None, mode: str | None = None) -> None:
        """Record that a line belongs to the report."""
        self._reach(record.stamp)
        if section is not None:
            self.seen.add(section)
        if mode is not None:
            self.mode = mode

    def _reach(self, last: Stamp) -> None:
        """Record the last line so far; the first time of each clock is the time of the report."""
        self.last, first = last, self.stamp
        if (first.wall is None and last.wall is not None) or (
            first.since_boot_ns is None and last.since_boot_ns is not None
        ):
            since_boot_ns = last.since_boot_ns if first.since_boot_ns is None else first.since_boot_ns
            self.stamp = Stamp(first.line, since_boot_ns, first.wall or last.wall)

    def take_row(self, record: Record) -> bool:
        """Add a line without words of its own; return whether its shape fits the section being printed."""
        text, taken = record.text, False
        if self.mode == "header":
            taken = self._take_head(text)
        elif self.mode == "stack":
            taken = self._take_frame(text)
        elif self.mode == "memory.stat":
            taken = self.stats[-1].take(record)
        elif self.mode == "mem_info":
            taken = self.machine.take(text)
        elif self.mode == "slab":
            taken = self.machine.take_cache(text)
        elif (
            self.mode == "tasks" and (row := printed_lines.task_row(text.lstrip(), self.columns)) is not None
        ):
            self.tasks.append(row)
            taken = True
        if not taken and not self.columns and shapes.kind(text.lstrip()) == "task":
            self.untitled.append(record)
        if taken:
            self.touch(record)
        return taken

    def take_rows(self, run: Run) -> None:
        """Add rows of the section that is being printed: of memory.stat or the table of tasks, or lines of
        the call trace."""
        kind, last = run.first.row, len(run.texts) - 1
        if kind == "stat":
            self.stats[-1].take_rows(run)
        elif kind == "trace":
            last = -1
            for at, text in enumerate(run.texts):
                if self.mode != "stack":
                    break
                last = at if self._take_frame(text) else last
        else:
            tasks = [printed_lines.task_row(text, self.columns) for text in run.texts]
            self.tasks += filter(None, tasks)
            while last >= 0 and tasks[last] is None:
                last -= 1
        if last >= 0:
            self._reach(run.first.stamp)
            self.last = run.row(last).stamp

    def take_named_row(self, record: Record) -> bool:
        """Add a message of several lines as `take_row` does, if it may be one row: the rows being printed
        have a name, and a name may contain line ends."""
        return self.mode in ("header", "tasks") and self.take_row(record)

    def has_task(self, pid: int | None) -> bool:
        """Return whether the table of tasks, or the line about the chosen task, names this process."""
        chosen = self.chosen if self.summary is None else self.summary.chosen
        is_chosen = chosen is not None and chosen.pid == pid
        return is_chosen or any(row.pid == pid for row in self.tasks)

    @property
    def is_head_cut(self) -> bool:
        """Return whether the line with the trigger's pid ended within the trigger's name."""
        return self.mode == "header" and self.invoker.pid is not None and self.invoker.taint is None

    def _take_head(self, text: str) -> bool:
        """Add a line between `invoked oom-killer` and the call trace."""
        head = printed_lines.head_of_trace(text)
        if head is not None and _are_one(self.invoker.comm, head.comm):
            self.invoker = self.invoker._replace(
                comm=head.comm or self.invoker.comm,
                pid=head.pid,
                kernel_release=head.kernel_release,
                taint=head.taint,
            )
            return True
        if self.cpuset is None and (found := printed_lines.cpuset(text)) is not None:
            self.cpuset, self.is_old = found, True
            return True
        if "+0x" in text and self._take_frame(text):
            self.seen.add("stack")
            self.mode = "stack"  # 32-bit ARM prints no title above the trace, and grep loses it
            return True
        return False

    def _take_frame(self, text: str) -> bool:
        if text.lstrip().startswith(TRACE_ENDS):
            self.mode = ""
            return True
        frame = printed_lines.frame(text)
        if frame is None:
            return False
        self.functions.update(frame[1])
        if frame[2]:
            self.stack.append(frame[0])
        return True

    def add_stats(self, stats: MemoryStat, record: Record) -> None:
        """Begin memory.stat of one more cgroup."""
        self.stats.append(StatRows(stats, dict(stats.values)))
        self.touch(record, "memory.stat", "" if stats.values else "memory.stat")

    def add_kill(self, kill: Kill) -> None:
        """Add a kill; the kernel reports the chosen task of a group kill twice."""
        if kill.pid is None or kill.pid not in {one.pid for one in self.kills}:
            is_complete = kill.reason is not None or self.reason is None
            self.kills.append(kill if is_complete else kill._replace(reason=self.reason))

    def finish(self) -> LogReport:
        """Return the report."""
        summary = self._summary_of_kill()
        is_memcg = self._is_memcg(summary)
        self._add_untitled()
        tasks = _bounded_rows(self.tasks, self.machine.ram_pages)
        row_of: dict[int | None, TaskRow] = {row.pid: row for row in tasks}
        constraint, policy = self._constraint(summary, is_memcg=is_memcg), self.nodemask
        owner, victim = self.limit_of[::-1] if self.limit_of is not None else (None, None)
        return LogReport(
            stamp=self.stamp,
            last_line=self.last.line,
            invoker=self._invoker(),
            stack=tuple(self.stack),
            constraint=constraint,
            nodemask=summary.nodemask or (policy.nodes if policy and constraint == "mempolicy" else None),
            mems_allowed=summary.mems_allowed or (self.cpuset[1] if self.cpuset is not None else None),
            may_be_confined=constraint == "global" and self._may_be_confined(summary),
            oom_memcg=summary.oom_memcg or owner or self._memcg_of_stats(),
            task_memcg=summary.task_memcg or victim,
            group_memcg=self.group_memcg,
            container=next(filter(None, map(printed_lines.container, self._reasons())), None),
            chosen=summary.chosen or self.chosen,
            counters=self.counters,
            stats=tuple(stats.result() for stats in self.stats),
            min_protection_bytes=self.min_protection_bytes,
            tasks=tasks,
            kills=tuple(self._completed(kill, row_of.get(kill.pid), summary) for kill in self.kills),
            is_no_task_killable=self.is_no_task_killable,
            is_panic_on_oom=self.is_panic_on_oom,
            is_panic=self.is_panic,
            mem_info=self.machine.result() if "mem_info" in self.seen else None,
            suppressed=self.suppressed,
            dropped=self.dropped,
            missing=self._missing(summary, is_memcg=is_memcg),
        )

    def _add_untitled(self) -> None:
        """Add the rows of a table without its title if the row of a killed task agrees with the line on the
        kill, which shows that the columns are known."""
        rows = [] if self.tasks else _untitled_rows(self.untitled)
        of_pid: dict[int | None, TaskRow] = {row.pid: row for row in rows}
        if not any(_agree(of_pid.get(kill.pid), kill) for kill in self.kills):
            return
        self.tasks = rows
        self.seen.add("tasks")
        first = self.untitled[0].stamp
        if first.line < self.stamp.line:
            self.stamp = first

    def _completed(self, kill: Kill, row: TaskRow | None, summary: summary_line.Summary) -> Kill:
        """Return a kill without impossible sizes, and with the name in another line if its own is cut."""
        chosen = summary.chosen or self.chosen
        other = row if row is not None else chosen
        if kill.total_vm_bytes is None and other is not None and other.pid == kill.pid:
            kill = kill._replace(comm=other.comm if other.comm.startswith(kill.comm) else kill.comm)
        return _bounded_kill(kill, row, self.machine.most_bytes)

    def _invoker(self) -> Invoker:
        """Return the task that invoked the OOM killer: under vm.oom_kill_allocating_task, the chosen task."""
        chosen, invoker = self.chosen, self.invoker
        if invoker.pid is None and self.stamp.since_boot_ns is None:
            invoker = invoker._replace(comm=self._comm_behind_host(invoker.comm))
        if invoker.pid is not None or chosen is None:
            return invoker
        if not any(_ALLOCATING in reason for reason in self._reasons()):
            return invoker
        return invoker._replace(pid=chosen.pid, comm=invoker.comm or chosen.comm)

    def _comm_behind_host(self, comm: str | None) -> str | None:
        """Return the trigger's name without a word like the name of a host before it, if the rest names a
        task of this report; None if it is not known which part of the text is the name."""
        host = None if comm is None else _HOST.match(comm)
        summary = self._summary_of_kill()
        names = {one.comm for one in (self.chosen, summary.chosen) if one is not None}
        names.update(kill.comm for kill in self.kills)
        names.update(row.comm for row in self.tasks)
        if comm is None or host is None or comm in names:
            return comm
        return comm[host.end() :] if comm[host.end() :] in names else None

    def _memcg_of_stats(self) -> str | None:
        """Return the cgroup whose limit was hit from the title of its memory.stat.

        Kernels before v5.3 print the memory.stat of each cgroup of the subtree; the first one belongs to the
        cgroup of the limit, and follows its page counters.
        """
        if not self.stats:
            return None
        first = self.stats[0].printed
        return (first.cgroup or None) if first.resolution_bytes == 1 or "counters" in self.seen else None

    def _summary_of_kill(self) -> summary_line.Summary:
        """Return the summary, read again with the comm of the kill if that differs."""
        summary = self.summary
        if summary is None:
            return _NO_SUMMARY
        for kill in self.kills:
            chosen = summary.chosen
            if chosen is not None and chosen.pid == kill.pid and chosen.comm != kill.comm:
                return summary_line.summary(self.summary_text, kill.comm) or summary
        return summary

    def _constraint(self, summary: summary_line.Summary, *, is_memcg: bool) -> str:
        """Return the constraint that the kernel printed, or else the constraint that the lines imply.

        Older kernels than v5.0 print no constraint. Before 432b1de0de02 ("mm/oom_kill.c: fix uninitialized
        oc->constraint"), v5.3, CONSTRAINT_NONE is also printed for the limit of a cgroup.
        """
        if summary.constraint not in ("unknown", "global"):
            return summary.constraint
        if is_memcg:
            return "memcg"
        if summary.constraint == "global":
            return "global"
        shown = self.machine.shown()
        confined = mem_info.confined(self.nodemask, self.cpuset, self.invoker.kernel_release, shown)
        if confined is not None:
            return confined
        is_by_hand = self.invoker.order == -1  # is_sysrq_oom, mm/oom_kill.c
        if self._reasons() or self.is_panic or is_by_hand:
            return "global"
        is_of_machine = "mem_info" in self.seen or not self.functions.isdisjoint(_OF_MACHINE)
        may_be_confined = self.cpuset is not None and self.cpuset[0] != "/" and not shown.is_all
        return "global" if "header" in self.seen and is_of_machine and not may_be_confined else "unknown"

    def _may_be_confined(self, summary: summary_line.Summary) -> bool:
        """Return whether no line shows that a request beyond the limits of cgroups could use all nodes."""
        is_shown = self.cpuset is not None or self.nodemask is not None or self.machine.shown().is_all
        return not (is_shown or summary.constraint == "global" or self.invoker.order == -1)

    def _reasons(self) -> list[str]:
        reasons = [kill.reason for kill in self.kills if kill.reason is not None]
        return reasons if self.reason is None else [self.reason, *reasons]

    def _is_memcg(self, summary: summary_line.Summary) -> bool:
        return (
            summary.constraint == "memcg"
            or summary.oom_memcg is not None
            or not self.seen.isdisjoint({"counters", "memory.stat"})
            or self.limit_of is not None
            or ("mem_info" not in self.seen and not self.functions.isdisjoint(_OF_MEMCG))
            or any(reason.startswith(_MEMCG_REASONS) for reason in self._reasons())
        )

    def _missing(self, summary: summary_line.Summary, *, is_memcg: bool) -> tuple[Section, ...]:
        """Return the missing sections in the order of printing."""
        is_other = summary.constraint in ("global", "cpuset", "mempolicy") or any(
            not reason.startswith(_MEMCG_REASONS) for reason in self._reasons()
        )
        has_no_kill = self.is_no_task_killable or self.is_panic_on_oom
        return _missing(
            frozenset(self.seen),
            is_memcg=is_memcg,
            is_other=is_other,
            has_no_kill=has_no_kill,
            is_old=self.is_old,
        )


@cache  # few combinations exist, and a log may have many reports
def _missing(
    seen: frozenset[Section], *, is_memcg: bool, is_other: bool, has_no_kill: bool, is_old: bool
) -> tuple[Section, ...]:
    not_of_this_kind: set[Section] = set()
    if not is_memcg:
        not_of_this_kind |= {"counters", "memory.stat"}
    if is_memcg or not is_other:
        not_of_this_kind |= {"mem_info"}
    if has_no_kill:
        not_of_this_kind |= {"summary", "kill"}
    if is_old:
        not_of_this_kind |= {"summary"}
    return tuple(section for section in SECTIONS if section not in seen | not_of_this_kind)
