"""Kills that depend on more than the limit owner's own files: limits above it, protection below it, memory
that processes left behind, and kinds of memory that only v2 charges.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from support.report_room import wait_for_room
from workloads import v2_memory

import tracer
from tracer.analysis.results.kill import OomReport
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.lab.scratch import write_uncached

pytestmark = pytest.mark.kernel

MIB: Final = 1 << 20
LIMIT_BYTES: Final = 64 * MIB
IS_V2: Final = memory_hierarchy().version == 2


@pytest.fixture
def above() -> Iterator[Path]:
    """Make a cgroup that is not traced."""
    with ephemeral_cgroup("above", None) as directory:
        yield directory


def make(directory: Path, limit_bytes: int | None = None) -> Path:
    """Make a cgroup, and enable the controller in its parent."""
    if IS_V2:
        (directory.parent / "cgroup.subtree_control").write_text("+memory", encoding="ascii")
    directory.mkdir()
    if limit_bytes is not None:
        name = "memory.max" if IS_V2 else "memory.limit_in_bytes"
        (directory / name).write_text(str(limit_bytes), encoding="ascii")
    return directory


def the_kill(path: Path) -> tuple[Any, OomReport]:
    """Return a trace, and its first kill."""
    trace = tracer.open(path)
    return trace, trace.explain()[0]


def found(report: OomReport, kind: str) -> list[dict[str, Any]]:
    """Return the numbers of all evidence of a kind."""
    verdict = report.verdict
    return [dict(one.numbers) for one in (*verdict.evidence, *verdict.contributing) if one.kind == kind]


@pytest.mark.vm
@pytest.mark.skipif(not IS_V2, reason="needs cgroup v2: v1 has no protection, and limits of both together")
def test_protection_and_limits_of_other_cgroups_are_known_at_the_kill(
    above: Path,
    disk_dir: Path,
    swap: None,
    start_workload: Callable[..., Any],
    start_recorder: Callable[..., Any],
) -> None:
    write_uncached(disk_dir / "file", 40 * MIB)
    (above / "memory.swap.max").write_text("0", encoding="ascii")
    (above / "memory.high").write_text(str(200 * MIB), encoding="ascii")
    pod = make(above / "pod", LIMIT_BYTES)
    cache, application = make(pod / "cache"), make(pod / "application")
    recorder = start_recorder("-c", str(pod))
    # No sample of the trace is needed to know it: the kernel's own sum is read at the kill.
    (cache / "memory.min").write_text(str(48 * MIB), encoding="ascii")
    reader = start_workload(cache, "read", str(disk_dir / "file"))
    while reader.advance() not in ("", "done read"):
        pass
    grower = start_workload(application, "anon", str(2 * LIMIT_BYTES))
    assert (grower.advance(), grower.advance()) == ("start", "")
    trace, report = the_kill(recorder.stop())

    (at_kill,) = trace.samples[trace.samples["kill_id"] == report.kill_id].to_dict("records")
    assert 40 * MIB <= at_kill["protected_bytes"] <= 48 * MIB
    assert (at_kill["effective_swap_limit_bytes"], at_kill["swap_room_bytes"]) == (0, 0)
    assert at_kill["effective_high_bytes"] == 200 * MIB
    assert at_kill["effective_limit_bytes"] == at_kill["limit_bytes"] == LIMIT_BYTES
    assert LIMIT_BYTES - MIB <= at_kill["peak_bytes"] <= LIMIT_BYTES
    assert report.verdict.cause == "protected_cache"
    assert found(report, "clean_cache_left") == []
    assert "could have been reclaimed" not in report.quality.unknown.get("sizing.min_limit_bytes", "")
    of_cache = trace.samples[trace.samples["cgroup_id"] == cache.stat().st_ino]
    assert of_cache["effective_min_bytes"].max() > 30 * MIB


@pytest.mark.vm
@pytest.mark.skipif(not IS_V2, reason="needs cgroup v2: v1 bounds memory and swap together")
def test_full_swap_of_a_cgroup_above_is_named(
    above: Path, swap: None, start_workload: Callable[..., Any], start_recorder: Callable[..., Any]
) -> None:
    (above / "memory.swap.max").write_text(str(9 * MIB), encoding="ascii")
    pod = make(above / "pod", LIMIT_BYTES)
    recorder = start_recorder("-c", str(pod))
    grower = start_workload(pod, "anon", str(2 * LIMIT_BYTES))
    assert (grower.advance(), grower.advance()) == ("start", "")
    trace, report = the_kill(recorder.stop())

    (at_kill,) = trace.samples[trace.samples["kill_id"] == report.kill_id].to_dict("records")
    assert at_kill["effective_swap_limit_bytes"] == 9 * MIB
    assert at_kill["swap_bound_levels"] == 1
    assert report.verdict.cause == "swap_exhausted"
    assert f"the cgroup /{above.name}, above" in report.advice[0]


_WITHOUT_DECISION: Final = """
from tracer.kernel import probes
probes.SIGNALS = tuple(one for one in probes.SIGNALS if one.name not in {names})
from tracer.cli import main
main()
"""
"""The recorder on a kernel whose functions cannot be hooked."""


@pytest.mark.skipif(not IS_V2, reason="needs cgroup v2: v1 refuses a limit below usage")
@pytest.mark.parametrize(
    "without",
    [
        pytest.param((), marks=pytest.mark.vm, id="all"),
        pytest.param(
            ("OOM decision", "OOM candidates", "reclaim target"), marks=pytest.mark.vm_once, id="hidden"
        ),
    ],
)
def test_limit_lowered_below_usage_is_told_as_that(
    above: Path,
    without: tuple[str, ...],
    start_workload: Callable[..., Any],
    start_recorder: Callable[..., Any],
) -> None:
    """The task that writes the limit is in another cgroup, and asks for no memory."""
    wait_for_room(1)
    pod = make(above / "pod", LIMIT_BYTES)
    application = make(pod / "application")
    recorder = start_recorder("-c", str(pod), launch=("-c", _WITHOUT_DECISION.format(names=without)))
    grower = start_workload(application, "anon", str(41 * MIB))
    assert (grower.advance(), grower.advance()) == ("start", "done anon")
    in_use = int((pod / "memory.current").read_text("ascii"))
    (pod / "memory.max").write_text(str(23 * MIB), encoding="ascii")
    grower.process.wait()
    trace, report = the_kill(recorder.stop())

    assert report.limit_owner.cgroup_id == pod.stat().st_ino
    assert {row["is_told"] for row in trace.oom.to_dict("records")} == {not without}
    lowered = report.limit_owner.lowered
    assert lowered is not None and lowered.by_trigger
    assert lowered.limit_bytes == LIMIT_BYTES
    assert lowered.usage_bytes == pytest.approx(in_use, abs=MIB)
    assert report.limit_owner.limit_bytes == 23 * MIB
    assert [victim.pid for victim in report.victims] == [grower.process.pid]
    assert f"(pid {os.getpid()}) lowered the limit of the cgroup" in report.verdict.summary
    low, high = report.sizing.min_limit_bytes or (0, 0)
    assert 41 * MIB <= low <= in_use
    assert high == LIMIT_BYTES


@pytest.mark.vm_once
def test_memory_of_processes_that_moved_away_is_named(
    above: Path, start_workload: Callable[..., Any], start_recorder: Callable[..., Any]
) -> None:
    wait_for_room(1)  # the kernel log may be the only source of the candidates
    old, new = make(above / "old", LIMIT_BYTES), make(above / "new")
    recorder = start_recorder("-c", str(old))
    mover = start_workload(old, "anon", str(29 * MIB))
    assert (mover.advance(), mover.advance()) == ("start", "done anon")
    (new / "cgroup.procs").write_text(str(mover.process.pid), encoding="ascii")
    grower = start_workload(old, "anon", str(2 * LIMIT_BYTES))
    assert (grower.advance(), grower.advance()) == ("start", "")
    trace, report = the_kill(recorder.stop())

    (left,) = found(report, "left_by_moved")
    assert (left["pid"], left["processes"]) == (mover.process.pid, 1)
    # Beside other work, switches are not reported, and what was charged between them has no process.
    charged = trace.charge[(trace.charge["category"] == "anon") & (trace.charge["bytes"] > 0)]
    unnamed = int(charged["bytes"][charged["tgid"].isna()].sum())
    assert unnamed < 20 * MIB
    assert 29 * MIB - unnamed <= left["held_bytes"] <= 45 * MIB


@pytest.mark.vm_once
@pytest.mark.skipif(not IS_V2, reason="needs cgroup v2: v1 charges neither zswap nor huge pages")
def test_zswap_and_huge_pages_are_parts_of_usage(
    above: Path, swap: None, start_recorder: Callable[..., Any]
) -> None:
    with v2_memory.zswap() as has_zswap, v2_memory.charged_huge_pages(12) as is_accounted:
        kinds = {"zswap": make(above / "zswap", LIMIT_BYTES), "hugetlb": make(above / "hugetlb", LIMIT_BYTES)}
        recorder = start_recorder(*(word for one in kinds.values() for word in ("-c", str(one))))
        for kind, cgroup in kinds.items():
            fill = [sys.executable, v2_memory.__file__, kind, str(cgroup)]
            assert subprocess.run(fill, check=False).returncode == -9
        trace = tracer.open(recorder.stop())
    reports = {Path(report.limit_owner.cgroup or "").name: report for report in trace.explain()}
    for report in reports.values():
        made_of = report.composition
        assert sum(size or 0 for _, size in made_of.parts()) == made_of.total
        assert report.verdict.cause != "kernel_memory"
    if has_zswap:
        zswap = reports["zswap"].composition.zswap
        assert zswap is not None and zswap > MIB
        assert reports["hugetlb"].composition.zswap is not None
    huge = reports["hugetlb"].composition.hugetlb
    if not is_accounted:
        assert huge == 0
    elif trace.samples["hugetlb_bytes"].notna().any():
        assert huge == 24 * MIB
    else:  # charged, but before memory.stat had a line for it
        assert huge is None
        assert (reports["hugetlb"].composition.other or 0) >= 24 * MIB
