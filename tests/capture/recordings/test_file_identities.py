"""Files that have device and inode number in common: of subvolumes of Btrfs, and of images on one device."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.file_systems import image, mounted, require
from support.recorder import Recorder

import tracer
from tracer.errors import TraceError
from tracer.trace.write.claim import claim

PAGE = os.sysconf("SC_PAGESIZE")
SNAPSHOTS = ("first", "second", "third")
PAGES = 23
PAGES_OF = (11, 71)

pytestmark = [pytest.mark.kernel, pytest.mark.beside]


@pytest.fixture
def btrfs(disk_dir: Path) -> Iterator[Path]:
    """Mount a file system with a file `data`, of PAGES pages, and one with two names in each of SNAPSHOTS.
    Nothing of them is cached."""
    require("btrfs", "losetup", "mkfs.btrfs", "btrfs")
    made, point = image(disk_dir / "image", 128, "mkfs.btrfs", "-q"), disk_dir / "mounted"
    with mounted(made, point, "-o", "loop"):
        first = point / SNAPSHOTS[0]
        call = ["btrfs", "-q", "subvolume"]
        subprocess.run([*call, "create", first], check=True)
        (first / "data").write_bytes(os.urandom(PAGES * PAGE))
        (first / "name").write_bytes(bytes(PAGE))
        os.link(first / "name", first / "link")
        for name in SNAPSHOTS[1:]:
            subprocess.run([*call, "snapshot", first, point / name], check=True)
    with mounted(made, point, "-o", "loop"):
        yield point


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


def test_recorder_that_writes_its_trace_to_a_subvolume_is_named(btrfs: Path) -> None:
    with Recorder(btrfs / SNAPSHOTS[0], "--ready-file", "ready") as recorder:
        recorder.wait_until_ready()
        with pytest.raises(TraceError, match=f"written by the recorder with pid {recorder.process.pid}:"):
            claim(recorder.path, force=True)
        recorder.stop()


@pytest.mark.parametrize("make", [("mksquashfs",), ("mkfs.erofs",)])
def test_files_of_two_images_on_one_loop_device_are_distinct(
    make: tuple[str], memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    """Their file systems number no generations."""
    kind = make[0].removeprefix("mk").removeprefix("fs.")
    require(kind, "losetup", *make)
    names, images = ("one", "two"), []
    for name, pages in zip(names, PAGES_OF, strict=True):
        folder, made = disk_dir / f"of-{name}", disk_dir / f"{name}.image"
        folder.mkdir()
        (folder / name).write_bytes(os.urandom(pages * PAGE))
        parts = [made, folder] if kind == "erofs" else [folder, made, "-noappend"]
        subprocess.run([*make, *parts], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        images.append(made)
    find = subprocess.run(["losetup", "--find"], check=True, capture_output=True, text=True)
    device, point = find.stdout.strip(), disk_dir / "point"
    recorder = start_recorder("-c", str(memcg))
    for name, made in zip(names, images, strict=True):
        subprocess.run(["losetup", device, made], check=True)
        try:
            with mounted(device, point):
                enter = f'echo 0 > "{memcg}/cgroup.procs"; cat "$0"'
                subprocess.run(["sh", "-c", enter, point / name], check=True, stdout=subprocess.DEVNULL)
        finally:
            subprocess.run(["losetup", "-d", device], check=True)
    trace = tracer.open(recorder.stop())
    # The path of a file is that within its file system, if nothing is mounted any more when it is named.
    last = trace.inodes["path"].str.rpartition("/")[2]
    rows = trace.inodes.assign(name=last)[last.isin(names)]
    assert rows[["dev", "ino"]].drop_duplicates().shape[0] == 1
    assert sorted(rows["name"]) == ["one", "two"]
    added = trace.pagecache[trace.pagecache["op"] == "add"].groupby("inode_id")["nr_pages"].sum()
    read = {name: int(added[inode_id]) for name, inode_id in rows.set_index("name")["inode_id"].items()}
    # SquashFS adds pages of whole blocks, past the end of a file.
    assert PAGES_OF[0] <= read["one"] < PAGES_OF[1] <= read["two"]
    assert set(rows["size_bytes"]) == {pages * PAGE for pages in PAGES_OF}
    assert trace.refaults.empty
