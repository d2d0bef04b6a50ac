"""The parser of a kernel log: from its lines to the OOM reports in it, in one pass and in bounded memory.

Broken lines are joined into messages here, and the messages are sorted by the machine that wrote them.
`MachineLog` assembles reports from the messages.

A mail program breaks a line at a space, and drops the space. A terminal breaks it anywhere, and drops
nothing. The text at the break shows which program broke the line: between whole words of a report a space is
missing, and within a word no space is missing.

A log may have its newest line first, as `journalctl -r` and the views of log stores list it.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Final

from tracer.kernel.kmsg.assembly import OF_REPORT, Assembly
from tracer.kernel.kmsg.machine_log import MachineLog
from tracer.kernel.kmsg.report.log_report import LogReport
from tracer.kernel.kmsg.text import lines, markers, shapes, styles
from tracer.kernel.kmsg.text.styles import Record, Run, Stamp

CUT: Final = "\0"
"""The mark of a piece that a terminal cut off: no character is missing at the break."""

_LEAST_CUTS: Final = 2
_NAME: Final = re.compile(r"\s*[a-z][a-z0-9_]{0,63}")
_WHOLE_TOKEN: Final = re.compile(
    r"[a-zA-Z][\w()-]{0,63}:\d{1,20}(?:k[Bb]|KB),?|[a-z][a-z_]{0,63}:\d{1,20}|(?:UID|oom_score_adj):-?\d{1,10}"
    r"|[a-z_]{1,32}=[^\s(]{1,64},|gfp_mask=0x[0-9a-f]{1,8}\([\w|]{0,1000}\),|-?\d{1,20}(?:k[Bb]|KB)?,?"
    r"|\d{1,9}\*\d{1,9}kB|\(\S{0,64}\),?|#\d{1,9}.{0,20}"
)
_REST_OF_SIZE: Final = re.compile(r"\d{0,19}(?:k[Bb]|KB)(?![^\s,])")
_REST_OF_UNIT: Final = re.compile(r"[Bb](?![^\s,])")

_MOST_PIECES: Final = 24
_MOST_GAP: Final = 8
_SEVERAL_WORDS: Final = frozenset(
    (
        *("invoked", "oom-killer:", "Out", "out", "of", "memory:", "Memory", "memory", "cgroup", "Killed"),
        *("Kill", "process", "score", "or", "sacrifice", "child", "Not", "tainted", "Tainted:", "Kdump:"),
        *("loaded", "usage", "limit", "failcnt", "stats", "for", "Task", "in", "killed", "as", "a", "result"),
        *("Comm:", "PID:", "CPU:", "UID:", "Pid:", "comm:", "uid", "tgid", "total_vm", "rss", "rss_anon"),
        *("rss_file", "rss_shmem", "pgtables_bytes", "nr_ptes", "nr_pmds", "swapents", "oom_score_adj"),
        *("are", "going", "to", "be", "due", "now", "name", "all_unreclaimable?", "yes", "no", "=", "pages"),
        "swap",
    )
)


class Width:
    """The width of the terminal that broke the lines, if a terminal did: it breaks nearly all lines at one
    column."""

    def __init__(self) -> None:
        self._lengths: Counter[int] = Counter()

    def gap(self, length: int) -> int | None:
        """Return the number of spaces lost at the end of a broken line of this length; None if no terminal
        is known to have broken it."""
        self._lengths[length] += 1
        width, times = max(self._lengths.items())
        if times < _LEAST_CUTS or times * 3 < self._lengths.total() * 2 or width - length > _MOST_GAP:
            return None
        return width - length


def joined(text: str, pieces: Sequence[str], columns: tuple[str, ...] = ()) -> str:
    """Return a message joined with `pieces`, the lines after it in the log that may continue it.

    A piece that is a line of its own is joined with a line end, as in a message of several lines. `columns`
    are the columns of the table of tasks that is being printed.
    """
    lines = text.split("\n")
    for piece in pieces:
        is_cut = piece.startswith(CUT)
        for number, part in enumerate(piece.removeprefix(CUT).split("\n")):
            last = lines[-1]
            of_kind = shapes.kind(last.lstrip())
            stripped = part.lstrip()
            is_own = number > 0 or not stripped or shapes.kind(stripped) is not None
            if of_kind is None and not last.strip():
                lines[-1] = stripped
            elif part.strip().isdigit() and _NAME.fullmatch(last):
                lines[-1] = f"{last} {stripped}"  # a row of memory.stat
            elif is_own or not _continues(last.lstrip(), of_kind, part):
                lines.append(part)
            elif is_cut:
                lines[-1] = last + part
            else:
                lines[-1] = _join(last, part, of_kind, columns)
    return "\n".join(lines)


def may_go_on(text: str, pieces: Sequence[str], line: str) -> bool:
    """Return whether a message without a prefix, and the pieces joined to it so far, continue in this
    line."""
    stripped, first = line.strip(), text.lstrip()
    if not stripped or shapes.kind(stripped) is not None or len(pieces) >= _MOST_PIECES:
        return False
    of_kind = shapes.kind(first)
    return of_kind is not None and shapes.goes_on(joined(text, pieces), of_kind, line)


def _continues(last: str, of_kind: str | None, part: str) -> bool:
    return of_kind == "sums" or shapes.goes_on(last, of_kind, part)


def _is_in_name(text: str, of_kind: str | None) -> bool:
    """Return whether a line ends within the name of a process, which a mail program breaks at a space."""
    if of_kind == "kill":
        _, found, rest = text.partition("process ")
        return bool(found) and "(" in rest and ")" not in rest
    _, found, rest = text.rpartition(",task=")
    return of_kind == "summary" and bool(found) and rest != "" and ",pid=" not in rest


def _join(left: str, part: str, of_kind: str | None, columns: tuple[str, ...]) -> str:
    right = part.lstrip()
    plain, spaced = left + right, f"{left.rstrip()} {right}"
    if left.endswith(" ") or _is_within_size(left, right):
        return plain
    if part != right or of_kind == "head" or _is_in_name(left, of_kind):
        return spaced
    if of_kind == "summary":
        return plain
    if of_kind == "kill" and markers.has_victim(plain) != markers.has_victim(spaced):
        return plain if markers.has_victim(plain) else spaced
    if of_kind == "task" and columns:
        return plain if _fits(plain, columns) and not _fits(spaced, columns) else spaced
    return spaced if _is_between_words(left, right) else plain


def _fits(row: str, columns: tuple[str, ...]) -> bool:
    """Return whether a row of the table of tasks has these columns, and no digit at the beginning of its
    name."""
    found = shapes.shape_of_task_row(row.lstrip(), len(columns) - 2)
    return found is not None and not found.groups()[-1][:1].isdigit()


def _is_within_size(left: str, right: str) -> bool:
    """Return whether a break is within a size such as `4096kB`, which is one word."""
    if left[-1:].isdigit():
        return _REST_OF_SIZE.match(right) is not None
    return left[-1:] in ("k", "K") and left[-2:-1].isdigit() and _REST_OF_UNIT.match(right) is not None


def _is_between_words(left: str, right: str) -> bool:
    left_word, right_word = left.rsplit(maxsplit=1)[-1], right.split(maxsplit=1)[0]
    if left.count("(") > left.count(")") and "|" in left_word:
        return False  # within the names of a gfp mask
    if left_word[-1] == ",":
        return True
    if left_word[-1] in "-_" or right_word[0] in ",_:=" or left_word + right_word in _SEVERAL_WORDS:
        return False
    return any(word in _SEVERAL_WORDS or _WHOLE_TOKEN.fullmatch(word) for word in (left_word, right_word))


WORDS: Final = (
    *("oom", "Out of memory", "out of memory", "Killed process", "Kill process", "suppressed"),
    *("memory: usage", "Memory cgroup stats", "Tasks state", "Mem-Info:", "System OOM", " killed as a"),
    *(
        "deadlocked on memory",
        "Content-Transfer-Encoding",
        "dump_header",
        markers.WARNED,
        *markers.NO_OOM,
        markers.BY_HAND,
    ),
)
"""The words of a line that begins a report, belongs to a finished one, or changes how lines are read."""


def _has_words(text: str) -> bool:
    return any(map(text.__contains__, WORDS))  # a pattern would take ten times as long


_KEPT: Final = 256
"""The number of reports that wait for late lines (the oom_reaper) before they are yielded."""

_BLOCK_LINES: Final = 1024
_MOST_ABOVE_FRAME: Final = 8
"""The lines from the head of a call trace to the frame of dump_header or oom_kill_process, or more."""

_MOST_REVERSED: Final = 1 << 19
"""The number of lines from which a log is read as if its oldest line is the first one."""

_MOST_HOSTS: Final = 256
_MOST_ROWS: Final = 512
_NUMBERS: Final = re.compile(r"\] +\d+ +\d+ +\d")
"""The numbers at the beginning of a row of the table of tasks."""

_MOST_CONTINUED: Final = 1100  # characters: the kernel's own messages are shorter


def reports(log: Iterable[str], first: int = 1, killed: Iterable[int] = ()) -> Iterator[LogReport]:
    """Yield the reports in the lines of a log, in the order in which they begin.

    A report is yielded after 256 later ones have begun, or at the end, because lines of the oom_reaper come
    late. For a part of a log, `first` is the number of its first line, and `killed` are the pids that were
    killed before it.
    """
    rest = iter(log)
    block = list(islice(rest, _BLOCK_LINES))
    if len(block) < _BLOCK_LINES or _descends(block):
        block += islice(rest, _MOST_REVERSED - len(block))
        ordered = oldest_first(block) if len(block) < _MOST_REVERSED else None
        if ordered is not None:
            ends = len(block) + 2 * first - 1
            yield from (_of_reversed(report, ends) for report in _in_order(ordered, first, killed))
            return
    yield from _in_order(chain(block, rest), first, killed)


def _in_order(log: Iterable[str], first: int, killed: Iterable[int]) -> Iterator[LogReport]:
    """Yield the reports in the lines of a log with its oldest line first, as `reports` does."""
    scan, number, rest = _Scan(killed), first, iter(log)
    block = list(islice(rest, _BLOCK_LINES))
    while block:
        scan.enter(block, number)
        at = 0
        while at < len(block):
            scan.take(block[at], number + at)
            at += 1
            at += scan.take_rows(block, at)
            while len(scan.begun) > _KEPT:
                yield scan.begun.popleft().finish()
        number += len(block)
        block = list(islice(rest, _BLOCK_LINES))
    scan.finish(number - 1)
    yield from (assembly.finish() for assembly in scan.begun)


_ENDS: Final = ("Killed process ", "oom-kill:constraint=", "oom_reaper: ")
_BEGINS: Final = (" invoked oom-killer: ", ": usage ", "Call Trace:", "Tasks state", "[ pid ", "[  pid ")
"""Words of the lines that end a report, and of lines before them."""

_NUMBER: Final = re.compile(r"\d+")
_WEEKDAY: Final = re.compile(r"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) ")
_MONTHS: Final = "JanFebMarAprMayJunJulAugSepOctNovDec"
_MONTH: Final = re.compile(r"\b(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\b")

_Time = tuple[str, tuple[int, ...]]
"""The words of a time, and its numbers: two times with the same words are in the order of their numbers."""

_MOST_UNTIMED: Final = 32


def _descends(log: Sequence[str]) -> bool:
    """Return whether the first time in these lines is later than the last one, so that all of the log may
    have its newest line first."""
    first, last = (_first_time_of(part) for part in (log[:_MOST_UNTIMED], log[: -_MOST_UNTIMED - 1 : -1]))
    return first is not None and last is not None and first[0] == last[0] and first[1] > last[1]


def _first_time_of(log: Sequence[str]) -> _Time | None:
    reader = lines.Reader()
    records = (record for number, line in enumerate(log, 1) for record in reader.read(line, number))
    return next((time for record in records if (time := _time_of(record.stamp)) is not None), None)


def oldest_first(log: Sequence[str]) -> list[str] | None:
    """Return the lines of a whole log in the order of time if its newest line is the first one; otherwise
    None.

    The lines of a report are then in reverse, and no time in the log is later than one before.
    """
    end = next((at for at, line in enumerate(log) if any(word in line for word in _ENDS)), len(log))
    is_reversed = any(word in line for line in log[end:] for word in _BEGINS)
    if not is_reversed or any(word in line for line in log[:end] for word in _BEGINS):
        return None
    reader, messages, times = lines.Reader(), list[list[str]](), list[_Time]()
    for number, line in enumerate(log, 1):
        record = next(iter(reader.read(line, number)), None)
        time = None if record is None else _time_of(record.stamp)
        if time is not None:
            times.append(time)
        if time is None and messages and line[:1] == " ":
            messages[-1].append(line)  # a further line of the message before it
        else:
            messages.append([line])
    numbers = [time[1] for time in times]
    is_of_one_form = len({(words, len(of_time)) for words, of_time in times}) == 1
    if not is_of_one_form or numbers != sorted(numbers, reverse=True) or numbers[0] == numbers[-1]:
        return None
    return [line for message in reversed(messages) for line in message]


def _time_of(stamp: Stamp) -> _Time | None:
    if stamp.since_boot_ns is not None:
        return "", (stamp.since_boot_ns,)
    if stamp.wall is None:
        return None
    wall = _MONTH.sub(lambda found: str(_MONTHS.index(found[0]) // 3 + 1), _WEEKDAY.sub("", stamp.wall))
    return " ".join(_NUMBER.sub("0", wall).split()), tuple(map(int, _NUMBER.findall(wall)))


def _of_reversed(report: LogReport, ends: int) -> LogReport:
    """Return a report with the numbers of its lines in a log with its newest line first; `ends` is the sum
    of the numbers of the first and the last line of the log."""
    stamp = report.stamp._replace(line=ends - report.last_line)
    kills = tuple(
        kill._replace(stamp=kill.stamp._replace(line=ends - kill.stamp.line)) for kill in report.kills
    )
    return dataclasses.replace(report, stamp=stamp, last_line=ends - report.stamp.line, kills=kills)


class _Scan:
    """The state of a pass between two lines: the message that the next line may continue, or the rows that
    await further rows of their kind, and the machines that write to this log.

    `_within` are the hosts of the machines whose next line may belong to a report by its shape alone. While
    it is empty and there is no message, a search for `WORDS` decides whether a line is skipped.
    """

    def __init__(self, killed: Iterable[int]) -> None:
        self.begun: deque[Assembly] = deque()
        self._killed = killed
        self._machines: dict[str | None, MachineLog] = {}
        self._within: set[str | None] = set()
        self._reader = lines.Reader()
        self._message: Record | None = None
        self._pieces: list[str] = []
        self._run: Run | None = None
        self._width = Width()
        self._characters = 0
        self._before = ""
        self._host: str | None = None
        self._first = 1
        self._lines: list[str] = []
        self._above: list[Record] = []

    def enter(self, block: list[str], number: int) -> None:
        """Keep the lines of the next block, whose first one has this number, and of the block before it."""
        self._lines = [*self._lines[-_BLOCK_LINES:], *block]
        self._first = number + len(block) - len(self._lines)

    def _head_before(self, record: Record) -> list[Record]:
        """Return the head of a call trace in the lines just before a frame of a report: the line above it,
        which begins the report, may be missing."""
        for at in range(record.stamp.line - self._first - 1, -1, -1)[:_MOST_ABOVE_FRAME]:
            above = next(iter(self._reader.read(self._lines[at], self._first + at)), None)
            if above is not None and shapes.kind(above.text.lstrip()) == "head":
                return [above] if above.host == record.host else []
        return []

    def _earlier(self, record: Record) -> list[Record]:
        """Return the lines of a report just before a line that would begin one, in their order.

        They are the head of the call trace before a frame, and rows of a table of tasks, whose title may be
        missing, before a line that ends a report.
        """
        found: list[Record] = []
        if any(map(record.text.__contains__, OF_REPORT)):
            return self._head_before(record)
        if shapes.kind(record.text.lstrip()) not in ("summary", "kill"):
            return found
        for at in range(record.stamp.line - self._first - 1, -1, -1):
            if _NUMBERS.search(self._lines[at]) is None:
                break  # most often; a reading takes longer
            row = next(iter(self._reader.read(self._lines[at], self._first + at)), None)
            is_row = row is not None and shapes.kind(row.text.lstrip()) == "task"
            if row is None or not is_row or row.host != record.host:
                break
            found.append(row)
        return found[::-1]

    def take(self, line: str, number: int) -> None:
        before, self._before = self._before, line
        is_idle = self._message is None and not self._within and not self._reader.is_broken_softly
        if is_idle and not _has_words(line):
            return
        usual = styles.usual(line, number)
        if not self._within and usual is not None and self._reader.is_usual and not _has_words(line):
            self.end()  # the line has a prefix, so it continues no message
            if not self._within:
                return
        if self._within and usual is not None and self._reader.is_row(line, usual):
            self._take_row(usual)
            return
        reader = self._reader
        records = reader.read(line, number) if usual is None else reader.read_usual(line, usual)
        if self._run is not None and not (records and records[0].prefix):
            last = self._run.pop()  # it may continue in this line, or in a later one
            self._give_rows()
            self._begin(last)
        if is_idle and records and not records[0].prefix:
            for earlier in self._reader.read(before, number - 1)[-1:]:
                self._begin(earlier)
        for record in records:
            if self._goes_on(record, before):
                continue
            self.end()
            if self._within or _has_words(record.text):
                self._above = [] if self._within else self._earlier(record)
                self._begin(record)

    def take_rows(self, block: Sequence[str], at: int) -> int:
        """Add the rows from a place in a block on that follow the collected rows, as `take` would; return
        their number."""
        run = self._run
        if run is None or not self._reader.is_usual:
            return 0
        added = run.extend(block[at : at + _MOST_ROWS - len(run.texts)])
        if added:
            self._before = block[at + added - 1]
        return added

    def _take_row(self, row: Record) -> None:
        """Add a row of a report. It has a prefix, so it continues no message."""
        run = self._run
        if run is not None and len(run.texts) < _MOST_ROWS and run.add(row):
            return
        self.end()
        machine = self._machines.get(row.host or self._host)
        if machine is not None and (row.host is None or row.host == self._host) and machine.reads(row.row):
            self._run = Run(row)
        else:
            self._begin(row)

    def _begin(self, record: Record) -> None:
        self._message, self._pieces, self._characters = record, [], len(record.text)

    def _goes_on(self, record: Record, before: str) -> bool:
        """Keep the record as a piece of the message if it may continue the message; return whether it may."""
        message = self._message
        if message is None or record.prefix or shapes.kind(record.text.strip()) == "elision":
            return False
        self._characters += len(record.text.strip()) + 1
        if self._characters >= _MOST_CONTINUED:
            return False
        is_line = message.is_indented(record.text) and not shapes.are_sizes(message.text, record.text)
        if is_line and not self._pieces:
            self._message = message.continued(record.text)
            return True
        if not message.prefix and not may_go_on(message.text, self._pieces, record.text):
            return False
        gap = self._width.gap(len(before))
        text = styles.unescaped(record.text) if message.is_raw else record.text
        self._pieces.append(text if gap is None else CUT + " " * gap + text)
        return True

    def _name_machine(self, host: str) -> None:
        """Give the first host name in the log to the machine of the earlier lines, which have no host
        name."""
        self._machines[host] = self._machines.pop(None)
        if None in self._within:
            self._within.symmetric_difference_update({None, host})

    def finish(self, number: int) -> None:
        """End the log after line `number`. An empty line would be part of a name that ends the last line."""
        if self._reader.is_broken_softly:
            self.take("", number)
        self.end()

    def end(self) -> None:
        """Give the collected rows and the completed message to their machine."""
        self._give_rows()
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
            self._machines[host] = MachineLog(self.begun, self._killed)
        machine = self._machines[host]
        if self._pieces:
            record = record.gone_on(joined(record.text, self._pieces, machine.columns))
        machine.above, self._above = self._above, []
        machine.take(record)
        self._note_if_within(machine)

    def _give_rows(self) -> None:
        run, self._run = self._run, None
        if run is not None and run.texts:
            machine = self._machines[self._host]
            machine.take_rows(run)
            self._note_if_within(machine)

    def _note_if_within(self, machine: MachineLog) -> None:
        if machine.is_within:
            self._within.add(self._host)
        else:
            self._within.discard(self._host)
