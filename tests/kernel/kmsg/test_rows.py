"""Lines in usual styles, which are read by a shorter way than other lines: with the same result."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel.kmsg import fuzz

from tracer.kernel.kmsg import parser
from tracer.kernel.kmsg.report.log_report import LogReport
from tracer.kernel.kmsg.text import lines, styles
from tracer.kernel.kmsg.text.styles import Record

PREFIXES = (
    "4,17,1234567,-;",
    "4,17,1234567,-,caller=T42;",
    "[   12.345678] ",
    "[12345.678901][ T1234] ",
    "[12345.678901] [   C3] ",
    "Mar  4 02:11:15 web-3 kernel: [881240.402500] ",
    "Mar 14 02:11:15 web-3 kernel: ",
    "Mar 14 02:11:15 kernel kernel: [    1.000000] ",
    "2026-03-04T02:11:15.123456+01:00 node.example kernel: ",
    "2026-03-04T02:11:15+0100 node kernel: [  881.402500][ T9] ",
    "[Sun Mar  1 00:00:03 2026] ",
    "[Sun Mar 11 00:00:03 2026] [   T7] ",
    "2026-03-04T02:11:15,123456+01:00 ",
    "kern  :warn  : [   12.345678] ",
    "kern  :info  : [Sun Mar  1 00:00:03 2026] ",
)
TEXTS = (
    *("anon 104857600", "pgfault 2026", "kernel 4096", "Mar 04", "oom 3", "swapcached 0", "limit 7"),
    *("dump_stack+0x41/0x60", " ? do_user_addr_fault+0x1c1/0x1f0", " xfs_read+0x12/0x34 [xfs]"),
    *(" out_of_memory+0x1/0x2", "[    735]     0   735     1234      567        0    53248        0 sh"),
    *(
        "[ 7] 0 7 1 1 0 0 0 -1000 kworker/0:1",
        "RAX: 000000000000002a RBX: ffff888100000000",
        "RSP: 002b:00007ffc2f315950 EFLAGS: 00000202 ORIG_RAX: 0000000000000001",
    ),
    *(" <TASK>", " </TASK>", "RIP: 0033:0x7f4c879cfef8", "RIP: 0010:clear_page_erms+0x7/0x10"),
    *("Code: 8d 4c <17> bf", "Code: Unable to access opcode bytes at 0x7f4c879cfece."),
    *("[    735]     0   735     1234      567        0    53248        0 my app (x)",),
)


OTHERS = (
    *(
        "Call Trace:",
        " <TASK>",
        "Tasks state (memory values in pages):",
        "memory: usage 9kB, limit 9kB, failcnt 7",
    ),
    *(
        "nginx: worker invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        "host kernel: x",
    ),
    *(
        "[  pid  ]   uid  tgid total_vm      rss nr_ptes swapents oom_score_adj name",
        "[T7] kernel: x",
        "[1.5] x",
    ),
    *(
        "[ +0.000012] x",
        "[ T7] x",
        "kernel[7]: [    1.000000] x",
        "[    735]     0   735 1 2 3 4 5 my app (x)",
    ),
    *(
        "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=a,mems_allowed=0",
        "eth0: \\x41 up",
        "sshd[7]: x",
    ),
    *(
        "Memory cgroup out of memory: Killed process 7 (caf\u00e9) total-vm:4kB",
        "[\u0663.333333] x",
        "x\x1b[1my\xa0",
    ),
)


def slowly(line: str) -> list[Record]:
    """Return what the long way makes of a line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(styles, "usual", lambda *_: None)
        return lines.Reader().read(line, 7)


def without_rows(log: bytes, monkeypatch: pytest.MonkeyPatch) -> list[LogReport]:
    with monkeypatch.context() as patch:
        patch.setattr(styles, "usual", lambda *_: None)
        return list(parser.reports(lines.split([log])))


@given(
    st.sampled_from((*PREFIXES, "[    1.000000] kernel: ", "[12345.678901] [ T7] node kernel: ", "")),
    st.one_of(
        st.sampled_from((*TEXTS, *OTHERS)),
        st.text(alphabet="anop 0123456789+x/[]?:=._Tkernel<\\\xa0", max_size=40),
    ),
    st.sampled_from(("", " ", "\r", "=", "<br>", "kernel: ")),
)
def test_line_in_a_usual_style_is_the_record_of_the_long_way(prefix: str, text: str, end: str) -> None:
    line = f"{prefix}{text}{end}"
    usual, expected = styles.usual(line, 7), slowly(line)
    found = lines.Reader().read(line, 7)
    assert found == expected
    if usual is not None and lines.Reader().is_row(line, usual):
        assert found == [usual._replace(row=None)]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_all_rows_in_usual_styles_are_found(prefix: str) -> None:
    kinds = [(text, found.row) for text in TEXTS if (found := styles.usual(prefix + text, 1)) is not None]
    assert [text for text, kind in kinds if kind is None] == ["Mar 04", "limit 7"]
    assert len(kinds) == len(TEXTS)


def test_reports_of_the_corpus_are_the_same_without_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    for log in (*fuzz.CORPUS, b"".join(fuzz.CORPUS)):
        assert list(parser.reports(lines.split([log]))) == without_rows(log, monkeypatch)


def test_reports_of_damaged_logs_are_the_same_without_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(120):
        log = fuzz.mutated(random.Random(f"rows-{number}"))
        assert list(parser.reports(lines.split([log]))) == without_rows(log, monkeypatch)


@pytest.mark.parametrize("gap", ["time", "lines", "caller", "host", "wrapped", "later"])
def test_rows_apart_are_read_as_without_rows(gap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends a section between two rows: a long time, another machine or task, a row that goes on."""
    rows = [f"anon_{number} {number}" for number in range(9)]
    head = ["Memory cgroup stats for /a:", *rows[:4]]
    ends = ["Memory cgroup out of memory: Killed process 7 (a) total-vm:4kB, anon-rss:4kB, file-rss:0kB"]
    times, hosts, callers = [10.0] * 11, ["node"] * 11, ["T7"] * 11
    if gap == "time":
        times[5:] = [200.0] * 6
    elif gap == "later":
        times[6] = 9.0
    elif gap == "caller":
        callers[6] = "T8"
    elif gap == "host":
        hosts[6] = "other"
    texts = [*head, *rows[4:], *ends]
    log = [
        f"Mar 14 02:11:15 {host} kernel: [{time:12.6f}][ {caller}] {text}"
        for time, host, caller, text in zip(times, hosts, callers, texts, strict=True)
    ]
    if gap == "wrapped":
        log.insert(6, "345")
    elif gap == "lines":
        log[6:6] = ["Mar 14 02:11:15 node sshd[7]: nothing"] * 1001
    read = "\n".join(log).encode()
    found = list(parser.reports(lines.split([read])))
    assert found
    assert found == without_rows(read, monkeypatch)


def test_words_on_a_line_that_goes_on_after_a_row_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ("Memory cgroup stats for /a:", "anon 4096", "file 0", "shmem 0")
    log = "".join(f"[    1.00000{at}] {row}\n" for at, row in enumerate(rows)).encode()
    log += b"[    1.0Out of memory and no killable processes00004] kernel 7\n"
    (found,) = parser.reports(lines.split([log]))
    assert [found] == without_rows(log, monkeypatch)
    assert found.is_no_task_killable
