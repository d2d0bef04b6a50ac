"""A kill of the whole machine: the traced cgroups are ranked by what they held, and charged lately."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from support.evidence import numbers_of
from support.huge_pages import WHOLE_MACHINE, huge_pages_of
from support.recorder import WITHIN_S

import tracer
from tracer.analysis.explain.measure.findings import LATELY_NS
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.kernel.meminfo import meminfo_bytes

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.vm_once,
    pytest.mark.skipif(not WHOLE_MACHINE, reason="takes all memory of the machine (a guest of tests/vm)"),
]

MIB: Final = 1 << 20
STEADY_MIB: Final = 211
LATE_MIB: Final = 37
INTERPRETER_MIB: Final = 16
LEFT_BYTES: Final = 384 * MIB
"""What the machine has for the growing process, page cache included."""

HOLD: Final = """
import sys
memory = bytearray(int(sys.argv[1]) << 20)
memory[::4096] = b"x" * len(memory[::4096])
print("held", flush=True)
sys.stdin.readline()
"""
GROW: Final = """
import mmap, sys
open("/proc/self/oom_score_adj", "w").write("1000")
mmap.mmap(-1, int(sys.argv[1]) << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
"""
"""It needs no page of its program while it grows. One that does reads these pages again and again without
swap, while reclaim takes them, and the kill comes minutes later."""


def start(memcg: Path, program: str, mib: int, **popen: Any) -> subprocess.Popen[bytes]:
    enter = f'echo 0 > "{memcg}/cgroup.procs" && exec "$0" "$@"'
    return subprocess.Popen(["sh", "-c", enter, sys.executable, "-S", "-c", program, str(mib)], **popen)


@pytest.fixture
def hold() -> Iterator[Callable[[Path, int], None]]:
    """Return a function that has a process of a cgroup hold so many MiB until the end of the test."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(memcg: Path, mib: int) -> None:
        process = start(memcg, HOLD, mib, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def test_traced_cgroups_are_ranked_at_a_kill_of_the_machine(
    hold: Callable[[Path, int], None], start_recorder: Callable[..., Any]
) -> None:
    with ExitStack() as made:
        steady, late, growing = (
            made.enter_context(ephemeral_cgroup(name, None)) for name in ("steady", "late", "growing")
        )
        recorder = start_recorder("-c", str(steady), "-c", str(late), "-c", str(growing))
        hold(steady, STEADY_MIB)
        time.sleep(1.1 * LATELY_NS / 1e9)
        made.enter_context(huge_pages_of(meminfo_bytes()["MemAvailable"] - LEFT_BYTES))
        begun = {"late": time.monotonic()}
        hold(late, LATE_MIB)
        kernel = meminfo_bytes()
        begun["growing"] = time.monotonic()
        grower = start(growing, GROW, 2 * LEFT_BYTES // MIB)
        assert grower.wait(WITHIN_S) == -9
        took_ns = {name: (time.monotonic() - begin) * 1e9 for name, begin in begun.items()}
        trace = tracer.open(recorder.stop())
        paths = {memory_hierarchy().path(one): one.name.rpartition("-")[2] for one in (steady, late, growing)}
    (report,) = trace.explain()
    assert (report.constraint, report.verdict.cause) == ("global", "global_pressure")
    (victim,) = report.victims
    assert victim.pid == grower.pid
    (found,) = numbers_of(report.verdict.evidence, "machine_holders")
    held = {paths[one["cgroup"]]: (one["held_bytes"], one["charged_bytes"]) for one in found["cgroups"]}
    assert held.keys() == {"steady", "late", "growing"}
    assert list(held.values()) == sorted(held.values(), reverse=True)
    for name, mib in (("steady", STEADY_MIB), ("late", LATE_MIB)):
        assert mib <= held[name][0] // MIB <= mib + INTERPRETER_MIB
    assert abs(held["steady"][1]) < MIB
    for name in begun:  # on a slow machine a part was charged earlier
        assert held[name][0] == held[name][1] or took_ns[name] > LATELY_NS
    assert max(held, key=lambda name: held[name][1]) == "growing"
    assert victim.anon_rss_bytes is not None
    assert 0 <= held["growing"][0] - victim.anon_rss_bytes <= INTERPRETER_MIB * MIB
    assert "-growing first" in report.advice[0]
    # The kernel log lists the processes of the machine, traced or not.
    assert report.quality.kmsg == "matched"
    listed = {one.pid for one in report.candidates}
    assert listed > {grower.pid, recorder.process.pid}
    (machine,) = numbers_of(report.verdict.evidence, "machine_memory")
    assert (machine["usable_bytes"], machine["hugetlb_bytes"]) == (kernel["MemTotal"], kernel["Hugetlb"])
    assert machine["anon_bytes"] >= victim.anon_rss_bytes + (STEADY_MIB + LATE_MIB) * MIB
    named = sum(size for name, size in machine.items() if name not in ("usable_bytes", "shmem_bytes"))
    assert 0.9 * machine["usable_bytes"] < named <= machine["usable_bytes"]
    assert "kept for huge pages (hugetlb)" in report.verdict.summary
    assert any(line.startswith("Lower vm.nr_hugepages") for line in report.advice)
