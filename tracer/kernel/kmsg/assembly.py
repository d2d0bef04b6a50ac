"""One OOM report while its lines come: which line belongs to it, and what the whole of them says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from tracer.kernel.kmsg.report import bounds, mem_info, nodes, sections
from tracer.kernel.kmsg.report.log_report import (
    SECTIONS,
    Chosen,
    Counter,
    CounterName,
    Invoker,
    Kill,
    LogReport,
    MemoryStat,
    Reaped,
    Section,
    SlabCache,
    Stamp,
    TaskRow,
)
from tracer.kernel.kmsg.text.lines import Record

CALL_TRACE: Final = ("Call Trace:", "Call trace:")
SLAB_TITLE: Final = "Unreclaimable slab info:"

_TRACE_ENDS: Final = ("</TASK>", "RIP:", "Code:")
_OF_MEMCG: Final = frozenset({"mem_cgroup_out_of_memory", "mem_cgroup_oom_synchronize"})
_OF_MACHINE: Final = frozenset(
    {
        "__alloc_pages",
        "__alloc_pages_nodemask",
        "__alloc_pages_slowpath",
        "__alloc_pages_internal",
        "moom_callback",
    }
)
"""Functions below which the OOM killer was called because a cgroup's limit was hit, or was not."""

_ALLOCATING: Final = "(oom_kill_allocating_task)"
_MEMCG_REASON: Final = "Memory cgroup out of memory"
# Before Linux 6.5 all of memory.stat is one message of several lines, and a message is cut at 1024 characters
# less room for a prefix, which differs by release (LOG_LINE_MAX in kernel/printk/printk.c). What reads it by
# syslog(2) gets each line with a prefix, and whole lines as far as all that fits (record_print_text).
_CUT_MESSAGE: Final = range(960, 1025)
_CUT_LINES: Final = range(940, 1031)
_PREFIX: Final = 19  # <6>[12345.678901]


@dataclass(slots=True)
class _Stats:
    """memory.stat of a cgroup while its lines come."""

    printed: MemoryStat
    values: dict[str, int]
    first: Stamp | None = None
    last: Stamp | None = None
    last_name: str = ""
    rows: int = 0
    characters: int = 0
    has_prefix: bool = False

    def take(self, record: Record) -> bool:
        row = sections.stat(record.text)
        if row is None:
            return False
        self.first = record.stamp if self.first is None else self.first
        self.last, self.has_prefix = record.stamp, record.prefix > 0
        self.last_name, self.values[row[0]] = row
        self.rows += 1
        self.characters += len(record.text) + 1
        return True

    def result(self) -> MemoryStat:
        """Without the last line where the kernel may have cut it within its number."""
        if self.first is None or self.last is None:
            return self.printed
        values = self.values
        is_one_line_each = self.first.line != self.last.line and self.has_prefix
        if is_one_line_each:
            is_one_message = replace(self.last, line=self.first.line) == self.first
            is_cut = is_one_message and self.characters + self.rows * _PREFIX in _CUT_LINES
        else:
            is_cut = self.characters in _CUT_MESSAGE
            if is_cut:
                values = {name: value for name, value in values.items() if name != self.last_name}
        return replace(self.printed, values=values, is_cut=is_cut)


def _are_one(asked: str | None, comm: str | None) -> bool:
    """Whether the two lines that name who asked mean one task; a prefix may stand before either name."""
    one, other = (asked or "").strip(), (comm or "").strip()
    return one.endswith(other) or other.endswith(one)


@dataclass(slots=True)
class Assembly:
    """`seen`: the sections of which a line came; `mode`: which of them the lines that have only a shape, and
    no words, belong to. `is_old`: it has the lines of kernels before 5.0."""

    stamp: Stamp
    last: Stamp
    caller: str | None = None
    suppressed: int = 0
    dropped: int = 0
    seen: set[Section] = field(default_factory=set)
    mode: str = ""
    is_old: bool = False
    invoker: Invoker = field(default_factory=Invoker)
    stack: list[str] = field(default_factory=list)
    functions: set[str] = field(default_factory=set)
    nodemask: nodes.Nodemask | None = None
    cpuset: tuple[str, str] | None = None
    limit_of: tuple[str, str | None] | None = None
    summary: sections.Summary | None = None
    summary_text: str = ""
    chosen: Chosen | None = None
    reason: str | None = None
    group_memcg: str | None = None
    counters: dict[CounterName, Counter] = field(default_factory=dict)
    stats: list[_Stats] = field(default_factory=list)
    slabs: list[SlabCache] = field(default_factory=list)
    protection: tuple[int, int] | None = None
    columns: tuple[str, ...] = ()
    tasks: list[TaskRow] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    reaped: list[Reaped] = field(default_factory=list)
    is_no_task_killable: bool = False
    is_panic_on_oom: bool = False
    is_panic: bool = False
    machine: mem_info.Reader = field(default_factory=mem_info.Reader)

    def is_past(self, section: Section) -> bool:
        """Whether the report has come further than that: such a line is another report's."""
        return any(SECTIONS.index(seen) > SECTIONS.index(section) for seen in self.seen)

    def touch(self, record: Record, section: Section | None = None, mode: str | None = None) -> None:
        """Note that a line belongs to it."""
        self.last = record.stamp
        if section is not None:
            self.seen.add(section)
        if mode is not None:
            self.mode = mode

    def take_row(self, record: Record) -> bool:
        """Whether a line without words of its own belongs to it, by its shape and what is being printed."""
        text, taken = record.text, False
        if self.mode == "header":
            taken = self._take_head(text)
        elif self.mode == "stack":
            taken = self._take_frame(text)
        elif self.mode == "memory.stat":
            taken = self.stats[-1].take(record)
        elif self.mode == "mem_info":
            taken = self.machine.take(text)
        elif self.mode == "slab" and (slab := sections.slab(text)) is not None:
            self.slabs.append(slab)
            taken = True
        elif self.mode == "tasks" and (task := sections.task(text.lstrip(), self.columns)) is not None:
            self.tasks.append(task)
            taken = True
        if taken:
            self.touch(record)
        return taken

    def take_named_row(self, record: Record) -> bool:
        """The same for a message of several lines, where the rows that are being printed have a name in them,
        which may have line ends."""
        return self.mode in ("header", "tasks") and self.take_row(record)

    def has(self, pid: int) -> bool:
        """Whether its table of tasks, or the line on who was chosen, names this process."""
        chosen = self.chosen if self.summary is None else self.summary.chosen
        is_chosen = chosen is not None and chosen.pid == pid
        return is_chosen or any(row.pid == pid for row in self.tasks)

    @property
    def is_head_cut(self) -> bool:
        """Whether the line that says the trigger's pid ended within its name."""
        return self.mode == "header" and self.invoker.pid is not None and self.invoker.taint is None

    def _take_head(self, text: str) -> bool:
        """What stands between `invoked oom-killer` and the call trace."""
        head = sections.head_of_trace(text)
        if head is not None and _are_one(self.invoker.comm, head.comm):
            self.invoker = replace(
                self.invoker,
                comm=head.comm or self.invoker.comm,
                pid=head.pid,
                uid=head.uid,
                cpu=head.cpu,
                kernel_release=head.kernel_release,
                taint=head.taint,
            )
            return True
        if self.cpuset is None and (found := sections.cpuset(text)) is not None:
            self.cpuset, self.is_old = found, True
            return True
        if "+0x" in text and self._take_frame(text):
            self.seen.add("stack")
            self.mode = "stack"  # 32-bit ARM has no title above it, and who greps loses it
            return True
        return False

    def _take_frame(self, text: str) -> bool:
        if text.strip().startswith(_TRACE_ENDS):
            self.mode = ""
            return True
        frame = sections.frame(text)
        if frame is None:
            return False
        self.functions.add(frame[0].partition("+")[0])
        if frame[1]:
            self.stack.append(frame[0])
        return True

    def add_stats(self, stats: MemoryStat, record: Record) -> None:
        """memory.stat of one more cgroup begins."""
        self.stats.append(_Stats(stats, dict(stats.values)))
        self.touch(record, "memory.stat", "" if stats.values else "memory.stat")

    def add_kill(self, kill: Kill) -> None:
        """A group's member that was chosen itself is said to be killed twice."""
        if kill.pid not in {one.pid for one in self.kills}:
            self.kills.append(replace(kill, reason=kill.reason or self.reason))

    def finish(self) -> LogReport:
        """The report."""
        summary = self._summary()
        tasks = bounds.rows(self.tasks, self.machine.ram_pages)
        row_of = {row.pid: row for row in tasks}
        owner, victim = self.limit_of[::-1] if self.limit_of is not None else (None, None)
        return LogReport(
            stamp=self.stamp,
            last_line=self.last.line,
            invoker=self._asked(),
            stack=tuple(self.stack),
            constraint=self._constraint(summary),
            nodemask=summary.nodemask or (self.nodemask.nodes if self.nodemask is not None else None),
            cpuset=summary.cpuset or (self.cpuset[0] if self.cpuset is not None else None),
            mems_allowed=summary.mems_allowed or (self.cpuset[1] if self.cpuset is not None else None),
            oom_memcg=summary.oom_memcg or owner or self._titled(),
            task_memcg=summary.task_memcg or victim,
            group_memcg=self.group_memcg,
            chosen=summary.chosen or self.chosen,
            counters=self.counters,
            stats=tuple(stats.result() for stats in self.stats),
            slabs=tuple(self.slabs),
            min_protection_bytes=None if self.protection is None else self.protection[0],
            low_protection_bytes=None if self.protection is None else self.protection[1],
            tasks=tasks,
            kills=tuple(
                bounds.kill(kill, row_of.get(kill.pid), self.machine.most_bytes) for kill in self.kills
            ),
            reaped=tuple(self.reaped),
            is_no_task_killable=self.is_no_task_killable,
            is_panic_on_oom=self.is_panic_on_oom,
            mem_info=self.machine.result() if "mem_info" in self.seen else None,
            suppressed=self.suppressed,
            dropped=self.dropped,
            missing=tuple(self._missing(summary)),
        )

    def _asked(self) -> Invoker:
        """Who asked: where vm.oom_kill_allocating_task is set, who was chosen."""
        chosen, invoker = self.chosen, self.invoker
        is_chosen = chosen is not None and any(reason and _ALLOCATING in reason for reason in self._reasons())
        if invoker.pid is not None or chosen is None or not is_chosen:
            return invoker
        return replace(invoker, pid=chosen.pid, comm=invoker.comm or chosen.comm)

    def _titled(self) -> str | None:
        """The limit's cgroup by the title of its memory.stat: before Linux 5.3 the first of those of a tree,
        which follows its counters."""
        if not self.stats:
            return None
        first = self.stats[0].printed
        return (first.cgroup or None) if first.resolution_bytes == 1 or "counters" in self.seen else None

    def _summary(self) -> sections.Summary:
        """The summary; a comm that the kill tells bounds the one in it."""
        summary = self.summary
        if summary is None:
            return sections.Summary("unknown")
        for kill in self.kills:
            chosen = summary.chosen
            if chosen is not None and chosen.pid == kill.pid and chosen.comm != kill.comm:
                return sections.summary(self.summary_text, kill.comm) or summary
        return summary

    def _constraint(self, summary: sections.Summary) -> str:
        """What the kernel said, or what the lines that came mean.

        Linux 5.0 to 5.2 print CONSTRAINT_NONE also for the limit of a cgroup, and older kernels print no
        constraint at all.
        """
        if summary.constraint not in ("unknown", "global"):
            return summary.constraint
        if self._is_memcg(summary):
            return "memcg"
        if summary.constraint == "global":
            return "global"
        shown = self.machine.shown()
        confined = nodes.confined(self.nodemask, self.cpuset, self.invoker.kernel_release, shown)
        if confined is not None:
            return confined
        if any(reason is not None for reason in self._reasons()) or self.is_panic:
            return "global"
        is_of_machine = "mem_info" in self.seen or not self.functions.isdisjoint(_OF_MACHINE)
        may_be_confined = self.cpuset is not None and self.cpuset[0] != "/" and not shown.is_all
        return "global" if "header" in self.seen and is_of_machine and not may_be_confined else "unknown"

    def _reasons(self) -> Iterator[str | None]:
        yield self.reason
        yield from (kill.reason for kill in self.kills)

    def _is_memcg(self, summary: sections.Summary) -> bool:
        return (
            summary.constraint == "memcg"
            or summary.oom_memcg is not None
            or not self.seen.isdisjoint({"counters", "memory.stat"})
            or self.limit_of is not None
            or ("mem_info" not in self.seen and not self.functions.isdisjoint(_OF_MEMCG))
            or any(reason is not None and reason.startswith(_MEMCG_REASON) for reason in self._reasons())
        )

    def _missing(self, summary: sections.Summary) -> Iterator[Section]:
        """In the order of printing."""
        is_memcg = self._is_memcg(summary)
        is_other = summary.constraint in ("global", "cpuset", "mempolicy") or any(
            kill.reason is not None and not kill.reason.startswith(_MEMCG_REASON) for kill in self.kills
        )
        not_of_this_kind: set[Section] = set()
        if not is_memcg:
            not_of_this_kind |= {"counters", "memory.stat"}
        if is_memcg or not is_other:
            not_of_this_kind |= {"mem_info"}
        if self.is_no_task_killable or self.is_panic_on_oom:
            not_of_this_kind |= {"summary", "kill"}
        if self.is_old:
            not_of_this_kind |= {"summary"}
        yield from (
            section for section in SECTIONS if section not in self.seen and section not in not_of_this_kind
        )
