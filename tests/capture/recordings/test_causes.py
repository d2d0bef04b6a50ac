"""Causes of page-cache events: each one is provoked with a number of pages of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.huge_pages import WHOLE_MACHINE, huge_pages_of
from support.losses import lost_records
from support.settled import settle
from workloads import file_steps
from workloads.file_steps import MORE_PAGES, PAGE, STEPS

import tracer
from tracer.kernel.cgroups.cgroupfs import cgroup_id
from tracer.kernel.meminfo import meminfo_bytes

pytestmark = pytest.mark.kernel

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
"""(file, op, cause) -> pages with single-page folios; with large folios each file has `MORE_PAGES` more."""


IN_PARTS = {"read": "read", "begin": "read"}
"""Steps whose large folios are in part read ahead: name -> cause of the rest."""


def pages_of(step: str, folios: str) -> int:
    return STEPS[step][1] + (MORE_PAGES if folios == "large" else 0)


def make_files(folder: Path, folios: str) -> dict[int, str]:
    """Make the steps' files, on disk and not in the cache. Return inode number -> name."""
    inodes = {}
    for name in STEPS:
        path = folder / name
        path.write_bytes(b"" if name == "write" else os.urandom(pages_of(name, folios) * PAGE))
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        inodes[path.stat().st_ino] = name
    return inodes


def record_steps(memcg: Path, folder: Path, start_recorder: Callable[..., Any], folios: str) -> pd.DataFrame:
    """Record the steps. Return the rows of `pagecache` of their files; column `file` is the step's name."""
    inodes = make_files(folder, folios)
    recorder = start_recorder("-c", str(memcg))
    enter = f'echo 0 > "{memcg}/cgroup.procs" && exec "$0" "$@"'
    names = [name for name in STEPS if name != "drop" or WHOLE_MACHINE]
    command = ["sh", "-c", enter, sys.executable, file_steps.__file__, folios, str(folder), *names]
    subprocess.run(command, check=True)
    trace = tracer.open(recorder.stop())
    assert lost_records(trace) == {}
    rows = trace.pagecache
    rows = rows[rows["cause"] != "reclaim_kswapd"]  # DAMON's eviction of idle pages is not one of the steps
    # keep the inodes of the steps only
    rows = rows[rows["dev"] == rows[rows["ino"].isin(inodes)]["dev"].mode().iloc[0]]
    assert set(rows["cgroup_id"].dropna()) == {cgroup_id(memcg)}
    assert set(rows["task_cgroup_id"]) == {cgroup_id(memcg)}
    named: pd.DataFrame = rows.assign(file=rows["ino"].map(inodes)).dropna(subset=["file"])
    return named


def by_cause(rows: pd.DataFrame, column: str) -> dict[tuple[str, str, str], int]:
    """Return (file, op, cause) -> sum of a column."""
    found = rows.groupby(["file", "op", "cause"], observed=True)[column].sum().reset_index()
    return {(file, op, cause): total for file, op, cause, total in found.to_numpy().tolist()}


@pytest.mark.vm_once
def test_cause_of_single_page_folios_matches_the_step(
    memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    rows = record_steps(memcg, disk_dir, start_recorder, "single")
    pages, folios = by_cause(rows, "nr_pages"), by_cause(rows, "folios")
    expected = {key: pages for key, pages in EXPECTED.items() if key[0] != "drop" or WHOLE_MACHINE}
    assert {key: pages.get(key, 0) for key in expected} == expected, pages
    assert {key: folios[key] for key in expected} == expected, "each folio is one page"
    begun = {key[2]: pages for key, pages in pages.items() if key[:2] == ("begin", "add")}
    assert 1 <= begun["read"] <= 16, "more than the folio of the read"
    assert begun["readahead"] >= 1
    assert sum(begun.values()) <= STEPS["begin"][1]


@pytest.mark.vm_once
def test_cause_of_large_folios_matches_the_step(
    memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    rows = record_steps(memcg, disk_dir, start_recorder, "large")
    if (rows["nr_pages"] == rows["folios"]).all():
        pytest.skip("needs a file system with large folios")
    pages, folios = by_cause(rows, "nr_pages"), by_cause(rows, "folios")
    # The kernel chooses how far it reads ahead at first, and a readahead request takes single-page folios
    # (force_page_cache_ra in mm/readahead.c).
    in_parts = {name: [(name, "add", cause), (name, "add", "readahead")] for name, cause in IN_PARTS.items()}
    left_out = {"readahead", *IN_PARTS, *(() if WHOLE_MACHINE else ("drop",))}
    expected = {key: pages + MORE_PAGES for key, pages in EXPECTED.items() if key[0] not in left_out}
    assert {key: pages.get(key, 0) for key in expected} == expected, pages
    for name, parts in in_parts.items():
        assert sum(pages[part] for part in parts) == pages_of(name, "large"), pages
    in_large = [*expected, ("read", "add", "read"), ("begin", "add", "readahead")]
    assert [key for key in in_large if pages[key] == folios[key]] == [], "each of these has large folios"


COPIED_PAGES = 73
COPY = """
import os, sys
source, copy = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT, 0o600)
left = os.fstat(source).st_size
while left:
    left -= os.copy_file_range(source, copy, left)
"""


def test_copy_reads_one_file_and_writes_another(
    memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    source, copy = disk_dir / "source", disk_dir / "copy"
    source.write_bytes(os.urandom(COPIED_PAGES * PAGE))
    with source.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    recorder = start_recorder("-c", str(memcg))
    enter = f'echo 0 > "{memcg}/cgroup.procs" && exec "$0" "$@"'
    subprocess.run(["sh", "-c", enter, sys.executable, "-c", COPY, source, copy], check=True)
    trace = tracer.open(recorder.stop())
    files = {source.stat().st_ino: "source", copy.stat().st_ino: "copy"}
    rows = trace.pagecache.assign(file=trace.pagecache["ino"].map(files)).dropna(subset=["file"])
    rows = rows[rows["dev"] == rows["dev"].mode().iloc[0]]
    assert by_cause(rows[rows["op"] == "add"], "nr_pages") == {
        ("source", "add", "read"): COPIED_PAGES,
        ("copy", "add", "write"): COPIED_PAGES,
    }


PRESSED_PAGES = (96 << 20) // PAGE + 5
BY_THE_MACHINE = {
    "reclaim_kswapd": ("pgsteal_kswapd",),
    # since 57e9cc50f4dd ("mm: vmscan: split khugepaged stats from direct reclaim stats"), v6.2
    "reclaim_direct": ("pgsteal_direct", "pgsteal_khugepaged"),
}
"""Cause -> counters of such pages in memory.stat of v2, of those that this kernel has."""
MOST_PRESSES = 4
"""How often the machine is pressed until both kswapd and a task took pages of the cgroup."""
LEFT_BYTES = 256 << 20
FILL = """
import mmap, os, sys
POPULATE_WRITE = 23  # MADV_POPULATE_WRITE, since v5.14
open("/proc/self/oom_score_adj", "w").write("1000")
memory = mmap.mmap(-1, int(sys.argv[2]), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
memory.madvise(POPULATE_WRITE)
print("full", flush=True)
sys.stdin.readline()
"""
"""Script that fills memory on one CPU, and leaves kswapd little of that CPU, so that it reclaims itself."""


def press() -> None:
    """Take all memory that is available: most of it as huge pages, the rest on all CPUs at once."""
    with huge_pages_of(meminfo_bytes()["MemAvailable"] - LEFT_BYTES), ExitStack() as started:
        cpus = sorted(os.sched_getaffinity(0))
        share = meminfo_bytes()["MemAvailable"] // len(cpus)
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        fillers = [
            started.enter_context(
                subprocess.Popen([sys.executable, "-S", "-c", FILL, str(cpu), str(share)], **pipes)
            )
            for cpu in cpus
        ]
        for filler in fillers:
            assert filler.stdout is not None
            filler.stdout.readline()  # without "full" the kernel killed it: no page was left


def stolen_pages(memcg: Path) -> dict[str, int]:
    lines = map(str.split, (memcg / "memory.stat").read_text("ascii").splitlines())
    pages = {name: int(value) for name, value in lines}
    return {cause: sum(pages.get(name, 0) for name in names) for cause, names in BY_THE_MACHINE.items()}


@pytest.mark.vm_once
@pytest.mark.skipif(
    not WHOLE_MACHINE, reason="takes a machine whose memory may be used up (a guest of tests/vm)"
)
def test_shortage_of_the_machine_evicts_by_kswapd_and_direct_reclaim(
    memcg: Path, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    """The pages evicted by kswapd and by direct reclaim equal the kernel's counters."""
    path = disk_dir / "pressed"
    path.write_bytes(os.urandom(PRESSED_PAGES * PAGE))
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    recorder = start_recorder("-c", str(memcg))
    enter = f'echo 0 > "{memcg}/cgroup.procs" && exec cat "{path}"'
    for _ in range(MOST_PRESSES):
        subprocess.run(["sh", "-c", enter], stdout=subprocess.DEVNULL, check=True)
        press()
        settle(memcg)
        counted = stolen_pages(memcg)
        if all(counted.values()):
            break
    trace = tracer.open(recorder.stop())
    assert "pagecache" not in lost_records(trace), "a starved guest may lose others"
    deleted = trace.pagecache[trace.pagecache["op"] == "delete"]
    all_pages = deleted.groupby("cause", observed=True)["nr_pages"].sum().to_dict()
    rows = trace.pagecache[trace.pagecache["cause"].isin(BY_THE_MACHINE)]
    assert set(rows["op"]) == {"delete"}
    assert set(rows["cgroup_id"]) == {cgroup_id(memcg)}
    assert cgroup_id(memcg) not in set(rows["task_cgroup_id"])
    assert {cause: all_pages.get(cause, 0) for cause in BY_THE_MACHINE} == counted, all_pages
    assert all(counted.values()), counted
