"""A recorder at rest: it hardly runs, and the first event wakes it in time."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

import tracer
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup

pytestmark = [pytest.mark.kernel, pytest.mark.alone]

StartRecording = Callable[..., Any]  # conftest.py

MAY_BE_LOST_S = 0.25
TO_COME_TO_REST_S = 2.5  # a process that was just seen has its command line read again after a second
WATCHED_S = 1.0
MOST_WAKES_A_SECOND = 25.0  # samples and looks are 10 a second

MADE = 50

# Each act happens after a line on stdin, and is reported with a line.
ACTS = """
import mmap, os, sys
sys.stdin.readline()
if sys.argv[1] == "anon":
    area = mmap.mmap(-1, 64 << 12, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for page in range(64):
        area[page << 12] = 1
else:
    with open(sys.argv[2], "wb") as file:
        file.write(bytes(64 << 12))
print("done", flush=True)
sys.stdin.readline()
"""


def wakes(pid: int) -> int:
    """Return how often the main thread of a process has waited."""
    status = Path(f"/proc/{pid}/task/{pid}/status").read_text()
    (count,) = re.findall(r"^voluntary_ctxt_switches:\s+(\d+)$", status, re.MULTILINE)
    return int(count)


@contextmanager
def waiting_process(cgroup: Path, act: str, file: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a process in a cgroup that waits for a line before its act."""
    enter = f'echo 0 > "{cgroup}/cgroup.procs" && exec "$0" "$@"'
    command = ["sh", "-c", enter, sys.executable, "-c", ACTS, act, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.vm
def test_first_event_after_a_rest_is_in_the_trace_of_a_killed_recorder(
    start_recording: StartRecording, disk_dir: Path, tmp_path: Path
) -> None:
    """One recorder for each kind of event, at the same time: the waiting takes longest."""
    file = disk_dir / "file"
    traces = {act: tmp_path / f"of-{act}" for act in ("anon", "file")}
    with ExitStack() as stack:
        processes, recordings = {}, {}
        for act, trace in traces.items():
            cgroup = stack.enter_context(ephemeral_cgroup(f"rest-{act}", None))
            processes[act] = stack.enter_context(waiting_process(cgroup, act, file))
            ready = tmp_path / f"ready-{act}"
            options = ("-c", cgroup.name, "--ready-file", ready, "-o", trace)
            recordings[act] = start_recording(*options, output=False)
            recordings[act].wait_for(ready.exists)
        time.sleep(TO_COME_TO_REST_S)  # the test is about a time without events
        before = {act: wakes(recording.process.pid) for act, recording in recordings.items()}
        time.sleep(WATCHED_S)
        for act, recording in recordings.items():
            assert wakes(recording.process.pid) - before[act] < MOST_WAKES_A_SECOND * WATCHED_S
        for process in processes.values():
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"
        time.sleep(MAY_BE_LOST_S * float(os.environ.get("MEMCG_TRACER_SLOWDOWN", "1")))
        for recording in recordings.values():
            recording.process.send_signal(signal.SIGKILL)
            recording.process.wait()
    charge = tracer.open(traces["anon"]).charge
    assert charge.loc[charge["category"] == "anon", "pages"].sum() >= 64
    pagecache = tracer.open(traces["file"]).pagecache
    # metadata of the file system may be read as well, into the cache of its device
    is_of_file = (pagecache["op"] == "add") & (pagecache["ino"] == file.stat().st_ino)
    assert pagecache.loc[is_of_file, "nr_pages"].sum() == 64


def test_cgroups_that_are_not_traced_do_not_wake_the_recorder(
    memcg: Path, start_recording: StartRecording, tmp_path: Path
) -> None:
    """A host that starts a job every few milliseconds makes as many cgroups."""
    ready, trace = tmp_path / "ready", tmp_path / "trace"
    with ephemeral_cgroup("rest-jobs", None) as others:
        path = memory_hierarchy().path(memcg)
        recording = start_recording("-c", path, "--ready-file", ready, "-o", trace, output=False)
        recording.wait_for(ready.exists)
        time.sleep(TO_COME_TO_REST_S)
        before = wakes(recording.process.pid)
        for number in range(MADE):
            job = others / f"job-{number}"
            job.mkdir()
            time.sleep(0.005)  # the rate is what the test is about
            job.rmdir()
            time.sleep(0.005)
        assert wakes(recording.process.pid) - before < MADE
        recording.process.send_signal(signal.SIGINT)
        assert recording.process.wait() == 0
    assert tracer.open(trace).loss.empty
