"""Checks of memory that is shared, or outlives its writer: each passes on the right answer only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from synthetic.lab_kill import KILL, MIB, evidence, report

from tracer.analysis.results.conclusions import Evidence as Finding
from tracer.analysis.results.conclusions import Sizing
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.memory import Allocator, SharedFile
from tracer.lab import sharing_checks

LEFT = 83 * MIB
COPIED = 47 * MIB
SEGMENT = 117 * MIB


def left(wrote_mib: int = 43, ended_ms: int | None = 100) -> OomReport:
    """Return a kill after a process with this much shmem ended; another has more anonymous memory."""
    ended = None if ended_ms is None else KILL - pd.Timedelta(ended_ms, "ms")
    grower = Allocator(8, "python3", 60 * MIB, anon_bytes=60 * MIB)
    writer = Allocator(9, "python3", wrote_mib * MIB, shmem_bytes=wrote_mib * MIB, exited=ended)
    return replace(report(), allocators=(grower, writer))


@pytest.mark.parametrize(
    ("changed", "passed"),
    [
        (left(), True),
        (left(wrote_mib=32), False),  # more of it was written after usage was half of the limit
        (left(wrote_mib=84), False),
        (left(ended_ms=None), False),
        (left(ended_ms=-1), False),
        (report(), False),
    ],
)
def test_writer_has_ended_passes_for_its_amount_and_end_only(changed: OomReport, passed: bool) -> None:
    assert sharing_checks.writer_has_ended(LEFT)(evidence(changed)).passed is passed


def copied(anon_mib: int = 80, **numbers: int) -> OomReport:
    """Return a kill in which a parent has copied 28 MiB of the 53 MiB that it and its child have."""
    found = Finding("cow", {"shared_bytes": 25 * MIB, "copied_bytes": 28 * MIB} | numbers, ("oom",))
    verdict = replace(report().verdict, contributing=(Finding("no_swap", {}, ()), found))
    return replace(report(), verdict=verdict, composition=replace(report().composition, anon=anon_mib * MIB))


def without(name: str) -> OomReport:
    verdict = copied().verdict
    other, found = verdict.contributing
    rest: dict[str, Any] = {key: value for key, value in found.numbers.items() if key != name}
    return replace(copied(), verdict=replace(verdict, contributing=(other, replace(found, numbers=rest))))


@pytest.mark.parametrize(
    ("changed", "passed"),
    [
        (copied(), True),
        (copied(anon_mib=74), False),
        (copied(anon_mib=92), False),
        (copied(shared_bytes=18 * MIB), False),
        (copied(shared_bytes=36 * MIB), False),
        (copied(copied_bytes=20 * MIB), False),
        (without("copied_bytes"), False),
        (without("shared_bytes"), False),
        (report(), False),
    ],
)
def test_memory_was_copied_passes_for_its_amounts_only(changed: OomReport, passed: bool) -> None:
    assert sharing_checks.memory_was_copied(COPIED)(evidence(changed)).passed is passed


def segment(at_most_mib: int | None = 126, *sizes_mib: int, shmem: int | None = 91 * MIB) -> OomReport:
    """Return a kill at 100 MiB with so much of segments of these sizes: at least 126 MiB are needed."""
    files = [SharedFile("anonymous", "/dev/zero", one, one * MIB, True) for one in sizes_mib or (117,)]
    files += [SharedFile("tmpfs", "/dev/shm/other", 1, 3 * MIB, False)]
    sizing = Sizing(None if at_most_mib is None else (100 * MIB, at_most_mib * MIB))
    composition = replace(report().composition, shmem=shmem)
    return replace(report(), shared_files=tuple(files), sizing=sizing, composition=composition)


@pytest.mark.parametrize(
    ("changed", "passed"),
    [
        (segment(), True),
        (segment(125), False),
        (segment(126 + 3 * 16 + 2), True),  # the interpreters of three members, and two CPUs
        (segment(126 + 3 * 16 + 3), False),
        (segment(None), False),
        (segment(shmem=None), False),
        (segment(126, 116), False),
        (segment(126, 117, 5), False),
        (replace(segment(), shared_files=()), False),
    ],
)
def test_segment_is_the_ceiling_passes_for_its_size_only(changed: OomReport, passed: bool) -> None:
    assert sharing_checks.segment_is_the_ceiling(SEGMENT, 3)(evidence(changed)).passed is passed
