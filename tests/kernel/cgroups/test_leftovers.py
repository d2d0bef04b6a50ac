"""Removal of the cgroups that a killed tracer leaves behind, and of no others."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tracer.kernel.cgroups.cgroupfs import memory_hierarchy
from tracer.kernel.cgroups.containers import EPHEMERAL_PREFIX
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup, remove, remove_leftovers

pytestmark = [pytest.mark.kernel, pytest.mark.alone]  # any recorder that starts removes leftovers

MAKER = """
import sys, subprocess
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
with ephemeral_cgroup("left", None) as directory:
    member = subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL)
    (directory / "cgroup.procs").write_text(str(member.pid))
    print(directory, member.pid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def maker() -> Iterator[tuple[subprocess.Popen[str], Path, int]]:
    """Yield (maker, directory, pid of the member) of a process that holds a cgroup with a process in it."""
    process = subprocess.Popen(
        [sys.executable, "-c", MAKER], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout
    directory, _, member = process.stdout.readline().strip().rpartition(" ")
    yield process, Path(directory), int(member)
    process.kill()
    process.communicate()
    remove(Path(directory))


def is_running(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def test_leftovers_of_killed_maker_are_removed(
    maker: tuple[subprocess.Popen[str], Path, int],
) -> None:
    process, directory, member = maker
    (directory / "inner").mkdir()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert directory.is_dir()
    assert is_running(member)
    assert directory in remove_leftovers(memory_hierarchy())
    assert not directory.exists()
    assert not is_running(member)


def test_leftovers_of_living_maker_stay(maker: tuple[subprocess.Popen[str], Path, int]) -> None:
    _, directory, member = maker
    assert directory not in remove_leftovers(memory_hierarchy())
    assert directory.is_dir()
    assert is_running(member)


def test_leftovers_of_locked_maker_with_unknown_pid_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A maker in another pid namespace lives, but no process here has the pid in the name."""
    monkeypatch.setattr("os.getpid", lambda: 1 << 23)  # above PID_MAX_LIMIT
    with ephemeral_cgroup("far", None) as directory:
        monkeypatch.undo()
        assert directory.name == f"{EPHEMERAL_PREFIX}{1 << 23}-far"
        assert directory not in remove_leftovers(memory_hierarchy())
        assert directory.is_dir()


def test_leftovers_with_similar_name_stay() -> None:
    directory = memory_hierarchy().mount / f"{EPHEMERAL_PREFIX}of-somebody"
    directory.mkdir()
    try:
        assert directory not in remove_leftovers(memory_hierarchy())
        assert directory.is_dir()
    finally:
        directory.rmdir()
