from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tracer.kernel.cgroups.cgroupfs import memory_hierarchy, own_path

TOP = Path(__file__).parents[2]


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tracer.lab.workload", *arguments]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def lines(*arguments: str) -> list[str]:
    output, errors = start("--barrier", *arguments).communicate("\n" * 10)
    assert errors == ""
    return output.splitlines()


def test_workload_prints_a_line_at_each_barrier() -> None:
    assert lines("anon", "1", "then", "shmem", "5000") == ["start", "done anon", "done shmem"]


def test_workload_waits_at_the_barrier(tmp_path: Path) -> None:
    workload = start("--barrier", "write", str(tmp_path / "f"), "3")
    assert workload.stdout is not None
    assert workload.stdin is not None
    assert workload.stdout.readline() == "start\n"
    assert not (tmp_path / "f").exists()
    workload.stdin.write("\n")
    workload.stdin.flush()
    assert workload.stdout.readline() == "done write\n"
    assert (tmp_path / "f").stat().st_size == 3
    workload.communicate()  # the end of stdin ends it
    assert workload.returncode == 1


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (3 << 20) + 7])
def test_written_file_of_any_size_is_exact(tmp_path: Path, size: int) -> None:
    lines("write", str(tmp_path / "f"), str(size), "then", "read", str(tmp_path / "f"))
    assert (tmp_path / "f").stat().st_size == size


def test_files_step_makes_as_many_files(tmp_path: Path) -> None:
    lines("files", str(tmp_path), "23")
    assert len(list(tmp_path.iterdir())) == 23


def test_threads_live_until_the_workload_ends() -> None:
    workload = start("--barrier", "threads", "7")
    assert workload.stdout is not None
    assert workload.stdin is not None
    workload.stdin.write("\n")
    workload.stdin.flush()
    assert [workload.stdout.readline() for _ in range(2)] == ["start\n", "done threads\n"]
    assert len(list(Path(f"/proc/{workload.pid}/task").iterdir())) == 8
    workload.communicate("\n")
    assert workload.returncode == 0


def cgroup_of(pid: int) -> str:
    text = Path(f"/proc/{pid}/cgroup").read_text("ascii")
    return own_path(memory_hierarchy(), text)


def status_of(pid: int) -> dict[str, int]:
    """Return the fields of /proc/PID/status that are in kB, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    fields = (line.partition(":") for line in lines if line.endswith(" kB"))
    return {name: int(value.split()[0]) << 10 for name, _, value in fields}


@pytest.mark.kernel
def test_child_runs_in_its_cgroup_and_ends_with_its_parent(
    memcg: Path, start_workload: Callable[..., Any]
) -> None:
    steps = ("cgroups", "small", "big", "then", "child", "big", "5000000", "then", "anon", "1")
    workload = start_workload(memcg, *steps)
    for barrier in ("start", "done cgroups", "done child", "done anon"):
        assert workload.advance() == barrier
    path = memory_hierarchy().path(memcg)
    (child,) = (int(pid) for pid in (memcg / "big" / "cgroup.procs").read_text("ascii").split())
    assert child != workload.process.pid
    assert cgroup_of(child) == f"{path}/big"
    assert cgroup_of(workload.process.pid) == f"{path}/small"
    assert status_of(child)["RssAnon"] >= 5_000_000
    assert sorted(one.name for one in memcg.iterdir() if one.is_dir()) == ["big", "small"]
    workload.process.kill()
    workload.process.communicate()  # to the end of stdout, which the child also has open


def test_crowd_ends_with_its_parent_after_one_is_killed() -> None:
    workload = start("--barrier", "crowd", "5000000:900", "1:1000", "then", "press", str(1 << 33))
    assert workload.stdout is not None
    assert workload.stdin is not None
    workload.stdin.write("\n")
    workload.stdin.flush()
    assert [workload.stdout.readline() for _ in range(2)] == ["start\n", "done crowd\n"]
    children = Path(f"/proc/{workload.pid}/task/{workload.pid}/children").read_text("ascii").split()
    big, small = (Path("/proc", child) for child in children)
    assert [(one / "oom_score_adj").read_text("ascii") for one in (big, small)] == ["900\n", "1000\n"]
    assert status_of(int(big.name))["RssAnon"] >= status_of(int(small.name))["RssAnon"] + 4_000_000
    os.kill(int(small.name), signal.SIGKILL)
    workload.communicate("\n")  # to the end of stdout, which the children also have open
    assert workload.returncode == 1, "`press` returned early, and the barrier found the end of stdin"


@pytest.mark.parametrize(
    ("step", "field", "least"),
    [
        ("anon 5000000", "RssAnon", 5_000_000),
        ("rows 5000000", "RssAnon", 5_000_000),
        ("shmem 5000000", "RssShmem", 5_000_000),
        ("mlock 5000000", "VmLck", 5_000_000),
        ("mlock_file {file}", "VmLck", 5_000_000),
        ("page_tables 409600", "VmPTE", 409_600),
    ],
)
def test_step_grows_the_memory_that_it_names(tmp_path: Path, step: str, field: str, least: int) -> None:
    (tmp_path / "f").write_bytes(bytes(5_000_000))
    workload = start("--barrier", *step.format(file=tmp_path / "f").split())
    assert workload.stdout is not None
    assert workload.stdin is not None
    assert workload.stdout.readline() == "start\n"
    before = status_of(workload.pid)[field]
    workload.stdin.write("\n")
    workload.stdin.flush()
    assert workload.stdout.readline() == f"done {step.split(maxsplit=1)[0]}\n"
    grown = status_of(workload.pid)[field] - before
    assert least <= grown <= least + (1 << 20)
    workload.communicate("\n")
    assert workload.returncode == 0


def test_memfd_and_pipes_stay_charged(tmp_path: Path) -> None:
    workload = start("--barrier", "memfd", "5000", "then", "pipes", str(5 << 14))
    assert workload.stdout is not None
    assert workload.stdin is not None
    workload.stdin.write("\n\n")
    workload.stdin.flush()
    assert [workload.stdout.readline() for _ in range(3)] == ["start\n", "done memfd\n", "done pipes\n"]
    found = [link.readlink() for link in Path(f"/proc/{workload.pid}/fd").iterdir()]
    assert sum(str(one).startswith("/memfd:workload") for one in found) == 1
    assert sum(str(one).startswith("pipe:") for one in found) >= 2 * 5
    workload.communicate("\n")
    assert workload.returncode == 0


def test_execute_step_becomes_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "program"
    program.write_bytes(Path("/proc/self/exe").read_bytes() + bytes(3 << 20))
    program.chmod(0o700)
    monkeypatch.setenv("PYTHONPATH", str(TOP))
    monkeypatch.chdir(tmp_path)
    workload = start("--barrier", "execute", str(program), "2")
    assert workload.stdout is not None
    assert workload.stdin is not None
    for line in ("start\n", "start\n", "done execute\n"):  # the program begins from the start
        assert workload.stdout.readline() == line
        if line == "start\n":
            workload.stdin.write("\n")
            workload.stdin.flush()
    assert Path(f"/proc/{workload.pid}/exe").readlink() == program
    workload.communicate("\n")
    assert workload.returncode == 0


@pytest.mark.kernel
def test_left_file_outlives_its_writer_and_no_other_process_sees_it(tmp_path: Path) -> None:
    workload = start("--barrier", "leave", str(tmp_path), "5000000")
    assert workload.stdout is not None
    assert workload.stdin is not None
    workload.stdin.write("\n")
    workload.stdin.flush()
    assert [workload.stdout.readline() for _ in range(2)] == ["start\n", "done leave\n"]
    assert Path(f"/proc/{workload.pid}/task/{workload.pid}/children").read_text("ascii") == ""
    (left,) = Path(f"/proc/{workload.pid}/root{tmp_path}").iterdir()
    assert left.stat().st_blocks * 512 >= 5_000_000
    assert list(tmp_path.iterdir()) == []
    workload.communicate("\n")
    assert workload.returncode == 0


def test_cow_and_segment_leave_no_process() -> None:
    workload = start("--barrier", "cow", "5000000:900", "then", "segment", "5000000", "3")
    assert workload.stdout is not None
    assert workload.stdin is not None
    workload.stdin.write("\n\n")
    workload.stdin.flush()
    assert [workload.stdout.readline() for _ in range(3)] == ["start\n", "done cow\n", "done segment\n"]
    assert Path(f"/proc/{workload.pid}/task/{workload.pid}/children").read_text("ascii") == ""
    assert status_of(workload.pid)["RssAnon"] >= 5_000_000
    assert status_of(workload.pid)["RssShmem"] == 0, "only its children have touched the segment"
    workload.communicate("\n")
    assert workload.returncode == 0


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("step", "file", "content"),
    [("oom_group", "memory.oom.group", "1\n"), ("high 5001216", "memory.high", "5001216\n")],
)
def test_step_writes_a_setting_of_v2(
    memcg: Path, start_workload: Callable[..., Any], step: str, file: str, content: str
) -> None:
    if memory_hierarchy().version == 1:
        pytest.skip(f"needs cgroup v2: v1 has no {file}")
    workload = start_workload(memcg, *step.split())
    assert (workload.advance(), workload.advance()) == ("start", f"done {step.split(maxsplit=1)[0]}")
    assert (memcg / file).read_text("ascii") == content


@pytest.mark.parametrize("arguments", [[], ["dance"], ["anon", "1", "then"], ["--loud"], ["--pause-ms"]])
def test_invalid_arguments_are_refused_with_the_usage(arguments: list[str]) -> None:
    workload = start(*arguments)
    _, errors = workload.communicate()
    assert workload.returncode == 1
    assert errors.startswith("usage: ")
    assert "Traceback" not in errors
