"""SIGKILL of a busy recorder at any moment: the trace lacks at most the last 250 ms."""

from __future__ import annotations

import mmap
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import tracer
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.schema import TABLES
from tracer.trace.read.reader import Trace

pytestmark = pytest.mark.kernel

StartRecording = Callable[..., Any]  # conftest.py

MAY_BE_LOST_NS = 250_000_000
MOST_PAGES = 1 << 20
NUMBERED_WORK = Path(__file__).parents[3] / "workloads/numbered_work.py"
KILLED_WORK = Path(__file__).parents[3] / "workloads/killed_work.py"
KILLS_MAY_BE_LOST_NS = 50_000_000
MOST_KILLS = 1 << 14
BUSY = 30
BUSY_FROM_STOP = "kill -STOP $$; while :; do :; done"
ROUNDS_UNDER_LOAD = int(os.environ.get("MEMCG_TRACER_ROUNDS_UNDER_LOAD", "2"))


@dataclass
class NumberedWork:
    """A file to whose page cache a process adds page after page.

    `written_ns[n]` is the time before the write of page n (CLOCK_MONOTONIC), or 0 before that.
    """

    inode: int
    written_ns: npt.NDArray[np.uint64]


@pytest.fixture
def numbered_work(memcg: Path, disk_dir: Path) -> Iterator[NumberedWork]:
    times = disk_dir / "times"
    with times.open("xb+") as file:
        file.truncate(MOST_PAGES * 8)
        written_ns = np.frombuffer(mmap.mmap(file.fileno(), 0), "<u8")
    (disk_dir / "pages").touch()
    enter = f'echo 0 > "{memcg}/cgroup.procs" && exec "$0" "$@"'
    command = [sys.executable, str(NUMBERED_WORK), str(disk_dir / "pages"), str(times)]
    with subprocess.Popen(["sh", "-c", enter, *command]) as process:
        try:
            yield NumberedWork((disk_dir / "pages").stat().st_ino, written_ns)
        finally:
            process.kill()


def killed_after(recording: Any, ready: Path, wait_s: float) -> tuple[int, int]:
    """Kill the recorder `wait_s` after it is ready; return both times (CLOCK_MONOTONIC, in ns)."""
    recording.wait_for(ready.exists)
    begin_ns = time.monotonic_ns()
    time.sleep(wait_s)  # the test is about the moment of the kill, so no event is awaited
    killed_ns = time.monotonic_ns()
    recording.process.send_signal(signal.SIGKILL)
    recording.process.wait()
    return begin_ns, killed_ns


def has_bpf_object(pid: int) -> bool:
    """Return whether a process has a BPF map, program or link."""
    with suppress(FileNotFoundError):  # closed meanwhile
        return any(
            fd.readlink().name.startswith("anon_inode:bpf") for fd in Path(f"/proc/{pid}/fd").iterdir()
        )
    return False


def missing_pages(trace: Path, work: NumberedWork, begin_ns: int, end_ns: int) -> tuple[int, int]:
    """Return the number of pages written in this time, and how many of them the trace lacks.

    The pages in the trace must be consecutive.
    """
    pagecache = tracer.open(trace).pagecache
    added = pagecache[(pagecache["ino"] == work.inode) & (pagecache["op"] == "add")]
    assert (added["nr_pages"] == added["folios"]).all()
    runs = zip(added["index"], added["nr_pages"], strict=True)
    pages = np.array(sorted(page for index, pages in runs for page in range(index, index + pages)), int)
    assert (np.diff(pages) == 1).all(), "a page is missing between others, or is there twice"
    due = np.flatnonzero((begin_ns <= work.written_ns) & (work.written_ns < end_ns))
    return len(due), int(np.isin(due, pages, invert=True).sum())


@pytest.mark.beside
@pytest.mark.timeout(300)
def test_recorder_killed_at_ten_moments_leaves_a_trace(
    start_recording: StartRecording, memcg: Path, numbered_work: NumberedWork, tmp_path: Path
) -> None:
    checked = 0
    for round_number in range(10):
        ready = tmp_path / f"ready-{round_number}"
        recording = start_recording("-f", "-c", memcg.name, "--ready-file", ready)
        begin_ns, killed_ns = killed_after(recording, ready, random.uniform(0, 1))

        trace = Trace(recording.path)
        assert trace.interrupted
        for table in TABLES:
            assert trace.table(table).num_rows == trace.rows(table)
        end_ns = killed_ns - MAY_BE_LOST_NS
        due, missing = missing_pages(recording.path, numbered_work, begin_ns, end_ns)
        assert missing == 0, f"round {round_number}: pages are missing"
        assert recording.processes() == []
        checked += due
    assert checked > 500


class Load:
    """Processes of normal priority, so many that each mostly waits for a CPU; they begin stopped."""

    def __init__(self) -> None:
        self._processes = [subprocess.Popen(["sh", "-c", BUSY_FROM_STOP]) for _ in range(BUSY)]

    def __enter__(self) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGCONT)

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


@pytest.fixture
def load() -> Iterator[Load]:
    with closing(Load()) as load:
        yield load


@dataclass
class Work:
    """Pages that are written one by one, and processes that are killed one by one, each with its time.

    A row of `kills` is (pid, start, end), in ns of CLOCK_MONOTONIC.
    """

    pages: NumberedWork
    kills: npt.NDArray[np.uint64]
    cgroups: tuple[str, str]


@pytest.fixture
def work(memcg: Path, numbered_work: NumberedWork, tmp_path: Path) -> Iterator[Work]:
    record = tmp_path / "kills"
    with record.open("xb+") as file:
        file.truncate(MOST_KILLS * 24)
        kills = np.frombuffer(mmap.mmap(file.fileno(), 0), "<u8").reshape(-1, 3)
    preferred = ["nice", "-n", "-10"]  # so that each round has kills, and their times are recorded soon
    with ephemeral_cgroup("kills", 20 << 20, 0) as killing:
        command = [*preferred, sys.executable, str(KILLED_WORK), str(killing), str(record)]
        with subprocess.Popen(command) as process:
            try:
                yield Work(numbered_work, kills, (memcg.name, killing.name))
            finally:
                process.kill()


@pytest.mark.alone
@pytest.mark.timeout(600)
def test_recorder_killed_soon_after_ready_under_load_has_all_older_rows(
    start_recording: StartRecording, work: Work, tmp_path: Path, load: Load
) -> None:
    """No page older than 250 ms and no kill older than 50 ms is lost.

    The load begins with the first BPF object of the recorder, whose imports take three seconds under it.
    """
    pages = kills = 0
    for round_number in range(ROUNDS_UNDER_LOAD):
        ready = tmp_path / f"ready-{round_number}"
        options = ["-f", *(word for name in work.cgroups for word in ("-c", name)), "--ready-file", ready]
        recording = start_recording(*options)
        recording.wait_for(lambda pid=recording.process.pid: has_bpf_object(pid))
        assert not ready.exists()
        with load:
            begin_ns, killed_ns = killed_after(recording, ready, random.uniform(0.4, 1.4))
        end_ns = killed_ns - MAY_BE_LOST_NS
        due, missing = missing_pages(recording.path, work.pages, begin_ns, end_ns)
        pids, began_ns, over_ns = work.kills.T
        is_between = (begin_ns <= began_ns) & (over_ns < killed_ns - KILLS_MAY_BE_LOST_NS)
        over = set(pids[is_between & (pids > 0)].tolist())
        unseen = over - set(tracer.open(recording.path).oom["pid"])
        ages_ms = [(killed_ns - int(over)) / 1e6 for pid, _, over in work.kills if int(pid) in unseen]
        assert (missing, ages_ms) == (0, []), f"round {round_number}, of {due} pages, {len(over)} kills"
        pages, kills = pages + due, kills + len(over)
    assert pages > 100
    assert kills > 0


@pytest.mark.parametrize("round_number", range(3))
def test_kill_before_sigkill_of_the_recorder_is_in_the_trace(
    start_recording: StartRecording, tmp_path: Path, round_number: int
) -> None:
    grow = "x = bytearray(b'x') * (40 << 20)"
    script = 'for i in 1 2 3; do "$0" -S -c "$1"; done; sleep 1000'
    options = ["--limit", "20M", "--swap", "0", "--", "sh", "-c", script, sys.executable, grow]
    recording = start_recording(*options)
    seen: list[int] = []
    while len(seen) <= round_number:
        line = recording.process.stderr.readline().decode()
        assert line, "the recorder ended before the kill"
        if "OOM kill in " in line:
            seen.append(int(line.split("(pid ")[1].split(")")[0]))
    recording.process.send_signal(signal.SIGKILL)
    recording.process.wait()
    trace = tracer.open(recording.path)
    assert Trace(recording.path).interrupted
    assert trace.oom["pid"].tolist()[: len(seen)] == seen
    assert set(trace.samples["source"]) >= {"start", "oom"}
    if trace.meta["kernel_log"] == "read":
        logged = "\n".join(trace.kernel_log["text"])
        assert [pid for pid in seen if f"Killed process {pid} " not in logged] == []
    assert len(trace.explain()) >= len(seen)
