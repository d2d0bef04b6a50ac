"""What calibration has learnt, compared with what the kernel prints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

import tracer
from tracer.categories import RECLAIM_KINDS
from tracer.kernel.cgroups.cgroupfs import cgroup_id, memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.lab.scratch import write_uncached

pytestmark = [pytest.mark.kernel, pytest.mark.vm]

LIMIT_BYTES: Final = 40 << 20
FILE_BYTES: Final = 53 << 20


@pytest.mark.skipif(
    memory_hierarchy().version == 1, reason="needs cgroup v2: memory.stat of v1 has no counts of reclaim"
)
def test_reclaim_counts_at_a_kill_are_those_of_memory_stat(
    disk_dir: Path, start_recorder: Callable[..., Any], start_workload: Callable[..., Any]
) -> None:
    """A program reads them at the kill, from the positions that were learnt."""
    write_uncached(disk_dir / "file", FILE_BYTES)
    with ephemeral_cgroup("counted", LIMIT_BYTES, 0) as memcg:
        recorder = start_recorder("-c", str(memcg))
        work = start_workload(memcg, "read", str(disk_dir / "file"), "then", "anon", str(2 * LIMIT_BYTES))
        assert [work.advance() for _ in range(3)] == ["start", "done read", ""]
        printed = dict(line.split() for line in (memcg / "memory.stat").read_text().splitlines())
        trace = tracer.open(recorder.stop())
        of_cgroup = trace.samples[trace.samples["cgroup_id"] == cgroup_id(memcg)]
    (at_kill,) = of_cgroup[of_cgroup["source"] == "oom"].to_dict("records")
    for count in ("pgscan", "pgsteal"):
        kinds = [int(printed.get(f"{count}_{kind.lower()}", 0)) for kind in RECLAIM_KINDS]
        assert at_kill[count] == sum(kinds) > 0
