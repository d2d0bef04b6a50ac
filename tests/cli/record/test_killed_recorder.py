"""SIGKILL of a busy recorder at any moment: what it had recorded is there, but for the last 250 ms."""

from __future__ import annotations

import mmap
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import tracer
from tracer.schema import TABLES
from tracer.trace.reader import Trace

pytestmark = pytest.mark.kernel

StartRecording = Callable[..., Any]  # conftest.py

MAY_BE_LOST_NS = 250_000_000
MOST_PAGES = 1 << 20
NUMBERED_WORK = Path(__file__).with_name("numbered_work.py")


@dataclass
class NumberedWork:
    """A process that goes on adding page after page to one file's page cache.

    `written_ns[n]` is when page n came to be written (CLOCK_MONOTONIC), 0 while it was not.
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


@pytest.mark.timeout(300)
def test_at_twenty_moments(
    start_recording: StartRecording, memcg: Path, numbered_work: NumberedWork, tmp_path: Path
) -> None:
    written_ns, checked = numbered_work.written_ns, 0
    for round_number in range(20):
        ready = tmp_path / f"ready-{round_number}"
        recording = start_recording("-f", "-c", memcg.name, "--ready-file", ready)
        recording.wait_for(ready.exists)
        begin_ns = time.monotonic_ns()
        time.sleep(random.uniform(0, 1))  # the moment itself is what is tried here
        killed_ns = time.monotonic_ns()
        recording.process.send_signal(signal.SIGKILL)
        recording.process.wait()

        trace = Trace(recording.path)
        assert trace.interrupted
        for table in TABLES:
            assert trace.table(table).num_rows == trace.rows(table)
        pagecache = tracer.open(recording.path).pagecache
        added = pagecache[(pagecache["ino"] == numbered_work.inode) & (pagecache["op"] == "add")]
        assert (added["nr_pages"] == 1).all()
        pages = np.sort(added["index"].to_numpy())
        due = np.flatnonzero((begin_ns <= written_ns) & (written_ns < killed_ns - MAY_BE_LOST_NS))
        assert not np.isin(due, pages, invert=True).any(), f"round {round_number}: pages are missing"
        assert (np.diff(pages) == 1).all(), f"round {round_number}: a hole, or something is there twice"
        assert recording.processes() == []
        checked += len(due)
    assert checked > 1000


@pytest.mark.parametrize("round_number", range(3))
def test_a_kill_that_was_seen_is_there(
    start_recording: StartRecording, tmp_path: Path, round_number: int
) -> None:
    grow = "x = bytearray(b'x') * (40 << 20)"
    script = 'for i in 1 2 3; do "$0" -S -c "$1"; done; sleep 1000'
    options = ["--limit", "20M", "--swap", "0", "--", "sh", "-c", script, sys.executable, grow]
    recording = start_recording(*options)
    seen: list[int] = []
    while len(seen) <= round_number:
        line = recording.process.stderr.readline().decode()
        assert line, "it ended by itself"
        if "OOM kill: " in line:
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
