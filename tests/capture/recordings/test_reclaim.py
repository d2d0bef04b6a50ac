"""Reclaim attempts: target, acting task, and kind."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import tracer
from tracer.analysis.explain.survivors import held_cgroups
from tracer.analysis.trace import AnalysedTrace
from tracer.kernel.cgroups.cgroupfs import cgroup_id, memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.render.words import survivor_facts

pytestmark = [pytest.mark.kernel]

FILE_BYTES = 13 << 20
ASKED_BYTES = 5 << 20
LIMIT_BYTES = 20 << 20
HOLE_BYTES = 300 << 20
COMPETITORS = 2


@pytest.mark.beside
@pytest.mark.vm
def test_reclaim_on_request_is_proactive(
    memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    """A process of another cgroup writes to memory.reclaim, or memory.force_empty on v1."""
    version = memory_hierarchy().version
    if version == 2 and not (memcg / "memory.reclaim").exists():
        pytest.skip("needs memory.reclaim (5.19)")
    path = disk_dir / "cached"
    path.write_bytes(os.urandom(FILE_BYTES))
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    recorder = start_recorder("-c", str(memcg))
    enter = f'echo 0 > "{memcg}/cgroup.procs" && exec cat "{path}"'
    subprocess.run(["sh", "-c", enter], stdout=subprocess.DEVNULL, check=True)
    with suppress(OSError):  # EAGAIN: less than the requested amount was freed
        if version == 2:
            (memcg / "memory.reclaim").write_text(str(ASKED_BYTES), encoding="ascii")
        else:
            (memcg / "memory.force_empty").write_text("0", encoding="ascii")
    trace = tracer.open(recorder.stop())

    attempts = trace.reclaim[trace.reclaim["cgroup_id"] == cgroup_id(memcg)]
    assert set(attempts["kind"]) == {"proactive"}
    assert set(attempts["tgid"]) == {os.getpid()}
    assert cgroup_id(memcg) not in set(attempts["task_cgroup_id"])
    assert set(attempts["target_source"]) == {"named"}
    freed = trace.pagecache[(trace.pagecache["op"] == "delete") & (trace.pagecache["tgid"] == os.getpid())]
    assert set(freed["cause"]) == {"reclaim_memcg"}
    assert set(freed["cgroup_id"]) == {cgroup_id(memcg)}
    least_bytes = ASKED_BYTES if version == 2 else 0.9 * FILE_BYTES
    assert freed["nr_pages"].sum() * os.sysconf("SC_PAGESIZE") >= 0.9 * least_bytes
    assert attempts["reclaimed"].sum() >= freed["nr_pages"].sum()


@pytest.mark.beside
@pytest.mark.vm
@pytest.mark.parametrize("file", ["memory.max", "memory.high"])
def test_limit_written_below_usage_evicts_on_request(
    file: str, memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    """A process of another cgroup lowers a limit from twice the usage to half of it."""
    version = memory_hierarchy().version
    if version == 1 and file == "memory.high":
        pytest.skip("needs memory.high (cgroup v2)")
    limit = memcg / (file if version == 2 else "memory.limit_in_bytes")
    path = disk_dir / "cached"
    path.write_bytes(os.urandom(FILE_BYTES))
    with path.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    limit.write_text(str(2 * FILE_BYTES), encoding="ascii")
    recorder = start_recorder("-c", str(memcg))
    enter = f'echo 0 > "{memcg}/cgroup.procs" && exec cat "{path}"'
    subprocess.run(["sh", "-c", enter], stdout=subprocess.DEVNULL, check=True)
    limit.write_text(str(FILE_BYTES // 2), encoding="ascii")
    trace = tracer.open(recorder.stop())

    attempts = trace.reclaim[trace.reclaim["cgroup_id"] == cgroup_id(memcg)]
    assert set(attempts["kind"]) == {"proactive"}
    assert set(attempts["tgid"]) == {os.getpid()}
    (one,) = held_cgroups(AnalysedTrace(recorder.path))
    assert one.evicted_on_request_bytes == one.evicted_bytes >= 0.45 * FILE_BYTES
    (lowered,) = one.lowered
    assert (lowered.file, lowered.limit_bytes) == (file, 2 * FILE_BYTES)
    assert abs(lowered.new_bytes - FILE_BYTES // 2) < resource.getpagesize()
    assert FILE_BYTES <= lowered.usage_bytes <= 1.3 * FILE_BYTES
    facts = dict(survivor_facts.in_brief(one))
    assert " of page cache, on request (" in facts["evicted"]
    assert ", lowered from 26 MiB while " in facts["memory.high" if file == "memory.high" else "limit"]


def test_cpu_time_of_reclaim_has_no_waits_for_a_cpu(
    disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    """A reader of a sparse file reclaims all the time, and shares its CPU with two processes that spin."""
    with (disk_dir / "hole").open("wb") as file:
        file.truncate(HOLE_BYTES)
    cpu = min(os.sched_getaffinity(0))
    spin = [sys.executable, "-c", f"import os\nos.sched_setaffinity(0, [{cpu}])\nwhile True: pass"]
    competitors = [subprocess.Popen(spin) for _ in range(COMPETITORS)]
    try:
        with ephemeral_cgroup("shared-cpu", LIMIT_BYTES, None) as memcg:
            recorder = start_recorder("-c", str(memcg))
            before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_stime
            enter = f'echo 0 > "{memcg}/cgroup.procs" && exec taskset -c {cpu} cat "{disk_dir / "hole"}"'
            subprocess.run(["sh", "-c", enter], stdout=subprocess.DEVNULL, check=True)
            system_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_stime - before
            trace = tracer.open(recorder.stop())
    finally:
        for competitor in competitors:
            competitor.kill()
            competitor.wait()
    attempts = trace.reclaim[trace.reclaim["task_cgroup_id"] == trace.reclaim["cgroup_id"]]
    cpu_s, took_s = attempts["cpu_ns"].sum() / 1e9, attempts["duration_ns"].sum() / 1e9
    assert 0.1 * system_s < cpu_s < 1.1 * system_s
    assert took_s > 1.5 * cpu_s
