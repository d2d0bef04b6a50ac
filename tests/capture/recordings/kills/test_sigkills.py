"""SIGKILLs that are not the OOM killer's: the sender and the way of each, by processes that know them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pytest
from support.memcg_files import read_columns
from workloads import killed_in_ways
from workloads.killed_in_ways import SENT_BY_NONE, WAYS

import tracer
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.kernel.cgroups.mounts import read_mounts

pytestmark = [pytest.mark.kernel, pytest.mark.vm]

LIMIT_BYTES: Final = 64 << 20
NOT_BY_SIGKILL: Final = ("zombie", "seccomp_filter", "oom", "threads")


@pytest.fixture
def memcg() -> Iterator[Path]:
    with ephemeral_cgroup("sigkills", LIMIT_BYTES, 0) as directory:
        yield directory


@pytest.fixture
def v2_cgroup(memcg: Path) -> Iterator[Path | None]:
    """Yield a new cgroup of version 2; None: there is no hierarchy of that version."""
    mounts = [Path(mount.mount_point) for mount in read_mounts() if mount.fs_type == "cgroup2"]
    above = memcg if memory_hierarchy().version == 2 else next(iter(mounts), None)
    if above is None:
        yield None
        return
    directory = above / f"memcg-tracer-{os.getpid()}-killed"
    directory.mkdir()
    try:
        yield directory
    finally:
        directory.rmdir()


def test_each_sigkill_has_its_sender_and_its_way_and_an_oom_kill_is_none(
    memcg: Path, v2_cgroup: Path | None, start_recorder: Callable[..., Any]
) -> None:
    recorder, beside = (start_recorder("-c", str(memcg)) for _ in range(2))
    program = [sys.executable, killed_in_ways.__file__, str(memcg), *map(str, filter(None, [v2_cgroup]))]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as workload:
        assert workload.stdout is not None
        found = json.loads(workload.stdout.read())
    # It is the next victim if the memory of the first is held for a moment by who reads its /proc.
    assert workload.returncode in (0, -signal.SIGKILL)
    victims = [found["oom"][0], *([workload.pid] if workload.returncode else [])]
    counted = read_columns(memcg, memory_hierarchy().version)["oom_kill_events"]
    trace, other = (tracer.open(one.stop()) for one in (recorder, beside))

    ends = {name: end for name, (_, _, end) in found.items()}
    assert ends["seccomp_filter"] == signal.SIGSYS, "RET_KILL_PROCESS is no SIGKILL"
    assert {ends[name] for name in ("kill", "strict_seccomp", "cpu_time")} == {signal.SIGKILL}

    rows: list[Any] = [*trace.sigkills.itertuples()]
    ways = {name: way for name, way in WAYS.items() if name in found}
    targets = {found[name][0]: name for name in ways if found[name][0] is not None}
    seen = {_name_of(row, targets, found): row for row in rows}
    assert sorted(seen) == sorted(ways) and len(rows) == len(ways), "one row a process, and no other"
    assert {name: row.way for name, row in seen.items()} == ways
    for name, row in seen.items():
        assert row.usage_bytes <= row.limit_bytes == LIMIT_BYTES
        if name in SENT_BY_NONE:
            assert pd.isna(row.sender_tgid) and pd.isna(row.parent1_tgid), name
            continue
        sender = row.tgid if name == "itself" else found[name][1]
        assert row.sender_tgid == sender, name
        if sender == found["self"][0]:
            assert row.parent1_tgid == found["self"][1], name
    assert [name for name, row in seen.items() if pd.notna(row.since_sigterm_ns)] == ["kill_after_sigterm"]

    assert counted == len(trace.explain()) == len(victims)
    assert trace.oom["tgid"].tolist() == victims
    assert not {found[name][0] for name in NOT_BY_SIGKILL} & {row.tgid for row in rows}
    assert [kill.way for kill in trace.sigkilled()] == [row.way for row in rows]
    assert "SIGKILL to " in recorder.stderr
    # by which `fleet` recognises what several recorders saw
    for table in ("oom", "sigkills"):
        starts, others = (getattr(one, table)[["tgid", "start_ns"]] for one in (trace, other))
        assert starts["start_ns"].gt(0).all()
        assert starts.to_numpy().tolist() == others.to_numpy().tolist()


def _name_of(row: Any, targets: dict[int, str], found: dict[str, Any]) -> str:
    """Return the process of the workload that a row is about: by its pid, else by the sender's."""
    if row.tgid in targets:
        return targets[row.tgid]
    by_sender = {found[name][1]: name for name in ("timeout", "pid_namespace")}
    others = (name for name, (pid, _, _) in found.items() if pid == row.tgid)
    return next(others, "?") if pd.isna(row.sender_tgid) else by_sender.get(row.sender_tgid, "?")
