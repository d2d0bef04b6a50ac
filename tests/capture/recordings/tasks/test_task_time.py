"""The CPU time of cgroups, and the programs of processes, compared with the kernel's own account."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from workloads import busy_in_turn

import tracer
from tracer.kernel.cgroups.cgroupfs import cgroup_id, memory_hierarchy

pytestmark = [pytest.mark.kernel, pytest.mark.alone]

TICK_NS = 10_000_000
BUSY_S = 0.4


def start_work(*cgroups: Path, busy_s: float = BUSY_S) -> subprocess.Popen[str]:
    """Start a process that works for as long in each of the cgroups, and prints its run time in each."""
    command = [sys.executable, "-S", busy_in_turn.__file__, str(busy_s), *map(str, cgroups)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


WITHOUT_LEADER = """
import ctypes, os, threading, time
def work():
    time.sleep(0.3)
    print(time.monotonic_ns(), flush=True)
    os._exit(0)
open(os.environ["CGROUP"] + "/cgroup.procs", "w").write("0")
threading.Thread(target=work).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def test_process_ends_with_its_last_thread(memcg: Path, start_recorder: Callable[..., Any]) -> None:
    recorder = start_recorder("-c", str(memcg))
    with subprocess.Popen(
        [sys.executable, "-c", WITHOUT_LEADER],
        env=os.environ | {"CGROUP": str(memcg)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        ended_ns = int(process.stdout.readline())
    trace = tracer.open(recorder.stop())
    (exited,) = trace.tasks.loc[trace.tasks["tgid"] == process.pid, "exited"]
    clock = trace.meta["clock"]  # a step of CLOCK_REALTIME meanwhile does not move the times of a trace
    assert 0 <= exited.value - clock["realtime_ns"] + clock["monotonic_ns"] - ended_ns < 1_000_000_000


def usage_ns(cgroup: Path) -> int | None:
    """Return the CPU time of a cgroup by the kernel's own account, in ns; None: v1 has it elsewhere."""
    if memory_hierarchy().version == 1:
        return None
    lines = map(str.split, (cgroup / "cpu.stat").read_text(encoding="ascii").splitlines())
    return 1000 * int(dict(lines)["usage_usec"])


@contextmanager
def child_cgroup(memcg: Path, name: str = "child") -> Iterator[Path]:
    if memory_hierarchy().version == 2:
        (memcg / "cgroup.subtree_control").write_text("+memory", encoding="ascii")
    child = memcg / name
    child.mkdir()
    try:
        yield child
    finally:
        child.rmdir()


@pytest.mark.vm
def test_task_time_of_each_cgroup_is_its_tasks_run_time(
    memcg: Path, start_recorder: Callable[..., Any]
) -> None:
    """The time of two cgroups in turn, and of two processes at a time, on one or more CPUs."""
    with child_cgroup(memcg) as child, child_cgroup(memcg, "other") as other:
        recorder = start_recorder("-c", str(memcg))
        workers = [start_work(other, child), start_work(child, other)]
        told = [[int(line) for line in worker.communicate()[0].split()] for worker in workers]
        ids = cgroup_id(other), cgroup_id(child)
        counted = usage_ns(other), usage_ns(child)
        trace = tracer.open(recorder.stop())
    expected = told[0][0] + told[1][1], told[0][1] + told[1][0]
    spent = trace.task_time.groupby("cgroup_id")["cpu_ns"].sum()
    for number, least_ns, usage in zip(ids, expected, counted, strict=True):
        # In a slow guest, the moves and the end of the interpreter take long, which no worker prints.
        assert spent[number] >= least_ns - 4 * TICK_NS
        assert spent[number] == pytest.approx(least_ns if usage is None else usage, abs=4 * TICK_NS)
    rows = trace.task_time.reset_index()
    assert (rows["begin"] < rows["time"]).all()
    cpus = len(os.sched_getaffinity(0))
    assert (rows["cpu_ns"] <= cpus * ((rows["time"] - rows["begin"]).astype("int64") + 2 * TICK_NS)).all()
    assert trace.loss.empty


def test_task_time_of_a_removed_cgroup_is_complete(memcg: Path, start_recorder: Callable[..., Any]) -> None:
    recorder = start_recorder("-c", str(memcg))
    with child_cgroup(memcg) as child:
        number = cgroup_id(child)
        worker = start_work(child, busy_s=0.1)
        told = int(worker.communicate()[0])
    time.sleep(0.5)
    again = memcg / "again"
    again.mkdir()
    again.rmdir()
    trace = tracer.open(recorder.stop())
    spent = trace.task_time.groupby("cgroup_id")["cpu_ns"].sum()
    assert spent[number] == pytest.approx(told, abs=2 * TICK_NS)
    assert set(spent.index) <= set(trace.cgroups["cgroup_id"])


def test_exec_changes_the_program_of_a_process(
    memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    """A process that existed before the recording, and one that executes a program with a hostile name."""
    waiting = subprocess.Popen(
        ["sh", "-c", f'echo 0 > "{memcg}/cgroup.procs"; while :; do sleep 0.05; done'], start_new_session=True
    )
    program = disk_dir / os.fsdecode(b"sl\xffeep\n\\xff")
    shutil.copy(shutil.which("sleep") or "", program)
    try:
        recorder = start_recorder("-c", str(memcg))
        enter = f'echo 0 > "{memcg}/cgroup.procs" && exec "$0" 0.3'
        sleeper = subprocess.Popen(["sh", "-c", enter, program])
        assert sleeper.wait() == 0
        trace = tracer.open(recorder.stop())
    finally:
        os.killpg(waiting.pid, signal.SIGKILL)
        waiting.wait()
    paths = trace.inodes.set_index("inode_id")["path"]
    programs = trace.tasks.set_index("tgid")["exe_inode_id"].map(paths)
    assert programs[sleeper.pid] == f"{disk_dir}/sl\\xffeep\n\\x5cxff"
    assert programs[waiting.pid] == str(Path(shutil.which("sh") or "").resolve())
