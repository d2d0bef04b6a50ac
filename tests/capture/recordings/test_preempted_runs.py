"""The page cache of tasks that preempt one another while a folio is recorded.

Since v7.0 a task can be preempted inside the program of a tracepoint, often so with `preempt=full`. While it
is, the kernel skips that program for other tasks on its CPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.ledger_check import differences
from support.settled import settle

import tracer
from tracer.kernel.cgroups.cgroupfs import cgroup_id

pytestmark = [pytest.mark.kernel, pytest.mark.beside, pytest.mark.vm_preempt, pytest.mark.timeout(180)]

WORKLOAD = Path(__file__).parents[2] / "workloads" / "page_adder.py"
WORKS = {"first": (20_000, 4, 0.0), "second": (20_000, 4, 0.0), "urgent": (16, 1500, 0.001)}
"""Name of the file -> pages, rounds, and the pause before each round."""


def test_pages_of_tasks_that_preempt_one_another_are_recorded_or_counted_as_lost(
    memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    recorder = start_recorder("-c", str(memcg))
    enter = f'echo 0 > "{memcg}/cgroup.procs" && exec "$0" "$@"'
    with ExitStack() as started:
        workers = [
            started.enter_context(
                subprocess.Popen(
                    ["sh", "-c", enter, sys.executable, str(WORKLOAD), name, *map(str, work)], cwd=disk_dir
                )
            )
            for name, work in WORKS.items()
        ]
    assert not any(worker.returncode for worker in workers)
    settle(memcg)
    trace = tracer.open(recorder.stop())
    names = trace.inodes.drop_duplicates("inode_id").set_index("inode_id")["path"].map(os.path.basename)
    rows = trace.pagecache.assign(name=trace.pagecache["inode_id"].map(names))
    rows = rows[rows["name"].isin(list(WORKS))]
    pages = rows.groupby(["name", "op"], observed=True)["nr_pages"].sum()
    whole = pd.Series({name: count * rounds for name, (count, rounds, _) in WORKS.items()})
    assert pages.xs("delete", level="op").to_dict() == whole.to_dict()
    missing = whole - pages.xs("add", level="op")
    assert (missing >= 0).all()
    loss = trace.loss  # programs of kernel functions, which record stalls, can also be skipped
    assert missing.sum() <= loss.loc[loss["stream"] == "pagecache", "lost"].sum()
    assert "file" not in differences(trace, cgroup_id(memcg))
