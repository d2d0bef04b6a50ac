"""The ledger beside another BPF user, which keeps programs of kprobes from running while it writes to a map.

`make test-vm` runs this with full preemption: there a task that writes to a BPF map can be preempted, and
then no program of a kprobe runs on its CPU until it goes on. The ledger hooks only context switches, where
nothing is skipped, and kprobes are for its calibration.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.huge_pages import small_pages
from support.ledger_check import differences, kernel_bytes
from support.offered import skip_unless_offered
from support.settled import settle

import tracer
from tracer.enumerations import CATEGORY
from tracer.kernel.cgroups.cgroupfs import cgroup_id

pytestmark = [pytest.mark.kernel, pytest.mark.vm_preempt, pytest.mark.timeout(180)]

ROUNDS = 5
WORKLOADS = Path(__file__).parents[2] / "workloads"


@contextmanager
def other_bpf_user() -> Iterator[None]:
    """Run a process on each CPU that writes to a BPF map."""
    with ExitStack() as started:
        for cpu in os.sched_getaffinity(0):
            command = [sys.executable, str(WORKLOADS / "bpf_user.py"), str(cpu)]
            user = started.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            started.callback(user.kill)
            assert user.stdout is not None
            assert user.stdout.readline() == b"writes\n"
        yield


def move_every_category(memcg: Path, directory: Path) -> ExitStack:
    """Move memory of every category on all CPUs at once. Closing the stack frees the memory that is kept."""
    enter = f'echo 0 > "{memcg}/cgroup.procs" && exec "$0" "$@"'
    kept, workers = ExitStack(), []
    for number in range(len(os.sched_getaffinity(0)) + 1):
        command = [sys.executable, str(WORKLOADS / "every_category.py"), str(directory), str(number)]
        worker = subprocess.Popen(
            ["sh", "-c", enter, *command, str(ROUNDS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        workers.append(kept.enter_context(worker))
        kept.callback(worker.kill)
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"kept\n"
    return kept


@pytest.mark.usefixtures("swap")
@pytest.mark.parametrize("family", ["kprobe", "fentry"])
def test_ledger_beside_another_bpf_user_equals_the_kernels_counters(
    family: str, memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    skip_unless_offered(family)
    with ExitStack() as kept:
        with other_bpf_user():
            recorder = start_recorder("-c", str(memcg), env=os.environ | {"MEMCG_TRACER_HOOKS": family})
            with small_pages():  # or khugepaged may fill a huge page while the counters are compared
                kept.enter_context(move_every_category(memcg, disk_dir))
        settle(memcg)
        trace = tracer.open(recorder.stop())
        found = cgroup_id(memcg)
        differing = differences(
            trace, found
        )  # while the memory is there, since it may read memory.stat again
    assert {c for c, bytes_ in kernel_bytes(trace, found).items() if bytes_} == set(CATEGORY.names)
    assert not {"charge", "residue"} & set(trace.loss["stream"]), "only other programs were skipped"
    assert trace.meta["probes"]["memory by kind"]["meaning"] == "exact"
    assert differing == {}
