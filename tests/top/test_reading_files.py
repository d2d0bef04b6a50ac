"""The page cache of a cgroup and those below it, summed by file."""

from __future__ import annotations

import mmap
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from support.cached import cached_bytes

from tracer.capture.contents.pass_over_pages import AMOUNT
from tracer.enumerations import CONTENTS
from tracer.kernel.cgroups.cgroupfs import cgroup_id, memory_hierarchy
from tracer.lab.scratch import write_uncached
from tracer.top.reading_files import files_below, summed_by_file

PAGE = mmap.PAGESIZE
PARTS = (0, 701, 1090)
"""The pages of a file at which the reading of one cgroup ends, and that of the next begins."""
READER = (
    "import os, sys\n"
    "open(sys.argv[1] + '/cgroup.procs', 'w').write('0')\n"
    "file = os.open(sys.argv[2], os.O_RDONLY)\n"
    "os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)\n"  # no readahead beyond the part
    f"for page in range(int(sys.argv[3]), int(sys.argv[4])):\n    os.pread(file, {PAGE}, page * {PAGE})\n"
)


def amount(kind: str, number: int, memcg: int, size: int, **more: int) -> np.void:
    (row,) = np.zeros(1, AMOUNT)
    row["kind"], row["object"], row["cgroup_id"], row["bytes"] = CONTENTS.number(kind), number, memcg, size
    for name, value in more.items():
        row[name] = value
    return row


def test_file_that_several_cgroups_are_charged_for_is_one_file() -> None:
    rows = [
        amount("file", 71, 2, 300, dirty_bytes=7, address=5),
        amount("slab", 71, 2, 9_000),
        amount("file", 72, 2, 500),
        amount("file", 71, 3, 400, dirty_bytes=1, writeback_bytes=4, active_bytes=11, address=5),
        amount("shmem", 73, 3, 600, unevictable_bytes=13),
    ]
    found = summed_by_file(np.array(rows, AMOUNT))
    names = ["object", "bytes", "dirty_bytes", "writeback_bytes", "active_bytes", "unevictable_bytes"]
    assert [tuple(map(int, row)) for row in found[names]] == [
        (71, 700, 8, 4, 11, 0),
        (73, 600, 0, 0, 0, 13),
        (72, 500, 0, 0, 0, 0),
    ]
    assert found["address"][0] == 5


def test_no_files_are_no_rows() -> None:
    assert len(summed_by_file(np.zeros(0, AMOUNT))) == 0


@pytest.mark.kernel
@pytest.mark.beside
@pytest.mark.vm
def test_file_that_two_cgroups_below_have_read_is_whole_above_them(memcg: Path, disk_dir: Path) -> None:
    """The kernel may evict pages of the file at any time (support/settled.py)."""
    file, size = disk_dir / "shared", PARTS[-1] * PAGE
    write_uncached(file, size)
    if memory_hierarchy().version == 2:
        (memcg / "cgroup.subtree_control").write_text("+memory")
    for number, (begin, end) in enumerate(pairwise(PARTS)):
        below = memcg / f"below-{number}"
        below.mkdir()
        command = [sys.executable, "-S", "-c", READER, str(below), str(file), str(begin), str(end)]
        subprocess.run(command, check=True)
    steps: list[tuple[int, int]] = []
    most = cached_bytes(file)
    found = files_below(cgroup_id(memcg), 3, lambda *counts: steps.append(counts))
    (shared,) = (one for one in found.named if one.path == str(file))
    assert cached_bytes(file) <= shared.bytes == int(found.sizes["bytes"][0]) <= most <= size
    assert shared.inode == file.stat().st_ino
    assert len(found.named) <= 3
    assert steps[-1][0] == steps[-1][1] > 0
    (part,) = files_below(cgroup_id(memcg / "below-1"), 1, lambda *_: None).named
    share, evicted = (PARTS[2] - PARTS[1]) * PAGE, size - cached_bytes(file)
    assert share - evicted <= part.bytes <= share
