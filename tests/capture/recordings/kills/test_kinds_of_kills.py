"""Limits filled by each kind of memory, all at once: cause and composition of each kill."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from support.huge_pages import small_pages

import tracer
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.lab.scratch import write_uncached

pytestmark = [pytest.mark.kernel, pytest.mark.vm_once]

LIMIT_BYTES: Final = 48 << 20
FILE_BYTES: Final = 57 << 20
INTERPRETER_BYTES: Final = 12 << 20
"""The most that is left of the limit for the process itself."""
BATCHED_BYTES: Final = 8 << 20


class Kind(NamedTuple):
    """Steps of a workload that fill the limit, the part of the composition that they fill, and the cause."""

    steps: str
    part: str
    cause: str


KINDS: Final = {
    "anon": Kind(f"anon {2 * LIMIT_BYTES}", "anon", "anon_growth"),
    "memfd": Kind(f"memfd {2 * LIMIT_BYTES}", "shmem", "shmem"),
    "locked-file": Kind("mlock_file {file}", "unevictable", "unevictable"),
    "pipes": Kind(f"pipes {2 * LIMIT_BYTES}", "slab_unreclaimable", "kernel_memory"),
    "page-tables": Kind(f"page_tables {2 * LIMIT_BYTES}", "page_tables", "kernel_memory"),
    "sockets": Kind(f"sockets {2 * LIMIT_BYTES}", "sock", "kernel_memory"),
}
V2_ONLY: Final = {"sockets": "v1 has a limit of its own for TCP (memory.kmem.tcp.limit_in_bytes)"}


@pytest.fixture
def limited() -> Iterator[dict[str, Path]]:
    """Make a cgroup for each kind that this cgroup version has."""
    names = [name for name in KINDS if name not in V2_ONLY or memory_hierarchy().version == 2]
    with ExitStack() as stack:
        yield {name: stack.enter_context(ephemeral_cgroup(name, LIMIT_BYTES, 0)) for name in names}


def test_kill_has_the_cause_of_the_memory_that_filled_its_limit(
    limited: dict[str, Path],
    disk_dir: Path,
    start_workload: Callable[..., Any],
    start_recorder: Callable[..., Any],
) -> None:
    write_uncached(disk_dir / "file", FILE_BYTES)
    recorder = start_recorder(*(word for directory in limited.values() for word in ("-c", str(directory))))
    workloads = []
    with small_pages():
        for name, directory in limited.items():
            steps = KINDS[name].steps.format(file=disk_dir / "file").split()
            workloads.append(start_workload(directory, *steps))
            assert workloads[-1].advance() == "start"
    for workload in workloads:
        workload.release()
    assert [workload.process.wait() for workload in workloads] == [-9] * len(limited)

    reports = {report.limit_owner.cgroup: report for report in tracer.open(recorder.stop()).explain()}
    for name, directory in limited.items():
        report = reports[memory_hierarchy().path(directory)]
        made_of = report.composition
        assert report.verdict.cause == KINDS[name].cause, name
        assert report.verdict.confidence != "low", report.verdict
        filled = getattr(made_of, KINDS[name].part)
        if name == "locked-file":  # locked folios wait in a batch of their CPU (mlock_folio() in mm/mlock.c)
            filled += min(made_of.file_clean or 0, BATCHED_BYTES)
        assert filled >= LIMIT_BYTES - INTERPRETER_BYTES, (name, made_of)
        assert sum(size or 0 for _, size in made_of.parts()) == made_of.total
        assert made_of.other is not None and abs(made_of.other) <= LIMIT_BYTES / 100, (name, made_of)
        assert LIMIT_BYTES - made_of.total <= LIMIT_BYTES / 100
        if name == "locked-file":
            grown = {one.numbers["part"] for one in report.verdict.evidence if one.kind == "growth"}
            assert "locked_cache" in grown
            assert (report.cushion.cache_end_bytes or 0) <= INTERPRETER_BYTES
