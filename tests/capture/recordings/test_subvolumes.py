"""Files of Btrfs, whose subvolumes number their files each by themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tracer

PAGE = os.sysconf("SC_PAGESIZE")
SNAPSHOTS = ("first", "second", "third")
PAGES = 23

pytestmark = [pytest.mark.kernel, pytest.mark.beside]


@pytest.fixture
def btrfs(disk_dir: Path) -> Iterator[Path]:
    """Mount a file system with a file `data`, of PAGES pages, and one with two names in each of SNAPSHOTS.
    Nothing of them is cached."""
    missing = [program for program in ("losetup", "mkfs.btrfs", "btrfs") if shutil.which(program) is None]
    if missing or "btrfs" not in Path("/proc/filesystems").read_text(encoding="ascii"):
        pytest.skip(f"needs Btrfs in the kernel, and btrfs-progs; missing: {missing or 'Btrfs'}")
    image, point = disk_dir / "image", disk_dir / "mounted"
    with image.open("wb") as file:
        file.truncate(128 << 20)
    point.mkdir()
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    mount = ["mount", "-o", "loop", str(image), str(point)]
    subprocess.run(mount, check=True)
    try:
        first = point / SNAPSHOTS[0]
        call = ["btrfs", "-q", "subvolume"]
        subprocess.run([*call, "create", first], check=True)
        (first / "data").write_bytes(os.urandom(PAGES * PAGE))
        (first / "name").write_bytes(bytes(PAGE))
        os.link(first / "name", first / "link")
        for name in SNAPSHOTS[1:]:
            subprocess.run([*call, "snapshot", first, point / name], check=True)
        subprocess.run(["umount", point], check=True)
        subprocess.run(mount, check=True)
        yield point
    finally:
        subprocess.run(["umount", point], check=True)


def test_files_of_snapshots_are_distinct(
    memcg: Path, btrfs: Path, start_recorder: Callable[..., Any]
) -> None:
    """They have the same inode number and generation, and each has pages of its own."""
    recorder = start_recorder("-c", str(memcg))
    script = f'echo 0 > "{memcg}/cgroup.procs"; cat "$@"'
    files = [btrfs / name / "data" for name in SNAPSHOTS]
    subprocess.run(["sh", "-c", script, "sh", *files], check=True, stdout=subprocess.DEVNULL)
    trace = tracer.open(recorder.stop())
    rows = trace.inodes[trace.inodes["path"].isin(map(str, files))].set_index("inode_id")
    assert sorted(rows["path"]) == sorted(map(str, files))
    assert rows[["dev", "ino"]].drop_duplicates().shape[0] == 1
    assert {file.stat().st_ino for file in files} == set(rows["ino"])
    added = trace.pagecache[trace.pagecache["inode_id"].isin(rows.index)]
    assert added.groupby("inode_id")["nr_pages"].sum().to_dict() == dict.fromkeys(rows.index, PAGES)
    assert trace.refaults.empty


MAPS = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    area = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    print(area[0], flush=True)
    sys.stdin.read()
"""


def test_file_of_a_snapshot_has_the_name_by_which_it_is_mapped(
    memcg: Path, btrfs: Path, start_recorder: Callable[..., Any]
) -> None:
    """stat(2) gives another device for a subvolume than that of the kernel's file system."""
    recorder = start_recorder("-c", str(memcg))
    file, link = (btrfs / SNAPSHOTS[1] / name for name in ("name", "link"))
    assert file.stat().st_ino == link.stat().st_ino  # the kernel lists the name first that it looked up last
    enter = f'echo 0 > "{memcg}/cgroup.procs" && exec "$0" "$@"'
    command = ["sh", "-c", enter, sys.executable, "-c", MAPS, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        trace = tracer.open(recorder.stop())
        process.communicate()
    found = trace.inodes[trace.inodes["path"].str.startswith(f"{btrfs}/", na=False)]
    assert found["path"].tolist() == [str(file)]
