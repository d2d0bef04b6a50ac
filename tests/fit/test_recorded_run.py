"""Runs of programs of known need, on this kernel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.schemas import require_form

from tracer.errors import TracerError
from tracer.fit import recorded_run
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

MIB = 1 << 20


def look(cgroup: Path, wall_s: float) -> None:
    assert cgroup.is_dir()
    assert wall_s > 0


@pytest.fixture(scope="module")
def needing(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the path of the compiled tests/workloads/needing.c."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) to make a program of known need")
    program = tmp_path_factory.mktemp("needing") / "needing"
    source = Path(__file__).parents[1] / "workloads" / "needing.c"
    subprocess.run([compiler, "-O1", "-Wall", "-Werror", "-o", program, source], check=True)
    return str(program)


@pytest.mark.parametrize("need_mib", [37, 143])
def test_run_at_its_need_is_killed_and_3_mib_above_succeeds(
    needing: str, need_mib: int, tmp_path: Path
) -> None:
    argv = [needing, str(need_mib)]
    killed = recorded_run.run(argv, need_mib * MIB, tmp_path / "killed", None, look)
    assert (killed.status, killed.kills) == (137, 1)
    lived = recorded_run.run(argv, (need_mib + 3) * MIB, tmp_path / "lived", None, look)
    assert (lived.status, lived.kills, lived.refaulted_bytes, lived.lost_share) == (0, 0, 0, 0)
    assert lived.peak_bytes is not None
    assert need_mib * MIB <= lived.peak_bytes <= (need_mib + 3) * MIB


def test_search_between_two_limits_makes_the_runs_that_it_needs(needing: str, tmp_path: Path) -> None:
    arguments = ["fit", "--json", "-o", str(tmp_path / "fit"), "--from", "26M", "--to", "27M"]
    finished = subprocess.run(
        [sys.executable, "-m", "tracer", *arguments, "--slowdown", "100%", "--", needing, "23"],
        stdout=subprocess.PIPE,
        check=True,
    )
    document = json.loads(finished.stdout)
    require_form("fit", document)
    limits = [run["limit_bytes"] for run in document["runs"]]
    assert limits[:5] == [None] * 4 + [27 * MIB]
    assert list(dict.fromkeys(limits)) == [
        None,
        27 * MIB,
        26 * MIB,
    ]  # a slow run of a busy machine is repeated
    assert document["least_limit_bytes"] == 26 * MIB
    assert all(23 * MIB <= run["peak_bytes"] <= 26 * MIB for run in document["runs"])


def test_file_that_does_not_fit_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.write(bytes(41 * MIB))
        file.flush()
        os.fsync(file.fileno())
    argv = ["cat", str(path), str(path)]
    recorded_run.drop_files([str(path)])
    small = recorded_run.run(argv, 24 * MIB, tmp_path / "small", None, look)
    recorded_run.drop_files([str(path)])
    large = recorded_run.run(argv, 64 * MIB, tmp_path / "large", None, look)
    assert (small.status, large.status, large.refaulted_bytes) == (0, 0, 0)
    assert small.refaulted_bytes is not None
    assert small.refaulted_bytes >= 17 * MIB  # pages that were read ahead can be evicted several times
    assert (small.lost_share or 0) > 0.05
    assert large.lost_share == 0
    assert (tmp_path / "small.log").stat().st_size == 2 * 41 * MIB


def test_run_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    run = recorded_run.run(["sleep", "600"], 64 * MIB, tmp_path / "trace", 0.4, look)
    assert run.status is None
    assert 0.4 <= run.wall_s < 60
    assert [*memory_hierarchy().mount.glob("memcg-tracer-*-fit")] == []


def test_command_that_leaves_a_process_behind_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TracerError, match="1 of its processes did not"):
        recorded_run.run(["sh", "-c", "sleep 600 & "], None, tmp_path / "trace", None, look)
    assert [*memory_hierarchy().mount.glob("memcg-tracer-*-fit")] == []
