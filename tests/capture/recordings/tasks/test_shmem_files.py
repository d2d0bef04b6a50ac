"""Files of shared memory: a process holds one of each kind, with a size and an amount of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import tracer
from tracer.kernel.cgroups.cgroupfs import cgroup_id

pytestmark = [pytest.mark.kernel, pytest.mark.beside]

MIB = 1 << 20
HELD_BYTES = 32 * MIB
LEAST_SEEN_BYTES = HELD_BYTES * 8 // 9  # the last look is after so much of what the cgroup was charged
NAME = "/dev/shm/memcg-tracer-left"
HOLD = """
import ctypes, mmap, os, sys

libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
MIB = 1 << 20
with open(sys.argv[1], "wb") as left:
    left.write(b"x" * 11 * MIB)
    anonymous = mmap.mmap(-1, 17 * MIB)
    anonymous[: 9 * MIB] = b"x" * 9 * MIB
    memfd = os.memfd_create("held")
    os.write(memfd, b"x" * 7 * MIB)
    segment = libc.shmget(0, 13 * MIB, 0o600)
    address = libc.shmat(segment, None, 0)
    libc.shmctl(segment, 0, None)  # IPC_RMID: it goes with its last user
    ctypes.memset(address, 1, 5 * MIB)
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(memcg: Path) -> Any:
    """Return a function that starts the process in the cgroup, and returns once it holds all."""
    enter = f'echo 0 > "{memcg}/cgroup.procs" && exec "$0" "$@"'
    started = []

    def start() -> subprocess.Popen[bytes]:
        program = [sys.executable, "-c", HOLD, NAME]
        child = subprocess.Popen(["sh", "-c", enter, *program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        return child

    yield start
    Path(NAME).unlink(missing_ok=True)
    for child in started:
        child.communicate()


@pytest.mark.vm_once
def test_each_kind_is_seen_with_its_name_size_and_holder(
    memcg: Path, holder: Callable[[], Any], start_recorder: Callable[..., Any]
) -> None:
    recorder = start_recorder("-c", str(memcg))
    child = holder()
    recorder.wait_for(lambda: last_looks(recorder.path)["held_bytes"].sum() >= LEAST_SEEN_BYTES)
    child.communicate()
    files = tracer.open(recorder.stop()).shmem_files
    assert set(files["cgroup_id"]) == {cgroup_id(memcg)}
    assert set(files["tgid"]) == {child.pid}
    last = last_looks(recorder.path)
    found = {row["kind"]: row for _, row in last.iterrows()}
    assert sorted(last["kind"]) == ["anonymous", "memfd", "sysv", "tmpfs"]
    assert about(found["anonymous"]) == ("/dev/zero", 17, True)
    assert about(found["memfd"]) == ("/memfd:held", 7, False)
    assert about(found["sysv"]) == ("/SYSV00000000", 13, True)
    assert about(found["tmpfs"]) == (NAME, 11, False)
    assert LEAST_SEEN_BYTES <= last["held_bytes"].sum() <= HELD_BYTES


def last_looks(path: Path) -> pd.DataFrame:
    """Return the last row of each file in a trace, which may grow."""
    files = tracer.open(path).shmem_files
    return files[~files.duplicated(["dev", "ino"], keep="last")]


def about(row: pd.Series) -> tuple[str, int, bool]:
    return row["name"], -(-row["size_bytes"] // MIB), bool(row["is_mapped"])


def test_cgroup_without_shared_memory_has_no_files(memcg: Path, start_recorder: Callable[..., Any]) -> None:
    recorder = start_recorder("-c", str(memcg))
    enter = f'echo 0 > "{memcg}/cgroup.procs" && exec "$0" "$@"'
    subprocess.run(["sh", "-c", enter, sys.executable, "-c", "x = bytes(9 << 20)"], check=True)
    assert tracer.open(recorder.stop()).shmem_files.empty
