"""The number of kills, compared with the kernel's own count: memory.events, on v1 memory.oom_control."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pytest
from support.memcg_files import read_columns
from workloads import crash_loop, dying_at_limit

import tracer
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup

pytestmark = pytest.mark.kernel

LIMIT_BYTES: Final = 48 << 20
DYING: Final = 5
KILLED: Final = 7
STORM: Final = """
import os, signal, sys
open(sys.argv[1] + "/cgroup.procs", "w").write("0")
while True:
    if len([*map(int, open(f"/proc/self/task/{os.getpid()}/children").read().split())]) >= int(sys.argv[2]):
        os.wait()
    elif os.fork() == 0:
        open("/proc/self/oom_score_adj", "w").write("1000")
        held = []
        while True:
            held.append(b"x" * (65536 + len(held)))
"""
IN_STORM: Final = 16
LEAST_KILLS: Final = 9


@pytest.fixture
def limited() -> Iterator[Path]:
    with ephemeral_cgroup("kernel-count", LIMIT_BYTES, 0) as directory:
        yield directory


def start(workload: Any, memcg: Path, amount: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, workload.__file__, str(memcg), str(amount)])


def counted(memcg: Path) -> int:
    count = read_columns(memcg, memory_hierarchy().version)["oom_kill_events"]
    assert count is not None
    return count


@pytest.mark.vm
def test_tasks_that_were_dying_are_no_kills(limited: Path, start_recorder: Callable[..., Any]) -> None:
    """Tasks that SIGKILL had ended reach the limit, alone and while others are killed for it."""
    recorder = start_recorder("-c", str(limited))
    dies_at = 4 * LIMIT_BYTES
    for _ in range(DYING):
        assert start(dying_at_limit, limited, dies_at).wait() == 0
    assert start(crash_loop, limited, KILLED).wait() == 0
    loop = start(crash_loop, limited, KILLED)
    for _ in range(DYING):
        assert start(dying_at_limit, limited, dies_at).wait() == 0
    assert loop.wait() == 0
    kernel_count = counted(limited)
    trace = tracer.open(recorder.stop())

    assert kernel_count >= 2 * KILLED
    assert len(trace.oom) == kernel_count
    assert len(trace.oom["tgid"].unique()) == kernel_count
    assert f", {kernel_count} OOM kills" in recorder.stderr
    assert len(trace.explain()) == trace.oom["kill_id"].nunique()


def test_trace_that_ends_in_a_storm_of_forks_has_the_kills_until_its_end(
    limited: Path, start_recorder: Callable[..., Any]
) -> None:
    recorder = start_recorder("-c", str(limited))
    readings: list[tuple[int, int]] = []
    is_over = threading.Event()

    def read() -> None:
        while not is_over.wait(0.002):
            begin_ns = time.time_ns()  # before the reading: the kernel had counted no more by then
            readings.append((begin_ns, counted(limited)))

    reader = threading.Thread(target=read)
    storm = subprocess.Popen(
        [sys.executable, "-S", "-c", STORM, str(limited), str(IN_STORM)], start_new_session=True
    )
    try:
        reader.start()
        while counted(limited) < LEAST_KILLS:
            time.sleep(0.01)
        path = recorder.stop()
    finally:
        is_over.set()
        reader.join()
        os.killpg(storm.pid, signal.SIGKILL)
        storm.wait()
    trace = tracer.open(path)
    ended_ns = pd.Timestamp(str(trace.meta["ended"])).value
    by_the_end = max(count for begin_ns, count in readings if begin_ns <= ended_ns)
    # The kernel counts a kill before it marks the task; one kill at a time can be between the two.
    assert by_the_end - 2 <= len(trace.oom) <= counted(limited)
    assert by_the_end < readings[-1][1], "the kills went on while the recorder finished"
