"""The memory of a process near its limit and before its kill, compared with what it touched."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.compiled import compiled

import tracer
from tracer.kernel.cgroups.cgroupfs import cgroup_id
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

MIB = 1 << 20
LIMIT = 90 * MIB
TOUCHED = {"heap": 23, "stack": 11, "shared": 9, "file copy": 7, "anonymous": 15, "bss": 5}
"""Kind -> MiB that tests/workloads/mappings.c touches before its first line."""


@pytest.fixture
def limited() -> Iterator[Path]:
    with ephemeral_cgroup("test", LIMIT) as directory:
        yield directory


@pytest.fixture
def program(tmp_path: Path) -> Iterator[list[str]]:
    """Return the command of the program, whose shared file is removed afterwards."""
    shared = Path(f"/dev/shm/memcg-tracer-kill-{os.getpid()}")
    yield [str(compiled("mappings", tmp_path, "-pthread")), str(shared), str(tmp_path / "private")]
    shared.unlink(missing_ok=True)


def test_process_is_read_before_its_kill(
    limited: Path, program: list[str], tmp_path: Path, start_recorder: Any
) -> None:
    enter = f'echo 0 > "{limited}/cgroup.procs" && exec "$0" "$@"'
    with subprocess.Popen(
        ["sh", "-c", enter, *program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            recorder = start_recorder("-c", str(limited))
            recorder.wait_for(lambda: held_mib(looks(recorder.path)) == TOUCHED)
            child.communicate("\n")
        finally:
            child.kill()
    assert child.returncode == -9
    trace = tracer.open(recorder.stop())
    rows = trace.mappings
    assert set(rows["cgroup_id"]) == {cgroup_id(limited)}
    assert set(rows["tgid"]) == {child.pid}
    (stacks,) = set(rows["count"][(rows["kind"] == "stack") & (rows["name"] == "")])
    assert stacks == 37
    assert rows.index.min() < trace.oom.index.max(), "one that began before the kill may end after it"
    (report,) = trace.explain()
    (one,) = report.mappings
    parts = {part.kind: part for part in reversed(one.parts) if part.kind != "file"}
    held = {kind: round(parts[kind].rss_bytes / MIB) for kind in TOUCHED}
    assert 23 <= held["heap"] < 90, "it grew until the kill, and another look may have come meanwhile"
    assert held | {"heap": 23} == TOUCHED
    assert one.threads == 37
    (glibc,) = report.runtime
    assert (glibc["pid"], glibc["kind"]) == (child.pid, "glibc")
    assert (glibc["arenas"], glibc["arena_bytes"]) == (one.count("arena"), one.anon_bytes("arena"))


def looks(path: Path) -> pd.DataFrame:
    return tracer.open(path).mappings


def held_mib(rows: pd.DataFrame) -> dict[str, int]:
    """Return kind -> MiB in the last look, in groups of 1 MiB and more."""
    last = rows[rows.index == rows.index.max()] if len(rows) else rows
    large = last[(last["rss_bytes"] >= MIB) & (last["kind"] != "file")]
    sums = large.groupby("kind", observed=True)["rss_bytes"].sum()
    return {str(kind): round(bytes_ / MIB) for kind, bytes_ in sums.items()}
