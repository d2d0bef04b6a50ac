"""Reports that are parsed alone: the same ones, with the same numbers, as one pass of the parser finds."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final
from unittest.mock import Mock

import pandas as pd
import pytest
from support.recorded import NAMES, TRACES
from synthetic.oom_log import Dump
from synthetic.unset import table_of

from tracer.analysis.core.columns import times_ns
from tracer.analysis.core.lookups import Logged, Shown
from tracer.analysis.kernel_log import logged_reports
from tracer.analysis.kernel_log.logged_reports import logged
from tracer.analysis.trace import AnalysedTrace
from tracer.kernel.kmsg import parser
from tracer.kernel.kmsg.report.log_report import LogReport
from tracer.schema import TABLES
from tracer.stored_names import stored_text
from tracer.trace.read.to_pandas import to_frame

START_NS: Final = 1_764_000_000_000_000_000
SECOND_NS: Final = 1_000_000_000
REAPED: Final = "oom_reaper: reaped process {} (hog), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB"
STACKS: Final = (
    Dump(0).stack,
    ("memory_max_write+0x9a/0x1c0", "? ___pte_offset_map+0x17/0x100", "ext4_write+0x1/0x20 [ext4]"),
    ("handle_mm_fault+0xd0/0x310", "RIP: 0033:0x7fec497d0b57", "Code: 89 ef", "late_frame+0x1/0x2"),
    ("show_stack from dump_stack+0x10/0x14", "a line of another program"),
    ("[<ffffffff81234567>] try_charge+0x1/0x2", "Call Trace:", "again+0x1/0x2"),
)
PANIC: Final = [
    "Out of memory and no killable processes...",
    "Kernel panic - not syncing: System is deadlocked on memory",
]

Row = tuple[str, int, str | None]
"""Text, time since boot in ns, and caller of a row of the log."""


def table(rows: Sequence[Row]) -> pd.DataFrame:
    texts, times, callers = zip(*rows, strict=True)
    return to_frame(
        table_of(
            "kernel_log",
            len(rows),
            time=[START_NS + ns for ns in times],
            ktime_ns=list(times),
            sequence=list(range(len(rows))),
            level=4,
            caller=list(callers),
            text=list(texts),
        )
    )


def in_one_pass(kernel_log: pd.DataFrame) -> list[tuple[dict[int, int], LogReport]]:
    """Return the times of the kills, and the report, of each decision, from one pass over all rows."""
    rows = kernel_log.sort_values("sequence")
    times = times_ns(rows)
    lines = [
        f"4,{sequence},{ns // 1000},-{'' if pd.isna(caller) else f',caller={caller}'};{text}"
        for sequence, ns, caller, text in zip(
            rows["sequence"], rows["ktime_ns"], rows["caller"], rows["text"], strict=True
        )
    ]
    found = []
    for report in parser.reports(lines):
        killed_ns = {kill.pid or 0: int(times[kill.stamp.line - 1]) for kill in report.kills}
        if report.chosen is not None:
            killed_ns.setdefault(report.chosen.pid, int(times[report.last_line - 1]))
        tasks = tuple(task._replace(comm=stored_text(task.comm)) for task in report.tasks)
        found.append((killed_ns, replace(report, tasks=tasks)))
    return found


def require_same(kernel_log: pd.DataFrame) -> list[Logged]:
    found, expected = logged(kernel_log), in_one_pass(kernel_log)
    assert [one.killed_ns for one in found] == [killed_ns for killed_ns, _ in expected]
    shown, memory = [one.shown for one in found], [one.memory() for one in found]
    assert [one.stack for one in found] == [report.stack for _, report in expected]
    assert memory == [report.memory for _, report in expected]
    assert [one.report for one in found] == [report for _, report in expected]
    assert shown == [Shown.from_report(report) for _, report in expected]
    return found


def pieces(chance: random.Random) -> Iterator[list[str]]:
    """Yield pieces of a log: reports, parts of reports, and lines between reports."""
    pid = 100
    while True:
        pid += chance.choice((1, 1, 1, 2000))
        dump = Dump(
            pid=pid,
            comm=chance.choice(("hog",) * 9 + ("web server", "a)b", "caf\\xc3\\xa9", "Killed process")),
            oom_memcg=chance.choice(("/box",) * 9 + ("/box/in", "/oom-kill:constraint=", "/suppressed")),
            has_tasks=chance.random() < 0.9,
            constraint=chance.choice(("CONSTRAINT_MEMCG",) * 9 + ("CONSTRAINT_NONE",)),
            stack=chance.choice(STACKS),
        )
        lines = list(dump.lines())
        yield lines
        kind = chance.randrange(14)
        of_other = chance.randrange(pid - 3, pid + 3)
        if kind == 0:
            yield [
                f"oom_reaper: reaped process {of_other} (hog), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB"
            ]
        elif kind == 1:
            yield ["oom_kill_process: 7 callbacks suppressed"]
        elif kind == 2:
            yield ["Tasks in /box are going to be killed due to memory.oom.group set"]
            yield [Dump(pid=pid + 1).kill()]
        elif kind == 3:
            yield [Dump(pid=pid + 1).kill()]
        elif kind == 4:
            yield chance.sample(lines, chance.randrange(1, len(lines)))
        elif kind == 5:
            yield lines[chance.randrange(len(lines)) :]
        elif kind == 6:
            yield lines[: chance.randrange(len(lines))]
        elif kind == 7:
            yield [line for line in lines if "Killed process" not in line]
            yield [REAPED.format(pid)]
        elif kind == 8:
            yield ["eth0: link is up", "a program: out of memory, and Killed process 7 (x)", "anon 7"]
        elif kind == 9:
            yield PANIC


def rows_of(chance: random.Random) -> list[Row]:
    """Return a log of some pieces, of which some have lines of another piece between their lines, pauses, or
    other callers."""
    source, rows, ns = pieces(chance), list[Row](), 7 * SECOND_NS
    callers: tuple[str | None, ...] = chance.choice(((None,), (None,), ("T7",), ("T7", "T8")))
    for _ in range(chance.randrange(1, 9)):
        lines = [(line, chance.choice(callers)) for line in next(source)]
        if chance.random() < 0.2:
            others = [(line, chance.choice(callers)) for line in next(source)]
            for other in others:
                lines.insert(chance.randrange(len(lines) + 1), other)
        at = chance.randrange(len(lines) * 8 + 1)
        for number, (line, caller) in enumerate(lines):
            pause_ns = chance.choice((-SECOND_NS, 61 * SECOND_NS, 2 * SECOND_NS)) if number == at else 1000
            ns += pause_ns
            rows.append((line, ns, caller))
    return rows


@pytest.mark.parametrize("seed", range(4))
def test_reports_of_any_log_are_those_of_one_pass(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, find = list[object](), logged_reports._usual

    def counted(*of_report: Any) -> Any:
        found = find(*of_report)
        alone.append(found)
        return found

    monkeypatch.setattr(logged_reports, "_usual", counted)
    every = sum(len(require_same(table(rows_of(random.Random(f"{seed} {n}"))))) for n in range(12))
    usual = sum(found is not None for found in alone)
    assert 0 < usual < every


@pytest.mark.parametrize(("stack", "is_parsed"), [(stack, at > 1) for at, stack in enumerate(STACKS)])
def test_call_trace_is_read_without_a_parser_if_its_rows_are_frames(
    stack: tuple[str, ...], *, is_parsed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel_log = dumps(2, lambda _, dump: replace(dump, stack=stack))
    require_same(kernel_log)
    parse = Mock(wraps=parser.reports)
    monkeypatch.setattr(parser, "reports", parse)
    assert all(one.stack for one in logged(kernel_log))
    assert parse.called == is_parsed


@pytest.mark.parametrize("name", NAMES)
def test_reports_of_the_examples_are_those_of_one_pass(name: str) -> None:
    require_same(AnalysedTrace(TRACES / name).kernel_log)


def test_log_without_rows_has_no_reports() -> None:
    assert not logged(to_frame(TABLES["kernel_log"].empty_table()))


def dumps(count: int, change: Callable[[int, Dump], Dump] = lambda _, dump: dump) -> pd.DataFrame:
    rows = list[Row]()
    for number in range(count):
        begin_ns = (number + 1) * SECOND_NS
        lines = change(number, Dump(pid=100 + number)).lines()
        rows += [(line, begin_ns + at * 1000, None) for at, line in enumerate(lines)]
        rows.append((REAPED.format(100 + number), begin_ns, None))
    return table(rows)


def test_usual_reports_are_parsed_when_they_are_asked_for_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parse = Mock(wraps=parser.reports)
    monkeypatch.setattr(parser, "reports", parse)
    found = logged(dumps(5))
    assert [list(one.killed_ns) for one in found] == [[pid] for pid in range(100, 105)]
    assert all(one.shown.oom_memcg == "/box" and one.shown.gfp == 0xCC0 for one in found)
    parse.assert_not_called()
    assert found[3].report is found[3].report
    assert found[3].report.kills[0].pid == 103
    parse.assert_called_once()


def test_rows_that_were_stored_out_of_order_are_read_in_order() -> None:
    kernel_log: Any = dumps(3)
    require_same(kernel_log.iloc[::-1])


def test_unusual_report_costs_a_pass_over_its_own_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(number: int, dump: Dump) -> Dump:
        return replace(dump, constraint="CONSTRAINT_NONE") if number == 2 else dump

    kernel_log, parsed = dumps(5, change), list[int]()
    whole = parser.reports

    def counted(lines: Any, *further: Any) -> Any:
        rows = list(lines)
        parsed.append(len(rows))
        return whole(rows, *further)

    monkeypatch.setattr(parser, "reports", counted)
    assert len(logged(kernel_log)) == 5
    assert parsed == [len(kernel_log) // 5 + 1]  # with the line of the oom_reaper before it
