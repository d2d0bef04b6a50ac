"""The cgroups beside a kill, and the time before the killed one was made."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.evidence import numbers_of
from support.recorder import WITHIN_S

from tracer.analysis.trace import AnalysedTrace
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup

pytestmark = pytest.mark.kernel

MIB = 1 << 20
STEADY_MIB = 61
CALM_S = 3.0
HOLD = """
import sys
memory = bytearray(int(sys.argv[1]) << 20)
memory[::4096] = b"x" * len(memory[::4096])
print("held", flush=True)
sys.stdin.readline()
"""
GROW = """
import sys
open("/proc/self/oom_score_adj", "w").write("1000")
memory = []
while True:
    memory.append(b"x" * (1 << 20))
"""


@contextmanager
def holding(memcg: Path, mib: int) -> Iterator[None]:
    """Hold that much memory in a cgroup."""
    process = started(memcg, HOLD, str(mib), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield
    finally:
        process.kill()
        process.communicate()


def started(memcg: Path, program: str, *arguments: str, **popen: Any) -> subprocess.Popen[bytes]:
    enter = f'echo 0 > "{memcg}/cgroup.procs" && exec "$0" "$@"'
    return subprocess.Popen(["sh", "-c", enter, sys.executable, "-S", "-c", program, *arguments], **popen)


def test_young_cgroup_is_killed_while_an_older_one_is_spared(
    memcg: Path, start_recorder: Callable[..., Any]
) -> None:
    """The window of the young cgroup begins when it was made, not when the trace began."""
    name = f"memcg-tracer-{os.getpid()}-young"
    recorder = start_recorder("-c", str(memcg), "-c", name)
    with holding(memcg, STEADY_MIB):
        time.sleep(CALM_S)
        made_s = time.monotonic()
        with ephemeral_cgroup("young", 23 * MIB, 0, memory_hierarchy()) as young:
            assert young.name == name
            assert started(young, GROW).wait(WITHIN_S) == -9
        age_s = time.monotonic() - made_s
    trace = AnalysedTrace(recorder.stop())
    (report,) = trace.explain()
    assert report.limit_owner.cgroup == f"/{name}"
    spans = numbers_of(report.verdict.evidence, "growth")
    assert spans
    assert all(0 < one["span_ns"] < age_s * 1e9 for one in spans)
    assert all(one["calm_ns"] < age_s * 1e9 for one in numbers_of(report.verdict.contributing, "burst"))
    (spared,) = trace.spared_cgroups([report])
    assert spared.cgroup == f"/{memcg.name}"
    assert STEADY_MIB <= (spared.peak_usage_bytes or 0) // MIB <= STEADY_MIB + 16
