"""`contents`, as a user runs it, on a cgroup of known contents."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.schemas import require_form

PAGE = mmap.PAGESIZE
FILES_PAGES = (701, 389, 97, 53)
ANON_BYTES = 1217 * PAGE

pytestmark = [pytest.mark.kernel, pytest.mark.vm_once]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tracer", "contents", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def cached_pages(file: Path) -> int:
    """Return the pages of a file that are in the page cache, as fincore(1) counts them (mincore(2))."""
    columns = ["fincore", "--noheadings", "--output", "PAGES", str(file)]
    return int(subprocess.run(columns, capture_output=True, text=True, check=True).stdout)


def test_files_processes_and_sums_are_those_of_the_workload(
    memcg: Path, disk_dir: Path, start_workload: Callable[..., Any]
) -> None:
    files = {disk_dir / f"file {number}": pages for number, pages in enumerate(FILES_PAGES)}
    for file, pages in files.items():
        file.write_bytes(os.urandom(pages * PAGE))
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    work = start_workload(memcg, "read", *map(str, files), "then", "anon", str(ANON_BYTES))
    assert [work.advance() for _ in range(3)] == ["start", "done read", "done anon"]

    ended = run("-c", memcg.name, "-n", "20", "--json")
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    require_form("contents", document)
    (cgroup,) = document["cgroups"]
    assert (cgroup["cgroup"], cgroup["removed"]) == (f"/{memcg.name}", False)
    found = {Path(file["path"]): file["bytes"] for file in cgroup["files"] if file["path"]}
    assert {file: found[file] for file in files} == {file: pages * PAGE for file, pages in files.items()}
    assert {file: cached_pages(file) for file in files} == files
    (process,) = (one for one in cgroup["processes"] if one["pid"] == work.process.pid)
    assert process["bytes"] <= cgroup["anon_bytes"]
    assert sum(one["bytes"] for one in process["mappings"] if one["mapping"] == "anonymous") >= ANON_BYTES

    text = run("-c", memcg.name, "--by", "file", "-n", "1").stdout
    assert "file 0" in text and "file 1" not in text


def test_cgroup_that_does_not_exist_is_refused_in_one_line() -> None:
    ended = run("-c", "memcg-tracer-no-such-cgroup")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("memcg-tracer: error: no cgroup or container is 'memcg-tracer-no-such-")
    assert ended.stderr.count("\n") == 1
