"""Kills of processes with many threads, of which several reach the limit before they end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from support.memcg_files import read_columns
from workloads import many_threads

import tracer
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup

pytestmark = pytest.mark.kernel

LIMIT_BYTES: Final = 48 << 20
THREADS: Final = 131
PROCESSES: Final = 3


@pytest.fixture
def memcg() -> Iterator[Path]:
    with ephemeral_cgroup("threads", LIMIT_BYTES, 0) as directory:
        yield directory


def test_killed_process_with_many_threads_is_one_kill(
    memcg: Path, start_recorder: Callable[..., Any]
) -> None:
    recorder = start_recorder("-c", str(memcg))
    program = [sys.executable, many_threads.__file__, str(memcg), str(THREADS)]
    processes = []
    for _ in range(PROCESSES):  # one after the other
        processes.append(subprocess.Popen(program))
        assert processes[-1].wait() == -9
    counted = read_columns(memcg, memory_hierarchy().version)["oom_kill_events"]
    trace = tracer.open(recorder.stop())

    assert counted == PROCESSES
    assert trace.oom["tgid"].tolist() == [process.pid for process in processes]
    assert [len(report.victims) for report in trace.explain()] == [1] * PROCESSES
