"""The peak of usage of a cgroup that lived, between two readings of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from support.memcg_files import read_columns

import tracer
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy

pytestmark = pytest.mark.kernel

BURSTS_MIB: Final = (3, 7, 5)
MIB: Final = 1 << 20
BURST = """
import mmap, sys
for mib in sys.argv[1:]:
    mmap.mmap(-1, int(mib) << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()
"""
"""Script that touches and frees so many MiB, one after the other, each within a time slice."""


def test_peak_between_two_readings_is_the_kernels(memcg: Path, start_recorder: Callable[..., Any]) -> None:
    recorder = start_recorder("-c", str(memcg))
    enter = f'echo 0 > "{memcg}/cgroup.procs" && exec "$0" "$@"'
    bursts = map(str, BURSTS_MIB)
    subprocess.run(["sh", "-c", enter, sys.executable, "-c", BURST, *bursts], check=True)
    counted = read_columns(memcg, memory_hierarchy().version)["peak_bytes"]
    (held,) = tracer.open(recorder.stop()).held_cgroups()
    assert counted is not None and counted > max(BURSTS_MIB) * MIB
    assert held.peak_usage_bytes == counted
    assert held.peak_anon_bytes is not None and held.peak_anon_bytes <= counted
