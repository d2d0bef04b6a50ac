"""Hundreds and thousands of cgroups: they do not use up descriptors, and all totals stay exact."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from support.ledger_check import differences, unequal
from support.losses import lost_records
from support.recorder import Recorder
from support.settled import settle

import tracer
from tracer.capture.bpf.load import ACCOUNTS
from tracer.kernel.cgroups.cgroupfs import cgroup_id

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

MANY: Final = 300
THOUSAND: Final = 1000
DESCRIPTORS: Final = 256
"""Soft and hard limit of descriptors, below the number of cgroups."""

HOLDERS: Final = """
import os, signal, sys
for number, line in enumerate(sys.stdin.read().splitlines()):
    if os.fork() == 0:
        directory, pages = line.rsplit(" ", 1)
        with open(directory + "/cgroup.procs", "w") as procs:
            procs.write("0")
        os.write(os.memfd_create("held"), bytes(int(pages) * 4096))
        os.write(1, b"%d %d\\n" % (number, os.getpid()))
        signal.pause()
try:
    while True:
        os.wait()
except ChildProcessError:
    pass
"""
"""A small process, because a fork of the tests' own takes 6 ms."""

WRITERS: Final = """
import os, sys
for line in sys.stdin:
    directory, file, pages = line.rsplit(" ", 2)
    child = os.fork()
    if child == 0:
        with open(directory + "/cgroup.procs", "w") as procs:
            procs.write("0")
        with open(file, "wb") as stream:
            stream.write(bytes(int(pages) * 4096))
        os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@pytest.fixture
def shm() -> Iterator[Path]:
    folder = Path(f"/dev/shm/memcg-tracer-test-{os.getpid()}")
    folder.mkdir(mode=0o700)
    yield folder
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


Write = Callable[[Path, Path, int], None]


@contextmanager
def writing_in_cgroups() -> Iterator[Write]:
    """Yield `write(memcg, file, pages)`, which lets a new process write so many pages in this cgroup."""
    command = [sys.executable, "-S", "-c", WRITERS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        given, told = parent.stdin, parent.stdout
        assert given is not None and told is not None

        def write(memcg: Path, file: Path, pages: int) -> None:
            given.write(f"{memcg} {file} {pages}\n")
            given.flush()
            assert told.readline() == "0\n"

        yield write
        given.close()


def record_within(memcg: Path, folder: Path) -> Recorder:
    limited = ("prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}")
    return Recorder(folder, "--ready-file", "ready", "-c", str(memcg), wrapper=limited)


def pages_of(number: int) -> int:
    """Return a number of pages; neighbours differ."""
    return 1 + number * 7 % 61


def test_more_cgroups_than_descriptors_have_exact_totals(memcg: Path, shm: Path, tmp_path: Path) -> None:
    """Half of them exist before the recording, half are made during it."""
    children = [memcg / f"child-{number}" for number in range(MANY)]
    for child in children[: MANY // 2]:
        child.mkdir()
    with record_within(memcg, tmp_path) as recorder:
        recorder.wait_until_ready()
        for child in children[MANY // 2 :]:
            child.mkdir()
        with writing_in_cgroups() as write:
            for number, child in enumerate(children):
                write(child, shm / str(number), pages_of(number))
        settle(memcg)
        trace = tracer.open(recorder.stop())
    expected = {cgroup_id(child): pages_of(number) for number, child in enumerate(children)}
    charged = trace.charge[trace.charge["category"] == "shmem"].groupby("cgroup_id")["pages"].sum().to_dict()
    assert {number: charged.get(number) for number in expected} == expected
    ends = trace.samples[trace.samples["source"] == "end"].set_index("cgroup_id")["shmem_bytes"]
    assert (ends.loc[list(expected)] // 4096).to_dict() == expected
    assert expected.keys() <= set(trace.samples[trace.samples["source"] == "periodic"]["cgroup_id"])
    assert "samples" not in (trace.meta["lost"] or {})


@contextmanager
def holding_pages(pages: Mapping[Path, int]) -> Iterator[list[int]]:
    """Yield the pids of a process in each of these cgroups that holds so many pages of shared memory."""
    command = [sys.executable, "-S", "-c", HOLDERS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        parent.stdin.writelines(f"{directory} {number}\n" for directory, number in pages.items())
        parent.stdin.close()
        lines = sorted(tuple(map(int, parent.stdout.readline().split())) for _ in pages)
        pids = [pid for _, pid in lines]
        try:
            yield pids
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)


def test_a_thousand_cgroups_with_a_process_each_have_exact_totals(memcg: Path, tmp_path: Path) -> None:
    """Each process holds another number of pages, and is charged for them.

    What it touched about a switch that the kernel did not report is of no process (test_attribution.py).
    """
    children = [memcg / f"child-{number}" for number in range(THOUSAND)]
    for child in children[: THOUSAND // 2]:
        child.mkdir()
    with record_within(memcg, tmp_path) as recorder:
        recorder.wait_until_ready()
        for child in children[THOUSAND // 2 :]:
            child.mkdir()
        with holding_pages({child: pages_of(number) for number, child in enumerate(children)}) as pids:
            settle(memcg)
            trace = tracer.open(recorder.stop())
    ids = [cgroup_id(child) for child in children]
    held = {one: pages_of(number) for number, one in enumerate(ids)}
    shmem = trace.charge[(trace.charge["category"] == "shmem") & trace.charge["cgroup_id"].isin(ids)]
    assert shmem.groupby("cgroup_id")["pages"].sum().to_dict() == held
    charged = shmem.dropna(subset=["tgid"]).groupby(["cgroup_id", "tgid"])["pages"].sum()
    assert set(charged.index) <= set(zip(ids, pids, strict=True))
    assert 0.9 * sum(held.values()) < charged.sum() <= sum(held.values())
    assert {one: found for one in unequal(trace, ids) if (found := differences(trace, one))} == {}


def test_more_cgroups_than_the_least_room_of_the_ledger_have_exact_totals(
    memcg: Path, tmp_path: Path
) -> None:
    """All exist before the recording, and some are charged."""
    children = [memcg / f"child-{number}" for number in range(ACCOUNTS + 104)]
    for child in children:
        child.mkdir()
    pages = {child: pages_of(number) for number, child in enumerate(children) if number % 7 == 0}
    with record_within(memcg, tmp_path) as recorder:
        recorder.wait_until_ready()
        with holding_pages(pages):
            settle(memcg)
            trace = tracer.open(recorder.stop())
    held = {cgroup_id(child): number for child, number in pages.items()}
    shmem = trace.charge[trace.charge["category"] == "shmem"].groupby("cgroup_id")["pages"].sum()
    assert {one: shmem.get(one) for one in held} == held
    ids = [cgroup_id(child) for child in children]
    assert {one: found for one in unequal(trace, ids) if (found := differences(trace, one))} == {}
    assert lost_records(trace) == {}
    assert "ledger has room" not in recorder.stderr


def test_short_lived_cgroups_have_rows_and_lose_no_samples(memcg: Path, tmp_path: Path) -> None:
    """They are made and removed as fast as possible; each tenth has a short-lived process."""
    made: list[int] = []
    with record_within(memcg, tmp_path) as recorder, writing_in_cgroups() as write:
        recorder.wait_until_ready()
        for number in range(2 * MANY):
            child = memcg / f"child-{number}"
            child.mkdir()
            made.append(cgroup_id(child))
            if number % 10 == 9:
                write(child, tmp_path / "written", 256)
            child.rmdir()
        trace = tracer.open(recorder.stop())
    known = trace.cgroups.set_index("cgroup_id")
    lost = (trace.meta["lost"] or {}).get("cgroup", 0)
    assert len(set(made) - set(known.index)) <= lost
    gone = known.loc[[number for number in made if number in known.index]]
    assert gone["removed"].notna().sum() >= len(gone) - lost
    assert "samples" not in (trace.meta["lost"] or {})
