"""Owners and paths of cached files: each file has a number of pages of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.losses import lost_records

import tracer
from tracer.kernel.cgroups.cgroupfs import cgroup_id, memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.lab.scratch import write_uncached

PAGE = os.sysconf("SC_PAGESIZE")
ENTER = 'echo 0 > "{}/cgroup.procs" && exec "$0" "$@"'

READ = """
import os, sys
file = os.open(sys.argv[1], os.O_RDONLY)
os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
for page in range(int(sys.argv[2]), int(sys.argv[3])):
    os.pread(file, 1, page * os.sysconf("SC_PAGESIZE"))
"""
"""Script with arguments FILE BEGIN END: reads these pages without readahead."""

FORGET = """
import os, sys
os.posix_fadvise(os.open(sys.argv[1], os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)
"""

REMOVE = """
import mmap, os
page = bytes(os.sysconf("SC_PAGESIZE"))
with open("mapped", "w+b", buffering=0) as file:
    file.write(page * 7)
    area = mmap.mmap(file.fileno(), 0)
os.unlink("mapped")
area.close()
with open("open", "wb", buffering=0) as file:
    file.write(page * 5)
    os.unlink("open")
    file.write(page * 6)
with open("closed", "wb", buffering=0) as file:
    file.write(page * 13)
os.unlink("closed")
with open("linked", "wb", buffering=0) as file:
    file.write(page * 3)
    os.link("linked", "kept")
    os.unlink("linked")
    file.write(page * 14)
never = os.open(".", os.O_TMPFILE | os.O_RDWR)
os.write(never, page * 9)
"""

IN_MEMORY = """
import os, sys
page = bytes(os.sysconf("SC_PAGESIZE"))
nameless = os.memfd_create("nameless")
os.write(nameless, page * 21)
os.ftruncate(nameless, 0)
with open(sys.argv[1], "wb", buffering=0) as file:
    file.write(page * 33)
    file.truncate(0)
"""

CONTAINER = """
mount --make-rprivate / && cd "$1" || exit
mount -t overlay overlay -o "lowerdir=$PWD/lower,upperdir=$PWD/upper,workdir=$PWD/work" merged || exit
mount --bind data volume || exit
cat merged/low volume/bound >/dev/null
head -c "$2" /dev/zero >merged/made
echo done
read -r _
"""
"""Runs in its own mount namespace until its input ends: a process that is gone shows no mounts."""

IMAGE = """
mount --make-rprivate / && cd "$1" && mount "$2" image || exit
head -c "$3" /dev/zero >image/inside
echo done
read -r _
"""

HUGE = """
import mmap, os, sys
size = int(sys.argv[2])
def touch(file, pages):
    os.ftruncate(file, pages * size)
    area = mmap.mmap(file, pages * size)
    for page in range(pages):
        area[page * size] = 1
touch(os.open(sys.argv[1], os.O_CREAT | os.O_RDWR), 3)
nameless = os.memfd_create("huge", os.MFD_CLOEXEC | os.MFD_HUGETLB)
touch(nameless, 2)
os.ftruncate(nameless, size)
"""
HUGE_PAGES = 5

SMALL_FILES = 10_000
MANY = """
import os, sys
for number in range(int(sys.argv[1])):
    with open(f"file-{number:05}", "wb", buffering=0) as file:
        file.write(b"x" * (1 + number % 3 * os.sysconf("SC_PAGESIZE")))
"""

pytestmark = pytest.mark.kernel


@pytest.fixture
def other_memcg() -> Iterator[Path]:
    with ephemeral_cgroup("other", None) as directory:
        yield directory


def run_in(memcg: Path, script: str, *arguments: str | Path | int, cwd: Path | None = None) -> None:
    """Run Python in a cgroup."""
    command = ["sh", "-c", ENTER.format(memcg), sys.executable, "-c", script, *map(str, arguments)]
    subprocess.run(command, cwd=cwd, check=True)


@contextmanager
def container(memcg: Path, script: str, *arguments: str | Path) -> Iterator[None]:
    """Run a shell script in a cgroup and its own mount namespace, and keep the shell until the context
    ends.
    """
    command = ["sh", "-c", ENTER.format(memcg), "unshare", "-m", "sh", "-c", script, "sh"]
    with subprocess.Popen(
        [*command, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        yield
        process.communicate("\n")


def pages_of(trace: Any, inode_id: Any, *by: str) -> dict[Any, int]:
    """Return the sums of nr_pages of a file, by some columns of `pagecache`."""
    rows = trace.pagecache[trace.pagecache["inode_id"] == inode_id]
    return {key: int(pages) for key, pages in rows.groupby(list(by), observed=True)["nr_pages"].sum().items()}


def pages_at(rows: pd.DataFrame) -> list[int]:
    """Return the index of each page of some rows of `pagecache`, sorted."""
    runs = zip(rows["index"], rows["nr_pages"], strict=True)
    return sorted(page for index, pages in runs for page in range(index, index + pages))


def named(trace: Any, folder: Path) -> dict[str, pd.Series]:
    """Return name -> row of `inodes`, of the files whose host path is in the folder."""
    inodes = trace.inodes[trace.inodes["path"].str.startswith(f"{folder}/", na=False)]
    assert set(inodes["path_kind"]) <= {"host"}
    return {str(row["path"]).removeprefix(f"{folder}/"): row for _, row in inodes.iterrows()}


@pytest.mark.beside
def test_shared_file_is_charged_by_page_to_its_first_reader(
    memcg: Path, other_memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    shared = disk_dir / "shared"
    write_uncached(shared, (37 + 29) * PAGE)
    recorder = start_recorder("-c", str(memcg), "-c", str(other_memcg))
    run_in(memcg, READ, shared, 0, 37)
    run_in(other_memcg, READ, shared, 0, 37 + 29)
    run_in(other_memcg, FORGET, shared)
    trace = tracer.open(recorder.stop())
    first, second = cgroup_id(memcg), cgroup_id(other_memcg)
    assert pages_of(
        trace, named(trace, disk_dir)["shared"]["inode_id"], "op", "cgroup_id", "task_cgroup_id"
    ) == {
        ("add", first, first): 37,
        ("add", second, second): 29,
        ("delete", first, second): 37,
        ("delete", second, second): 29,
    }


@pytest.mark.beside
def test_untraced_cgroups_that_end_at_once_are_named(
    memcg: Path, other_memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    """They are gone when their records are read."""
    if memory_hierarchy().version == 2:
        (other_memcg / "cgroup.subtree_control").write_text("+memory", encoding="ascii")
    recorder = start_recorder("-c", str(memcg))
    ended = [other_memcg / f"short-{number}" for number in range(7)]
    for short in ended:
        write_uncached(disk_dir / short.name, 3 * PAGE)
        run_in(memcg, READ, disk_dir / short.name, 0, 3)
        short.mkdir()
        run_in(short, FORGET, disk_dir / short.name)
        short.rmdir()
    trace = tracer.open(recorder.stop())
    rows = trace.cgroups[trace.cgroups["cgroup_id"].isin(trace.pagecache["task_cgroup_id"])]
    found = rows[rows["removed"].notna()]
    assert set(found["path"]) == {memory_hierarchy().path(short) for short in ended}


@pytest.mark.beside
@pytest.mark.vm_once
def test_cache_of_a_removed_cgroup_is_recorded_until_its_end(
    memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    if memory_hierarchy().version == 2:
        (memcg / "cgroup.subtree_control").write_text("+memory", encoding="ascii")
    left = disk_dir / "left"
    write_uncached(left, 41 * PAGE)
    recorder = start_recorder("-c", str(memcg))
    removed = memcg / "removed"
    removed.mkdir()
    removed_id, parent_id = cgroup_id(removed), cgroup_id(memcg)
    run_in(removed, READ, left, 0, 41)
    removed.rmdir()
    subprocess.run([sys.executable, "-c", FORGET, str(left)], check=True)
    trace = tracer.open(recorder.stop())
    owners = pages_of(trace, named(trace, disk_dir)["left"]["inode_id"], "op", "cgroup_id")
    assert owners.pop(("add", removed_id)) == 41
    # The parent's, since "mm: memcontrol: eliminate the problem of dying memory cgroup for LRU folios", v7.1.
    assert owners in ({("delete", removed_id): 41}, {("delete", parent_id): 41})
    paths, removals = (trace.cgroups.set_index("cgroup_id")[column] for column in ("path", "removed"))
    assert paths[removed_id] == f"{paths[parent_id]}/removed"
    assert pd.notna(removals[removed_id])


@pytest.mark.beside
def test_removed_file_keeps_its_path(memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]) -> None:
    recorder = start_recorder("-c", str(memcg))
    run_in(memcg, REMOVE, cwd=disk_dir)
    trace = tracer.open(recorder.stop())
    assert lost_records(trace) == {}
    rows = named(trace, disk_dir)
    never = next(name for name in rows if name.startswith("#"))
    assert {name: pages_of(trace, row["inode_id"], "op") for name, row in rows.items()} == {
        "mapped": {"add": 7, "delete": 7},
        "open": {"add": 11, "delete": 11},
        "closed": {"add": 13, "delete": 13},
        "linked": {"add": 17},
        never: {"add": 9, "delete": 9},
    }
    assert {name for name, row in rows.items() if not row["deleted"]} == {"linked"}


@pytest.mark.beside
def test_file_in_memory_is_named_when_truncated(memcg: Path, start_recorder: Callable[..., Any]) -> None:
    recorder = start_recorder("-c", str(memcg))
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        run_in(memcg, IN_MEMORY, file.name)
        trace = tracer.open(recorder.stop())
    inodes = trace.inodes[trace.inodes["fs_type"] == "tmpfs"].set_index("path")
    for name, kind, pages in (("memfd:nameless", "kernel", 21), (file.name, "host", 33)):
        assert inodes.loc[name, "path_kind"] == kind
        assert pages_of(trace, inodes.loc[name, "inode_id"], "op", "cause") == {("delete", "truncate"): pages}


@pytest.fixture
def hugetlbfs(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """Mount a hugetlbfs; yield its directory and page size."""
    meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text("ascii").splitlines())
    if int(meminfo.get("HugePages_Free", "0")) < HUGE_PAGES:
        pytest.skip(f"needs {HUGE_PAGES} free huge pages (vm.nr_hugepages)")
    point = tmp_path / "huge"
    point.mkdir()
    subprocess.run(["mount", "-t", "hugetlbfs", "none", point], check=True)
    yield point, int(meminfo["Hugepagesize"].split()[0]) * 1024
    subprocess.run(["umount", point], check=True)


@pytest.mark.vm_once
def test_huge_pages_belong_to_named_files(
    memcg: Path, hugetlbfs: tuple[Path, int], start_recorder: Callable[..., Any]
) -> None:
    folder, huge_bytes = hugetlbfs
    recorder = start_recorder()  # record every cgroup: these pages may be charged to none
    run_in(memcg, HUGE, folder / "file", huge_bytes)
    (folder / "file").unlink()
    trace = tracer.open(recorder.stop())
    huge = huge_bytes // PAGE
    inodes = trace.inodes[trace.inodes["fs_type"] == "hugetlbfs"].set_index("path")
    for name, kind, pages in ((str(folder / "file"), "host", 3), ("memfd:huge", "kernel", 2)):
        inode_id = inodes.loc[name, "inode_id"]
        assert inodes.loc[name, "path_kind"] == kind
        expected = {("add", "fault"): pages * huge, ("delete", "truncate"): pages * huge}
        assert pages_of(trace, inode_id, "op", "cause") == expected
        rows = trace.pagecache[trace.pagecache["inode_id"] == inode_id]
        assert (rows["index"] % huge == 0).all()
        assert (rows["nr_pages"] == rows["folios"] * huge).all()
        for op in ("add", "delete"):
            assert pages_at(rows[rows["op"] == op]) == list(range(pages * huge))
        assert set(rows["cgroup_id"].dropna()) <= {cgroup_id(memcg)}
        files = trace.evictions("file")
        found = files.loc[files["inode_id"] == inode_id, ["path", "added_bytes"]].to_numpy().tolist()
        assert found == [[name, pages * huge_bytes]]


@pytest.mark.beside
def test_file_in_overlay_or_volume_has_host_and_container_path(
    memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    for name in ("lower", "upper", "work", "merged", "data", "volume"):
        (disk_dir / name).mkdir()
    write_uncached(disk_dir / "lower" / "low", 29 * PAGE)
    write_uncached(disk_dir / "data" / "bound", 19 * PAGE)
    recorder = start_recorder("-c", str(memcg))
    with container(memcg, CONTAINER, disk_dir, str(23 * PAGE)):
        trace = tracer.open(recorder.stop())
    rows = named(trace, disk_dir)
    assert {
        name: (row["container_path"], pages_of(trace, row["inode_id"], "op")) for name, row in rows.items()
    } == {
        "lower/low": (f"{disk_dir}/merged/low", {"add": 29}),
        "upper/made": (f"{disk_dir}/merged/made", {"add": 23}),
        "data/bound": (f"{disk_dir}/volume/bound", {"add": 19}),
    }


@pytest.fixture
def loop_device(disk_dir: Path) -> Iterator[str]:
    """Make a block device with an ext4 on it."""
    missing = [program for program in ("losetup", "mkfs.ext4") if shutil.which(program) is None]
    if missing or not Path("/dev/loop-control").exists():
        pytest.skip(f"needs loop devices, losetup and mkfs.ext4; missing: {missing or '/dev/loop-control'}")
    image = disk_dir / "image.ext4"
    with image.open("wb") as file:
        file.truncate(30 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    attach = ["losetup", "--find", "--show", str(image)]
    device = subprocess.run(attach, capture_output=True, text=True, check=True).stdout.strip()
    yield device
    subprocess.run(["losetup", "-d", device], check=True)


def test_block_device_and_container_mount_are_named(
    memcg: Path, disk_dir: Path, loop_device: str, start_recorder: Callable[..., Any]
) -> None:
    (disk_dir / "image").mkdir()
    number = Path(loop_device).stat().st_rdev
    rdev = f"{os.major(number)}:{os.minor(number)}"
    recorder = start_recorder("-c", str(memcg))
    run_in(memcg, READ, loop_device, 4000, 4031)
    with container(memcg, IMAGE, disk_dir, loop_device, str(43 * PAGE)):
        trace = tracer.open(recorder.stop())
    inodes = trace.inodes.set_index("path")
    device, inside = inodes.loc[loop_device], inodes.loc[f"{disk_dir}/image/inside"]
    assert (device["path_kind"], device["fs_type"], device["rdev"]) == ("device", "bdev", rdev)
    rows = trace.pagecache[trace.pagecache["inode_id"] == device["inode_id"]]
    rows = rows[rows["index"].between(4000, 4030)]
    moved = rows.groupby(["op", "cause"], observed=True)["nr_pages"].sum().to_dict()
    assert moved == {("add", "read"): 31, ("delete", "truncate"): 31}, (
        "the cache is truncated when the reader closes the device"
    )
    assert (inside["path_kind"], inside["fs_type"], inside["dev"]) == ("container", "ext4", rdev)
    assert pages_of(trace, inside["inode_id"], "op")["add"] == 43


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


@pytest.mark.beside
def test_many_small_files_are_all_named(
    memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    """On a busy machine the ring of charges may be full for a moment: sums lose their process then."""
    recorder = start_recorder("-c", str(memcg))
    at_first = resident_bytes(recorder.process.pid)
    run_in(memcg, MANY, SMALL_FILES, cwd=disk_dir)
    grown_bytes = resident_bytes(recorder.process.pid) - at_first
    trace = tracer.open(recorder.stop())
    assert grown_bytes < 24 << 20, "names are written, not kept in memory"
    assert lost_records(trace).keys() <= {"charge"}
    added = trace.pagecache[trace.pagecache["op"] == "add"].groupby("inode_id")["nr_pages"].sum()
    rows = named(trace, disk_dir)
    found = {name: int(added[row["inode_id"]]) for name, row in rows.items()}
    assert found == {f"file-{number:05}": 1 + number % 3 for number in range(SMALL_FILES)}
    assert {name: row["ino"] for name, row in rows.items()} == {
        path.name: path.stat().st_ino for path in disk_dir.iterdir()
    }
