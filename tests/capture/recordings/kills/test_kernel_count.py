"""The number of kills, compared with the kernel's own count: memory.events, on v1 memory.oom_control."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from support.memcg_files import read_columns
from workloads import crash_loop, dying_at_limit

import tracer
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup

pytestmark = [pytest.mark.kernel, pytest.mark.vm]

LIMIT_BYTES: Final = 48 << 20
DYING: Final = 5
KILLED: Final = 7


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
