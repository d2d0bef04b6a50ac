"""Logs as people paste them: prefixes before the lines and breaks in them do not change the facts."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from typing import Any, Final

import pytest
from kernel.kmsg.test_corpus import CORPUS, without_lines

from tracer.kernel.kmsg.parser import reports
from tracer.kernel.kmsg.text.lines import split

LOGS: Final = (
    "captured-6.12-debian13-v2-dmesg-x.log",
    "captured-6.1-debian12-v1-dmesg.log",
    "captured-6.18-debian13-v2-dmesg-iso.log",
    "written-4.19-debian10-v1-kern.log",
    "written-4.19-global-bare.log",
    "written-5.14-el9-arm64-v2-monotonic.log",
    "written-5.15-ubuntu22.04-v2-callers.log",
)


def lines_of(name: str) -> list[str]:
    """Return the lines without empty ones, which a pasted log may lose or gain."""
    found = [line.rstrip("\r") for line in split([(CORPUS / name).read_bytes()])]
    return [line for line in found if line.strip()]


def facts_of(lines: list[str]) -> list[Any]:
    """Return the facts of a log without lines, times and hosts, which a prefix changes."""
    return [_without_stamps(without_lines(report)) for report in reports(lines)]


def _without_stamps(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _without_stamps(item) for name, item in value.items() if name not in ("stamp", "is_cut")
        }
    return [_without_stamps(one) for one in value] if isinstance(value, list) else value


PREFIXES: Final[dict[str, Callable[[int, str], str]]] = {
    "indented": lambda _, line: f"    {line}",
    "quoted": lambda _, line: f"> {line}",
    "quoted twice": lambda _, line: f">> > {line}",
    "node": lambda _, line: f"node-1: {line}",
    "console": lambda at, line: f"rack7/ttyS{at % 4} [2024-05-01 10:00:{at % 60:02d}] | {line}",
    "vm": lambda at, line: f"2023-12-04T10:49:{at % 60:02d}.127Z In(05) vcpu-{at % 8} - Guest: {line}",
    "cri": lambda at, line: f"2023-10-06T00:17:{at % 60:02d}.669794202Z stdout F {line}",
    "logcli": lambda at, line: f'2023-10-12T19:00:{at % 60:02d}Z {{job="kmsg", host="a"}} {line}',
    "docker": lambda _, line: json.dumps(
        {"log": f"{line}\n", "stream": "stdout", "time": "2024-05-01T10:00:00Z"}
    ),
    "loki": lambda _, line: json.dumps(
        {"labels": {"job": "k"}, "line": line, "timestamp": "2024-05-01T10:00:00Z"}
    ),
    "shipper": lambda _, line: json.dumps({"@timestamp": "2024-05-01T10:00:00Z", "k8s": {"raw_text": line}}),
    "web page": lambda _, line: line.replace("  ", "\xa0 "),
}


@pytest.mark.parametrize("name", LOGS)
@pytest.mark.parametrize("style", PREFIXES)
def test_log_with_prefix_has_same_facts(style: str, name: str) -> None:
    lines = lines_of(name)
    if style in ("vm", "cri", "logcli") and "-iso" in name:
        pytest.skip("of two dates, the second could be a part of the text")
    pasted = [PREFIXES[style](at, line) for at, line in enumerate(lines)]
    assert facts_of(pasted) == facts_of(lines) != []


def mail(line: str, width: int) -> list[str]:
    """Return lines broken at spaces, which are dropped; text without spaces is not broken."""
    return textwrap.wrap(
        line,
        width,
        break_long_words=False,
        break_on_hyphens=False,
        expand_tabs=False,
        replace_whitespace=False,
    ) or [""]


def terminal(line: str, width: int) -> list[str]:
    return [line[at : at + width] for at in range(0, len(line), width)] or [""]


@pytest.mark.parametrize("width", [72, 80, 100])
@pytest.mark.parametrize("name", LOGS)
def test_log_broken_by_mail_has_same_facts(name: str, width: int) -> None:
    """Names with spaces are left out: in bare text, a break in them leaves no mark."""
    lines = lines_of(name)
    assert gist([piece for line in lines for piece in mail(line, width)]) == gist(lines)


@pytest.mark.parametrize("width", [80, 100, 132])
@pytest.mark.parametrize("name", LOGS)
def test_log_broken_by_terminal_has_same_facts(name: str, width: int) -> None:
    lines = lines_of(name)
    assert gist([piece for line in lines for piece in terminal(line, width)]) == gist(lines)


def gist(lines: list[str]) -> list[Any]:
    """Return the victims, the cgroups, the limits, and the machine's memory."""
    found = []
    for report in reports(lines):
        zones = () if report.mem_info is None else report.mem_info.zones
        found.append(
            {
                "constraint": report.constraint,
                "limit": report.oom_memcg,
                "killed": [(kill.pid, kill.anon_rss_bytes) for kill in report.kills],
                "tasks": [(row.pid, row.rss_pages, row.swapents_pages) for row in report.tasks],
                "free": [(zone.name, zone.free_bytes, zone.min_bytes) for zone in zones],
                "asked": report.invoker.gfp,
            }
        )
    return found


def test_log_joined_to_one_line_has_same_facts() -> None:
    lines = lines_of("written-4.19-debian10-v1-kern.log")
    kernel = [line for line in lines if " kernel: " in line]
    assert facts_of(["".join(kernel)]) == facts_of(kernel) != []


def test_prefix_within_path_belongs_to_path() -> None:
    """The name of a cgroup must not forge a kill."""
    forged = "[    9.000000] Out of memory: Killed process 1 (init) total-vm:1kB, anon-rss:1kB"
    lines = [f"[    8.000000] Memory cgroup stats for /a{forged}:", "[    8.000001] anon 4096"]
    assert [kill.pid for report in reports(lines) for kill in report.kills] == []


OLD = (
    "kernel: java invoked oom-killer: gfp_mask=0xd0, nodemask=0, order=0, oom_score_adj=0",
    "kernel: CPU: 1 PID: 9949 Comm: java Tainted: P           OE  ------------   3.10.0-327.el7.x86_64 #1",
    "kernel:  [<ffffffff8114e30a>] ? oom_kill_process+0x28a/0x3e0",
    "kernel:  [<ffffffff811b1faf>] ? mem_cgroup_oom_synchronize+0x50f/0x580",
)


def test_old_header_behind_short_prefix_names_trigger() -> None:
    (found,) = reports(OLD)
    assert (found.invoker.comm, found.invoker.pid, found.constraint) == ("java", 9949, "memcg")


def test_trailing_blanks_and_joined_lines_are_read() -> None:
    (found,) = reports(["[ 1.000000] Task in /LXC01 killed as a result of limit of /LXC01 "])
    assert found.oom_memcg == "/LXC01"
    line = "Out of memory: Kill process 7 (a) score 205 or sacrifice child Killed process 7 (a), anon-rss:1kB"
    (joined,) = reports([line])
    assert (joined.constraint, joined.kills[0].pid) == ("global", 7)


def test_limit_printed_as_no_constraint_is_memcg() -> None:
    line = "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),oom_memcg=/a,task_memcg=/a,task=a,pid=7,uid=0"
    (found,) = reports([f"Nov 25 10:00:00 bmc conserver[7]: [   12.345678] {line}"])
    assert (found.constraint, found.oom_memcg) == ("memcg", "/a")


def test_panic_without_report_names_trigger() -> None:
    panic = "[ 9.100000] Kernel panic - not syncing: Out of memory: compulsory panic_on_oom is enabled"
    head = "[ 9.200000] CPU: 1 PID: 243 Comm: kworker/1:2 Tainted: G         C O  3.16.0-6-amd64 #1 Debian"
    (found,) = reports([panic, head])
    assert (found.constraint, found.invoker.pid, found.is_panic_on_oom) == ("global", 243, True)


def test_cut_path_is_unknown() -> None:
    """The rest of a cut path names another cgroup."""
    cut = (
        "Memory cgroup stats for /kubepods.slice/kubepods",
        "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/kubepods",
    )
    for line in cut:
        (found,) = reports([f"[ 1.000000] {line}"])
        assert (found.constraint, found.oom_memcg, found.task_memcg) == ("memcg", None, None)
    (found,) = reports([f"[ 1.000000] {cut[1]}/pod1,task_memcg=/kubepods/pod1/co"])
    assert (found.oom_memcg, found.task_memcg) == ("/kubepods/pod1", None)
    (found,) = reports([f"[ 1.000000] {cut[1]}/pod1,task_memcg=/kubepods/pod1/c,task=jav"])
    assert (found.oom_memcg, found.task_memcg) == ("/kubepods/pod1", "/kubepods/pod1/c")


ZONES = (
    "Mem-Info:",
    "Node 0 Normal free:9kB min:10kB low:11kB high:12kB present:4100kB managed:4000kB",
    "Node 1 Normal free:9kB min:10kB low:11kB high:12kB present:4100kB managed:4000kB",
    "2100 pages RAM",
    "100 pages reserved",
)


@pytest.mark.parametrize(
    ("nodemask", "cpuset", "release", "mem_info", "constraint"),
    [
        # v4.9 and v4.10 print the nodes of the cpuset; a kernel of unknown release may do so.
        (" nodemask=0,", None, "4.9.118", (), "global"),
        (" nodemask=0,", "/docker/a mems_allowed=0", "4.9.118", ZONES, "unknown"),
        (" nodemask=0-1,", "/docker/a mems_allowed=0-1", "4.10.3", ZONES, "global"),
        (" nodemask=1,", None, None, (), "global"),
        # Later kernels print the nodes of a policy, up to v4.18 with two spaces after them.
        (" nodemask=1, ", None, None, (), "mempolicy"),
        (" nodemask=1,", None, "4.14.2", (), "mempolicy"),
        (" nodemask=0, ", "/ mems_allowed=0-1", None, (), "mempolicy"),
        (" nodemask=0, ", "/ mems_allowed=0", None, (), "unknown"),
        (" nodemask=0, ", "/ mems_allowed=0", None, ZONES[:2] + ZONES[3:], "mempolicy"),
        (" nodemask=0-1, ", "/ mems_allowed=0-1", None, ZONES, "global"),
        # Older kernels print no nodes; a cpuset may confine the allocation.
        ("", "/docker/a mems_allowed=0", "3.10.0", ZONES, "unknown"),
        ("", "/docker/a mems_allowed=0-1", "3.10.0", ZONES, "global"),
        ("", "/docker/a mems_allowed=0", "3.10.0", (), "unknown"),
        ("", "/ mems_allowed=0", "3.10.0", (), "global"),
    ],
)
def test_constraint_of_an_old_report_follows_from_its_nodes(
    nodemask: str, cpuset: str | None, release: str | None, mem_info: tuple[str, ...], constraint: str
) -> None:
    lines = [
        f"a invoked oom-killer: gfp_mask=0x24201ca,{nodemask} order=0, oom_score_adj=0",
        *([] if cpuset is None else [f"a cpuset={cpuset}"]),
        *([] if release is None else [f"CPU: 0 PID: 8 Comm: a Not tainted {release} #1"]),
        *("Call Trace:", " __alloc_pages_nodemask+0x1/0x2", *mem_info),
    ]
    (found,) = reports([f"[ 1.{number:06d}] {line}" for number, line in enumerate(lines)])
    assert found.constraint == constraint


def test_path_broken_after_slash_is_joined() -> None:
    lines = [
        "[ 1.000000] Task in /docker/0f2b killed as a result of limit of /docker/",
        "0f2b",
        "[ 1.1] memory: x",
    ]
    (found,) = reports(lines)
    assert found.oom_memcg == "/docker/0f2b"
    (cut,) = reports(lines[:1])
    assert (cut.constraint, cut.oom_memcg) == ("memcg", None)


def test_cut_size_is_unknown() -> None:
    (found,) = reports(["Out of memory: Killed process 7 (a) total-vm:90000kB, anon-rss:139459"])
    assert (found.kills[0].total_vm_bytes, found.kills[0].anon_rss_bytes) == (90000 * 1024, None)


def test_chosen_task_of_linux_2_6_is_named() -> None:
    lines = [
        "[ 1.331945] nautilus invoked oom-killer: gfp_mask=0x201d2, order=0, oomkilladj=0",
        "[ 1.356037] Out of memory: kill process 18662 (amule) score 56923 or a child",
        "[ 1.356059] Killed process 18662 (amule)",
    ]
    (found,) = reports(lines)
    assert found.chosen is not None
    assert (found.constraint, found.chosen.comm, found.kills[0].pid) == ("global", "amule", 18662)


@pytest.mark.parametrize("end", ["", " score", " score 91", " score 91 or", " score 91 or sac", ' score 91"'])
def test_chosen_task_in_a_line_without_its_end_is_named(end: str) -> None:
    (found,) = reports([f"[ 1.356037] Out of memory: Kill process 18662 (a) (b){end}"])
    assert found.chosen is not None
    assert (found.constraint, found.chosen.pid, found.chosen.comm) == ("global", 18662, "a) (b")


def test_other_words_after_a_name_are_no_choice() -> None:
    assert not [*reports(["[ 1.356037] Out of memory: Kill process 18662 (a) was asked for"])]


def test_indented_group_names_its_cgroup() -> None:
    (found,) = reports(["     Tasks in /a/b are going to be killed due to memory.oom.group set"])
    assert found.group_memcg == "/a/b"


def test_indented_header_with_date_names_trigger() -> None:
    header = "ld-new invoked oom-killer: gfp_mask=0x280da, order=0, oom_adj=0, oom_score_adj=0"
    for indent in ("    ", ">     ", ">>     "):
        (found,) = reports([f"{indent}Mar 5 07:43:21 build7 kernel: {header}"])
        assert (found.invoker.comm, found.stamp.wall) == ("ld-new", "Mar 5 07:43:21")


def test_table_after_chosen_task_is_of_next_report() -> None:
    """The kernel prints the table before it names the task to kill."""
    chosen = "Out of memory: Kill process 71 (java) score 77 or sacrifice child"
    lines = [
        f"Jul 27 13:29:54 build7 kernel: {chosen}",
        "[ 9.100000] [ pid ]   uid  tgid total_vm      rss nr_ptes swapents oom_score_adj name",
        "[ 9.100001] [   71]     0    71   904520   635077     163        0             0 java",
        f"[ 9.100002] {chosen}",
        "[ 9.100003] Killed process 71 (java) total-vm:3618080kB, anon-rss:2540308kB, file-rss:0kB",
    ]
    first, second = reports(lines)
    assert (first.tasks, "mem_info" in first.missing, first.kills) == ((), True, ())
    assert [row.pid for row in second.tasks] == [kill.pid for kill in second.kills] == [71]


@pytest.mark.parametrize("spaces", [2, 15, 20])
def test_sizes_in_lines_below_are_of_kill(spaces: int) -> None:
    """Text below the message, at any indentation, is no line of its own after a complete name."""
    kill = "[   42.890123] Memory cgroup out of memory: Killed process 914 (llama serve)"
    below = ("total-vm:24196kB, anon-rss:20480kB, UID:0 pgtables:48kB", "oom_score_adj:998")
    (found,) = reports([kill, *(" " * spaces + line for line in below)])
    (killed,) = found.kills
    assert (killed.comm, killed.anon_rss_bytes, killed.oom_score_adj) == ("llama serve", 20 << 20, 998)


def test_line_ends_as_escapes_end_lines() -> None:
    lines = [
        "[  100.100000] ingest invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        "[  100.100002] memory: usage 65536kB, limit 65536kB, failcnt 31",
        "[  100.100100] Memory cgroup out of memory: Killed process 42 (ingest) total-vm:96kB, anon-rss:4kB",
    ]
    for end in (r"\n", r"\r\n"):
        (found,) = reports(['Output: "' + end.join([*lines, '"'])])
        assert (found.invoker.comm, [kill.pid for kill in found.kills]) == ("ingest", [42])
        assert found.counters["memory"].limit_bytes == 64 << 20


def test_summary_with_spaced_fields_is_read() -> None:
    lines = [
        "[  581.507012] oom-kill:constraint=CONSTRAINT_MEMCG, oom_memcg=/api/01a09330/bash,",
        "               task=python, pid=2269, uid=0",
    ]
    (found,) = reports(lines)
    assert found.chosen is not None
    assert (found.constraint, found.oom_memcg, found.chosen.pid) == (
        "memcg",
        "/api/01a09330/bash",
        2269,
    )


def test_killed_allocating_task_is_trigger() -> None:
    line = "Out of memory (oom_kill_allocating_task): Kill process 6344 (sh) score 0 or sacrifice child"
    (found,) = reports([line, "Killed process 6345 (dd) total-vm:9kB, anon-rss:0kB, file-rss:0kB"])
    assert (found.invoker.pid, found.kills[0].pid) == (6344, 6345)
    (other,) = reports([line.replace(" (oom_kill_allocating_task)", "")])
    assert other.invoker.pid is None


def test_panic_after_table_names_trigger() -> None:
    lines = [
        "[ 9.100000] [ pid ]   uid  tgid total_vm      rss nr_ptes nr_pmds swapents oom_score_adj name",
        "[ 9.100001] [ 1799]     0  1799    26512      245      56       3        0         -1000 sshd",
        "[ 9.100002] Kernel panic - not syncing: Out of memory and no killable processes...",
        "[ 9.200000] CPU: 1 PID: 3578 Comm: kworker/u176:4 Tainted: G           OE   3.10.0-1062.el7 #1",
    ]
    (found,) = reports(lines)
    assert (found.constraint, found.invoker.pid, found.is_no_task_killable) == ("global", 3578, True)


def test_reaped_task_without_kill_line_is_killed() -> None:
    lines = [
        "[ 9.100000] memory: usage 20480kB, limit 20480kB, failcnt 136",
        "[ 9.100001] [  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name",
        "[ 9.100002] [   7]     0     7   178320     5602   131072        0          -997 main",
        "[ 9.100003] oom_reaper: reaped process {pid} (main), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB",
    ]
    (found,) = reports([line.format(pid=7) for line in lines])
    assert [(kill.pid, kill.comm, kill.anon_rss_bytes) for kill in found.kills] == [(7, "main", None)]
    (other,) = reports([line.format(pid=8) for line in lines])
    assert other.kills == ()


@pytest.mark.parametrize("pid", ["", "XXXX ", "<pid> ", "[redacted] ", "*** "])
def test_kill_without_a_pid_is_a_kill_of_a_process_with_a_name(pid: str) -> None:
    sizes = "total-vm:4096kB, anon-rss:1024kB, file-rss:0kB"
    lines = [
        "[ 1.000000] memory: usage 102400kB, limit 102400kB, failcnt 5",
        f"[ 1.000001] Memory cgroup out of memory: Killed process {pid}(java (x)) {sizes}",
        f"[ 2.000000] Out of memory: Killed process {pid}(mysqld)",
    ]
    first, second = reports(lines)
    (kill,) = first.kills
    assert (kill.pid, kill.comm, kill.anon_rss_bytes) == (None, "java (x)", 1 << 20)
    assert first.counters["memory"].limit_bytes == 100 << 20
    assert [(one.pid, one.comm) for one in second.kills] == [(None, "mysqld")]


def test_words_of_a_program_about_a_killed_process_are_no_kill() -> None:
    assert not [*reports(["[ 1.000000] Killed process (worker) by request"])]


@pytest.mark.parametrize("host", ["node-1: ", "node-1 ", "ip-10-0 ", "k8s1 | ", "10:00:01 "])
def test_host_before_the_name_of_the_trigger_is_no_part_of_it(host: str) -> None:
    """The line with the pid of the trigger, which has its name again, is missing."""
    header = f"{host}java invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0"
    for log in ([header], [f"Jan  2 10:00:00 {header}"]):
        assert [report.invoker.comm for report in reports(log)] == [None]
    (found,) = reports([header, "Killed process 7 (java) total-vm:4096kB, anon-rss:1024kB, file-rss:0kB"])
    assert found.invoker.comm == "java"


@pytest.mark.parametrize("comm", ["Web Content", "rs:main Q:Reg", ".NET ThreadPool", "C2 CompilerThre"])
def test_name_of_several_words_is_the_name_of_the_trigger(comm: str) -> None:
    (found,) = reports([f"{comm} invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0"])
    assert found.invoker.comm == comm
    (timed,) = reports(["[ 9.000001] a-1 b invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0"])
    assert timed.invoker.comm == "a-1 b"


def test_lines_behind_the_tag_of_the_kernel_alone_are_read() -> None:
    lines = ["kernel: Out of memory and no killable processes...", *OLD]
    first, second = reports(lines)
    assert (first.is_no_task_killable, second.invoker.pid) == (True, 9949)


@pytest.mark.parametrize("tick", ["`", "```"])
def test_first_line_behind_the_mark_of_code_has_its_time(tick: str) -> None:
    lines = [f"Jan 25 15:25:20 es14 {line}" for line in OLD]
    lines[0] = tick + lines[0]
    (found,) = reports(lines)
    assert (found.stamp.wall, found.invoker.comm) == ("Jan 25 15:25:20", "java")


@pytest.mark.parametrize("end", [",", ",ui", ",uid=", ", uid=99", " , user=999"])
def test_chosen_task_before_a_cut_uid_is_named(end: str) -> None:
    line = "oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/a,task_memcg=/a/b,task=python,pid=2953"
    (found,) = reports([f"[ 9.100000] {line}{end}"])
    assert found.chosen is not None
    assert (found.chosen.pid, found.chosen.comm, found.task_memcg) == (2953, "python", "/a/b")
    (cut,) = reports([f"[ 9.100000] {line}"])
    assert cut.chosen is None  # the rest of the pid may be missing


def test_order_that_no_kernel_has_is_not_known() -> None:
    (found,) = reports(["[ 1.000000] a invoked oom-killer: gfp_mask=0xd0, order=999999999, oom_score_adj=0"])
    assert found.invoker.order is None


def test_report_whose_first_line_lost_its_prefix_has_the_time_of_the_others() -> None:
    lines = [
        " 1257.892709] sudo invoked oom-killer: gfp_mask=0x100cca(GFP_KERNEL), order=0, oom_score_adj=0",
        "[ 1257.892712] CPU: 0 PID: 16473 Comm: sudo Kdump: loaded Tainted: P    OE     5.4.0-1097-aws #105",
        "[ 1257.892713] Call Trace:",
    ]
    (found,) = reports(lines)
    assert (found.stamp.line, found.stamp.since_boot_ns) == (1, 1_257_892_712_000)


def test_first_known_times_of_a_report_are_its_time() -> None:
    lines = [
        "java invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        "memory: usage 102400kB, limit 102400kB, failcnt 7",
        "[   71.000005] memory+swap: usage 102400kB, limit 102400kB, failcnt 0",
        "Mar  3 10:00:05 h kernel: [   72.000005] Memory cgroup stats for /a:",
        "Mar  3 10:00:07 h kernel: [   73.000005] Out of memory: Killed process 7 (java) total-vm:8kB",
    ]
    (found,) = reports(lines)
    assert found.stamp == (1, 71_000_005_000, "Mar  3 10:00:05")


@pytest.mark.parametrize("caller", ["__alloc_pages_nodemask", "mem_cgroup_out_of_memory"])
def test_caller_in_the_last_frame_of_arm_shows_whose_memory_was_short(caller: str) -> None:
    lines = [
        "sh invoked oom-killer: gfp_mask=0xd0, order=0, oomkilladj=0",
        "[<c0106494>] (dump_backtrace+0x0/0x110) from [<c03641a0>] (dump_stack+0x18/0x1c)",
        f"[<c015a918>] (out_of_memory+0x0/0xa0) from [<c015d230>] ({caller}+0x42c/0x520)",
    ]
    (found,) = reports(lines)
    assert found.constraint == ("memcg" if caller.startswith("mem_cgroup") else "global")
    assert found.stack == ("dump_backtrace", "out_of_memory")
