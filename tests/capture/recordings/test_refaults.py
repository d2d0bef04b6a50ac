"""A file of twice the limit, read three times: evicted and refaulted pages, compared with the kernel's
counts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.file_systems import image, mounted, require
from support.losses import lost_records
from support.settled import settle

from tracer.analysis.trace import AnalysedTrace
from tracer.analysis.views.refaults import refaults
from tracer.kernel.cgroups.cgroupfs import cgroup_id, memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.lab.checks import damons_bytes, equal_pgsteal

pytestmark = [pytest.mark.kernel, pytest.mark.beside]

PAGE = os.sysconf("SC_PAGESIZE")
LIMIT_BYTES = 32 << 20
FILE_PAGES = 2 * LIMIT_BYTES // PAGE + 37
TIMES = 3
READ = """
import os, sys
with open(sys.argv[1], "rb", buffering=0) as file:
    os.posix_fadvise(file.fileno(), 0, 0, int(sys.argv[3]))
    for _ in range(int(sys.argv[2])):
        file.seek(0)
        while file.read(1 << 16):
            pass
"""


@pytest.fixture
def limited() -> Iterator[Path]:
    with ephemeral_cgroup("reread", LIMIT_BYTES, 0) as directory:
        yield directory


@pytest.mark.parametrize(
    ("advice", "is_single"),
    [
        pytest.param(os.POSIX_FADV_NORMAL, False, marks=pytest.mark.vm, id="folios-as-the-kernel-takes-them"),
        pytest.param(os.POSIX_FADV_RANDOM, True, id="folios-of-one-page"),
    ],
)
def test_refaulted_pages_equal_the_kernels_counts(
    advice: int, is_single: bool, limited: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    refaulted_pages_equal_the_kernels_counts(advice, is_single, limited, disk_dir, start_recorder)


def test_refaulted_pages_of_xfs_equal_the_kernels_counts(
    limited: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    require("xfs", "losetup", "mkfs.xfs")
    made = image(disk_dir / "xfs", 300, "mkfs.xfs", "-q")
    with mounted(made, disk_dir / "mounted", "-o", "loop") as place:
        advice = os.POSIX_FADV_NORMAL
        refaulted_pages_equal_the_kernels_counts(advice, False, limited, place, start_recorder)


def refaulted_pages_equal_the_kernels_counts(
    advice: int, is_single: bool, limited: Path, folder: Path, start_recorder: Callable[..., Any]
) -> None:
    path = folder / "twice-the-limit"
    path.write_bytes(os.urandom(FILE_PAGES * PAGE))
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    # The reader has a CPU to itself: what runs while another task is preempted may be lost (`lost_records`).
    readers_cpu, *other_cpus = (str(cpu) for cpu in sorted(os.sched_getaffinity(0)))
    recorder = start_recorder(
        "-c", str(limited), wrapper=["taskset", "-c", ",".join(other_cpus) or readers_cpu]
    )
    enter = f'echo 0 > "{limited}/cgroup.procs" && exec taskset -c {readers_cpu} "$0" "$@"'
    arguments = [str(path), str(TIMES), str(advice)]
    subprocess.run(["sh", "-c", enter, sys.executable, "-c", READ, *arguments], check=True)
    settle(limited)
    trace = AnalysedTrace(recorder.stop())
    assert lost_records(trace) == {}

    rows, back = trace.pagecache, refaults(trace)
    of_file = rows[rows["ino"] == path.stat().st_ino]
    named = trace.inodes.loc[trace.inodes["inode_id"].isin(of_file["inode_id"]), "path"]
    assert set(named) == {str(path)}
    if is_single:
        assert (of_file["nr_pages"] == of_file["folios"]).all()
    added = int(of_file[of_file["op"] == "add"]["nr_pages"].sum())
    back_pages = int(back[back["inode_id"] == of_file["inode_id"].iloc[0]]["bytes"].sum()) // PAGE
    samples = trace.samples[trace.samples["cgroup_id"] == cgroup_id(limited)]
    first, last = samples[samples["source"] == "start"].iloc[0], samples[samples["source"] == "end"].iloc[-1]
    assert 0.99 * TIMES * FILE_PAGES <= added <= TIMES * FILE_PAGES, (
        "hardly any page was cached when it was read again"
    )
    assert added == FILE_PAGES + back_pages

    # The kernel counts by cgroup, so pages of the reader's own program are in it as well.
    by_reclaim = rows["cause"].isin(["reclaim_memcg", "reclaim_direct", "reclaim_kswapd"])
    evicted = rows[(rows["op"] == "delete") & by_reclaim & (rows["cgroup_id"] == cgroup_id(limited))]
    before = 0 if memory_hierarchy().version == 1 else first["pgsteal"]
    evicted_bytes, stolen = int(evicted["nr_pages"].sum()) * PAGE, int(last["pgsteal"] - before)
    check = equal_pgsteal(evicted_bytes, stolen * PAGE, damons_bytes(trace, [cgroup_id(limited)]))
    assert check.passed, check.detail
    # It may count refaults after evictions before the trace; they are few.
    came_back = int(back[back["cgroup_id"] == cgroup_id(limited)]["bytes"].sum()) // PAGE
    others = rows[(rows["op"] == "add") & (rows["ino"] != path.stat().st_ino)]["nr_pages"].sum()
    counted = last["workingset_refault_file"] - first["workingset_refault_file"]
    assert came_back <= counted <= came_back + others
