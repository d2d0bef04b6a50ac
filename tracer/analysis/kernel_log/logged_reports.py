"""The reports in the kernel log of a trace, each parsed when it is asked for.

A trace may have ten thousand reports, and the parser takes longer for one of them than most questions take
for a kill: they ask for pids and times, or explain a single kill. A search in all rows at once finds the rows
with words of the OOM killer. They show where each report begins and ends, and whether it is a usual one: the
limit of a cgroup was hit, one task was killed, and no line in between can belong to another report. What the
parser makes of the rows of such a report depends on no other row, so they are parsed alone, and later. The
rows of all other reports are parsed at once, in their order.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from sys import intern
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tracer.analysis.core.columns import Bools, Int64s, integers, times_ns
from tracer.analysis.core.lookups import Logged, Shown
from tracer.kernel.kmsg import machine_log, parser
from tracer.kernel.kmsg.assembly import CALL_TRACE, TRACE_ENDS, StatRows
from tracer.kernel.kmsg.report import mem_info, printed_lines, summary_line
from tracer.kernel.kmsg.report.log_report import LogReport, OwnerMemory
from tracer.kernel.kmsg.text import markers
from tracer.kernel.kmsg.text.styles import STAT_NAME, Stamp
from tracer.stored_names import stored_text

_COUNTERS: Final = ("memory", "memory+swap", "swap", "kmem")
_MARKS: Final = {
    "header": re.escape(markers.INVOKED),
    **{name: rf"^\s*{re.escape(name)}: usage " for name in _COUNTERS},
    "memory.stat": re.escape(markers.STATS),
    "tasks": "total_vm",
    "summary": re.escape(markers.SUMMARY),
    "kill": re.escape(markers.KILLED),
    "reaped": re.escape(markers.REAPER),
}
"""The patterns of the lines that begin a section of a report on the limit of a cgroup, in the order of
printing; then that of a line which follows a report at any distance."""

_HEADER, _STATS, _SUMMARY, _KILL, _REAPED = map(
    [*_MARKS].index, ("header", "memory.stat", "summary", "kill", "reaped")
)
_TITLE: Final = re.compile(rf"{re.escape(markers.STATS)}/[ -\[\]-~]{{0,900}}:")
_STATS_ROWS: Final = re.compile(rf"^({STAT_NAME}) (\d{{1,20}})$", re.ASCII | re.MULTILINE)
_AFTER_STATS: Final = re.compile(r"Tasks state \(memory values in pages\):")
_HEAD_OF_TRACE: Final = ("CPU: ", "Hardware name: ")
_TASK_BEGINS: Final = " <TASK>"
_FRAME: Final = re.compile(
    r" {0,8}(\? )?([a-zA-Z_][\w.]{0,100}\+0x[0-9a-f]{1,8}/0x[0-9a-f]{1,8})(?: \[\w{1,64}\])?", re.ASCII
)
_UNUSUAL_WORDS: Final = "|".join(
    (
        *map(
            re.escape,
            (markers.CHOSEN, markers.OLD_CHOSEN, markers.GROUP, markers.SYSTEM_OOM, markers.LIMIT_OF),
        ),
        *("suppressed", "Kernel panic", "no killable", "deadlocked"),
        rf"^\s*(?:{'|'.join(map(re.escape, (*mem_info.TITLES, *mem_info.OLD_SUMS)))})",
    )
)
"""The pattern of lines of which a report has any number of kills, or that say something about the next
report, or that begin a section of another kind of report."""

_ALL_WORDS: Final = "|".join((*parser.WORDS, *_MARKS.values(), _UNUSUAL_WORDS))
_PLAIN: Final = -1
_UNUSUAL: Final = len(_MARKS)

_MOST_ROWS: Final = machine_log.GAP_LINES
_MOST_NS: Final = machine_log.GAP_NS


def logged(kernel_log: pd.DataFrame) -> list[Logged]:
    """Return the reports in the table `kernel_log`, in the order in which they begin."""
    rows = _Rows.from_table(kernel_log)
    marks = _marks(rows)
    of_reports = rows.words[marks != _REAPED]
    found, end, killed = list[Logged](), 0, deque[int](maxlen=machine_log.MOST_PIDS)
    for usual in [*_usual_reports(rows, marks.tolist()), None]:
        begin = rows.count if usual is None else usual.begin
        first, last = of_reports.searchsorted((end, begin))
        if first < last:
            reports = parser.reports(rows.lines(end, begin), end + 1, killed)
            found += (others := [_parsed(rows, report) for report in reports])
            killed.extend(pid for one in others for pid in one.killed_ns if pid is not None)
        if usual is not None:
            found.append(usual.logged(rows))
            killed.append(usual.pid)
            end = usual.end
    return found


def _parsed(rows: _Rows, report: LogReport) -> Logged:
    killed_ns: dict[int | None, int] = {kill.pid: rows.time_ns(kill.stamp.line - 1) for kill in report.kills}
    if report.chosen is not None:
        killed_ns.setdefault(report.chosen.pid, rows.time_ns(report.last_line - 1))
    return Logged(killed_ns, Shown.from_report(report), lambda: _with_stored_names(report))


def _with_stored_names(report: LogReport) -> LogReport:
    tasks = tuple(task._replace(comm=stored_text(task.comm)) for task in report.tasks)
    return replace(report, tasks=tasks)


@dataclass(frozen=True, slots=True)
class _Rows:
    """The table `kernel_log` as arrays, in the order in which the kernel printed the records.

    `words` are the positions of the rows with words of the OOM killer (`_ALL_WORDS`).
    """

    texts: pa.Array
    columns: Mapping[str, Int64s]
    callers: pa.Array
    words: Int64s

    @classmethod
    def from_table(cls, kernel_log: pd.DataFrame) -> _Rows:
        columns = {name: integers(kernel_log[name]) for name in ("sequence", "level", "ktime_ns")}
        columns["time_ns"] = times_ns(kernel_log)
        texts, callers = (_array_of(kernel_log[name]) for name in ("text", "caller"))
        order = np.argsort(columns["sequence"], kind="stable")
        if (order[1:] < order[:-1]).any():
            columns = {name: values[order] for name, values in columns.items()}
            texts, callers = texts.take(order), callers.take(order)
        return cls(texts, columns, callers, np.flatnonzero(_has(texts, _ALL_WORDS)))

    @property
    def count(self) -> int:
        return len(self.texts)

    def time_ns(self, row: int) -> int:
        """Return the time of a row, in ns since the epoch."""
        return int(self.columns["time_ns"][row])

    def stamp(self, row: int) -> Stamp:
        """Return the time and the place of a row, as the parser does for lines of /dev/kmsg."""
        return Stamp(row + 1, int(self.columns["ktime_ns"][row]) // 1000 * 1000)

    def text(self, row: int) -> str:
        return str(self.texts[row])

    def lines(self, begin: int, end: int) -> Iterator[str]:
        """Yield rows as lines of /dev/kmsg (Documentation/ABI/testing/dev-kmsg)."""
        cells = (self.columns[name][begin:end].tolist() for name in ("level", "sequence", "ktime_ns"))
        texts, callers = (column[begin:end].to_pylist() for column in (self.texts, self.callers))
        for level, sequence, ktime_ns, text, caller in zip(*cells, texts, callers, strict=True):
            by = "" if caller is None else f",caller={caller}"
            yield f"{level},{sequence},{ktime_ns // 1000},-{by};{text}"


def _array_of(column: pd.Series) -> pa.Array:
    texts = pa.array(column, pa.large_string())
    return texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts


def _has(texts: pa.Array, pattern: str) -> Bools:
    """Return a mask of the texts with this pattern."""
    return np.asarray(pc.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False))


@dataclass(frozen=True, slots=True)
class _Usual:
    """The rows of a usual report, and what they show without a parser's pass over them.

    `head_end` is the row of the first section after the call trace. `memory` are the rows of the page
    counters and of the title of memory.stat, and the row of the section after it; empty if there is no
    memory.stat.
    """

    begin: int
    end: int
    pid: int
    shown: Shown
    head_end: int
    memory: tuple[int, ...]

    def logged(self, rows: _Rows) -> Logged:
        return Logged(
            {self.pid: rows.time_ns(self.end - 1)},
            self.shown,
            lambda: self._report(rows),
            lambda: _memory(rows, *self.memory) if self.memory else None,
            lambda: _stack(rows, self.begin + 1, self.head_end),
        )

    def _report(self, rows: _Rows) -> LogReport:
        found = parser.reports(rows.lines(self.begin, self.end), self.begin + 1)
        return _with_stored_names(next(report for report in found if report.kills))


def _usual_reports(rows: _Rows, marks: list[int]) -> Iterator[_Usual]:
    """Yield the usual reports among the rows, in their order."""
    words = rows.words.tolist()
    begins = [at for at, mark in enumerate(marks) if mark == _HEADER]
    # A count of lost reports, or a group of tasks to kill, is told before the report that it is about.
    is_after_unusual = _UNUSUAL in marks[: begins[0]] if begins else False
    breaks, printed_ns = _breaks(rows), rows.columns["ktime_ns"]
    for begin, end in pairwise([*begins, len(marks)]):
        of_report = marks[begin:end]
        kill = _kill_in(of_report)
        if kill is not None and not is_after_unusual:
            first, last = words[begin], words[begin + kill]
            summary = words[begin + of_report.index(_SUMMARY)]
            memory = _rows_of_memory(words, of_report, begin)
            head_end = next(words[begin + at] for at, mark in enumerate(of_report) if mark > _HEADER)
            is_unbroken = breaks[first] == breaks[last] and printed_ns[last] - printed_ns[first] <= _MOST_NS
            if last - first < _MOST_ROWS and is_unbroken:
                found = _usual(rows, (first, head_end, summary, last), memory)
                if found is not None:
                    yield found
        is_after_unusual = _UNUSUAL in of_report


def _marks(rows: _Rows) -> Int64s:
    """Return for each row with words the section that it begins: a place in `_MARKS`, `_PLAIN` for no
    section, `_UNUSUAL` for other lines of the OOM killer or several marks."""
    texts = rows.texts.take(pa.array(rows.words))
    marks = np.full(len(rows.words), _PLAIN)
    is_unusual = _has(texts, _UNUSUAL_WORDS)
    for mark, pattern in enumerate(_MARKS.values()):
        has = _has(texts, pattern)
        is_unusual = is_unusual | (has & (marks != _PLAIN))
        marks[has] = mark
    marks[is_unusual] = _UNUSUAL
    return marks


def _breaks(rows: _Rows) -> Int64s:
    """Return for each row how often the time went back, or the printing task changed, up to this row."""
    callers = rows.callers.dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False)
    is_back = np.diff(rows.columns["ktime_ns"], prepend=0) < 0
    return np.cumsum(is_back | (np.diff(callers, prepend=-1) != 0))


def _kill_in(marks: list[int]) -> int | None:
    """Return the place of the kill among the marks from one header to the next; None if these are not the
    marks of one usual report, and of lines of the oom_reaper after it."""
    if marks.count(_KILL) != 1 or marks.count(_SUMMARY) != 1:
        return None
    kill = marks.index(_KILL)
    sections = [mark for mark in marks[: kill + 1] if mark != _PLAIN]
    is_in_order = all(one < other for one, other in pairwise(sections))
    return kill if is_in_order and all(mark == _REAPED for mark in marks[kill + 1 :]) else None


def _rows_of_memory(words: list[int], marks: list[int], begin: int) -> tuple[int, ...]:
    """Return `_Usual.memory` of the report whose marks are those of the rows from place `begin` on."""
    if _STATS not in marks:
        return ()
    places = [at for at, mark in enumerate(marks) if _HEADER < mark < _SUMMARY]
    after = next(at for at, mark in enumerate(marks) if _STATS < mark <= _SUMMARY)
    of_memory = [at for at in places if marks[at] <= _STATS]
    return tuple(words[begin + at] for at in [*of_memory, after])


def _memory(rows: _Rows, *of_memory: int) -> OwnerMemory | None:
    """Return what the rows of `_Usual.memory` and those of memory.stat show.

    None if any of these rows is not as all kernels since v5.3 print it: the parser knows all others.
    """
    *of_counters, begin, end = of_memory
    counters = [printed_lines.counter(rows.text(row)) for row in of_counters]
    title = printed_lines.memory_stats(rows.text(begin)) if _TITLE.fullmatch(rows.text(begin)) else None
    texts = rows.texts[begin + 1 : end].to_pylist()
    if _AFTER_STATS.fullmatch(texts[-1] if texts else ""):
        del texts[-1]
    printed = "\n".join(texts)
    found = _STATS_ROWS.findall(printed)
    if title is None or None in counters or not len(texts) == len(found) == printed.count("\n") + 1:
        return None
    stats = StatRows(
        printed=title,
        values={name: int(number) for name, number in found},
        first=rows.stamp(begin + 1),
        last=rows.stamp(begin + len(texts)),
        last_name=found[-1][0],
        rows=len(texts),
        characters=len(printed) + 1,
        has_prefix=True,
    )
    return OwnerMemory(dict(counter for counter in counters if counter is not None), (stats.result(),))


def _stack(rows: _Rows, begin: int, end: int) -> tuple[str, ...] | None:
    """Return the frames of the call trace that rows between a header and the next section show.

    None if any of these rows may be another line than x86-64 and arm64 print there: the parser knows those.
    """
    texts = rows.texts[begin:end].to_pylist()
    title = next((at for at, text in enumerate(texts) if text in CALL_TRACE), None)
    if title is None or not all(text.startswith(_HEAD_OF_TRACE) for text in texts[:title]):
        return None
    of_trace = texts[title + 1 :]
    ended = next(
        (at for at, text in enumerate(of_trace) if text.strip().startswith(TRACE_ENDS)), len(of_trace)
    )
    frames = [_FRAME.fullmatch(text) for text in of_trace[:ended] if text != _TASK_BEGINS]
    if None in frames or any("+0x" in text for text in (*texts[:title], *of_trace[ended:])):
        return None
    return tuple(intern(frame[2]) for frame in frames if frame is not None and frame[1] is None)


def _usual(rows: _Rows, of_lines: tuple[int, int, int, int], memory: tuple[int, ...]) -> _Usual | None:
    """Return the report with these rows as header, first section after the call trace, summary and kill, and
    those of its memory; None if it is not a usual one."""
    first, head_end, summary, last = of_lines
    header, decision, killed = texts = [rows.text(row) for row in (first, summary, last)]
    if any("\\" in text for text in texts):
        return None  # a name with escapes, which may be a line end
    invoked, told = printed_lines.invoked(header), summary_line.summary(decision)
    kill = printed_lines.killed(killed, Stamp(last + 1))
    if invoked is None or invoked[0].comm is None or invoked[1] is not None or told is None or kill is None:
        return None
    if told.chosen is None or kill.pid is None:
        return None
    is_of_one_task = (told.chosen.pid, told.chosen.comm) == (kill.pid, kill.comm)
    is_complete = (
        told.constraint == "memcg" and told.oom_memcg is not None and kill.total_vm_bytes is not None
    )
    if not is_of_one_task or not is_complete:
        return None
    asked = invoked[0]
    shown = Shown(True, True, told.constraint, told.oom_memcg, asked.gfp, asked.gfp_names, asked.order)
    return _Usual(first, last + 1, kill.pid, shown, head_end, memory)
