"""Kills where more cgroups are traced than the programs can read the counters of at a kill."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from support.losses import lost_records

import tracer
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(240)]

LIMIT_BYTES: Final = 64 << 20
CPUS: Final = os.sysconf("SC_NPROCESSORS_CONF")
LEVELLED: Final = min(2176, 16384 // CPUS + 1)  # LEVELS_A_KILL in bpf/levels.bpf.c
UNLEVELLED: Final = 119


def make(parent: Path, name: str, limit_bytes: int | None = None) -> Path:
    made = parent / name
    made.mkdir()
    if memory_hierarchy().version == 2:
        (made / "cgroup.subtree_control").write_text("+memory", encoding="ascii")
    if limit_bytes is not None:
        file = "memory.max" if memory_hierarchy().version == 2 else "memory.limit_in_bytes"
        (made / file).write_text(str(limit_bytes), encoding="ascii")
    return made


def test_cgroups_that_a_kill_cannot_level_are_counted_as_lost_if_they_are_below_its_owner(
    start_workload: Callable[..., Any], start_recorder: Callable[..., Any]
) -> None:
    with ephemeral_cgroup("levels", None) as top:
        if memory_hierarchy().version == 2:
            (top / "cgroup.subtree_control").write_text("+memory", encoding="ascii")
        recorder = start_recorder("-c", str(top))
        crowded = make(top, "crowded", LIMIT_BYTES)
        grower = crowded / "grower"
        grower.mkdir()
        for number in range(LEVELLED + UNLEVELLED - 2):  # without `crowded` and `grower`
            (crowded / str(number)).mkdir()
        alone = make(top, "alone", LIMIT_BYTES) / "leaf"
        alone.mkdir()
        for cgroup in (alone, grower):
            workload = start_workload(cgroup, "anon", str(2 * LIMIT_BYTES))
            assert (workload.advance(), workload.advance()) == ("start", "")
        trace = tracer.open(recorder.stop())
    kills = trace.explain()
    assert [str(kill.limit_owner.cgroup).rpartition("/")[2] for kill in kills] == ["alone", "crowded"]
    assert [kill.quality.lost_records for kill in kills] == [0, UNLEVELLED]
    assert lost_records(trace) == {"charge": UNLEVELLED}
