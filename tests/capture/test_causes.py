"""Why a folio entered or left the page cache: each cause provoked with a number of pages of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import causes
import pandas as pd
import pytest
from causes import PAGE, STEPS

import tracer
from tracer.kernel.cgroupfs import cgroup_id

pytestmark = pytest.mark.kernel

WHOLE_MACHINE = os.environ.get("MEMCG_TRACER_WHOLE_MACHINE") == "1"
"""Whether nobody else is disturbed by what concerns the whole machine, as in a guest of tests/vm."""

CACHED_BEFORE = ("truncate", "unlink", "punch", "forget", "write_past", "drop")
"""Steps whose file must be in the cache, so that they take it out: read in by the cgroup itself."""

EXPECTED = {
    ("read", "add", "read"): 37,
    ("readahead", "add", "readahead"): 61,
    ("fault", "add", "fault"): 29,
    ("write", "add", "write"): 43,
    ("truncate", "delete", "truncate"): 53,
    ("unlink", "delete", "truncate"): 59,
    ("punch", "delete", "truncate"): 72,
    ("forget", "delete", "invalidate"): 67,
    ("write_past", "delete", "invalidate"): 71,
    ("drop", "delete", "drop_caches"): 79,
}
"""(file, op, cause) -> pages."""


def make_files(folder: Path) -> dict[int, str]:
    """The steps' files, on disk and not in the cache. Inode number -> name."""
    inodes = {}
    for name, (_, pages) in STEPS.items():
        path = folder / name
        path.write_bytes(b"" if name == "write" else os.urandom(pages * PAGE))
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        inodes[path.stat().st_ino] = name
    return inodes


def run_steps(memcg: Path, folder: Path, names: list[str]) -> None:
    enter = f'echo 0 > "{memcg}/cgroup.procs" && exec "$0" "$@"'
    script = Path(causes.__file__)
    for name in CACHED_BEFORE:
        subprocess.run(["sh", "-c", enter, "cat", str(folder / name)], stdout=subprocess.DEVNULL, check=True)
    command = ["sh", "-c", enter, sys.executable, str(script), str(folder), *names]
    subprocess.run(command, input="\n" * (len(names) + 1), text=True, stdout=subprocess.DEVNULL, check=True)


def pages_by(rows: pd.DataFrame, inodes: dict[int, str]) -> dict[tuple[str, str, str], int]:
    rows = rows.assign(file=rows["ino"].map(inodes)).dropna(subset=["file"])
    sums = rows.groupby(["file", "op", "cause"], observed=True)["nr_pages"].sum()
    return {tuple(map(str, key)): int(pages) for key, pages in sums.items()}


@pytest.mark.vm
def test_each_cause_with_its_own_number_of_pages(
    memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    inodes = make_files(disk_dir)
    names = [name for name in STEPS if name != "drop" or WHOLE_MACHINE]
    recorder = start_recorder("-c", str(memcg))
    run_steps(memcg, disk_dir, names)
    trace = tracer.open(recorder.stop())
    assert trace.loss.empty
    rows = trace.pagecache
    # the file's own pages: of what lies in the same file system, only these inodes were asked for
    rows = rows[rows["dev"] == rows[rows["ino"].isin(inodes)]["dev"].mode().iloc[0]]
    found = pages_by(rows, inodes)
    expected = {key: pages for key, pages in EXPECTED.items() if key[0] in names}
    assert {key: found.get(key, 0) for key in expected} == expected, found
    assert set(rows["cgroup_id"].dropna()) == {cgroup_id(memcg)}
    assert set(rows["task_cgroup_id"]) == {cgroup_id(memcg)}
    begun = {key[2]: pages for key, pages in found.items() if key[:2] == ("begin", "add")}
    assert 1 <= begun["read"] <= 16, "the folio that was asked for"
    assert begun["readahead"] >= 1
    assert sum(begun.values()) <= STEPS["begin"][1]
