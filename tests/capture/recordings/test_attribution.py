"""Charges by process, against what each process is known to have touched, and the part of no known process.

The totals of every cgroup equal the kernel's counters, whoever changed them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.ledger_check import differences, ledger_pages
from support.settled import settle

import tracer
from tracer.kernel.cgroups.cgroupfs import cgroup_id, memory_hierarchy
from tracer.kernel.cgroups.ephemeral import remove

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]

TOUCHER = Path(__file__).parents[2] / "workloads" / "toucher.py"
OWN_PAGES = 24
"""Pages that the interpreter touches or frees besides those of its orders."""
IS_GUEST = os.environ.get("MEMCG_TRACER_WHOLE_MACHINE") == "1"


class Toucher:
    """A process of tests/workloads/toucher.py."""

    def __init__(self, memcg: Path) -> None:
        enter = f'echo 0 > "{memcg}/cgroup.procs" && exec "$0" "$@"'
        command = ["sh", "-c", enter, sys.executable, "-S", str(TOUCHER)]
        self.process = subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._answer("ready")

    def begin(self, *order: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, order)) + "\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self._answer("done")

    def do(self, *order: object) -> None:
        self.begin(*order)
        self.end()

    def _answer(self, expected: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"{expected}\n"


@pytest.fixture
def start_toucher() -> Iterator[Callable[[Path], Toucher]]:
    with ExitStack() as kept:

        def start(memcg: Path) -> Toucher:
            toucher = Toucher(memcg)
            kept.enter_context(toucher.process)
            kept.callback(toucher.process.kill)
            return toucher

        yield start


@pytest.fixture
def children(memcg: Path) -> Iterator[Callable[[str], Path]]:
    """Return a function that makes a cgroup below `memcg`."""
    if memory_hierarchy().version == 2:
        (memcg / "cgroup.subtree_control").write_text("+memory", encoding="ascii")

    def make(name: str) -> Path:
        (memcg / name).mkdir()
        return memcg / name

    yield make
    for child in memcg.glob("*/"):
        remove(child)


def anon_pages(trace: Any, memcg: int) -> dict[int | None, int]:
    """Return process -> pages of anonymous memory, None for the part of no known process."""
    rows = trace.charge[(trace.charge["cgroup_id"] == memcg) & (trace.charge["category"] == "anon")]
    sums = rows.groupby("tgid", dropna=False)["pages"].sum()
    return {None if pd.isna(tgid) else int(tgid): int(pages) for tgid, pages in sums.items()}


def is_about(pages: int, expected: int) -> bool:
    return abs(pages - expected) <= OWN_PAGES


@pytest.mark.parametrize("cpus", [1, pytest.param(2, marks=pytest.mark.vm)])
def test_two_processes_in_one_cgroup_are_charged_for_what_each_touched(
    cpus: int, memcg: Path, start_toucher: Callable[[Path], Toucher], start_recorder: Callable[..., Any]
) -> None:
    """They take turns on one CPU, or run at once on two.

    A kernel may not report each switch: here, those away from some tasks and from the idle task of a CPU are
    missing in ftrace as well. What changed about such a switch is of no known process.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < cpus:
        pytest.skip(f"needs {cpus} CPUs")
    touchers, touched = [start_toucher(memcg), start_toucher(memcg)], [4097, 1531]
    for toucher, cpu in zip(touchers, allowed * 2, strict=False):
        toucher.do("cpu", cpu if cpus == 2 else allowed[0])
    settle(memcg)
    recorder = start_recorder("-c", str(memcg))
    for toucher, pages in zip(touchers, touched, strict=True):
        toucher.begin("touch", pages)
    for toucher in touchers:
        toucher.end()
    settle(memcg)
    trace = tracer.open(recorder.stop())
    charged = anon_pages(trace, cgroup_id(memcg))
    unknown = charged.pop(None, 0)
    assert charged.keys() == {toucher.process.pid for toucher in touchers}
    assert 0 <= unknown < sum(touched) / 3
    for toucher, pages in zip(touchers, touched, strict=True):
        assert pages - unknown - OWN_PAGES <= charged[toucher.process.pid] <= pages + OWN_PAGES
    assert is_about(sum(charged.values()) + unknown, sum(touched))
    assert differences(trace, cgroup_id(memcg)) == {}


def test_task_that_keeps_its_cpu_is_charged_every_ten_milliseconds(
    memcg: Path, start_toucher: Callable[[Path], Toucher], start_recorder: Callable[..., Any]
) -> None:
    """The kernel's timers cut its slice: the recorder is stopped meanwhile."""
    toucher = start_toucher(memcg)
    recorder = start_recorder("-c", str(memcg))
    os.kill(recorder.process.pid, signal.SIGSTOP)
    toucher.do("hold", 0.4)
    os.kill(recorder.process.pid, signal.SIGCONT)
    settle(memcg)
    trace = tracer.open(recorder.stop())
    rows = trace.charge[trace.charge["category"] == "anon"]
    rows = rows[rows["tgid"] == toucher.process.pid]
    assert rows["pages"].sum() >= 400
    assert len(rows) >= 20
    assert differences(trace, cgroup_id(memcg)) == {}


def test_memory_freed_by_a_task_of_another_cgroup_is_of_no_known_process(
    memcg: Path, start_toucher: Callable[[Path], Toucher], start_recorder: Callable[..., Any]
) -> None:
    file, pages = Path(f"/dev/shm/memcg-tracer-{os.getpid()}"), 2347
    toucher = start_toucher(memcg)
    settle(memcg)
    recorder = start_recorder("-c", str(memcg))
    try:
        toucher.do("write", file, pages)
    finally:
        file.unlink()  # by this process, which is in another cgroup
    settle(memcg)
    trace = tracer.open(recorder.stop())
    rows = trace.charge[trace.charge["category"] == "shmem"]
    charged, freed = rows[rows["pages"] > 0], rows[rows["pages"] < 0]
    assert charged["pages"].sum() == pages == -freed["pages"].sum()
    assert freed["tgid"].isna().all()
    of_toucher = charged.loc[charged["tgid"] == toucher.process.pid, "pages"].sum()
    assert set(charged["tgid"].dropna()) == {toucher.process.pid}
    assert of_toucher > 0.5 * pages, charged[["tgid", "pages"]]  # unreported switches: above
    assert differences(trace, cgroup_id(memcg)) == {}


def test_process_that_moves_while_it_is_charged_leaves_both_totals_exact(
    children: Callable[[str], Path],
    start_toucher: Callable[[Path], Toucher],
    start_recorder: Callable[..., Any],
) -> None:
    """It moves itself, so what it touches after a move is its own at once. Others move it while it runs."""
    here, there = children("here"), children("there")
    toucher = start_toucher(here)
    for memcg in (here, there):
        settle(memcg)
    recorder = start_recorder("-c", str(here), "-c", str(there))
    toucher.do("touch", 1201)
    toucher.do("move", there)
    toucher.do("touch", 3001)
    toucher.begin("touch", 20_011)
    for memcg in (here, there) * 20:
        (memcg / "cgroup.procs").write_text(str(toucher.process.pid), encoding="ascii")
        time.sleep(0.003)
    toucher.end()
    for memcg in (here, there):
        settle(memcg)
    trace = tracer.open(recorder.stop())
    charged = [anon_pages(trace, cgroup_id(memcg)) for memcg in (here, there)]
    assert charged[0][toucher.process.pid] >= 1201
    assert charged[1][toucher.process.pid] >= 3001 - OWN_PAGES
    assert is_about(sum(sum(one.values()) for one in charged), 1201 + 3001 + 20_011)
    assert [differences(trace, cgroup_id(memcg)) for memcg in (here, there)] == [{}, {}]


@pytest.mark.vm
def test_cache_of_a_removed_cgroup_that_is_dropped_later_leaves_the_subtree_exact(
    memcg: Path,
    children: Callable[[str], Path],
    disk_dir: Path,
    start_toucher: Callable[[Path], Toucher],
    start_recorder: Callable[..., Any],
) -> None:
    file, pages = disk_dir / "cached", 1777
    child = children("child")
    recorder = start_recorder("-c", str(memcg))
    dead = cgroup_id(child)
    toucher = start_toucher(child)
    toucher.do("write", file, pages)
    toucher.process.kill()
    toucher.process.wait()
    remove(child)
    time.sleep(0.5)
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    settle(memcg)
    trace = tracer.open(recorder.stop())
    rows = trace.charge[(trace.charge["cgroup_id"] == dead) & (trace.charge["category"] == "file")]
    assert rows.loc[rows["pages"] > 0, "pages"].sum() >= pages
    subtree = [cgroup_id(memcg), dead]
    left = sum(ledger_pages(trace, one)["file"] for one in subtree)
    added = trace.pagecache[(trace.pagecache["op"] == "add") & (trace.pagecache["ino"] != file.stat().st_ino)]
    others = added.loc[
        added["cgroup_id"].isin(subtree), "nr_pages"
    ].sum()  # such as of the interpreter's files
    assert 0 <= left <= others
    assert differences(trace, cgroup_id(memcg), subtree) == {}


def set_online(number: int, *, online: bool) -> None:
    Path(f"/sys/devices/system/cpu/cpu{number}/online").write_text(str(int(online)), encoding="ascii")


@pytest.mark.vm_once
@pytest.mark.skipif(not IS_GUEST, reason="takes CPUs off the machine (a guest of tests/vm)")
@pytest.mark.parametrize("orders", [(False, True), (False,), (True, False, True)])
def test_ledger_is_exact_while_cpus_come_and_go(
    orders: Sequence[bool],
    memcg: Path,
    start_toucher: Callable[[Path], Toucher],
    start_recorder: Callable[..., Any],
) -> None:
    """A CPU goes offline with counters of the cgroup that are not zero, before or during the recording."""
    last = max(os.sched_getaffinity(0))
    toucher = start_toucher(memcg)
    toucher.do("cpu", last)
    toucher.do("touch", 701)
    if orders[0]:
        set_online(last, online=False)
    try:
        settle(memcg)
        recorder = start_recorder("-c", str(memcg))
        for pages, online in enumerate(orders):
            toucher.do("touch", 501 + pages)
            set_online(last, online=online)
            toucher.do("touch", 301 + pages)
        toucher.do("free")
        settle(memcg)
        trace = tracer.open(recorder.stop())
    finally:
        set_online(last, online=True)
    assert differences(trace, cgroup_id(memcg)) == {}
