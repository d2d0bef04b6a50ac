"""Pieces of reports, as people cut, elide, forward and send them, and the formats of old kernels."""

from __future__ import annotations

import html
import quopri
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel.kmsg.test_pasted import LOGS, facts_of, gist, lines_of

from tracer.kernel.kmsg.log_files import merged
from tracer.kernel.kmsg.parser import reports


@pytest.mark.parametrize("elision", ["...", "[...]", "<snip>", "(trimmed)", "--- cut ---", "```", "…"])
@pytest.mark.parametrize("prefix", ["[ 9.000002] ", ""])
def test_elision_is_no_part_of_a_name(elision: str, prefix: str) -> None:
    kill = f"{prefix}Memory cgroup out of memory: Killed process 7 (wor"
    for lines in ([kill, elision], [kill, elision, "and then I restarted it (twice)"]):
        (found,) = reports(lines)
        assert [(one.pid, one.comm) for one in found.kills] == [(7, "wor")]


@pytest.mark.parametrize("name", ["written-4.18-el8-v1-dmesg-T.log", "captured-6.1-debian12-v1-dmesg.log"])
@given(data=st.data())
def test_size_broken_within_its_number_is_joined(name: str, data: st.DataObject) -> None:
    lines = lines_of(name)
    of_kills = [at for at, line in enumerate(lines) if "Killed process" in line or ": cache:" in line]
    size = re.compile(r":\d{2,20}(?:kB|KB)")
    at = data.draw(st.sampled_from([at for at in of_kills if size.search(lines[at])]))
    numbers = list(size.finditer(lines[at]))
    found = data.draw(st.sampled_from(numbers))
    place = data.draw(st.integers(found.start() + 2, found.end() - 1))
    broken = [*lines[:at], lines[at][:place], lines[at][place:], *lines[at + 1 :]]
    assert facts_of(broken) == facts_of(lines)


def quoted_printable(lines: list[str]) -> list[str]:
    """Return the lines as mail programs send them: broken softly, `=` and what is not ASCII as numbers."""
    sent = quopri.encodestring("\n".join(lines).encode("utf-8", "surrogateescape")).decode()
    return ["Content-Transfer-Encoding: quoted-printable", "", *sent.split("\n")]


def page(lines: list[str]) -> list[str]:
    """Return one line of HTML, as mail programs send it."""
    text = [html.escape(line).replace("  ", "&nbsp; ").replace(" \n", "&nbsp;\n") for line in lines]
    return [f"<div>{'<br>'.join(text[:4])}</div>", *(f"<div>{line}</div>" for line in text[4:])]


@pytest.mark.parametrize("sent", [quoted_printable, page, lambda lines: quoted_printable(page(lines))])
@pytest.mark.parametrize("name", LOGS)
def test_log_in_the_source_of_a_mail_has_same_facts(
    name: str, sent: Callable[[list[str]], list[str]]
) -> None:
    lines = [line.rstrip() for line in lines_of(name)]
    assert gist(sent(lines)) == gist(lines) != []


def test_line_broken_softly_at_the_end_of_a_mail_is_read() -> None:
    (found,) = reports(["Out of memory: Killed process 7 (a) total-vm:90=", "00kB, anon-rss:8000kB="])
    assert (found.kills[0].anon_rss_bytes, found.last_line) == (8000 * 1024, 2)


def test_kill_line_cut_at_its_pid_has_the_name_of_the_table() -> None:
    table = [
        "[ 9.000000] [  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name",
        "[ 9.000001] [  62769]     0 62769     4382      411    77824        0          -998 copier",
    ]
    for cut in ("62769 (cop", "62769 (", "62769", "62769 "):
        (found,) = reports([*table, f"[ 9.000002] Memory cgroup out of memory: Killed process {cut}"])
        assert [(kill.pid, kill.comm) for kill in found.kills] == [(62769, "copier")]
    assert list(reports(["I killed it. Killed process 62769", "and then"])) == []


@pytest.mark.parametrize(
    "piece",
    [
        "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name",
        "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpu",
    ],
)
def test_piece_that_names_nothing_is_no_kill(piece: str) -> None:
    kill = "[ 12.000000] Out of memory: Killed process 7 (a) total-vm:9kB, anon-rss:8kB"
    for lines in ([kill, f"[ 99.000000] {piece}"], [f"[ 2.000000] {piece}", "", "[ 3.0] x", kill]):
        assert [[one.pid for one in found.kills] for found in merged(reports(lines))] == [[7]]
    alone = merged(reports([f"[ 99.000000] {piece}"]))
    assert [found.constraint for found in alone] == (["memcg"] if "oom-kill" in piece else [])


def test_report_of_linux_2_6_9_is_read() -> None:
    lines = [
        "Sep 14 20:16:18 h kernel: oom-killer: gfp_mask=0x1d2",
        "Sep 14 20:16:18 h kernel: DMA per-cpu:",
        "Sep 14 20:16:18 h kernel: Free pages:         420kB (0kB HighMem)",
        "Sep 14 20:16:18 h kernel: Active:27885 inactive:32 dirty:0 writeback:0",
        "unstable:0 free:105 slab:1027 mapped:27889 pagetables:177",
        "Sep 14 20:16:18 h kernel: Normal free:376kB min:500kB low:600kB high:900kB active:99156kB",
        "Sep 14 20:16:18 h kernel: Free swap:       385624kB",
        "Sep 14 20:16:18 h kernel: 131056 pages of RAM",
        "Sep 14 20:16:18 h kernel: 2353 reserved pages",
        "Sep 14 20:16:21 h kernel: Out of Memory: Killed process 1147 (bk).",
    ]
    (found,) = reports(lines)
    assert found.mem_info is not None
    assert (found.constraint, found.invoker.gfp, found.mem_info.ram_pages) == ("global", 0x1D2, 131056)
    assert (found.mem_info.pages["active"], found.mem_info.pages["slab"]) == (27885, 1027)
    assert (found.mem_info.free_swap_bytes, found.mem_info.reserved_pages) == (385624 * 1024, 2353)
    assert [(kill.pid, kill.comm) for kill in found.kills] == [(1147, "bk")]


def test_report_of_linux_2_6_36_is_read() -> None:
    lines = [
        "[ 1.000000] [ pid ]   uid  tgid total_vm      rss cpu oom_adj name",
        "[ 1.000001] [  123]     0   123     1000       50   0     -17 sshd",
        "[ 1.000002] [  456]     0   456   901000   700050   1      15 hog",
        "[ 1.000003] Out of memory: Kill process 456 (hog) score 900 or sacrifice child",
        "[ 1.000004] Killed process 456 (hog) vsz:3604000kB, anon-rss:2800000kB, file-rss:200kB",
    ]
    (found,) = reports(lines)
    assert [(row.comm, row.oom_score_adj) for row in found.tasks] == [("sshd", -1000), ("hog", 1000)]
    (kill,) = found.kills
    assert (kill.total_vm_bytes, kill.anon_rss_bytes) == (3604000 * 1024, 2800000 * 1024)


@pytest.mark.parametrize(
    "line",
    [
        "Kernel panic - not syncing: Out of memory: system-wide panic_on_oom is enabled",
        "Kernel panic - not syncing: Out of memory: compulsory panic_on_oom is enabled",
        "Kernel panic - not syncing: out of memory. panic_on_oom is selected",
        "Kernel panic - not syncing: out of memory(memcg). panic_on_oom is selected.",
    ],
)
def test_panic_on_oom_is_read(line: str) -> None:
    (found,) = reports([f"[ 9.100000] {line}"])
    assert (found.is_panic_on_oom, found.is_panic, found.constraint) == (True, True, "global")


def test_nodes_of_a_policy_and_caches_are_read() -> None:
    lines = [
        "[ 1.000000] Mem-Info:",
        "[ 1.000001] active_anon:1 inactive_anon:2 isolated_anon:0",
        "[ 1.000002] Unreclaimable slab info:",
        "[ 1.000003] Name                      Used          Total",
        "[ 1.000004] my_extent_map       3207090KB    3207098KB",
        "[ 1.000005] oom-kill:constraint=CONSTRAINT_MEMORY_POLICY,nodemask=0,3,cpuset=/,mems_allowed=0-3,"
        "global_oom,task_memcg=/,task=a,pid=7,uid=0",
    ]
    (found,) = reports(lines)
    assert found.mem_info is not None
    assert (found.nodemask, found.mems_allowed) == ("0,3", "0-3")
    assert found.mem_info.unreclaimable_caches == {"my_extent_map": 3207098 * 1024}


UNTITLED_ROWS = {
    "2.6.32": ("{} 1 0 0", None),
    "2.6.38": ("{} 1 0 0 0", None),
    "3.10": ("{} 91 300 0", None),
    "4.9": ("{} 91 4 300 0", None),
    "5.10": ("{} 49152 300 0", 49152),
    "6.12": ("{} 2000 500 60 49152 300 0", 49152),
}
VICTIM = "Killed process 71 (a 7) total-vm:40000kB, anon-rss:{}kB, file-rss:2000kB, shmem-rss:240kB"


def untitled(release: str, anon_kb: int, cut: str = "") -> list[str]:
    sizes, _ = UNTITLED_ROWS[release]
    rows = [f"[  {pid:3}]     0    {pid} 10000 {sizes.format(2560)} a {pid}" for pid in range(71, 75)]
    return [*rows, cut, f"Out of memory: {VICTIM.format(anon_kb)}"]


@pytest.mark.parametrize("style", ["[ 9.00000{}] {}", "Jan  2 10:00:00 box{} kernel: {}", "{}{}"])
@pytest.mark.parametrize("release", UNTITLED_ROWS)
def test_table_without_its_title_is_read_if_the_victim_agrees(release: str, style: str) -> None:
    host = "" if "{}{}" in style else 1
    lines = [style.format(host, line) for line in untitled(release, 8000) if line]
    (found,) = reports(lines)
    assert [(row.pid, row.comm) for row in found.tasks] == [(pid, f"a {pid}") for pid in range(71, 75)]
    swap = 0 if release.startswith("2.6") else 300
    (first, *_) = found.tasks
    assert (first.rss_pages, first.pgtables_bytes, first.swapents_pages) == (
        2560,
        UNTITLED_ROWS[release][1],
        swap,
    )
    assert ("tasks" in found.missing, found.stamp.line) == (False, 1)


@pytest.mark.parametrize("release", UNTITLED_ROWS)
def test_table_without_its_title_is_ignored_if_the_victim_does_not_agree(release: str) -> None:
    (found,) = reports([f"[ 9.000001] {line}" for line in untitled(release, 200_000) if line])
    assert (found.tasks, "tasks" in found.missing) == ((), True)


def test_table_after_an_elided_title_is_read() -> None:
    head = "a invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"
    lines = [head, "Call Trace:", "...", *untitled("5.10", 8000)[:4], *untitled("5.10", 8000)[5:]]
    (found,) = reports([f"[ 9.000001] {line}" for line in lines])
    assert [row.pid for row in found.tasks] == [71, 72, 73, 74]


def test_table_with_a_line_of_another_program_after_it_is_of_no_report() -> None:
    (found,) = reports([f"[ 9.000001] {line}" for line in untitled("5.10", 8000, "eth0: link up")])
    assert found.tasks == ()


def test_counter_of_swap_alone_is_no_kill_beside_a_kill() -> None:
    lines = [
        "Memory cgroup out of memory: Killed process 7 (a) ...",
        "swap: usage 262144 kB, limit 262144 kB, failcnt 24",
    ]
    (found,) = merged(reports(lines))
    assert [kill.pid for kill in found.kills] == [7]


def test_space_before_a_unit_is_read() -> None:
    lines = [
        "memory: usage 102400 kB, limit 204800 kB, failcnt 24",
        "Memory cgroup out of memory: Killed process 7 (a) total-vm: 9000 kB, anon-rss:4000 kB, UID:0",
    ]
    (found,) = reports(lines)
    assert (found.counters["memory"].usage_bytes, found.counters["memory"].limit_bytes) == (
        100 << 20,
        200 << 20,
    )
    assert (found.kills[0].total_vm_bytes, found.kills[0].anon_rss_bytes) == (9000 * 1024, 4000 * 1024)


@pytest.mark.parametrize("space", [b"=A0", b"=C2=A0"])
@pytest.mark.parametrize("quote", ["", "> ", ">>> >> "])
def test_quoted_source_of_a_mail_with_spaces_of_a_web_page_is_read(quote: str, space: bytes) -> None:
    """The quotation makes the lines of the source shorter than 76 characters."""
    lines = [
        f"May 26 18:43:00 {space.decode()}kernel: [ {space.decode()}963.489248] Task in /A killed as a r=",
        "esult of limit of /A",
        f"May 26 18:43:00 {space.decode()}kernel: [ {space.decode()}963.489251] memory: usage 4096kB,=",
        " limit 8192kB, failcnt 26",
    ]
    (found,) = reports([f"{quote}{line}" for line in lines])
    assert (found.oom_memcg, found.counters["memory"].limit_bytes) == ("/A", 8 << 20)
    assert found.stamp.since_boot_ns == 963_489_248_000
