from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tracer.errors import TracerError, UsageError
from tracer.kernel.cgroups import ephemeral
from tracer.kernel.cgroups.cgroupfs import Hierarchy, memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.kernel.process.spawn import spawn
from tracer.schema import UNLIMITED_BYTES

MIB = 1 << 20


def limit_file() -> str:
    return "memory.limit_in_bytes" if memory_hierarchy().version == 1 else "memory.max"


@pytest.mark.kernel
@pytest.mark.beside
def test_cgroup_has_limit_and_is_removed() -> None:
    with ephemeral_cgroup("some test", 8 * MIB, 0) as directory:
        assert directory.name == f"memcg-tracer-{os.getpid()}-some-test"
        assert int((directory / limit_file()).read_text()) == 8 * MIB
        if (directory / "memory.memsw.limit_in_bytes").exists():
            assert int((directory / "memory.memsw.limit_in_bytes").read_text()) == 8 * MIB
    assert not directory.exists()


@pytest.mark.kernel
@pytest.mark.beside
def test_cgroup_without_limit_is_unlimited() -> None:
    with ephemeral_cgroup("test", None) as directory:
        shown = (directory / limit_file()).read_text().strip()
        assert shown in ("max", str(UNLIMITED_BYTES))


@pytest.mark.kernel
@pytest.mark.beside
def test_cgroup_after_error_is_removed() -> None:
    with pytest.raises(ZeroDivisionError), ephemeral_cgroup("test", MIB) as directory:
        raise ZeroDivisionError
    assert not directory.exists()


@pytest.mark.kernel
@pytest.mark.beside
def test_cgroup_with_processes_and_children_is_removed() -> None:
    with ephemeral_cgroup("test", None) as directory:
        command = spawn(directory, ["sh", "-c", "trap '' TERM; sleep 1000 & exec sleep 1000"])
        command.release()
        (directory / "inner" / "most").mkdir(parents=True)
        pids = (directory / "cgroup.procs").read_text().split()
        (directory / "inner" / "most" / "cgroup.procs").write_text(pids[-1])
    assert not directory.exists()
    assert command.process.wait() == -9


@pytest.mark.kernel
@pytest.mark.beside
def test_cgroup_existing_name_raises_and_stays() -> None:
    with ephemeral_cgroup("test", None) as directory:
        with pytest.raises(TracerError, match="File exists"), ephemeral_cgroup("test", None):
            pass
        assert directory.is_dir()


@pytest.mark.kernel
@pytest.mark.beside
def test_cgroup_limit_below_page_creates_nothing() -> None:
    with pytest.raises(UsageError, match="less than one page"), ephemeral_cgroup("tiny", 100):
        pass
    assert not (memory_hierarchy().mount / f"memcg-tracer-{os.getpid()}-tiny").exists()


def test_v2_without_memory_controller_raises_with_advice(tmp_path: Path) -> None:
    (tmp_path / "cgroup.subtree_control").write_text("cpu pids\n")
    hierarchy = Hierarchy(2, tmp_path, "/")
    with pytest.raises(TracerError, match=r"echo \+memory > .*subtree_control"):
        ephemeral._make(hierarchy, "x")
    assert not (tmp_path / "x").exists()


def test_v2_limits_are_written_to_files(tmp_path: Path) -> None:
    (tmp_path / "memory.swap.max").write_text("max\n")
    ephemeral._set_limits(Hierarchy(2, tmp_path, "/"), tmp_path, 5 * MIB, 3 * MIB)
    assert (tmp_path / "memory.max").read_text() == str(5 * MIB)
    assert (tmp_path / "memory.swap.max").read_text() == str(3 * MIB)


def test_v1_swap_limit_is_sum_with_memory(tmp_path: Path) -> None:
    (tmp_path / "memory.memsw.limit_in_bytes").write_text("0")
    ephemeral._set_limits(Hierarchy(1, tmp_path, "/"), tmp_path, 5 * MIB, 3 * MIB)
    assert (tmp_path / "memory.memsw.limit_in_bytes").read_text() == str(8 * MIB)
    with pytest.raises(UsageError, match="give a limit"):
        ephemeral._set_limits(Hierarchy(1, tmp_path, "/"), tmp_path, None, 3 * MIB)


def test_swap_limit_without_accounting_raises_only_with_swap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hierarchy = Hierarchy(2, tmp_path, "/")
    monkeypatch.setattr(ephemeral, "machine_has_swap", lambda: False)
    ephemeral._set_limits(hierarchy, tmp_path / "no-such-files", None, 0)
    monkeypatch.setattr(ephemeral, "machine_has_swap", lambda: True)
    with pytest.raises(TracerError, match="leave the swap size out"):
        ephemeral._set_limits(hierarchy, tmp_path / "no-such-files", None, 0)


def test_kill_member_other_process_survives(tmp_path: Path) -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    (tmp_path / "cgroup.procs").write_text("1\n")
    ephemeral._kill_member(tmp_path, bystander.pid)
    bystander.terminate()
    assert bystander.wait() == -signal.SIGTERM  # an earlier SIGKILL would show as -SIGKILL


def test_kill_member_member_is_killed(tmp_path: Path) -> None:
    member = subprocess.Popen(["sleep", "60"])
    (tmp_path / "cgroup.procs").write_text(f"{member.pid}\n")
    ephemeral._kill_member(tmp_path, member.pid)
    assert member.wait() == -signal.SIGKILL


def test_remove_failure_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ephemeral, "_EMPTY_WITHIN_S", 0.05)
    stuck = tmp_path / "memcg-tracer-1-\x1b[31m"
    stuck.mkdir()
    (stuck / "memory.stat").touch()  # rmdir of a plain directory with a file in it fails
    ephemeral.remove(stuck)
    assert "\x1b" not in caplog.text
    assert "is left behind" in caplog.text
    assert "rmdir" in caplog.text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("web", "web"),
        ("a/b/../c", "a-b-..-c"),
        ("..", "cgroup"),
        ("", "cgroup"),
        ("x" * 99, "x" * 40),
        ("é\n", "cgroup"),
    ],
)
def test_component_any_name_is_valid(name: str, expected: str) -> None:
    assert ephemeral._component(name) == expected
