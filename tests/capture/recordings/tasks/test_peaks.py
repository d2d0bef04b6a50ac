"""The peak of usage of a cgroup that lived, whose memory is charged to cgroups below it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from support.memcg_files import read_columns

from tracer.analysis.trace import AnalysedTrace
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy

pytestmark = pytest.mark.kernel

BURSTS_MIB: Final = (3, 7, 5)
PROCESSES: Final = 3
MIB: Final = 1 << 20
BURST = """
import mmap, sys
for mib in sys.argv[1:]:
    mmap.mmap(-1, int(mib) << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()
"""
"""Script that touches and frees so many MiB, one after the other, each within a time slice."""


def test_peak_of_a_cgroup_above_is_the_kernels(memcg: Path, start_recorder: Callable[..., Any]) -> None:
    """Its counter is read at samples only: the peak is between two of them."""
    hierarchy = memory_hierarchy()
    if hierarchy.version == 2:
        (memcg / "cgroup.subtree_control").write_text("+memory", encoding="ascii")
    below = memcg / "below"
    below.mkdir()
    recorder = start_recorder("-c", str(memcg))
    enter = f'echo 0 > "{below}/cgroup.procs" && exec "$0" "$@"'
    command = ["sh", "-c", enter, sys.executable, "-c", BURST, *map(str, BURSTS_MIB)]
    processes = [subprocess.Popen(command) for _ in range(PROCESSES)]
    assert [process.wait() for process in processes] == [0] * PROCESSES
    counted = read_columns(memcg, hierarchy.version)["peak_bytes"]
    trace = AnalysedTrace(recorder.stop())
    below.rmdir()
    above = next(one for one in trace.held_cgroups() if not one.cgroup.endswith("/below"))
    assert counted is not None and counted > max(BURSTS_MIB) * MIB
    assert above.peak_usage_bytes == counted
    assert above.peak_anon_bytes is not None and above.peak_anon_bytes <= counted
