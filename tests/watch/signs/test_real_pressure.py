"""`watch --psi` with real waits: of a cgroup whose tasks sleep above memory.high."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from support.watcher import Watcher

import tracer
from tracer.kernel.cgroups.cgroupfs import cgroup_id, memory_hierarchy

pytestmark = [pytest.mark.kernel, pytest.mark.alone, pytest.mark.vm_once, pytest.mark.timeout(180)]

HIGH_BYTES: Final = 24 << 20
ABOVE_BYTES: Final = 13 << 20
PERCENT: Final = 30


def full_s(memcg: Path) -> float:
    """Return the time for which all tasks of a cgroup have waited for memory."""
    (total_us,) = re.findall(r"^full .*total=(\d+)$", (memcg / "memory.pressure").read_text(), re.MULTILINE)
    return int(total_us) / 1e6


@pytest.mark.skipif(memory_hierarchy().version == 1, reason="needs cgroup v2: v1 has no pressure of a cgroup")
def test_waits_above_memory_high_leave_a_trace_with_the_time_that_the_kernel_counted(
    memcg: Path, start_watcher: Callable[..., Watcher], start_workload: Callable[..., Any]
) -> None:
    (memcg / "memory.high").write_text(str(HIGH_BYTES), encoding="ascii")
    watcher = start_watcher("-c", str(memcg), "--psi", str(PERCENT))
    workload = start_workload(memcg, "anon", str(HIGH_BYTES + ABOVE_BYTES))
    assert workload.advance() == "start"
    before_s = full_s(memcg)
    workload.release()
    path = watcher.wait_for_trace()
    after_s = full_s(memcg)
    told = re.search(
        rf"{re.escape(memcg.name)}: All tasks waited for memory at the same time for (\S+ m?s) \((\d+) %\)",
        watcher.stderr,
    )
    assert told is not None, watcher.stderr
    number, unit = told[1].split()
    waited_s = float(number) / (1000 if unit == "ms" else 1)
    assert int(told[2]) >= PERCENT
    assert waited_s >= PERCENT / 100 * 10 - 0.05  # of 10 s, and the sentence rounds
    assert waited_s <= after_s - before_s + 0.05
    watcher.stop()
    trace = tracer.open(path)
    assert trace.meta["history"]["reason"] == "pressure"
    of_cgroup = trace.samples[trace.samples["cgroup_id"] == cgroup_id(memcg)]["psi_full_total_us"].dropna()
    assert waited_s - 0.05 <= (of_cgroup.max() - of_cgroup.min()) / 1e6
