"""From the lines of a kernel log to the OOM reports in it, in one pass.

Each line is known by itself: by words that only the OOM killer prints, or, within a report, by its shape. So
lines of other subsystems may stand in between, and a report may lack its beginning or its end. What holds a
report together is that the kernel writes one at a time (oom_lock) and ends it with a kill; what comes after
that (the other kills of a group, the oom_reaper) is joined to it by order and by pid.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from tracer.kernel.kmsg.assembly import CALL_TRACE, SLAB_TITLE, Assembly
from tracer.kernel.kmsg.report import mem_info, sections
from tracer.kernel.kmsg.report.log_report import Kill, LogReport, Section
from tracer.kernel.kmsg.text import lines, shapes, wrapping
from tracer.kernel.kmsg.text.lines import Record

_WORDS: Final = re.compile(
    r"oom|[Oo]ut of memory|Kill(?:ed)? process|suppressed|memory: usage|Memory cgroup stats|Tasks state"
    r"|Mem-Info:|System OOM|killed as a result"
)
"""What a line has that begins a report or belongs to a finished one."""

_PANIC: Final = "Kernel panic - not syncing: "
_NO_TASK: Final = "Out of memory and no killable processes"
_DEADLOCKED: Final = "System is deadlocked on memory"
_PANIC_ON_OOM: Final = " panic_on_oom is enabled"
_TITLES: Final = (
    *("memory", "swap", "kmem", "[", *CALL_TRACE, SLAB_TITLE, mem_info.TITLE, _NO_TASK),
    *(
        "Memory cgroup min",
        _PANIC,
        _DEADLOCKED,
        "oom_kill",
        "dump_header",
        "out_of_memory",
        "** ",
        "systemd-journald",
    ),
)
_GAP_LINES: Final = 1000
_GAP_NS: Final = 60_000_000_000
"""A report of which nothing more came for so long has no end in this log."""

_CHOICE_TO_KILL_LINES: Final = 50
_KEPT: Final = 256
"""How many reports wait for late lines (the oom_reaper) before they are given out."""

_MOST_HOSTS: Final = 256
_MOST_PIDS: Final = 4096
_MOST_CONTINUED: Final = 1100  # characters: the kernel's own messages are shorter


def reports(log: Iterable[str]) -> Iterator[LogReport]:
    """The reports in the lines of a log, in the order in which they begin.

    A report is given out when 256 more have begun, or at the end: the oom_reaper comes late.
    """
    scan = _Scan()
    for number, line in enumerate(log, start=1):
        scan.take(line, number)
        while len(scan.begun) > _KEPT:
            yield scan.begun.popleft().finish()
    scan.end()
    yield from (assembly.finish() for assembly in scan.begun)


class _Scan:
    """Between two lines: the message that may go on in the next, and each machine that writes to this log.

    `within`: the machines of which the next line may belong to a report without saying so. Where there is
    none, and no message, most lines are passed over by one look for `_WORDS`.
    """

    def __init__(self) -> None:
        self.begun: deque[Assembly] = deque()
        self._machines: dict[str | None, _Machine] = {}
        self._within: set[str | None] = set()
        self._reader = lines.Reader()
        self._message: Record | None = None
        self._pieces: list[str] = []
        self._width = wrapping.Width()
        self._characters = 0
        self._before = ""
        self._host: str | None = None

    def take(self, line: str, number: int) -> None:
        before, self._before = self._before, line
        is_idle = self._message is None and not self._within
        if is_idle and _WORDS.search(line) is None:
            return
        records = self._reader.read(line, number)
        if is_idle and records and not records[0].prefix:
            self._begin(self._reader.read(before, number - 1))
        for record in records:
            if self._goes_on(record, before):
                continue
            self.end()
            if self._within or _WORDS.search(line) is not None:
                self._begin([record])

    def _begin(self, records: list[Record]) -> None:
        if records:
            self._message, self._pieces, self._characters = records[-1], [], len(records[-1].text)

    def _goes_on(self, record: Record, before: str) -> bool:
        """Whether the message goes on in this line, which is then kept with it."""
        message = self._message
        if message is None or record.prefix:
            return False
        self._characters += len(record.text.strip()) + 1
        if self._characters >= _MOST_CONTINUED:
            return False
        if message.is_indented(record.text) and not self._pieces:
            self._message = message.continued(record.text)
            return True
        if not message.prefix and not wrapping.may_go_on(message.text, self._pieces, record.text):
            return False
        gap = self._width.gap(len(before))
        text = lines.unescaped(record.text) if message.is_raw else record.text
        self._pieces.append(text if gap is None else wrapping.CUT + " " * gap + text)
        return True

    def _name_machine(self, host: str) -> None:
        """Give the machine that the lines without a name are of the first name that the log has."""
        self._machines[host] = self._machines.pop(None)
        if None in self._within:
            self._within.symmetric_difference_update({None, host})

    def end(self) -> None:
        """The message is whole."""
        record, self._message = self._message, None
        if record is None:
            return
        host = self._host = record.host or self._host
        if host is not None and None in self._machines:
            self._name_machine(host)
        if host not in self._machines:
            while len(self._machines) >= _MOST_HOSTS:
                gone = next(iter(self._machines))
                del self._machines[gone]
                self._within.discard(gone)
            self._machines[host] = _Machine(self.begun)
        machine = self._machines[host]
        if self._pieces:
            record = record.saying(wrapping.joined(record.text, self._pieces, machine.columns))
        machine.take(record)
        if machine.is_within:
            self._within.add(host)
        else:
            self._within.discard(host)


class _Machine:
    """What one kernel is printing: the report that is being written, and the finished ones that lines may
    still come for."""

    def __init__(self, begun: deque[Assembly]) -> None:
        self._begun = begun
        self._open: Assembly | None = None
        self._killed: Assembly | None = None
        self._by_pid: dict[int, Assembly] = {}
        self._suppressed = 0
        self._unfinished: Record | None = None
        self._named: Final = (
            (sections.INVOKED, self._take_invoked),
            (sections.SUMMARY, self._take_summary),
            (sections.KILLED, self._take_killed),
            (sections.CHOSEN, self._take_chosen),
            (sections.OLD_CHOSEN, self._take_chosen),
            (sections.GROUP, self._take_group),
            (sections.REAPER, self._take_reaped),
            (sections.SYSTEM_OOM, self._take_event),
            (sections.STATS, self._take_stats),
            (sections.LIMIT_OF, self._take_limit_of),
        )

    @property
    def is_within(self) -> bool:
        """Whether the next line may belong to a report without saying so."""
        return self._open is not None or self._unfinished is not None

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of the table of tasks that is being printed; empty where there is none."""
        return self._open.columns if self._open is not None and self._open.mode == "tasks" else ()

    def take(self, record: Record) -> None:
        """A message; one of several lines may be a line with a name that has line ends, or several lines."""
        if (
            self._open is not None
            and self._open.mode in ("memory.stat", "mem_info")
            and "#012" in record.text
        ):
            record = record.saying(record.text.replace("#012", "\n"))  # rsyslog's line end
        if "\n" not in record.text:
            self._take_line(record)
        elif not self._take_named(record) and not self._take_named_row(record):
            for text in record.text.split("\n"):
                self._take_line(record.saying(text))

    def _take_plain_row(self, record: Record) -> bool:
        """A row of a table; most lines are, and none of them is another line by its words."""
        assembly = self._open
        if (
            assembly is None
            or assembly.mode not in ("memory.stat", "tasks")
            or not self._is_of(assembly, record)
        ):
            return False
        return assembly.take_row(record)

    def _take_named_row(self, record: Record) -> bool:
        return self._open is not None and self._open.take_named_row(record)

    def _take_line(self, record: Record) -> None:
        unfinished, self._unfinished = self._unfinished, None
        self._give_up(record)
        if self._open is not None and not self._is_of(self._open, record) and not self._is_late(record.text):
            return
        if self._take_plain_row(record) or self._take_named(record):
            return
        if unfinished is not None and unfinished.stamp.line + 1 == record.stamp.line:
            # A log daemon gives each line of a message a prefix of its own.
            joined = unfinished.saying(f"{unfinished.text}\n{record.text}")
            if self._finish_line(joined):
                return
        if self._take_title(record) or self._open is None:
            return
        if self._open.take_row(record) and self._open.is_head_cut:
            self._unfinished = record

    def _give_up(self, record: Record) -> None:
        """Leave a report that has no end in this log."""
        if self._open is None:
            return
        last, now = self._open.last, record.stamp
        elapsed_ns = (now.since_boot_ns or 0) - (last.since_boot_ns or 0)
        is_timed = now.since_boot_ns is not None and last.since_boot_ns is not None
        if now.line - last.line > _GAP_LINES or (is_timed and not 0 <= elapsed_ns <= _GAP_NS):
            self._open = None

    @staticmethod
    def _is_late(text: str) -> bool:
        """Whether another task than the one that writes a report may say this: it begins one, or reaped."""
        return sections.INVOKED in text or text.startswith(sections.REAPER)

    @staticmethod
    def _is_of(assembly: Assembly, record: Record) -> bool:
        """Whether the same task prints, where the log says which does: one task writes a whole report."""
        return None in (assembly.caller, record.caller) or assembly.caller == record.caller

    # Lines with a name in them, which may have line ends

    def _take_named(self, record: Record) -> bool:
        of_path = shapes.path_word(record.text.lstrip())
        for word, take in self._named:
            if word in record.text and of_path in (None, word):
                return take(record)
        return False

    def _begin(self, record: Record) -> Assembly:
        assembly = Assembly(record.stamp, record.stamp, record.caller, suppressed=self._suppressed)
        self._suppressed = 0
        self._begun.append(assembly)
        return assembly

    def _within(self, record: Record, section: Section) -> Assembly:
        """The report that a line of this section belongs to, begun now where its beginning is missing."""
        if self._open is None or self._open.is_past(section):
            self._open = self._begin(record)
        self._open.touch(record, section)
        return self._open

    def _take_invoked(self, record: Record) -> bool:
        found = sections.invoked(record.text)
        if found is None:
            return False
        self._open = self._begin(record)
        self._open.invoker, self._open.nodemask = found
        self._open.is_old = found[1] is not None
        self._open.touch(record, "header", "header")
        return True

    def _take_summary(self, record: Record) -> bool:
        summary = sections.summary(record.text)
        if summary is None or ("\n" in record.text and summary.chosen is None):
            return False
        if self._open is not None and self._open.summary is not None:
            self._open = None
        assembly = self._within(record, "summary")
        assembly.summary, assembly.summary_text, assembly.mode = summary, record.text, ""
        self._unfinished = record
        return True

    def _take_killed(self, record: Record) -> bool:
        kill = sections.killed(record.text, record.stamp)
        if kill is None:
            return False
        assembly = self._open
        if assembly is None or not self._is_kill_of(assembly, kill.pid, kill.comm, record):
            assembly = self._killed if self._is_in_group(record) else None
        if assembly is None:
            assembly = self._begin(record)
        assembly.add_kill(kill)
        assembly.touch(record, "kill", "")
        self._open, self._killed = None, assembly
        self._remember(kill.pid, assembly)
        if kill.total_vm_bytes is None:
            self._unfinished = record
        return True

    def _take_event(self, record: Record) -> bool:
        kill = sections.of_event(record.text, record.stamp)
        if kill is not None:
            assembly = self._begin(record)
            assembly.add_kill(kill)
            assembly.touch(record, "kill")
        return kill is not None

    def _is_kill_of(self, assembly: Assembly, pid: int, comm: str, record: Record) -> bool:
        """Old kernels may kill a child of the chosen task; a thread of it may stand for it on all."""
        chosen = assembly.chosen if assembly.summary is None else assembly.summary.chosen
        if chosen is None or assembly.is_old or pid == chosen.pid or comm == chosen.comm:
            return True
        return record.stamp.line - assembly.last.line <= _CHOICE_TO_KILL_LINES

    def _is_in_group(self, record: Record) -> bool:
        killed = self._killed
        if killed is None or killed.group_memcg is None:
            return False
        return self._is_of(killed, record) and record.stamp.line - killed.last.line <= _GAP_LINES

    def _take_chosen(self, record: Record) -> bool:
        found = sections.chosen(record.text)
        if found is None:
            return False
        if self._open is None or self._open.chosen is not None or self._open.summary is not None:
            self._open = self._begin(record)
        self._open.chosen, self._open.reason = found
        self._open.is_old = True
        self._open.touch(record, None, "")
        return True

    def _take_group(self, record: Record) -> bool:
        path = sections.group(record.text)
        if path is None:
            return False
        assembly = self._killed if self._open is None else self._open
        if assembly is None:
            assembly = self._begin(record)
        elif assembly.group_memcg is not None and len(assembly.kills) > 1:
            # What seemed to be the last kill of a group was the first one of another.
            kill = assembly.kills.pop()
            assembly = self._begin(record)
            assembly.stamp = kill.stamp
            assembly.add_kill(kill)
            assembly.touch(record, "kill")
            self._remember(kill.pid, assembly)
        assembly.group_memcg = path
        assembly.touch(record)
        self._open, self._killed = None, assembly
        return True

    def _take_reaped(self, record: Record) -> bool:
        reaped = sections.reaped(record.text, record.stamp)
        assembly = None if reaped is None else self._by_pid.get(reaped.pid)
        if reaped is not None and assembly is None and self._open is not None and self._open.has(reaped.pid):
            # The line on the kill was lost; the reaper takes the memory of nobody else.
            assembly, self._open = self._open, None
            assembly.add_kill(Kill(record.stamp, reaped.pid, reaped.comm))
            assembly.touch(record, "kill", "")
            self._remember(reaped.pid, assembly)
        if reaped is not None and assembly is not None:
            assembly.reaped.append(reaped)
        return reaped is not None

    def _remember(self, pid: int, assembly: Assembly) -> None:
        self._by_pid[pid] = assembly
        if len(self._by_pid) > _MOST_PIDS:
            del self._by_pid[next(iter(self._by_pid))]

    def _take_stats(self, record: Record) -> bool:
        stats = sections.stats(record.text)
        if stats is None or ("\n" in record.text and not record.text.rstrip().endswith(":")):
            return False
        self._within(record, "memory.stat").add_stats(stats, record)
        return True

    def _take_limit_of(self, record: Record) -> bool:
        found = sections.limit_of(record.text)
        if found is None:
            return False
        assembly = self._within(record, "stack")
        assembly.limit_of, assembly.is_old, assembly.mode = found, True, ""
        return True

    def _finish_line(self, joined: Record) -> bool:
        """Whether a line with a name in it went on in this one."""
        if self._open is not None and self._open.is_head_cut:
            return self._open.take_row(joined) and not self._open.is_head_cut
        summary = sections.summary(joined.text)
        if summary is not None and summary.chosen is not None and self._open is not None:
            self._open.summary, self._open.summary_text = summary, joined.text
            return True
        kill = sections.killed(joined.text, joined.stamp)
        if kill is None or kill.total_vm_bytes is None or self._killed is None or not self._killed.kills:
            return False
        self._killed.kills.pop()
        self._killed.add_kill(kill)
        return True

    # Lines that begin a part of a report, or are one

    def _take_title(self, record: Record) -> bool:
        text = record.text.strip()
        if not text.startswith(_TITLES):
            return False
        if (counter := sections.counter(text)) is not None:
            if self._open is not None and counter[0] in self._open.counters:
                self._open = None
            assembly = self._within(record, "counters")
            assembly.counters[counter[0]] = counter[1]
            assembly.mode = ""
        elif text == mem_info.TITLE:
            self._within(record, "mem_info").mode = "mem_info"
        elif (columns := sections.task_columns(text)) is not None:
            assembly = self._within(record, "tasks")
            assembly.columns, assembly.mode = columns, "tasks"
        elif (count := sections.suppressed(text)) is not None:
            self._suppressed += count
        elif _NO_TASK in text or _DEADLOCKED in text or _PANIC_ON_OOM in text:
            is_headless = self._open is None or "header" not in self._open.seen
            assembly = self._begin(record) if self._open is None else self._open
            assembly.is_panic_on_oom = _PANIC_ON_OOM in text
            assembly.is_no_task_killable = not assembly.is_panic_on_oom
            assembly.is_panic = assembly.is_panic or text.startswith(_PANIC)
            # Where no line said who asked, the head and the call trace of the panic follow.
            assembly.touch(record, None, "header" if is_headless else None)
            self._open = assembly if is_headless else None
        else:
            return self._open is not None and self._take_title_within(self._open, record, text)
        return True

    def _take_title_within(self, assembly: Assembly, record: Record, text: str) -> bool:
        """Lines that mean something only in a report."""
        if text in CALL_TRACE and assembly.mode == "header":
            assembly.touch(record, "stack", "stack")
        elif text == SLAB_TITLE:
            assembly.touch(record, None, "slab")
        elif (protection := sections.protection(text)) is not None:
            assembly.protection = protection
            assembly.touch(record)
        elif (count := sections.dropped(text)) is not None:
            assembly.dropped += count
        else:
            return False
        return True
