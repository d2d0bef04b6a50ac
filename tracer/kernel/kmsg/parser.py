"""The parser of a kernel log: from its lines to the OOM reports in it, in one pass and in bounded memory.

Broken lines are joined into messages here, and the messages are sorted by the machine that wrote them.
`MachineLog` assembles reports from the messages.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from tracer.kernel.kmsg.assembly import Assembly
from tracer.kernel.kmsg.machine_log import MachineLog
from tracer.kernel.kmsg.report.log_report import LogReport
from tracer.kernel.kmsg.text import lines, shapes, styles, wrapping
from tracer.kernel.kmsg.text.log_record import Record

_WORDS: Final = re.compile(
    r"oom|[Oo]ut of memory|Kill(?:ed)? process|suppressed|memory: usage|Memory cgroup stats|Tasks state"
    r"|Mem-Info:|System OOM|killed as a result|deadlocked on memory|Content-Transfer-Encoding"
)
"""The words of a line that begins a report, belongs to a finished one, or changes how lines are read."""

_KEPT: Final = 256
"""The number of reports that wait for late lines (the oom_reaper) before they are yielded."""

_MOST_HOSTS: Final = 256
_MOST_CONTINUED: Final = 1100  # characters: the kernel's own messages are shorter


def reports(log: Iterable[str]) -> Iterator[LogReport]:
    """Yield the reports in the lines of a log, in the order in which they begin.

    A report is yielded after 256 later ones have begun, or at the end, because lines of the oom_reaper come
    late.
    """
    scan, number = _Scan(), 0
    for number, line in enumerate(log, start=1):
        scan.take(line, number)
        while len(scan.begun) > _KEPT:
            yield scan.begun.popleft().finish()
    scan.take("", number + 1)
    scan.end()
    yield from (assembly.finish() for assembly in scan.begun)


class _Scan:
    """The state of a pass between two lines: the message that the next line may continue, and the machines
    that write to this log.

    `_within` are the hosts of the machines whose next line may belong to a report by its shape alone. While
    it is empty and there is no message, one search for `_WORDS` decides whether a line is skipped.
    """

    def __init__(self) -> None:
        self.begun: deque[Assembly] = deque()
        self._machines: dict[str | None, MachineLog] = {}
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
        is_idle = self._message is None and not self._within and not self._reader.is_broken_softly
        if is_idle and _WORDS.search(line) is None:
            return
        records = self._reader.read(line, number)
        if is_idle and records and not records[0].prefix:
            self._begin(self._reader.read(before, number - 1))
        for record in records:
            if self._goes_on(record, before):
                continue
            self.end()
            if self._within or _WORDS.search(record.text) is not None:
                self._begin([record])

    def _begin(self, records: list[Record]) -> None:
        if records:
            self._message, self._pieces, self._characters = records[-1], [], len(records[-1].text)

    def _goes_on(self, record: Record, before: str) -> bool:
        """Keep the record as a piece of the message if it may continue the message; return whether it may."""
        message = self._message
        if message is None or record.prefix or shapes.kind(record.text.strip()) == "elision":
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
        text = styles.unescaped(record.text) if message.is_raw else record.text
        self._pieces.append(text if gap is None else wrapping.CUT + " " * gap + text)
        return True

    def _name_machine(self, host: str) -> None:
        """Give the first host name in the log to the machine of the earlier lines, which have no host
        name."""
        self._machines[host] = self._machines.pop(None)
        if None in self._within:
            self._within.symmetric_difference_update({None, host})

    def end(self) -> None:
        """Give the completed message to its machine."""
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
            self._machines[host] = MachineLog(self.begun)
        machine = self._machines[host]
        if self._pieces:
            record = record.with_text(wrapping.joined(record.text, self._pieces, machine.columns))
        machine.take(record)
        if machine.is_within:
            self._within.add(host)
        else:
            self._within.discard(host)
