"""A recorder at rest: it hardly runs, and the first event wakes it in time."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tracer

pytestmark = [pytest.mark.kernel, pytest.mark.vm]

StartRecording = Callable[..., Any]  # conftest.py

MAY_BE_LOST_S = 0.25
TO_COME_TO_REST_S = 2.5  # a process that was just seen has its command line read again after a second
WATCHED_S = 2.0
MOST_WAKES_A_SECOND = 25.0  # samples and looks are 10 a second; awake it drains 100 times

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


@pytest.mark.parametrize("act", ["anon", "file"])
def test_first_event_after_a_rest_is_in_the_trace_of_a_killed_recorder(
    start_recording: StartRecording, memcg: Path, disk_dir: Path, tmp_path: Path, act: str
) -> None:
    ready = tmp_path / "ready"
    enter = f'echo 0 > "{memcg}/cgroup.procs" && exec "$0" "$@"'
    command = ["sh", "-c", enter, sys.executable, "-c", ACTS, act, str(disk_dir / "file")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        recording = start_recording("-c", memcg.name, "--ready-file", ready)
        recording.wait_for(ready.exists)
        time.sleep(TO_COME_TO_REST_S)  # the test is about a time without events
        before = wakes(recording.process.pid)
        time.sleep(WATCHED_S)
        assert wakes(recording.process.pid) - before < MOST_WAKES_A_SECOND * WATCHED_S
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"
        time.sleep(MAY_BE_LOST_S * float(os.environ.get("MEMCG_TRACER_SLOWDOWN", "1")))
        recording.process.send_signal(signal.SIGKILL)
        recording.process.wait()
        process.kill()
    trace = tracer.open(recording.path)
    if act == "anon":
        charged = trace.charge[trace.charge["category"] == "anon"]
        assert charged["pages"].sum() >= 64
    else:
        added = trace.pagecache[trace.pagecache["op"] == "add"]
        # metadata of the file system may be read as well, into the cache of its device
        assert added.loc[added["ino"] == (disk_dir / "file").stat().st_ino, "nr_pages"].sum() == 64
