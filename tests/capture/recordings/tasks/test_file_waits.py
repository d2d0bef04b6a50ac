"""Waits for I/O by process and file, compared with the time that the processes were not on a CPU."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.losses import lost_records

import tracer
from tracer.kernel.cgroups.cgroupfs import cgroup_id, memory_hierarchy

pytestmark = [pytest.mark.kernel, pytest.mark.alone]

PAGE = os.sysconf("SC_PAGESIZE")
PAGES = 613
LARGE_READS = 61
LARGE_READ_BYTES = 1 << 20
READS_A_SECOND = 20

READ = r"""
import json, mmap, os, random, re, sys, time
path, way, pages = sys.argv[1], sys.argv[2], int(sys.argv[3])
file = os.open(path, os.O_RDONLY)
os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
mapped = mmap.mmap(file, 0, prot=mmap.PROT_READ)
mapped.madvise(mmap.MADV_RANDOM)
order = list(range(pages))
random.Random(1).shuffle(order)
try:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(2))  # nothing preempts it
except PermissionError:
    pass

def clocks():
    time.sleep(0.001)  # the run time is brought up to date when a task leaves its CPU
    return time.monotonic_ns(), int(open("/proc/self/schedstat").read().split()[0])

def sleeps():
    return int(re.search(r"\nvoluntary_ctxt_switches:\s*(\d+)", open("/proc/self/status").read())[1])

begin, slept = clocks(), sleeps()
for page in order:
    if way == "read":
        os.pread(file, 512, page * mmap.PAGESIZE)
    else:
        mapped[page * mmap.PAGESIZE]
slept = sleeps() - slept
wall_ns, cpu_ns = (now - then for now, then in zip(clocks(), begin))
print(json.dumps({"tgid": os.getpid(), "off_ns": wall_ns - cpu_ns, "slept": slept}))
"""

READ_LARGE = """
import json, os, random, sys, time
file, size = os.open(sys.argv[1], os.O_RDONLY), int(sys.argv[2])
os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
order = list(range(0, os.fstat(file).st_size, size))
random.Random(1).shuffle(order)

def clocks():
    time.sleep(0.001)  # the run time is brought up to date when a task leaves its CPU
    return time.monotonic_ns(), *map(int, open("/proc/self/schedstat").read().split()[:2])

begin = clocks()
for at in order:
    os.pread(file, size, at)
wall_ns, cpu_ns, queued_ns = (now - then for now, then in zip(clocks(), begin))
off_ns = wall_ns - cpu_ns
print(json.dumps({"tgid": os.getpid(), "off_ns": off_ns, "asleep_ns": off_ns - queued_ns}))
"""

ANNOUNCE = """
import os, sys
file = os.open(sys.argv[1], os.O_RDONLY)
for begin in range(0, os.fstat(file).st_size, 1 << 20):
    os.posix_fadvise(file, begin, 1 << 20, os.POSIX_FADV_WILLNEED)
    os.write(1, b"x")
"""
FOLLOW = r"""
import os, re, sys
file, begin, slept = os.open(sys.argv[1], os.O_RDONLY), 0, 0
os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
try:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(2))  # it reads as soon as it is told
except PermissionError:
    pass

def sleeps():
    return int(re.search(r"\nvoluntary_ctxt_switches:\s*(\d+)", open("/proc/self/status").read())[1])

while os.read(0, 1):
    before = sleeps()
    os.pread(file, 1, begin + (1 << 20) - 1)
    slept += sleeps() - before
    begin += 1 << 20
print(slept)
"""
FOLLOWED_BYTES = 160 << 20
MOST_ROUNDS = 10
MANY_FILES = 400
READ_EACH = """
import os, sys
for number in range(int(sys.argv[2])):
    file = os.open(f"{sys.argv[1]}/{number}", os.O_RDONLY)
    os.pread(file, 512, 0)
    os.close(file)
"""
WRITE = """
import os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
for turn in range(20):
    os.pwrite(file, bytes(4 << 20), 0)
    os.fsync(file)
"""


def in_cgroup(memcg: Path, *program: str, **popen: Any) -> subprocess.Popen[bytes]:
    enter = f'echo 0 > "{memcg}/cgroup.procs" && exec "$0" "$@"'
    return subprocess.Popen(["sh", "-c", enter, sys.executable, "-c", *program], **popen)


def make_uncached(path: Path, size_bytes: int) -> None:
    with path.open("wb") as file:
        file.write(os.urandom(size_bytes))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def id_of(trace: Any, path: Path) -> int:
    (found,) = trace.inodes[trace.inodes["path"] == str(path)]["inode_id"]
    return int(found)


def waits_of(trace: Any, tgid: int) -> pd.DataFrame:
    rows: pd.DataFrame = trace.file_waits
    return rows[rows["tgid"] == tgid]


def assert_one_for_each_sleep(trace: Any, rows: pd.DataFrame, slept: int, *, least: int = 16) -> None:
    """Compare the waits for a file with the kernel's count of the times that its reader slept meanwhile.

    There may be fewer than pages that were read: a reader whose CPU is taken away by the host, or whose disk
    is fast, finds the page read when it begins to wait (folio_wait_bit_common() in mm/filemap.c).

    The kernel may not report when the reader comes back: on 6.18, neither a program nor ftrace saw 324 of 623
    switches to a reader, all from one task that ran on its CPU in between. Such a wait ends where the reader
    leaves its CPU again, and is lost if it was preempted before that.
    """
    assert slept >= least, "the disk is too fast for this test"
    lost = lost_records(trace)
    assert lost.keys() <= {"file_wait"}, lost
    assert slept <= rows["waits"].sum() + lost.get("file_wait", 0) <= slept + 8


@pytest.mark.parametrize("way", ["read", "map"])
def test_waits_are_the_time_that_a_reader_is_not_on_a_cpu(
    way: str, memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    file = disk_dir / "a\\xff\nb"
    make_uncached(file, PAGES * PAGE)
    recorder = start_recorder("-c", str(memcg))
    reader = in_cgroup(memcg, READ, str(file), way, str(PAGES), stdout=subprocess.PIPE)
    told = json.loads(reader.communicate()[0])
    trace = tracer.open(recorder.stop())
    added = trace.pagecache[(trace.pagecache["tgid"] == told["tgid"]) & (trace.pagecache["op"] == "add")]
    (inode_id,) = added["inode_id"].value_counts().index[:1]
    assert set(added[added["inode_id"] == inode_id]["cause"]) == {"read" if way == "read" else "fault"}
    assert trace.inodes.set_index("inode_id")["path"][inode_id] == f"{disk_dir}/a\\x5cxff\nb"
    rows = waits_of(trace, told["tgid"])
    rows = rows[rows["inode_id"] == inode_id]
    assert set(rows["cgroup_id"]) == {cgroup_id(memcg)}
    assert int(added[added["inode_id"] == inode_id]["nr_pages"].sum()) == PAGES
    assert_one_for_each_sleep(trace, rows, told["slept"])
    assert rows["wait_ns"].sum() == pytest.approx(told["off_ns"], rel=0.05, abs=20e6)
    assert (rows["wait_ns"] <= rows["duration_ns"]).all(), "the waits of a thread follow one another"


def slow_down(memcg: Path, folder: Path) -> None:
    """Have the kernel start so many reads a second for a cgroup of v2; on v1 the controllers are apart."""
    if memory_hierarchy().version == 1:
        return
    (memcg.parent / "cgroup.subtree_control").write_text("+io", encoding="ascii")
    device = folder.stat().st_dev
    limit = f"{os.major(device)}:{os.minor(device)} riops={READS_A_SECOND}"
    (memcg / "io.max").write_text(limit, encoding="ascii")


@pytest.mark.vm
def test_waits_of_large_reads_are_between_the_schedulers_accounts(
    memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    """Not less than the time that the reader slept, and not more than the time that it was not on a CPU.

    A wait ends where the reader is on a CPU again, so it has a part of the time in the queue. The kernel's
    sum of delays is no bound (support.task_delays). The disk of a guest is faster than its CPU, so it is
    slowed down.
    """
    slow_down(memcg, disk_dir)
    file = disk_dir / "large"
    make_uncached(file, LARGE_READS * LARGE_READ_BYTES)
    recorder = start_recorder("-c", str(memcg))
    reader = in_cgroup(memcg, READ_LARGE, str(file), str(LARGE_READ_BYTES), stdout=subprocess.PIPE)
    told = json.loads(reader.communicate()[0])
    trace = tracer.open(recorder.stop())
    rows = waits_of(trace, told["tgid"])
    rows = rows[rows["inode_id"] == id_of(trace, file)]
    assert set(rows["cgroup_id"]) == {cgroup_id(memcg)}
    assert rows["waits"].sum() >= LARGE_READS // 4
    assert rows["wait_ns"].sum() <= 1.05 * told["off_ns"] + 20e6
    assert told["asleep_ns"] > 0
    of_all_files = waits_of(trace, told["tgid"])["wait_ns"].sum()  # metadata has no file
    assert of_all_files >= 0.95 * told["asleep_ns"] - 20e6
    assert lost_records(trace) == {}


@pytest.fixture
def overlay(disk_dir: Path) -> Iterator[Path]:
    """Yield the mount point of an overlay, of disk_dir/lower and an empty upper directory."""
    for name in ("lower", "upper", "work", "merged"):
        (disk_dir / name).mkdir()
    layers = [f"{name}dir={disk_dir / name}" for name in ("lower", "upper", "work")]
    mount = ["mount", "-t", "overlay", "overlay", "-o", ",".join(layers), str(disk_dir / "merged")]
    made = subprocess.run(mount, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"needs overlayfs: {made.stderr.strip()}")
    yield disk_dir / "merged"
    subprocess.run(["umount", disk_dir / "merged"], check=True)


@pytest.mark.parametrize("way", ["read", "map"])
def test_file_and_program_in_an_overlay_are_those_of_the_layer(
    way: str, memcg: Path, overlay: Path, start_recorder: Callable[..., Any]
) -> None:
    lower = overlay.parent / "lower"
    make_uncached(lower / "file", PAGES * PAGE)
    shutil.copy(Path(sys.executable).resolve(), lower / "python")
    recorder = start_recorder("-c", str(memcg))
    enter = f'echo 0 > "{memcg}/cgroup.procs" && exec "$0" "$@"'
    command = ["sh", "-c", enter, str(overlay / "python"), "-c", READ, str(overlay / "file"), way, str(PAGES)]
    where = os.environ | {"PYTHONHOME": sys.base_prefix}
    told = json.loads(subprocess.run(command, env=where, stdout=subprocess.PIPE, check=True).stdout)
    trace = tracer.open(recorder.stop())
    rows = waits_of(trace, told["tgid"])
    inode_id = id_of(trace, lower / "file")
    added = trace.pagecache[(trace.pagecache["inode_id"] == inode_id) & (trace.pagecache["op"] == "add")]
    assert int(added[added["tgid"] == told["tgid"]]["nr_pages"].sum()) == PAGES
    assert_one_for_each_sleep(trace, rows[rows["inode_id"] == inode_id], told["slept"])
    (program,) = trace.tasks[trace.tasks["tgid"] == told["tgid"]]["exe_inode_id"]
    assert program == id_of(trace, lower / "python")


def test_wait_for_what_another_process_reads_is_for_that_file(
    memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    """How often the second process finds a page that is still being read depends on the disk and the load."""
    recorder = start_recorder("-c", str(memcg))
    for number in range(MOST_ROUNDS):
        file = disk_dir / str(number)
        make_uncached(file, FOLLOWED_BYTES)
        first = in_cgroup(memcg, ANNOUNCE, str(file), stdout=subprocess.PIPE)
        second = in_cgroup(memcg, FOLLOW, str(file), stdin=first.stdout, stdout=subprocess.PIPE)
        slept = int(second.communicate()[0])
        assert (first.wait(), second.returncode) == (0, 0)
        if slept:
            break
    trace = tracer.open(recorder.stop())
    inode_id = id_of(trace, file)
    added = trace.pagecache[(trace.pagecache["inode_id"] == inode_id) & (trace.pagecache["op"] == "add")]
    assert int(added["nr_pages"].sum()) * PAGE == FOLLOWED_BYTES
    assert set(added["tgid"]) == {first.pid}
    waited = waits_of(trace, second.pid)
    waited = waited[waited["inode_id"] == inode_id]
    assert_one_for_each_sleep(trace, waited, slept, least=1)
    assert waited["wait_ns"].sum() > 0


def test_waits_that_find_no_room_are_lost_and_counted(
    memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    """One wait for each of many files: a sum has one wait, and a page of the ring has room for 64 sums."""
    for number in range(MANY_FILES):
        make_uncached(disk_dir / str(number), PAGE)
    recorder = start_recorder("-c", str(memcg), env=os.environ | {"MEMCG_TRACER_RING_PAGES": "file_wait=1"})
    recorder.process.send_signal(signal.SIGSTOP)
    reader = in_cgroup(memcg, READ_EACH, str(disk_dir), str(MANY_FILES))
    assert reader.wait() == 0
    recorder.process.send_signal(signal.SIGCONT)
    trace = tracer.open(recorder.stop())
    ours = set(trace.inodes[trace.inodes["path"].str.startswith(str(disk_dir)).fillna(False)]["inode_id"])
    assert len(ours) == MANY_FILES
    rows = waits_of(trace, reader.pid)
    recorded = int(rows[rows["inode_id"].isin(ours)]["waits"].sum())
    lost = trace.loss.groupby("stream", observed=True)["lost"].sum().to_dict()
    assert lost.keys() == {"file_wait"}
    assert 0.9 * MANY_FILES <= recorded + lost["file_wait"] <= MANY_FILES + 16
    assert lost["file_wait"] >= MANY_FILES / 2


def test_waits_of_a_writer_are_for_no_file(
    memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    recorder = start_recorder("-c", str(memcg))
    writer = in_cgroup(memcg, WRITE, str(disk_dir / "written"))
    assert writer.wait() == 0
    trace = tracer.open(recorder.stop())
    waited = waits_of(trace, writer.pid)
    # As for a reader: the kernel may not report when the writer comes back, and such a wait may be lost.
    recorded = waited[waited["inode_id"].isna()]["waits"].sum()
    assert recorded + lost_records(trace).get("file_wait", 0) >= 10
    assert not (waited["inode_id"] == id_of(trace, disk_dir / "written")).any()
