"""Runs of the page cache: works whose pages, processes and order are known, found again in rows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.losses import lost_records

import tracer
from tracer.lab.scratch import write_uncached

pytestmark = pytest.mark.kernel

WHOLE_MACHINE = os.environ.get("MEMCG_TRACER_WHOLE_MACHINE") == "1"
"""True in a guest of tests/vm, where tests may disturb the whole machine."""

PAGE = os.sysconf("SC_PAGESIZE")
LONGEST_NS = 10_000_000

SEQUENTIAL_PAGES = 20_000
SEQUENTIAL = """
import os
file = os.open("written", os.O_CREAT | os.O_WRONLY)
page = bytes(os.sysconf("SC_PAGESIZE"))
for _ in range(PAGES):
    os.write(file, page)
os.ftruncate(file, 0)
"""
"""To unlink the file instead is too little: while the kernel writes a file to the disk, it keeps the pages,
and frees them itself later."""

IN_TURN_PAGES = 300
IN_TURN = """
import os
page = os.sysconf("SC_PAGESIZE")
file = os.open("shared", os.O_RDONLY)
os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
(parents_end, to_parent), (childs_end, to_child) = os.pipe(), os.pipe()
child = os.fork() == 0
if child:
    os.read(childs_end, 1)
for number in range(child, PAGES, 2):
    os.pread(file, 1, number * page)
    os.write(to_parent if child else to_child, b"x")
    if number < PAGES - 2:
        os.read(childs_end if child else parents_end, 1)
if not child:
    os.wait()
"""
"""The parent reads the even pages and the child the odd ones, in turn."""

DESCRIPTORS = 40
REPLACED = """
import os
file_bytes = 3 * os.sysconf("SC_PAGESIZE")
opened = [os.open("replaced", os.O_RDONLY) for _ in range(FILES)]
for number, file in enumerate(opened):
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
    os.lseek(file, number * file_bytes, os.SEEK_SET)
for file in opened:
    os.dup2(file, 200)
    os.read(200, file_bytes)
"""
"""Each file descriptor is at another position, and each is read under the same number."""

COPIED_PAGES = 512
MAPPED_SOURCE = """
import mmap, os
size = PAGES * os.sysconf("SC_PAGESIZE")
source, target = os.open("source", os.O_RDWR), os.open("target", os.O_CREAT | os.O_WRONLY)
area = memoryview(mmap.mmap(source, 0))
for begin in range(0, size, 40_000):
    os.write(target, area[begin : begin + 40_000])
"""
"""The system call that writes one file faults on the other."""

TIMES = 100
BACK_AND_FORTH = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
page = os.sysconf("SC_PAGESIZE")
file = os.open("reread", os.O_RDONLY)
os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
for time in range(TIMES):
    begin = time % 7
    for number in range(begin, 32):
        os.pread(file, 1, number * page)
    os.posix_fadvise(file, (begin + 5) * page, 9 * page, os.POSIX_FADV_DONTNEED)
    os.posix_fadvise(file, (begin + 11) * page, 9 * page, os.POSIX_FADV_DONTNEED)
"""

GAPS = 3000
WITH_GAPS = """
import os, sys
file = os.open("gaps", os.O_CREAT | os.O_WRONLY)
page = os.sysconf("SC_PAGESIZE")
print("ready", flush=True)
sys.stdin.readline()
for number in range(PAGES):
    os.pwrite(file, b"x", 2 * number * page)
os.ftruncate(file, 0)
print("done", flush=True)
sys.stdin.readline()
"""

OFFLINE_PAGES = 53
ON_ONE_CPU = """
import os
os.sched_setaffinity(0, {1})
file = os.open("left", os.O_CREAT | os.O_WRONLY)
for number in range(PAGES):
    os.write(file, bytes(os.sysconf("SC_PAGESIZE")))
"""


@contextmanager
def script_in(memcg: Path, folder: Path, script: str, pages: int) -> Iterator[subprocess.Popen[str]]:
    """Run Python in a cgroup and a folder; the constants of the script are `pages`."""
    constants = "".join(f"{name} = {pages}\n" for name in ("PAGES", "FILES", "TIMES"))
    enter = f'echo 0 > "{memcg}/cgroup.procs" && exec "$0" "$@"'
    command = ["sh", "-c", enter, sys.executable, "-c", constants + script]
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.communicate("\n")
    assert process.returncode == 0


def run_in(memcg: Path, folder: Path, script: str, pages: int) -> int:
    """Run Python as `script_in` does, to its end. Return its process id."""
    with script_in(memcg, folder, script, pages) as process:
        pass
    return process.pid


def rows_of(trace: Any, name: str) -> pd.DataFrame:
    """Return the rows of `pagecache` of a file, in the order of their time."""
    inodes = trace.inodes[trace.inodes["path"].str.endswith(f"/{name}", na=False)]
    rows: pd.DataFrame = trace.pagecache[trace.pagecache["inode_id"] == inodes["inode_id"].iloc[0]]
    return rows


def pages_at(rows: pd.DataFrame) -> list[int]:
    """Return the index of each page of some rows, sorted."""
    runs = zip(rows["index"], rows["nr_pages"], strict=True)
    return sorted(page for index, pages in runs for page in range(index, index + pages))


@pytest.mark.beside
@pytest.mark.vm_once
def test_sequential_work_is_recorded_in_few_runs_of_ten_milliseconds(
    memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    recorder = start_recorder("-c", str(memcg))
    run_in(memcg, disk_dir, SEQUENTIAL, SEQUENTIAL_PAGES)
    trace = tracer.open(recorder.stop())
    assert lost_records(trace) == {}
    rows = rows_of(trace, "written")
    assert set(zip(rows["op"], rows["cause"], strict=True)) == {("add", "write"), ("delete", "truncate")}
    for op in ("add", "delete"):
        of_op = rows[rows["op"] == op]
        assert pages_at(of_op) == list(range(SEQUENTIAL_PAGES))
        assert of_op["folios"].sum() <= SEQUENTIAL_PAGES
        lasted_ns = (of_op.index[-1] - of_op.index[0]).value + LONGEST_NS
        # A run ends with its 10 ms or with a reading of the rings, and when the work goes on on another CPU.
        assert len(of_op) <= 10 + 4 * lasted_ns / LONGEST_NS
    assert rows["duration_ns"].between(0, LONGEST_NS).all()
    assert (rows[rows["folios"] == 1]["duration_ns"] == 0).all()


@pytest.mark.beside
def test_processes_that_read_a_file_in_turn_have_runs_of_their_own(
    memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    write_uncached(disk_dir / "shared", IN_TURN_PAGES * PAGE)
    recorder = start_recorder("-c", str(memcg))
    parent = run_in(memcg, disk_dir, IN_TURN, IN_TURN_PAGES)
    trace = tracer.open(recorder.stop())
    rows = rows_of(trace, "shared")
    rows = rows[rows["op"] == "add"]
    assert set(rows["folios"]) == {1}
    assert set(rows["cause"]) == {"read"}
    even = rows["tgid"] == parent
    assert pages_at(rows[even]) == list(range(0, IN_TURN_PAGES, 2))
    assert pages_at(rows[~even]) == list(range(1, IN_TURN_PAGES, 2))
    assert rows[~even]["tgid"].nunique() == 1


@pytest.mark.beside
def test_pages_read_under_a_replaced_descriptor_are_not_readahead(
    memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    """The position in the file is that of the descriptor's present file, within a run as well."""
    pages = 3 * DESCRIPTORS
    write_uncached(disk_dir / "replaced", pages * PAGE)
    recorder = start_recorder("-c", str(memcg))
    run_in(memcg, disk_dir, REPLACED, DESCRIPTORS)
    rows = rows_of(tracer.open(recorder.stop()), "replaced")
    rows = rows[rows["op"] == "add"]
    assert set(rows["cause"]) == {"read"}
    assert pages_at(rows) == list(range(pages))


@pytest.mark.beside
def test_file_that_a_write_reads_by_faults_has_no_written_page(
    memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    write_uncached(disk_dir / "source", COPIED_PAGES * PAGE)
    recorder = start_recorder("-c", str(memcg))
    run_in(memcg, disk_dir, MAPPED_SOURCE, COPIED_PAGES)
    trace = tracer.open(recorder.stop())
    source, target = (rows_of(trace, name) for name in ("source", "target"))
    added = source[source["op"] == "add"]
    assert set(added["cause"]) == {"fault"}
    assert pages_at(added) == list(range(COPIED_PAGES))
    assert set(target[target["op"] == "add"]["cause"]) == {"write"}
    assert pages_at(target[target["op"] == "add"]) == list(range(COPIED_PAGES))


@pytest.mark.beside
def test_rows_of_a_page_alternate_between_added_and_deleted(
    memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    """Pages are dropped and read again within less than the length of a run, on one CPU."""
    write_uncached(disk_dir / "reread", 32 * PAGE)
    recorder = start_recorder("-c", str(memcg))
    run_in(memcg, disk_dir, BACK_AND_FORTH, TIMES)
    rows = rows_of(tracer.open(recorder.stop()), "reread")
    ops: dict[int, list[str]] = {}
    for index, pages, op in zip(rows["index"], rows["nr_pages"], rows["op"], strict=True):
        for page in range(index, index + pages):
            ops.setdefault(page, []).append(op)
    assert min(ops) == 0 and max(ops) == 31
    assert max(map(len, ops.values())) > TIMES, "some page was dropped nearly each time"
    for page, of_page in ops.items():
        assert of_page[0] == "add", page
        assert all(before != after for before, after in pairwise(of_page)), page


@pytest.mark.beside
def test_no_folio_is_lost_when_the_ring_is_full(
    memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    with script_in(memcg, disk_dir, WITH_GAPS, GAPS) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        environment = os.environ | {"MEMCG_TRACER_RING_PAGES": "pagecache=1"}
        recorder = start_recorder("-c", str(memcg), env=environment)
        recorder.process.send_signal(signal.SIGSTOP)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"
        recorder.process.send_signal(signal.SIGCONT)
        trace = tracer.open(recorder.stop())
    assert lost_records(trace) == {}
    folios = trace.pagecache.groupby(["op", "cause"], observed=True)["folios"].sum()
    assert folios.to_dict() == {("add", "write"): GAPS, ("delete", "truncate"): GAPS}
    assert trace.pagecache["index"].isna().any(), "the ring was not full, so the test proves nothing"


@pytest.mark.vm_once
@pytest.mark.skipif(not WHOLE_MACHINE, reason="takes a CPU offline (in a guest of tests/vm)")
def test_run_on_a_cpu_that_went_offline_is_recorded(
    memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    online = Path("/sys/devices/system/cpu/cpu1/online")
    if not online.exists():
        pytest.skip("needs a second CPU that can be taken offline")
    recorder = start_recorder("-c", str(memcg))
    recorder.process.send_signal(signal.SIGSTOP)
    run_in(memcg, disk_dir, ON_ONE_CPU, OFFLINE_PAGES)
    online.write_text("0", encoding="ascii")
    try:
        recorder.process.send_signal(signal.SIGCONT)
        rows = rows_of(tracer.open(recorder.stop()), "left")
    finally:
        online.write_text("1", encoding="ascii")
    added = rows[rows["op"] == "add"]
    assert pages_at(added) == list(range(OFFLINE_PAGES))
    assert set(added["cause"]) == {"write"}
