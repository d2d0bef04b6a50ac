"""Real kills compared with the kernel log, all in one recording."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from support.recorder import Recorder

import tracer
from tracer.analysis.results.kill import OomReport
from tracer.capture.rows.kmsg_stream import READ, open_kernel_log
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]

MIB = 1 << 20
DUMP_TASKS = Path("/proc/sys/vm/oom_dump_tasks")
MANY = 24
"""More than two bursts of reports (DEFAULT_RATELIMIT_BURST), in case a new interval begins meanwhile."""

TRIES = 60

SLOWLY_S = 0.001
"""The pause after 256 KiB: a process then charges at most 2.5 MiB in the 10 ms that a ledger may lack."""

KILLS = """
import os, sys, time
pause_s, size = float(sys.argv[1]), int(sys.argv[2])
for cgroup in sys.argv[3:]:
    child = os.fork()
    if not child:
        open(cgroup + '/cgroup.procs', 'w').write('0')
        held = []
        while len(held) * 262144 < size:
            held.append(b'x' * 262144)
            time.sleep(pause_s)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    print(child if os.WIFSIGNALED(status) else 0)
"""


def kill_in(*cgroups: Path, pause_s: float = 0) -> list[int]:
    """Start a process that exceeds the limit in one cgroup after the other, milliseconds apart. Return the
    pids.
    """
    command = [sys.executable, "-S", "-c", KILLS, str(pause_s), str(200 * MIB), *map(str, cgroups)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    pids = [int(line) for line in done.stdout.split()]
    assert 0 not in pids, "one of them was not killed"
    return pids


@contextmanager
def no_table_of_tasks() -> Iterator[None]:
    before = DUMP_TASKS.read_text()
    DUMP_TASKS.write_text("0")
    try:
        yield
    finally:
        DUMP_TASKS.write_text(before)


def has_dump(text: str, pid: int) -> bool:
    """Return whether the kernel printed more than the line of the kill. Each victim is its own trigger."""
    return re.search(rf"^CPU: \d+ .*PID: {pid} Comm: ", text, flags=re.MULTILINE) is not None


def text_of(rows: Iterable[Mapping[str, Any]]) -> str:
    return "\n".join(str(row["text"]) for row in rows)


@dataclass(frozen=True)
class Recorded:
    """Kills by pid, the trace, and the kernel's `text`."""

    pids: list[int]
    near: list[int]  # two kills in quick succession
    below: int  # at the parent's limit
    without_table: int
    many: list[int]
    parent: str
    text: str
    by_pid: dict[int, OomReport]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    log = open_kernel_log()
    if log.state != READ:
        pytest.skip(f"the kernel log cannot be read here: {log.state}")
    with ExitStack() as stack:
        stack.callback(log.close)
        small, middle, large, parent = (
            stack.enter_context(ephemeral_cgroup(f"logged-{mib}", mib * MIB, 0)) for mib in (12, 17, 23, 31)
        )
        if (control := parent / "cgroup.subtree_control").exists():
            control.write_text("+memory")
        (parent / "child").mkdir()
        folder = tmp_path_factory.mktemp("logged")
        options = [option for cgroup in (small, middle, large, parent) for option in ("-c", str(cgroup))]
        recorder = stack.enter_context(Recorder(folder, "--ready-file", "ready", *options))
        recorder.wait_until_ready()
        pids: list[int] = []
        for _ in range(TRIES):  # kills elsewhere may use up the kernel's reports of 5 s
            log.read()
            near = kill_in(middle, large)
            (below,) = kill_in(parent / "child", pause_s=SLOWLY_S)
            with no_table_of_tasks():
                (without_table,) = kill_in(small)
            of_this = [*near, below, without_table]
            pids += of_this
            text = text_of(log.read())
            if all(has_dump(text, pid) for pid in of_this):
                break
        many = kill_in(*[middle, small] * (MANY // 2))
        trace = tracer.open(recorder.stop())
        yield Recorded(
            [*pids, *many],
            near,
            below,
            without_table,
            many,
            "/" + parent.name,
            text_of(cast(list[dict[str, Any]], trace.kernel_log.to_dict("records"))),
            {report.victims[0].pid or 0: report for report in trace.explain()},
        )


def test_kill_is_matched_with_its_own_lines(recorded: Recorded) -> None:
    """This includes kills with the one line of the kill, and no kill has the lines of another."""
    assert set(recorded.pids) <= set(recorded.by_pid)
    for pid in recorded.pids:
        quality = recorded.by_pid[pid].quality
        assert quality.kmsg == ("matched" if has_dump(recorded.text, pid) else "rate_limited"), pid
        assert quality.disagreements == (), pid
    limited = [pid for pid in recorded.many if recorded.by_pid[pid].quality.kmsg == "rate_limited"]
    assert len(limited) >= MANY - 20
    for pid in limited:
        assert "only the line of the kill" in recorded.by_pid[pid].quality.kmsg_missing


def test_numbers_equal_those_of_the_kernel_log(recorded: Recorded) -> None:
    for pid in recorded.pids:
        (victim,) = recorded.by_pid[pid].victims
        (line,) = re.findall(rf"Killed process {pid} .*", recorded.text)
        sizes = dict(re.findall(r"(anon-rss|file-rss|shmem-rss|pgtables):(\d+)kB", line))
        ours = (
            victim.anon_rss_bytes,
            victim.file_rss_bytes,
            victim.shmem_rss_bytes,
            victim.pgtables_bytes,
        )
        assert [int(size) for size in sizes.values()] == [(size or 0) // 1024 for size in ours], line
    first, second = (recorded.by_pid[pid].victims[0].anon_rss_bytes or 0 for pid in recorded.near)
    assert second - first >= 5 * MIB  # the limits are 6 MiB apart


def test_log_completes_values_that_the_probes_lack(recorded: Recorded) -> None:
    for pid in recorded.near:
        report = recorded.by_pid[pid]
        assert report.trigger.order == 0
        assert "GFP_KERNEL" in (report.trigger.gfp_names or "")
        assert report.constraint == "memcg"
        assert [one.pid for one in report.candidates if one.chosen] == [pid]


def test_composition_of_a_parent_limit_comes_from_the_log_or_the_ledger(recorded: Recorded) -> None:
    """memory.stat in the log may lag, and the ledger may lack the last 10 ms."""
    report = recorded.by_pid[recorded.below]
    assert report.limit_owner.cgroup == recorded.parent
    assert "composition" in report.quality.kmsg_fields
    _, _, dumped = recorded.text.rpartition(f"Memory cgroup stats for {recorded.parent}:")
    stat = dict(re.findall(r"^(\w+) (\d+)$", dumped.partition("Tasks state")[0], flags=re.MULTILINE))
    assert (report.composition.anon or 0) >= int(stat.get("total_rss") or stat["anon"])
    assert report.composition.total == sum(size or 0 for _, size in report.composition.parts())
    assert abs((report.composition.anon or 0) - 31 * MIB) < 4 * MIB


def test_report_without_a_task_table_names_the_missing_part(recorded: Recorded) -> None:
    quality = recorded.by_pid[recorded.without_table].quality
    assert quality.kmsg == "matched"
    assert "vm.oom_dump_tasks" in quality.kmsg_missing
    assert all(recorded.by_pid[pid].quality.kmsg_missing == "" for pid in recorded.near)
