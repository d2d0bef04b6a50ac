"""`contents`, as a user runs it, on a cgroup of known contents."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from support.cached import cached_bytes
from support.schemas import require_form
from support.settled import count_on_each_cpu, settle

from tracer.lab.scratch import write_uncached

PAGE = mmap.PAGESIZE
READ_PAGES = (523, 701, 389, 97, 151, 53, 307, 67, 211, 431, 79, 127, 367)
WRITTEN_PAGES = (241, 37, 113, 59, 173, 29, 83)
ANON_BYTES = 1217 * PAGE
_CACHESTAT = 451  # on every architecture

pytestmark = [pytest.mark.kernel, pytest.mark.beside]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tracer", "contents", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def dirty_pages(files: Iterable[Path]) -> list[int]:
    """Return the dirty pages of files, as cachestat(2) counts them; [] on a kernel before 6.5 without it."""
    counted = []
    for file in files:
        whole, counts = (ctypes.c_uint64 * 2)(0, 0), (ctypes.c_uint64 * 5)()
        with file.open("rb") as stream:
            if ctypes.CDLL(None).syscall(_CACHESTAT, stream.fileno(), whole, counts, 0):
                return []
        counted.append(counts[1])
    return counted


@pytest.mark.vm_once
def test_files_processes_and_sums_are_those_of_the_workload(
    memcg: Path, disk_dir: Path, start_workload: Callable[..., Any]
) -> None:
    """Files that were read, with the second half of some dropped again, and files that were written."""
    files = {disk_dir / f"file {number}": pages for number, pages in enumerate(READ_PAGES)}
    written = {disk_dir / f"written {number}": pages for number, pages in enumerate(WRITTEN_PAGES)}
    for file, pages in files.items():
        write_uncached(file, pages * PAGE)
    steps = ["read", *map(str, files), "then", "anon", str(ANON_BYTES)]
    for file, pages in written.items():
        steps += ["then", "write", str(file), str(pages * PAGE)]
    work = start_workload(memcg, *steps)
    assert [work.advance() for _ in range(3)] == ["start", "done read", "done anon"]
    assert {work.advance() for _ in written} == {"done write"}
    for file, pages in [*files.items()][::3]:
        with file.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), pages // 2 * PAGE, 0, os.POSIX_FADV_DONTNEED)

    every = {**files, **written}
    count_on_each_cpu(memcg)
    most = settle(memcg)
    cached, dirty = [*map(cached_bytes, every)], dirty_pages(written)
    ended = run("-c", memcg.name, "-n", "100", "--json")
    cached_after, dirty_after = [*map(cached_bytes, every)], dirty_pages(written)
    least = settle(memcg)
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    require_form("contents", document)
    (cgroup,) = document["cgroups"]
    assert (cgroup["cgroup"], cgroup["removed"]) == (f"/{memcg.name}", False)
    # The kernel may write and evict page cache at any time, and memory.stat may not show it at once.
    for kind in ("anon_bytes", "shmem_bytes", "file_bytes"):
        counted = cgroup["counted"][kind]
        assert least[kind] <= cgroup[kind] <= most[kind], kind
        assert least[kind] <= counted[0] <= counted[1] <= most[kind], kind
    found = {Path(file["path"]): file for file in cgroup["files"] if file["path"]}
    assert sum(cached) < sum(every.values()) * PAGE, "a part of some is cached"
    for before, file, after in zip(cached, every, cached_after, strict=True):
        assert after <= found[file]["bytes"] <= before
    for before, file, after in zip(dirty, written, dirty_after, strict=False):
        assert after <= found[file]["dirty_bytes"] // PAGE <= before
    assert {found[file]["dirty_bytes"] for file in files} == {0}
    (process,) = (one for one in cgroup["processes"] if one["pid"] == work.process.pid)
    assert process["bytes"] <= cgroup["anon_bytes"]
    assert sum(one["bytes"] for one in process["mappings"] if one["mapping"] == "anonymous") >= ANON_BYTES

    largest = next(file for file in cgroup["files"] if file["path"] == str(disk_dir / "file 0"))
    kinds = ("anon_bytes", "file_bytes", "hugetlb_bytes", "kernel_bytes", "slab_bytes")
    is_large = largest["bytes"] - (largest["active_bytes"] or 0) >= 0.2 * sum(cgroup[kind] for kind in kinds)
    assert any(f"{disk_dir / 'file 0'}, clean" in said for said in cgroup["advice"]) == is_large

    text = run("-c", memcg.name, "--by", "file", "-n", "1").stdout
    assert "file 1" in text and "file 2" not in text


def test_cgroup_that_does_not_exist_is_refused_in_one_line() -> None:
    ended = run("-c", "memcg-tracer-no-such-cgroup")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("memcg-tracer: error: no cgroup or container is 'memcg-tracer-no-such-")
    assert ended.stderr.count("\n") == 1


@pytest.mark.vm_once
def test_removed_cgroup_is_shown_by_the_cgroup_above_it_as_its_refusal_says(
    memcg: Path, disk_dir: Path, start_workload: Callable[..., Any]
) -> None:
    """Since Linux 7.1, the cgroup above it gets its page cache, a moment after the removal."""
    write_uncached(disk_dir / "read", ANON_BYTES)
    below = memcg / f"{memcg.name}-below"
    below.mkdir()
    work = start_workload(below, "read", str(disk_dir / "read"))
    assert [work.advance(), work.advance()] == ["start", "done read"]
    work.release()
    work.process.wait()
    below.rmdir()
    for gone in (below.name, str(below), f"/{memcg.name}/{below.name}"):
        ended = run("-c", gone)
        assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
        assert "still holds memory needs -c of a cgroup above it, or --by cgroup" in ended.stderr
    document = json.loads(run("-c", memcg.name, "--json").stdout)
    cached = cached_bytes(disk_dir / "read")
    held = {one["cgroup"]: one for one in document["cgroups"]}
    assert {name for name, one in held.items() if one["removed"]} <= {f"/{memcg.name}/{below.name}"}
    assert sum(one["file_bytes"] for one in held.values()) >= cached > 0
