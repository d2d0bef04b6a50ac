"""Sums of page-cache runs: a recorder that does not read its full ring loses no page of any total."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tracer.analysis.trace import AnalysedTrace
from tracer.kernel.cgroups.cgroupfs import cgroup_id

pytestmark = pytest.mark.kernel

PAGE = os.sysconf("SC_PAGESIZE")
FILES = {"first": 307, "second": 411, "third": 523}
"""File -> pages."""
LATER_PAGES = 83
WORK = """
import os, sys
folder, *files = sys.argv[1:]
for name in files:
    fd = os.open(f"{folder}/{name}", os.O_RDWR)
    size = os.fstat(fd).st_size
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    for at in reversed(range(0, size, 4096)):
        os.pread(fd, 4096, at)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    for at in reversed(range(0, size, 4096)):
        os.pwrite(fd, bytes(4096), at)
    os.ftruncate(fd, 0)
"""
"""Each file is read, dropped from the cache, written and truncated. No two folios are a run."""


def make_files(folder: Path) -> dict[int, str]:
    """Make the files, on disk and not in the cache. Return inode number -> name."""
    for name, pages in (*FILES.items(), ("later", LATER_PAGES)):
        path = folder / name
        path.write_bytes(os.urandom(pages * PAGE))
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return {(folder / name).stat().st_ino: name for name in FILES}


def enter(memcg: Path) -> str:
    """Return a shell script that runs a command in a cgroup."""
    return f'echo 0 > "{memcg}/cgroup.procs" && exec "$0" "$@"'


def work_in(memcg: Path, folder: Path, *files: str) -> None:
    subprocess.run(["sh", "-c", enter(memcg), sys.executable, "-c", WORK, str(folder), *files], check=True)


def totals(rows: pd.DataFrame, column: str) -> dict[Any, int]:
    found: dict[Any, int] = rows.groupby(["file", "op", "cause"], observed=True)[column].sum().to_dict()
    return found


@pytest.mark.beside
@pytest.mark.vm
@pytest.mark.skipif(PAGE != 4096, reason="the work is for pages of 4 KiB")
def test_totals_of_a_stopped_recorder_with_a_full_ring_are_exact(
    memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    inodes = make_files(disk_dir)
    env = os.environ | {"MEMCG_TRACER_RING_PAGES": "pagecache=1"}
    recorder = start_recorder("-c", str(memcg), env=env)
    recorder.process.send_signal(signal.SIGSTOP)
    work_in(memcg, disk_dir, *FILES)
    recorder.process.send_signal(signal.SIGCONT)
    time.sleep(1.5)  # runs are summed for a second at least
    subprocess.run(
        ["sh", "-c", enter(memcg), "cat", disk_dir / "later"], check=True, stdout=subprocess.DEVNULL
    )
    trace = AnalysedTrace(recorder.stop())
    later = trace.pagecache[trace.pagecache["ino"] == (disk_dir / "later").stat().st_ino]
    # The machine may reclaim pages of this file, which stays in the cache.
    assert later.loc[later["op"] == "add", "nr_pages"].sum() == LATER_PAGES
    assert later["index"].notna().all()
    assert "pagecache" not in set(trace.loss["stream"])
    rows = trace.pagecache
    rows = rows.assign(file=rows["ino"].map(inodes)).dropna(subset=["file"])
    expected = {
        (name, op, cause): pages
        for name, pages in FILES.items()
        for op, cause in (
            *(("add", "read"), ("add", "write")),
            *(("delete", "invalidate"), ("delete", "truncate")),
        )
    }
    assert totals(rows, "nr_pages") == expected
    assert totals(rows, "folios") == expected
    assert set(rows["cgroup_id"]) == set(rows["task_cgroup_id"]) == {cgroup_id(memcg)}
    is_sum = rows["index"].isna()
    assert 0 < (~is_sum).sum() < 100, "a page of the ring has room for fewer runs"
    assert (rows[is_sum]["duration_ns"] > 0).any()
    intervals = trace.summed_intervals.near(0, 2**62)  # on a slow machine the ring is full again
    assert {interval.reasons for interval in intervals} == {("ring_full",)}
    sums = rows[is_sum]
    ends = sums.index + pd.to_timedelta(sums["duration_ns"], "ns")
    assert all(
        any(interval.begin <= begin and end <= interval.end for interval in intervals)
        for begin, end in zip(sums.index, ends, strict=True)
    )


SMALL_FILES = 4700
"""More than have a sum of their own (PAGE_SUMS_OF_FILES in bpf/shared/page_sums.h)."""
READ_EACH = """
import os, sys
for entry in os.scandir(sys.argv[1]):
    with open(entry.path, "rb", buffering=0) as file:
        file.read(4096)
"""


@pytest.mark.beside
def test_totals_without_room_for_a_sum_of_each_file_are_exact_by_cause(
    memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    for number in range(SMALL_FILES):
        (disk_dir / f"{number}").write_bytes(bytes(9))
    os.sync()
    for number in range(SMALL_FILES):
        with (disk_dir / f"{number}").open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    inodes = {entry.inode() for entry in os.scandir(disk_dir)}
    device = disk_dir.stat().st_dev
    recorder = start_recorder("-c", str(memcg), env=os.environ | {"MEMCG_TRACER_RING_PAGES": "pagecache=1"})
    recorder.process.send_signal(signal.SIGSTOP)
    subprocess.run(["sh", "-c", enter(memcg), sys.executable, "-c", READ_EACH, disk_dir], check=True)
    recorder.process.send_signal(signal.SIGCONT)
    trace = AnalysedTrace(recorder.stop())
    assert "pagecache" not in set(trace.loss["stream"])
    rows = trace.pagecache
    rows = rows[(rows["op"] == "add") & (rows["cause"] == "read")]
    named, nameless = rows[rows["ino"].isin(inodes)], rows[rows["inode_id"].isna()]
    assert named["nr_pages"].sum() + nameless["nr_pages"].sum() == SMALL_FILES
    assert 4000 < named["nr_pages"].sum() < SMALL_FILES
    assert set(nameless["dev"]) == {os.major(device) << 20 | os.minor(device)}
    assert nameless[["index", "ino", "tgid"]].isna().all(axis=None)
    assert set(nameless["cgroup_id"]) == {cgroup_id(memcg)}


ROUNDS = """
import os, sys, time
path, seconds = sys.argv[1], float(sys.argv[2])
end, rounds = time.monotonic() + seconds, 0
fd = os.open(path, os.O_RDONLY)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
while time.monotonic() < end:
    for at in reversed(range(0, os.fstat(fd).st_size, 4096)):
        os.pread(fd, 4096, at)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    rounds += 1
print(rounds, time.process_time())
"""


@pytest.mark.skipif(PAGE != 4096, reason="the work is for pages of 4 KiB")
def test_totals_are_exact_while_tracing_costs_more_than_allowed(
    memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    inodes = make_files(disk_dir)
    recorder = start_recorder("-c", str(memcg), "--max-overhead", "0.01%")
    work = subprocess.run(
        ["sh", "-c", enter(memcg), sys.executable, "-c", ROUNDS, disk_dir / "first", "5"],
        check=True,
        capture_output=True,
        text=True,
    )
    rounds, cpu_s = int(work.stdout.split()[0]), float(work.stdout.split()[1])
    trace = AnalysedTrace(recorder.stop())
    assert "pagecache" not in set(trace.loss["stream"])
    rows = trace.pagecache
    rows = rows.assign(file=rows["ino"].map(inodes)).dropna(subset=["file"])
    pages = rounds * FILES["first"]
    rows = rows.replace({"cause": {"reclaim_kswapd": "invalidate"}})  # DAMON's eviction of idle pages
    assert totals(rows, "nr_pages") == {
        ("first", "add", "read"): pages,
        ("first", "delete", "invalidate"): pages,
    }
    summed = rows[rows["index"].isna()]["nr_pages"].sum()
    assert summed > pages / 4, "it costs too much within two seconds"
    assert {reason for one in trace.summed_intervals.near(0, 2**62) for reason in one.reasons} == {
        "max_overhead"
    }
    cost = trace.meta["cost"]["overhead"]
    assert cost["most_percent"] == 0.01
    assert 0.01 < cost["programs_percent"] < 100
    assert cost["recorder_percent"] > 0, "on an emulated machine it may take more than the work"
    assert cost["work_cpu_s"] == pytest.approx(cpu_s, rel=0.4)  # between looks, on a busy machine
    assert trace.meta["filters"]["most_overhead_percent"] == 0.01
