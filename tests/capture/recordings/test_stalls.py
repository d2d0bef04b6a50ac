"""Stalls and swap I/O: provoked, and compared with the kernel's own counts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tracer.analysis.trace import AnalysedTrace
from tracer.kernel.cgroups.cgroupfs import cgroup_id, memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.render.words import survivor_facts
from tracer.schema import UNLIMITED_BYTES
from tracer.units import size

pytestmark = pytest.mark.kernel

LIMIT_BYTES = 24 << 20
ANON_BYTES = 43 << 20
SWAP_BYTES = 64 << 20
GROWS_BYTES = 17 << 20
ABOVE_HIGH_BYTES = 3 << 20
"""What a workload ends above memory.high with: the kernel lets it sleep for about 5 s."""
PAGE = os.sysconf("SC_PAGESIZE")
VMSTAT = Path("/proc/vmstat")
TOUCH_TWICE = """
import mmap, sys
area = mmap.mmap(-1, int(sys.argv[1]))
for value in (1, 2):
    for page in range(0, len(area), mmap.PAGESIZE):
        area[page] = value
"""
READ_DIRECTLY = """
import mmap, os, sys
into = mmap.mmap(-1, 1 << 20)
file = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
while os.readv(file, [into]):
    pass
"""


def do_in(memcg: Path, *program: str) -> None:
    enter = f'echo 0 > "{memcg}/cgroup.procs" && exec "$0" "$@"'
    subprocess.run(["sh", "-c", enter, sys.executable, "-c", *program], check=True)


def touch_twice(memcg: Path, size_bytes: int) -> None:
    do_in(memcg, TOUCH_TWICE, str(size_bytes))


def swapped_pages(counts: Path) -> dict[str, int]:
    """Return `pswpout` and `pswpin` of /proc/vmstat or of a memory.stat; only some v2 kernels have the
    latter.
    """
    counted = dict(line.split() for line in counts.read_text(encoding="ascii").splitlines())
    return {name: int(counted[name]) for name in ("pswpout", "pswpin") if name in counted}


@pytest.mark.vm_once
def test_direct_reads_into_anonymous_memory_are_not_swap_io(
    memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    """O_DIRECT reads into anonymous memory, as swap-ins do; other reads fill the page cache."""
    (disk_dir / "file").write_bytes(bytes(3 << 20))
    recorder = start_recorder("-c", str(memcg))
    do_in(memcg, READ_DIRECTLY, str(disk_dir / "file"))
    trace = AnalysedTrace(recorder.stop())
    assert trace.swap_io.empty
    assert trace.meta["probes"]["swap IO"]["meaning"] == "exact"


def compresses() -> bool:
    """Return whether swapped pages go to zswap, from where they may never be written."""
    enabled = Path("/sys/module/zswap/parameters/enabled")
    return enabled.exists() and enabled.read_text(encoding="ascii").strip() == "Y"


@pytest.mark.vm_once
@pytest.mark.usefixtures("swap")
def test_swap_io_and_waits_equal_the_kernels_counts(start_recorder: Callable[..., Any]) -> None:
    before, begun_ns = swapped_pages(VMSTAT), time.monotonic_ns()
    with ephemeral_cgroup("swapped", LIMIT_BYTES, SWAP_BYTES) as memcg:
        recorder = start_recorder("-c", str(memcg))
        touch_twice(memcg, ANON_BYTES)
        trace = AnalysedTrace(recorder.stop())
        of_the_cgroup, owner = swapped_pages(memcg / "memory.stat"), cgroup_id(memcg)
    of_the_machine, took_ns = swapped_pages(VMSTAT), time.monotonic_ns() - begun_ns
    assert set(trace.swap_io["cgroup_id"]) == {owner}
    over = trace.swap_io[trace.swap_io["duration_ns"].notna()]
    assert over["duration_ns"].between(1, took_ns).all()
    for op, counter in (("write", "pswpout"), ("read", "pswpin")):
        of_op = trace.swap_io[trace.swap_io["op"] == op]
        pages = int(of_op["nr_pages"].sum())
        assert pages <= of_the_machine[counter] - before[counter]
        if counter in of_the_cgroup and trace.loss.empty:
            assert pages == of_the_cgroup[counter]
        if (
            not compresses()
        ):  # no page is all zeros, so each was written, and its write ended before the page was freed
            assert over[over["op"] == op]["nr_pages"].sum() >= (ANON_BYTES - LIMIT_BYTES) // PAGE
            assert owner in set(of_op["task_cgroup_id"])
    written = int(trace.reclaim["written_anon"].sum())
    swapped = trace.charge[trace.charge["category"] == "swap"]
    out_pages = int(swapped[swapped["pages"] > 0]["pages"].sum())
    assert written >= (ANON_BYTES - LIMIT_BYTES) // PAGE
    assert out_pages >= (ANON_BYTES - LIMIT_BYTES) // PAGE
    waits = trace.stalls[trace.stalls["kind"] == "swap_in"]
    if trace.meta["probes"]["swap-in"]["meaning"] == "absent":
        assert waits.empty
        return
    assert len(waits) >= (ANON_BYTES - LIMIT_BYTES) // PAGE // 16
    assert (waits["duration_ns"] > 0).all()


@pytest.mark.vm_once
def test_memory_high_throttling_is_a_stall(memcg: Path, start_recorder: Callable[..., Any]) -> None:
    if memory_hierarchy().version == 1:
        pytest.skip("needs cgroup v2: v1 has no memory.high")
    (memcg / "memory.high").write_text(str(LIMIT_BYTES), encoding="ascii")
    recorder = start_recorder("-c", str(memcg))
    touch_twice(memcg, LIMIT_BYTES + (3 << 20))
    trace = AnalysedTrace(recorder.stop())
    attempts = trace.reclaim[trace.reclaim["cgroup_id"] == cgroup_id(memcg)]
    assert set(attempts["kind"]) == {"memcg"}
    waits = trace.stalls[trace.stalls["kind"] == "high"]
    if trace.meta["probes"]["memory.high"]["meaning"] == "absent":
        assert waits.empty
        return
    assert len(waits) >= 1
    # A task some MiB above memory.high sleeps up to 2 s each time (MEMCG_MAX_HIGH_DELAY_JIFFIES).
    assert 0 < waits["duration_ns"].max() <= 60_000_000_000


@pytest.fixture
def pods() -> Iterator[dict[str, Path]]:
    """Make two cgroups, each with one below it."""
    with ExitStack() as made:
        parents = {name: made.enter_context(ephemeral_cgroup(name, None)) for name in ("traced", "untraced")}
        for parent in parents.values():
            (parent / "cgroup.subtree_control").write_text("+memory", encoding="ascii")
            (parent / "work").mkdir()
        yield parents


def unreclaimable_bytes(memcg: Path) -> int:
    """Return the memory of a cgroup that reclaim cannot free without swap."""
    counted = dict(line.split() for line in (memcg / "memory.stat").read_text(encoding="ascii").splitlines())
    return sum(int(counted[name]) for name in ("anon", "kernel_stack", "pagetables", "slab_unreclaimable"))


@pytest.mark.vm
@pytest.mark.skipif(memory_hierarchy().version == 1, reason="needs cgroup v2: v1 has no memory.high")
def test_memory_high_of_a_cgroup_above_is_named_for_the_tasks_that_it_slows(
    pods: dict[str, Path], start_workload: Callable[..., Any], start_recorder: Callable[..., Any]
) -> None:
    """Of a cgroup that is not traced, the value is known, and the name is not."""
    work = {name: parent / "work" for name, parent in pods.items()}
    workloads = {name: start_workload(cgroup, "anon", str(GROWS_BYTES)) for name, cgroup in work.items()}
    for name, workload in workloads.items():
        assert workload.advance() == "start"
        high_bytes = unreclaimable_bytes(work[name]) + GROWS_BYTES - ABOVE_HIGH_BYTES
        (pods[name] / "memory.high").write_text(str(high_bytes), encoding="ascii")
    recorder = start_recorder("-c", str(pods["traced"]), "-c", str(work["untraced"]))
    for workload in workloads.values():
        workload.release()
    for workload in workloads.values():
        assert workload.process.stdout is not None
        assert workload.process.stdout.readline() == "done anon\n"
    trace = AnalysedTrace(recorder.stop())
    hooked = trace.meta["probes"]["memory.high"]["meaning"] != "absent"
    for name, cgroup in work.items():
        (held,) = trace.held_cgroups(memory_hierarchy().path(cgroup))
        high_bytes = int((pods[name] / "memory.high").read_text(encoding="ascii"))
        assert held.effective_high_bytes == high_bytes
        assert held.high_bytes == UNLIMITED_BYTES
        assert held.high_owner is not None
        is_traced = name == "traced"
        assert held.high_owner.cgroup == (memory_hierarchy().path(pods[name]) if is_traced else None)
        assert held.high_owner.is_ancestor
        assert held.high_owner.high_bytes == high_bytes
        assert (held.high_owner.high_events or 0) > 0 or not is_traced
        if hooked:
            assert held.progress.state == "throttled"
            said = survivor_facts.summary([held])
            assert f"an ancestor of {held.cgroup}, " in said
            assert f" above its memory.high of {size(high_bytes)}" in said
