"""Checks of the minimum limit, with work that is killed or slow below limits known beforehand."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tracer.analysis.results.kill import Sizing
from tracer.analysis.results.quality import Quality
from tracer.lab import resize
from tracer.lab.experiments import EXPERIMENTS, Experiment
from tracer.lab.resize import (
    Clock,
    Rerun,
    limited,
    read_again_bytes,
    refaulted_bytes,
    rerun,
    time_of,
    verify,
)
from tracer.lab.scratch import write_uncached

MIB = 1 << 20
DEMAND_BYTES = 67 * MIB
"""It is killed below this."""
COMFORTABLE_BYTES = 74 * MIB
"""It takes longer below this."""


def known(limits: tuple[int, int | None] | None) -> Any:
    unknown = {} if limits else {"sizing.min_limit_bytes": "it leaks"}
    victims = (SimpleNamespace(cgroup="/lab/child"),)
    return SimpleNamespace(
        cgroup="/lab", victims=victims, sizing=Sizing(limits), quality=Quality(0, "missing", {}, unknown)
    )


def trace_of(kill: Any = None, life: Any = None) -> Any:
    lived = [] if life is None else [life]
    killed = [] if kill is None else [kill]
    return SimpleNamespace(
        explain=lambda: killed, held_cgroups=lambda: lived, meta={"filters": {"cgroups": ["/lab"]}}
    )


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """Return the list of limits of all runs of such work."""
    limits: list[int | None] = []

    def run(_: Experiment, limit_bytes: int | None, __: Path, patience_s: float | None = None) -> Rerun:
        limits.append(limit_bytes)
        if limit_bytes is not None and limit_bytes < DEMAND_BYTES:
            return Rerun(-9, 1, 0.7)
        if limit_bytes is not None and limit_bytes < COMFORTABLE_BYTES:
            return Rerun(0, 0, 1.21) if patience_s is None else Rerun(None, 0, patience_s)
        return Rerun(0, 0, 1.19 if limit_bytes else 1.0)

    monkeypatch.setattr(resize, "rerun", run)
    return limits


@pytest.mark.parametrize(
    ("limits", "passed"),
    [
        ((67 * MIB, 74 * MIB), [True, True, True]),
        ((90 * MIB, 99 * MIB), [True, True, True]),  # at 72 MiB it is slower
        ((50 * MIB, 66 * MIB), [True, False, True]),  # it is killed
        ((50 * MIB, 73 * MIB), [True, False, True]),  # it takes too long
        ((93 * MIB, 99 * MIB), [True, True, False]),  # it would have been as fast with less
        (None, [False]),
    ],
)
def test_minimum_limit_is_true_if_both_ends_agree(
    tmp_path: Path, runs: list[int | None], limits: tuple[int, int] | None, passed: list[bool]
) -> None:
    checks = list(verify(EXPERIMENTS["anon"], trace_of(life=known(limits)), tmp_path, 3))
    assert [check.passed for check in checks] == passed
    if limits is None:
        assert checks[0].detail == "it leaks"
    else:
        assert runs == [None, limits[1]] * 3 + [limits[0] * 80 // 100] * 3
        lived = 3 if limits[1] >= COMFORTABLE_BYTES else 0
        assert checks[1].detail.startswith(f"{lived} of 3 at ")


def test_work_that_fails_without_a_limit_decides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resize, "rerun", lambda *_: Rerun(1, 0, 1.0))
    checks = list(verify(EXPERIMENTS["anon"], trace_of(life=known((MIB, 2 * MIB))), tmp_path, 1))
    assert [check.passed for check in checks] == [True, False]
    assert checks[1].name == "the work ends well without a limit"


def test_resize_of_a_kill_records_a_surviving_run(
    tmp_path: Path, runs: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[int] = []

    def record(experiment: Experiment, _: Path, output: Path, *, force: bool) -> Path:
        recorded.append(experiment.limit_bytes)
        return output

    monkeypatch.setattr(resize, "record", record)
    monkeypatch.setattr(resize, "AnalysedTrace", lambda _: trace_of(life=known((66 * MIB, 78 * MIB))))
    checks = list(verify(EXPERIMENTS["anon"], trace_of(kill=known((50 * MIB, 90 * MIB))), tmp_path, 1))
    assert [check.passed for check in checks] == [True] * 6
    assert recorded == [90 * MIB]
    assert runs == [None, 90 * MIB, 40 * MIB, None, 78 * MIB, 66 * MIB * 80 // 100]


def test_kill_without_an_upper_end_is_checked_at_the_lower_one(
    tmp_path: Path, runs: list[int | None]
) -> None:
    checks = list(verify(EXPERIMENTS["anon"], trace_of(kill=known((60 * MIB, None))), tmp_path, 2))
    assert [check.passed for check in checks] == [True] * 2
    assert checks[0].detail == "more than 60 MiB"
    assert runs == [None] * 2 + [48 * MIB] * 2


def test_work_does_the_same_steps_with_and_without_a_limit() -> None:
    commands = []
    for limit_bytes in (None, 46 * MIB):
        work, of_the_cgroup = limited(EXPERIMENTS["throttle"], limit_bytes)
        assert of_the_cgroup is None
        commands.append(work.command(Path()))
    without, with_limit = commands
    at = with_limit.index("high") + 1
    assert int(with_limit[at]) == 46 * MIB < int(without[at])
    assert without[:at] + without[at + 1 :] == with_limit[:at] + with_limit[at + 1 :]
    assert limited(EXPERIMENTS["anon"], 46 * MIB) == (EXPERIMENTS["anon"], 46 * MIB)


POLICY_OF_A_CHILD = """
import os, sys
child = os.fork()
if not child:
    os._exit(os.sched_getscheduler(0))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


class AsksForItsPolicy(Experiment):
    """Work whose exit status is the scheduling policy of its child."""

    def command(self, place: Path) -> list[str]:
        return [sys.executable, "-c", POLICY_OF_A_CHILD]


@pytest.mark.parametrize(
    ("limit_mib", "again"), [(40, 300 * mmap.PAGESIZE), (41, 300 * mmap.PAGESIZE), (43, 0)]
)
def test_work_below_its_limit_read_nothing_again_for_it(tmp_path: Path, limit_mib: int, again: int) -> None:
    (tmp_path / "memory.peak").write_text(f"{40 << 20}\n")
    (tmp_path / "memory.high").write_text("max\n")
    (tmp_path / "memory.stat").write_text("anon 0\n")
    assert refaulted_bytes(tmp_path, 2, limit_mib << 20) is None
    (tmp_path / "memory.stat").write_text("workingset_refault_file 300\n")
    assert refaulted_bytes(tmp_path, 2, limit_mib << 20) == again
    assert refaulted_bytes(tmp_path, 2, None) == 0
    (tmp_path / "memory.high").write_text(f"{40 << 20}\n")
    assert refaulted_bytes(tmp_path, 2, limit_mib << 20) == 300 * mmap.PAGESIZE


@pytest.mark.kernel
@pytest.mark.skipif(os.getpriority(os.PRIO_PROCESS, 0) > 0, reason="a positive nice value is kept")
def test_children_of_timed_work_have_real_time_scheduling(disk_dir: Path) -> None:
    work = AsksForItsPolicy("policy", "", None, lambda _: [])
    assert rerun(work, None, disk_dir).status == os.SCHED_RR
    assert rerun(work, None, disk_dir, is_timed=False).status == os.SCHED_OTHER


@pytest.mark.parametrize(
    ("refaulted", "read", "first", "again"),
    [
        (3 * MIB, 90 * MIB, 40 * MIB, 50 * MIB),
        (60 * MIB, 90 * MIB, 40 * MIB, 60 * MIB),
        (3 * MIB, 30 * MIB, 40 * MIB, 3 * MIB),
        (3 * MIB, None, 40 * MIB, 3 * MIB),
        (3 * MIB, 90 * MIB, None, 3 * MIB),
        (None, 90 * MIB, 40 * MIB, 50 * MIB),
        (None, None, None, None),
    ],
)
def test_what_was_read_again_is_the_greater_count(
    refaulted: int | None, read: int | None, first: int | None, again: int | None
) -> None:
    run, with_room = Rerun(0, 0, 1.0, refaulted, read), Rerun(0, 0, 1.0, 0, first)
    assert read_again_bytes(run, with_room) == again
    assert read_again_bytes(run, replace(with_room, status=None)) == refaulted
    assert read_again_bytes(run, replace(with_room, kills=1)) == refaulted


READS_A_FILE = """
import os, subprocess, sys
path, times = sys.argv[1], int(sys.argv[2])
if times:
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 20): pass
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    raise SystemExit(subprocess.call([sys.executable, "-c", sys.argv[3], path, str(times - 1), sys.argv[3]]))
"""


class ReadsAFile(Experiment):
    """Work that reads a file twice, the second time in a child. Nothing is left of the first time, as if the
    kernel had forgotten the file."""

    def command(self, place: Path) -> list[str]:
        return [sys.executable, "-c", READS_A_FILE, str(place / "read-me"), "2", READS_A_FILE]


@contextmanager
def file_of_7_mib(scratch: Path) -> Iterator[Path]:
    write_uncached(scratch / "read-me", 7 * MIB)
    yield scratch


@pytest.mark.kernel
def test_reading_again_is_counted_where_the_kernel_forgot_the_pages(disk_dir: Path) -> None:
    run = rerun(ReadsAFile("reads", "", None, lambda _: [], prepare=file_of_7_mib), 64 * MIB, disk_dir)
    assert (run.status, run.refaulted_bytes) == (0, 0)
    assert run.read_bytes is not None and run.read_bytes >= 14 * MIB  # and Python, if it was not in memory
    assert read_again_bytes(run, replace(run, read_bytes=7 * MIB)) == run.read_bytes - 7 * MIB


SPIN = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
while time.process_time() < float(sys.argv[2]):
    pass
"""


@contextmanager
def spin(cpu: int, seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", SPIN, str(cpu), str(seconds)]) as process:
        try:
            yield process
        finally:
            process.kill()


def test_time_of_work_has_no_waits_for_a_cpu() -> None:
    """Two processes have one CPU, so each waits for half of the time."""
    cpu = min(os.sched_getaffinity(0))
    with spin(cpu, 3600):
        begin = time.monotonic()
        with spin(cpu, 0.6) as process:
            clock = Clock(process.pid)
            took_s = time_of(process, clock, None)
            wall_s = time.monotonic() - begin
            assert process.poll() == 0
    assert 0.3 <= took_s < 0.8 * wall_s


def test_time_of_work_ends_with_patience() -> None:
    looks: list[None] = []
    with spin(min(os.sched_getaffinity(0)), 3600) as process:
        assert time_of(process, Clock(process.pid), 0.2, lambda: looks.append(None)) > 0.2
        assert looks
        assert process.poll() is None


def test_clock_stands_still_during_a_wait_for_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel counts the wait when it is over."""
    now_s, ran_ns, queued_s, is_runnable = 100.0, 0, 3.0, True
    monkeypatch.setattr(resize, "scheduled", lambda _pid: (ran_ns, queued_s))
    monkeypatch.setattr(resize, "is_runnable", lambda _pid: is_runnable)
    monkeypatch.setattr(resize, "time", SimpleNamespace(monotonic=lambda: now_s))
    clock = Clock(1)
    now_s, ran_ns = 101.0, 1_000_000_000
    assert clock.seconds() == 1.0
    now_s = 109.0  # it waits
    assert clock.seconds() == 1.0
    now_s, queued_s, ran_ns = 110.0, 11.5, 1_500_000_000
    assert clock.seconds() == 1.5
    now_s, is_runnable = 112.0, False  # it sleeps
    assert clock.seconds() == 3.5
