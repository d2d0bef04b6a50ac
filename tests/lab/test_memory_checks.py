"""Checks of the memory that fills the limit, and of the pages that reclaim could not free."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from synthetic.lab_kill import (
    MIB,
    VICTIM,
    evidence,
    report,
)

from tracer.analysis.results.kill import OomReport, Victim
from tracer.analysis.results.memory import ReclaimAttempt
from tracer.lab import checks


def made_of(**changes: Any) -> OomReport:
    return replace(report(), composition=replace(report().composition, **changes))


@pytest.mark.parametrize(
    ("changed", "passed"),
    [
        (made_of(file_dirty=20 * MIB, writeback=61 * MIB), True),
        (made_of(file_dirty=20 * MIB, writeback=59 * MIB), False),
        (made_of(file_dirty=None, writeback=81 * MIB), True),
        (made_of(file_dirty=None, writeback=None), False),
    ],
)
def test_full_of_passes_for_its_classes_only(changed: OomReport, passed: bool) -> None:
    found = checks.full_of(evidence(changed), ("file_dirty", "writeback"))
    assert found.passed is passed
    assert found.name == "the limit is full of file_dirty and writeback"


def shared(shmem: int | None, *mapped: int | None) -> OomReport:
    victims = tuple(replace(VICTIM, shmem_rss_bytes=one) for one in mapped)
    return replace(made_of(shmem=shmem), victims=victims)


@pytest.mark.parametrize(
    ("changed", "passed"),
    [
        (shared(92 * MIB, 55 * MIB), True),
        (shared(92 * MIB, 30 * MIB, 25 * MIB), True),
        (shared(92 * MIB, 92 * MIB), False),
        (shared(92 * MIB, 40 * MIB), False),
        (shared(None, 55 * MIB), False),
    ],
)
def test_unmapped_shmem_passes_for_its_size_only(changed: OomReport, passed: bool) -> None:
    assert checks.shmem_of_no_process(evidence(changed), 37 * MIB).passed is passed


@pytest.mark.parametrize(
    ("victims", "passed"),
    [
        ((replace(VICTIM, anon_rss_bytes=7 * MIB, file_rss_bytes=6 * MIB),), True),
        ((replace(VICTIM, anon_rss_bytes=7 * MIB, shmem_rss_bytes=40 * MIB),), False),
        ((VICTIM,), False),
        ((), False),
    ],
)
def test_little_was_mapped_fails_with_a_large_rss(victims: tuple[Victim, ...], passed: bool) -> None:
    assert checks.little_was_mapped(evidence(replace(report(), victims=victims))).passed is passed


def attempt(scanned: int, freed: int = 0, dirty: int = 0, writeback: int = 0) -> ReclaimAttempt:
    anon, pages = 1, scanned + 1
    lists = (anon, scanned, 0, freed)
    time = pd.Timestamp("2025-11-24 23:40:00Z")
    return ReclaimAttempt(time, 0.1, "memcg", None, 7, None, pages, freed, 0, *lists, dirty, writeback, 1, 1)


@pytest.mark.parametrize(
    ("attempts", "passed"),
    [
        ([attempt(900, dirty=900)], True),
        ([attempt(900, writeback=900), attempt(900, dirty=880)], True),
        ([attempt(900, dirty=900), attempt(900)], False),
        ([attempt(900, dirty=855, freed=45)], True),
        ([attempt(900, dirty=854, freed=46)], False),
        ([attempt(0)], True),
        ([attempt(0, freed=1)], False),
        ([], False),
    ],
)
def test_unwritten_pages_pass_only_if_nothing_was_freed(attempts: list[ReclaimAttempt], passed: bool) -> None:
    reclaim = replace(report().reclaim, transcript=tuple(attempts))
    assert checks.reclaim_met_unwritten_pages(evidence(replace(report(), reclaim=reclaim))).passed is passed


@pytest.mark.parametrize(
    ("clean", "mapped", "passed"),
    [(4096, 47 * MIB, True), (41 * MIB, 47 * MIB, False), (4096, 6 * MIB, False), (None, 47 * MIB, False)],
)
def test_locked_file_fails_with_droppable_cache(clean: int | None, mapped: int, passed: bool) -> None:
    victims = (replace(VICTIM, file_rss_bytes=mapped),)
    changed = replace(made_of(file_clean=clean), victims=victims)
    assert checks.locked_file(evidence(changed), 41 * MIB).passed is passed
