"""`watch` as a user runs it: kills become traces, signals are answered, and what it leaves is whole."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from support.ledger_check import differences, ledger_bytes
from support.losses import lost_records
from support.recorder import Recorder
from support.schemas import require_form
from support.settled import settle
from support.slowdown import SLOWDOWN
from support.watcher import Watcher
from workloads import killed_work

import tracer
from tracer.kernel.cgroups.cgroupfs import cgroup_id, memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.lab.scratch import write_uncached
from tracer.trace import layout
from tracer.trace.meta import read_meta
from tracer.trace.recording_ends import QUIET

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]

StartWatcher = Callable[..., Watcher]

LIMIT_BYTES: Final = 48 << 20
FILE_BYTES: Final = 57 << 20
ON_DISK_WITHIN_S: Final = 2.0 * SLOWDOWN
KEEP_S: Final = 2.0
KEEP_LESS: Final = "from tracer.cli.verbs import watch\nwatch._LEAST_S = 1.0\n"
_KEYS: Final = ["trace", "reason", "time", "cgroup", "kills", "container", "cause", "summary", "error", "pod"]


@pytest.fixture
def limited() -> Iterator[Path]:
    with ephemeral_cgroup("watched", LIMIT_BYTES, 0) as directory:
        yield directory


def path_of(memcg: Path) -> str:
    return f"/{memcg.relative_to(memory_hierarchy().mount)}"


def kill_in(memcg: Path, folder: Path, kills: int = 1) -> None:
    """Return once so many processes have been killed in a cgroup, one after the other."""
    record = folder / "kills"
    record.write_bytes(bytes(24 * kills))
    subprocess.run([sys.executable, killed_work.__file__, str(memcg), str(record)], check=True)


def without_times(sentence: str) -> str:
    """Return a sentence without durations: each recorder sends changes of memory at times of its own."""
    return re.sub(r"\d+(\.\d+)? (us|ms|s)\b", "TIME", sentence)


def is_complete(trace: Path) -> bool:
    return not (trace / layout.JOURNAL).exists()


SOON_IDLE: Final = (
    "from tracer.capture.rows import mapping_rows\nfrom tracer.capture.symbols import stack_names\n"
    "from tracer.watch import first_verdicts\n"
    "mapping_rows._IDLE_S = first_verdicts._IDLE_S = 4.0\nstack_names.TABLES_KEPT_S = 3.0\n"
)


def test_recorder_at_rest_keeps_no_child_and_no_descriptor_of_the_killed(
    limited: Path, tmp_path: Path, start_watcher: StartWatcher
) -> None:
    watcher = start_watcher("-c", str(limited), setup=SOON_IDLE)
    proc = Path(f"/proc/{watcher.process.pid}")

    def children() -> list[str]:
        return (proc / f"task/{watcher.process.pid}/children").read_text().split()

    def memories() -> list[str]:
        links = [str(one.readlink()) for one in (proc / "fd").iterdir()]
        return [link for link in links if link.endswith("/mem")]

    kill_in(limited, tmp_path, 3)
    assert children()
    watcher.wait_for_lines()
    watcher.wait_for(lambda: not children())
    assert memories() == []


@pytest.mark.vm
def test_kill_leaves_a_trace_at_once_and_a_line_when_it_is_explained(
    limited: Path, tmp_path: Path, start_watcher: StartWatcher
) -> None:
    watcher = start_watcher("-c", str(limited), "--json")
    killing = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
         "from pathlib import Path; from workloads.killed_work import grow; grow(Path(sys.argv[1]))",
         str(limited)]
    )  # fmt: skip
    path = watcher.wait_for_trace()
    appeared_ns = time.monotonic_ns()
    growing = tracer.open(path)
    assert len(growing.oom) == 1, "it is whole, and can be read while it grows"
    assert growing.meta["rows"] is None
    assert killing.wait() == -signal.SIGKILL
    kill = growing.oom.iloc[0]
    assert (kill["pid"], kill["cgroup_id"]) == (killing.pid, cgroup_id(limited))
    assert appeared_ns - kill["ktime_ns"] < ON_DISK_WITHIN_S * 1e9
    (line,) = watcher.wait_for_lines()
    told = json.loads(line)
    require_form("watch", told)
    assert [*told] == _KEYS
    assert told["trace"] == str(path)
    assert (told["reason"], told["cgroup"], told["kills"]) == ("kill", path_of(limited), 1)
    assert told["time"][:19] == growing.oom.index[0].isoformat()[:19]
    assert re.fullmatch(rf"\d{{8}}T\d{{6}}Z-kill-{re.escape(limited.name)}", path.name)
    assert is_complete(path)
    trace = tracer.open(path)
    (report,) = trace.explain()
    assert (report.verdict.cause, report.verdict.summary) == (told["cause"], told["summary"])
    assert report.verdict.cause == "anon_growth"
    assert (trace.meta["end_reason"], trace.meta["history"]["reason"]) == (QUIET, "kill")
    assert watcher.stop() == [line]
    assert watcher.traces == [path]


@pytest.mark.vm_once
@pytest.mark.beside
def test_ledger_of_a_trace_that_was_asked_for_equals_memory_stat(
    memcg: Path, start_watcher: StartWatcher, start_workload: Callable[..., Any]
) -> None:
    """The memory that was charged before `watch` began is in the start sample."""
    before = start_workload(memcg, "anon", str(5 << 20))
    assert (before.advance(), before.advance()) == ("start", "done anon")
    watcher = start_watcher("-c", str(memcg))
    workload = start_workload(memcg, "anon", str(13 << 20), "then", "shmem", str(3 << 20))
    assert [workload.advance() for _ in range(3)][-1] == "done shmem"
    before.process.kill()
    before.process.wait()
    settle(memcg)
    watcher.send(signal.SIGUSR1)
    path = watcher.wait_for_trace()
    watcher.stop()
    trace = tracer.open(path)
    assert trace.meta["history"]["reason"] == "request"
    assert lost_records(trace) == {}
    assert ledger_bytes(trace, cgroup_id(memcg))["shmem"] == 3 << 20
    assert differences(trace, cgroup_id(memcg)) == {}


@pytest.mark.beside
def test_ledger_of_a_trace_that_begins_later_than_watch_equals_memory_stat(
    memcg: Path, start_watcher: StartWatcher, start_workload: Callable[..., Any]
) -> None:
    """Rows that have left the history are in the start sample."""
    watcher = start_watcher("-c", str(memcg), "--keep", f"{KEEP_S:.0f}s", setup=KEEP_LESS)
    began_ns = time.time_ns()
    first = start_workload(memcg, "anon", str(7 << 20), "then", "shmem", str(3 << 20))
    assert [first.advance() for _ in range(3)][-1] == "done shmem"
    end_s = time.monotonic() + KEEP_S + 6
    while time.monotonic() < end_s:  # rows are dropped while others come
        more = start_workload(memcg, "--pause-ms", "100", "anon", str(4 << 20))
        assert (more.advance(), more.advance()) == ("start", "done anon")
        more.process.kill()
        more.process.wait()
    settle(memcg)
    watcher.send(signal.SIGUSR1)
    path = watcher.wait_for_trace()
    watcher.stop()
    trace = tracer.open(path)
    of_cgroup = trace.samples[trace.samples["cgroup_id"] == cgroup_id(memcg)]
    starts = of_cgroup[of_cgroup["source"] == "start"]
    assert len(trace.charge), "all rows were dropped before the trace began"
    assert trace.charge.index[0].value > began_ns + 1e9, "no row was dropped, so the test proves nothing"
    assert starts["shmem_bytes"].tolist() == [3 << 20]
    assert differences(trace, cgroup_id(memcg)) == {}


def test_verdict_is_that_of_a_recording_of_the_same_kill(
    limited: Path,
    tmp_path: Path,
    disk_dir: Path,
    start_watcher: StartWatcher,
    start_workload: Callable[..., Any],
) -> None:
    write_uncached(disk_dir / "file", FILE_BYTES)
    watcher = start_watcher("-c", str(limited), is_soon_quiet=True)
    (tmp_path / "recording").mkdir()
    with Recorder(tmp_path / "recording", "--ready-file", "ready", "-c", str(limited)) as recorder:
        recorder.wait_until_ready()
        work = start_workload(
            limited, "--pause-ms", "5", "read", str(disk_dir / "file"), "then", "anon", str(2 * LIMIT_BYTES)
        )
        assert [work.advance() for _ in range(3)] == ["start", "done read", ""]
        (line,) = watcher.wait_for_lines()
        recorded = tracer.open(recorder.stop())
    watched = tracer.open(watcher.traces[0])
    (one,), (other,) = recorded.explain(), watched.explain()
    assert one.verdict.cause == other.verdict.cause
    assert without_times(one.verdict.summary) == without_times(other.verdict.summary)
    assert line == f"{path_of(limited)}: {other.verdict.summary} {watcher.traces[0]}"
    watcher.stop()


def test_kills_that_follow_each_other_are_one_trace(
    limited: Path, tmp_path: Path, start_watcher: StartWatcher
) -> None:
    watcher = start_watcher("-c", str(limited), "--json")
    kill_in(limited, tmp_path, kills=2)
    (line,) = watcher.wait_for_lines()
    told = json.loads(line)
    assert told["kills"] == 2
    assert len(tracer.open(told["trace"]).oom) == 2
    assert watcher.stop() == [line]
    assert watcher.traces == [Path(told["trace"])]


@pytest.mark.beside
def test_signals_ask_for_a_trace_and_for_the_cost_and_a_hangup_for_nothing(
    memcg: Path, start_watcher: StartWatcher
) -> None:
    watcher = start_watcher("-c", str(memcg), "--json", is_soon_quiet=True)
    watcher.send(signal.SIGHUP)
    watcher.send(signal.SIGUSR2)
    watcher.wait_for(lambda: "cost: " in watcher.stderr)
    *_, ready, cost = watcher.stderr.splitlines()
    assert f"traces go to {watcher.directory}" in ready
    assert re.fullmatch(
        r"memcg-tracer: cost: \d+\.\d\d % of a CPU, programs .*, \d+ MiB resident; "
        r"history: the last \d+ s in \d+\.\d MiB",
        cost,
    )
    assert (watcher.traces, watcher.lines) == ([], [])
    watcher.send(signal.SIGUSR1)
    path = watcher.wait_for_trace()
    (line,) = watcher.wait_for_lines()
    told = json.loads(line)
    assert (told["trace"], told["reason"], told["kills"]) == (str(path), "request", 0)
    assert (told["cgroup"], told["cause"]) == (None, None)
    assert watcher.stop() == [line]


@pytest.mark.beside
def test_second_watch_on_a_directory_is_refused(memcg: Path, start_watcher: StartWatcher) -> None:
    watcher = start_watcher("-c", str(memcg))
    refused = subprocess.run(
        [sys.executable, "-m", "tracer", "watch", "--out", str(watcher.directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == (
        f"memcg-tracer: error: {watcher.directory} is being written by the watch with pid "
        f"{watcher.process.pid}: stop that one first, or choose another place\n"
    )
    watcher.stop()


def test_trace_of_a_killed_watch_is_completed_by_the_next(
    limited: Path, tmp_path: Path, start_watcher: StartWatcher
) -> None:
    watcher = start_watcher("-c", str(limited), "--json")
    kill_in(limited, tmp_path)
    path = watcher.wait_for_trace()
    watcher.kill()
    assert not is_complete(path)
    assert len(tracer.open(path).explain()) == 1
    following = start_watcher("-c", str(limited), "--json", folder=watcher.folder)
    (line,) = following.wait_for_lines()
    told = json.loads(line)
    assert (told["trace"], told["reason"], told["kills"]) == (str(path), "kill", 1)
    assert (told["cause"], told["cgroup"]) == ("anon_growth", path_of(limited))
    assert is_complete(path)
    assert read_meta(path)["rows"] is not None
    assert following.stop() == [line]
    assert following.traces == [path]


@pytest.mark.beside
def test_command_gets_the_path_of_a_complete_trace(memcg: Path, start_watcher: StartWatcher) -> None:
    command = 'sh -c \'ls "$2" >$1.new && echo "$2" >>$1.new && mv $1.new $1\' - got'
    watcher = start_watcher("-c", str(memcg), "--exec", command, is_soon_quiet=True)
    watcher.send(signal.SIGUSR1)
    path = watcher.wait_for_trace()
    got = watcher.folder / "got"
    watcher.wait_for(got.exists)
    *files, last = got.read_text().splitlines()
    assert last == str(path)
    assert "meta.json" in files
    assert layout.JOURNAL not in files
    watcher.stop()


@pytest.mark.beside
def test_limit_that_is_hit_leaves_a_trace_if_that_is_asked_for(
    limited: Path, disk_dir: Path, start_watcher: StartWatcher, start_workload: Callable[..., Any]
) -> None:
    write_uncached(disk_dir / "file", FILE_BYTES)
    watcher = start_watcher("-c", str(limited), "--on", "limit", "--json", is_soon_quiet=True)
    work = start_workload(limited, "--pause-ms", "5", "read", str(disk_dir / "file"))
    assert (work.advance(), work.advance()) == ("start", "done read")
    (line,) = watcher.wait_for_lines()
    told = json.loads(line)
    assert (told["reason"], told["kills"], told["cgroup"]) == ("limit", 0, path_of(limited))
    assert told["summary"]
    assert f"memcg-tracer: {path_of(limited)}: " in watcher.stderr
    watcher.stop()


def test_sigkill_that_is_not_the_oom_killers_leaves_a_trace_if_that_is_asked_for(
    limited: Path, start_watcher: StartWatcher
) -> None:
    watcher = start_watcher("-c", str(limited), "--on", "sigkill", "--json", is_soon_quiet=True)
    command = f"echo 0 > {limited}/cgroup.procs; kill -KILL $$"
    killed = subprocess.Popen(["bash", "-c", command])
    assert killed.wait() == -signal.SIGKILL
    (line,) = watcher.wait_for_lines()
    told = json.loads(line)
    assert (told["reason"], told["kills"], told["cgroup"]) == ("sigkill", 0, path_of(limited))
    assert told["summary"].startswith(f"Not an OOM kill: bash (pid {killed.pid}) sent SIGKILL to itself.")
    assert f"memcg-tracer: SIGKILL to bash (pid {killed.pid}) in " in watcher.stderr
    trace = tracer.open(told["trace"])
    assert trace.sigkills["tgid"].tolist() == [killed.pid]
    watcher.stop()


@pytest.mark.beside
def test_too_little_memory_is_refused_with_the_least(tmp_path: Path, memcg: Path) -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "tracer", "watch", "--out", str(tmp_path / "traces"),
         "-c", str(memcg), "--max-memory", "20M", "--ready-file", str(tmp_path / "ready")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (refused.returncode, refused.stdout) == (2, "")
    assert re.fullmatch(
        r"memcg-tracer: error: --max-memory is too little: the recorder itself takes \d+ MiB; "
        r"give at least \d+M",
        refused.stderr.splitlines()[-1],
    )
    assert not (tmp_path / "ready").exists()


def test_end_of_watch_ends_the_story_and_explains_its_trace(
    limited: Path, tmp_path: Path, start_watcher: StartWatcher
) -> None:
    watcher = start_watcher("-c", str(limited), "--json")
    kill_in(limited, tmp_path)
    path = watcher.wait_for_trace()
    (line,) = watcher.stop()
    assert json.loads(line)["cause"] == "anon_growth"
    assert is_complete(path)
    assert "SIGTERM" in (read_meta(path)["end_reason"] or "")
    assert os.listdir(watcher.directory) == [path.name]  # noqa: PTH208  also hidden names


@pytest.mark.vm_once
def test_kill_at_the_limit_of_a_parent_has_its_cause_at_once(
    limited: Path, tmp_path: Path, start_watcher: StartWatcher
) -> None:
    """The kernel's counters of a parent lag, so that its composition follows from the levels and changes
    below it. One of these cgroups was made before `watch` began, the other one after."""
    watcher = start_watcher("-c", str(limited), "--json")
    below = limited / "below"
    below.mkdir()
    try:
        kill_in(below, tmp_path)
        watcher.wait_for(lambda: watcher.kills)
    finally:
        below.rmdir()
    (kill,) = watcher.kills
    assert (kill["cgroup"], kill["cause"]) == (path_of(limited), "anon_growth")
    watcher.stop()


@pytest.mark.beside
def test_child_of_first_verdicts_is_there_from_the_start_if_memory_allows(
    memcg: Path, start_watcher: StartWatcher
) -> None:
    def judges(watcher: Watcher) -> bool:
        listed = Path(f"/proc/{watcher.process.pid}/task/{watcher.process.pid}/children").read_text().split()
        commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in listed]
        return any(b"tracer.watch.judging" in command for command in commands)

    roomy = start_watcher("-c", str(memcg), "--max-memory", "256M")
    roomy.wait_for(lambda: judges(roomy))  # early in exec, /proc/PID/cmdline is empty for a moment
    assert not judges(start_watcher("-c", str(memcg)))
