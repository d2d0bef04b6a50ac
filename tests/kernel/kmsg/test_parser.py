"""The assembly of lines to reports, and the harmlessness of names in them."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tracer.kernel.kmsg.parser import reports
from tracer.kernel.kmsg.report.log_report import LogReport
from tracer.kernel.kmsg.text.styles import Stamp

HEADER = "{comm} invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"
HEAD = "CPU: 1 UID: 0 PID: {pid} Comm: {comm} Not tainted 6.12.1 #1"
COUNTER = "memory: usage 100kB, limit 100kB, failcnt 7"
TITLE = "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name"
ROW = "[{pid:>7}]     0 {pid:>5}     4000     2100    61440        0             0 {comm}"
SUMMARY = (
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0-1,3,oom_memcg={owner},"
    "task_memcg={victim},task={comm},pid={pid},uid=0"
)
KILL = (
    "Memory cgroup out of memory: Killed process {pid} ({comm}) total-vm:16kB, anon-rss:8kB, file-rss:4kB, "
    "shmem-rss:0kB, UID:0 pgtables:60kB oom_score_adj:0"
)
GROUP = "Tasks in {owner} are going to be killed due to memory.oom.group set"
REAPED = "oom_reaper: reaped process {pid} ({comm}), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB"


def report(pid: int = 7, comm: str = "a", owner: str = "/a", victim: str = "/a/b") -> list[str]:
    names = {"pid": pid, "comm": comm, "owner": owner, "victim": victim}
    stats = f"Memory cgroup stats for {owner}:"
    lines = [HEADER, HEAD, "Call Trace:", " f+0x1/0x2", COUNTER, "", "anon 8192", TITLE, ROW, SUMMARY, KILL]
    return [stats if not line else line.format(**names) for line in lines]


def read(lines: Iterable[str], prefix: str = "[    1.000000] ") -> list[LogReport]:
    return list(reports(prefix + line for line in lines))


def pids(found: Iterable[LogReport]) -> list[list[int | None]]:
    return [[kill.pid for kill in one.kills] for one in found]


def test_kills_of_two_groups_are_two_reports() -> None:
    groups = [KILL.format(pid=pid, comm="a") for pid in range(5)]
    group = GROUP.format(owner="/a")
    found = read([*report(pid=0), group, *groups[1:3], groups[3], group, groups[4]])
    assert pids(found) == [[0, 1, 2], [3, 4]]
    assert [one.group_memcg for one in found] == ["/a", "/a"]


def test_kill_after_report_without_group_is_own_report() -> None:
    found = read([*report(), KILL.format(pid=8, comm="b")])
    assert pids(found) == [[7], [8]]
    assert found[1].missing == ("header", "stack", "counters", "memory.stat", "tasks", "summary")
    assert found[1].constraint == "memcg"


def test_report_without_end_and_next_are_two() -> None:
    found = read([*report(pid=7)[:6], *report(pid=9)])
    assert pids(found) == [[], [9]]
    assert found[0].missing == ("tasks", "summary", "kill")
    assert found[0].oom_memcg == "/a"


def test_reports_without_headers_are_separated_by_section_order() -> None:
    found = read([*report(pid=7)[4:-1], *report(pid=9)[4:]])
    assert pids(found) == [[], [9]]
    assert [one.counters["memory"].failcnt for one in found] == [7, 7]


def test_report_after_long_gap_has_no_end() -> None:
    kill = KILL.format(pid=7, comm="a")
    assert len(read([*report()[:-1], *["noise"] * 1001, kill])) == 2
    assert len(read([*report()[:-1], *["noise"] * 900, kill])) == 1
    later = ["[    1.000000] " + line for line in report()[:-1]] + ["[   62.000000] " + kill]
    assert len(list(reports(later))) == 2


def test_log_that_ends_in_a_row_of_the_table_has_the_name_in_the_row() -> None:
    rows = [
        f"[    1.000000] {line}"
        for line in (TITLE, "[      9]     0     9       4        2     4096        0             0 my app")
    ]
    (found,) = reports(rows)
    assert [task.comm for task in found.tasks] == ["my app"]


def test_part_of_a_log_has_the_numbers_of_the_whole_log() -> None:
    (found,), last = reports(report(), 41), 40 + len(report())
    assert (found.stamp.line, found.kills[0].stamp.line, found.last_line) == (41, last, last)


def test_late_reaper_line_after_a_part_of_the_log_is_no_kill() -> None:
    lines = [f"[    1.000000] {line}" for line in (*report()[:-1], REAPED.format(pid=7, comm="a"))]
    (alone,), (after_kill,) = reports(lines), reports(lines, 41, (7,))
    assert [kill.pid for kill in alone.kills] == [7]
    assert not after_kill.kills


def test_late_reaper_line_is_no_kill_of_the_report_around_it() -> None:
    found = read([*report(pid=7), *report(pid=8)[:-1], REAPED.format(pid=7, comm="a")])
    assert pids(found) == [[7], []]


def test_reports_are_yielded_before_log_ends() -> None:
    log = (f"[    1.000000] {line}" for number in range(1, 10_000) for line in report(pid=number))
    found = reports(log)
    assert next(found).kills[0].pid == 1
    assert next(log) is not None  # the rest was not read yet


def test_reports_of_interleaved_machines_are_separated() -> None:
    lines = [
        f"Nov 25 10:00:00 {host} kernel: {line}"
        for pair in zip(report(pid=1, owner="/x", victim="/x"), report(pid=2), strict=True)
        for host, line in zip(("web", "db"), pair, strict=True)
    ]
    found = list(reports(lines))
    assert pids(found) == [[1], [2]]
    assert [one.missing for one in found] == [(), ()]
    assert [one.oom_memcg for one in found] == ["/x", "/a"]


def test_ambiguous_name_is_resolved_by_kill() -> None:
    lines = report(comm="hog", owner="/x,task=y", victim="/x,task=y")
    (found,) = read(lines)
    assert found.chosen is not None
    assert (found.task_memcg, found.chosen.comm) == ("/x,task=y", "hog")


def test_report_without_a_killable_process_says_so() -> None:
    (found,) = read([*report()[:-2], "Out of memory and no killable processes..."])
    assert found.is_no_task_killable
    assert (found.kills, found.missing) == ((), ())


def test_lines_without_oom_make_no_report() -> None:
    assert (
        read(["oom_kill_process: nothing", "memory: usage of it", "Killed process", "oom_reaper: up"]) == []
    )


NAMES = st.text(st.characters(exclude_characters="\0\n", exclude_categories=["Cs"]), max_size=15).filter(
    lambda name: len(name.encode()) <= 15
)
"""Names for prctl(PR_SET_NAME); names with line ends are in the corpus."""


@given(NAMES, st.sampled_from(["[    1.000000] ", "Nov 25 10:00:00 host kernel: ", "6,1,2,-;"]))
@example("),pid=1,uid=0", "[    1.000000] ")
@example(",task=,pid=1", "6,1,2,-;")
@example(") total-vm:1kB", "[    1.000000] ")
@example("Killed process ", "[    1.000000] ")
@example("x invoked oom-k", "[    1.000000] ")
@example("oomkill:", "[    1.000000] ")
@example("oom-kill:constr", "[    1.000000] ")
@example("#012", "[    1.000000] ")
def test_hostile_comm_is_only_a_name(comm: str, prefix: str) -> None:
    raw = prefix.endswith(";")
    shown = "".join(_escaped(character) for character in comm) if raw else comm
    if not raw and not all(ord(character) >= 32 and character != "\xa0" for character in comm):
        return  # non-breaking spaces are read as spaces
    (found,) = reports(prefix + line for line in report(comm=shown))
    assert found.chosen is not None
    assert [found.invoker.comm, found.chosen.comm, found.kills[0].comm] == [comm] * 3
    assert [row.comm for row in found.tasks] == [comm]
    assert (found.invoker.pid, found.chosen.pid, found.kills[0].pid) == (7, 7, 7)
    assert (found.oom_memcg, found.task_memcg, found.missing) == ("/a", "/a/b", ())


def _escaped(character: str) -> str:
    """Return the text as /dev/kmsg escapes it."""
    if " " <= character <= "~" and character != "\\":
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode())


@given(st.text("ab,=/: task_memcgpidu()[]0", min_size=1, max_size=60), st.text("ab,=/:1 ", max_size=20))
@example("a,task_memcg=/a", "x")
@example("q,task=init,pid=1,uid=0", "")
def test_hostile_path_is_only_a_name(name: str, below: str) -> None:
    owner = f"/{name}"
    victim = f"{owner}/{below}" if below else owner
    (found,) = read(report(comm="victim", owner=owner, victim=victim))
    assert (found.oom_memcg, found.task_memcg) == (owner, victim)


@given(st.lists(st.text(max_size=200)))
def test_any_text_never_raises(lines: list[str]) -> None:
    for one in reports(lines):
        assert one.stamp.line <= one.last_line <= len(lines)


def test_stamp_is_of_first_line() -> None:
    (found,) = read(["noise", *report()])
    assert (found.stamp, found.last_line) == (Stamp(2, 1_000_000_000), 12)


MACHINE = ["Mem-Info:", "active_anon:5 inactive_anon:6 isolated_anon:0", " free:7 free_pcp:0 free_cma:0"]


@pytest.mark.parametrize(
    "failed",
    [
        [
            "kworker/0:1: page allocation failure: order:5, mode:0xcc0(GFP_KERNEL), nodemask=(null)",
            "Call Trace:",
        ],
        ["Call Trace:", " dump_stack+0x11/0x22", " warn_alloc.cold+0x33/0x44"],  # the first line is cut off
        ["insmod: page allocation failure. order:3, mode:0xd0", "Pid: 9, comm: insmod Not tainted 2.6.32 #1"],
        ["sysrq: Show Memory"],
    ],
)
def test_state_of_the_machine_without_an_oom_is_no_report(failed: list[str]) -> None:
    assert read([*failed, *MACHINE]) == []
    (found,) = read([*failed, *MACHINE, HEADER.format(comm="a"), "Call Trace:", *MACHINE])
    assert found.mem_info is not None and found.mem_info.pages["free"] == 7


def test_failed_allocation_within_a_report_leaves_its_table_whole() -> None:
    header, *rest = [HEADER.format(comm="a"), *MACHINE, TITLE, ROW.format(pid=7, comm="a")]
    other = ["b: page allocation failure: order:5, mode:0xcc0(GFP_KERNEL)", MACHINE[0], " free:9 free_pcp:0"]
    (found,) = read([header, *rest, *other, ROW.format(pid=8, comm="b")])
    assert [row.pid for row in found.tasks] == [7, 8]
    assert found.mem_info is not None and found.mem_info.pages["free"] == 7


CHARGED = ["try_charge_memcg+0x123/0x456", "charge_memcg+0x21/0x43"]


@pytest.mark.parametrize("first", ["dump_header+0x12/0x345", "oom_kill_process.cold+0x5/0x6"])
def test_report_whose_first_line_is_in_the_call_trace_is_read(first: str) -> None:
    (found,) = read([first, "mem_cgroup_out_of_memory+0x77/0x88", *CHARGED, COUNTER])
    assert found.stack[0] == first and len(found.stack) == 4
    assert (found.constraint, found.counters["memory"].failcnt) == ("memcg", 7)
    assert read([f"? {first}", *CHARGED]) == []  # an address that was left on the stack
    assert len(read([*report(), first, *CHARGED])) == 2


def test_call_trace_of_an_old_arm_kernel_is_read() -> None:
    trace = [
        "[<c0100000>] (dump_backtrace+0x0/0x111) from [<c0400000>] (dump_stack+0x21/0x33)",
        " r6:00000007 r5:00000005 r4:c0000004",
        "[<c0200000>] (out_of_memory+0x0/0x222) from [<c0210000>] (__alloc_pages_nodemask+0x301/0x333)",
        "[<c0210000>] (__alloc_pages_nodemask+0x0/0x333) from [<c0220000>] (handle_pte_fault+0x401/0x444)",
    ]
    for title in ([], ["Backtrace: "]):
        (found,) = read(["a invoked oom-killer: gfp_mask=0xd0, order=0, oom_adj=0", *title, *trace])
        assert found.stack == ("dump_backtrace", "out_of_memory", "__alloc_pages_nodemask")
        assert found.constraint == "global" and "stack" not in found.missing


@pytest.mark.parametrize("comm", ["hog", "(resolved)", "a)", "a) b (c)"])
def test_name_of_a_killed_task_ends_before_the_sentence_after_it(comm: str) -> None:
    for after in ("", ".", " as a mail says (the pid is in brackets)."):
        (found,) = reports([f"May  1 10:00:00 h kernel: Out of Memory: Killed process 4711 ({comm}){after}"])
        assert [kill.comm for kill in found.kills] == [comm]


@pytest.mark.parametrize(
    "cut", [",task_me", ",task_memcg=/a/b", ",task_memcg=/a/b>", ",task_memcg=/a/b,task=h"]
)
def test_summary_of_the_machine_that_was_cut_names_no_cgroup_or_a_whole_one(cut: str) -> None:
    summary = "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom"
    (found,) = read([summary + cut])
    assert (found.constraint, found.oom_memcg) == ("global", None)
    assert found.task_memcg == ("/a/b" if ",task=" in cut else None)


def test_kill_in_a_container_of_openvz_is_read() -> None:
    line = "Out of memory in UB 101: OOM killed process 4711 (hog) score 0 vm:16000kB, rss:800kB, swap:0kB"
    for lines in ([line], [line[:28], line[29:]]):
        (found,) = reports([f"May  1 10:00:00 h kernel: [7.000000] {lines[0]}", *lines[1:]])
        (kill,) = found.kills
        assert (kill.pid, kill.comm, kill.reason) == (4711, "hog", "Out of memory in UB 101")
        assert (kill.total_vm_bytes, kill.anon_rss_bytes) == (16000 * 1024, None)
        assert found.constraint == "memcg"


@pytest.mark.parametrize("comm", ["a", "systemd-journal"])
def test_indentation_of_a_paste_is_no_part_of_the_triggers_name(comm: str) -> None:
    header = HEADER.format(comm=comm)
    assert [one.invoker.comm for one in read([header], prefix="    ")] == [comm]
    assert [one.invoker.comm for one in read([f" {HEADER.format(comm='a')}"])] == [" a"]  # after a time
