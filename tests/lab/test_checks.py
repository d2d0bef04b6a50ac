"""Checks of the page-cache experiment: each passes on the right answer, and fails on its own error."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from synthetic.lab_kill import (
    BEGIN,
    EVICTED,
    KILL,
    LIMIT,
    MIB,
    PAGE,
    code,
    evicted,
    evidence,
    report,
    timeline,
)

from tracer.analysis.results.kill import Evidence as Finding
from tracer.analysis.results.kill import OomReport, Sizing
from tracer.analysis.results.memory import Allocator, SharedFile
from tracer.lab import checks
from tracer.lab.experiments import EXPERIMENTS


@pytest.mark.parametrize("check", EXPERIMENTS["page-cache"].checks)
def test_checks_of_the_right_answer_pass(check: Any) -> None:
    found = check(evidence())
    assert found.passed, found
    assert found.detail


@pytest.mark.parametrize(("damons", "passed"), [(4, True), (3, False)])
def test_evictions_by_damon_are_not_in_pgsteal(damons: int, passed: bool) -> None:
    found = checks.evictions_equal_pgsteal(
        evidence(cushion(evicted_bytes=EVICTED + 4 * PAGE), evicted=evicted(damons_pages=damons))
    )
    assert found.passed is passed
    assert f"DAMON evicted {damons * PAGE} bytes" in found.detail


def cushion(**changes: Any) -> OomReport:
    return replace(report(), cushion=replace(report().cushion, **changes))


def owner(**changes: Any) -> OomReport:
    return replace(report(), limit_owner=replace(report().limit_owner, **changes))


@pytest.mark.parametrize(
    ("check", "changed"),
    [
        (checks.killed_at_the_limit, replace(report(), constraint="global")),
        (checks.killed_at_the_limit, owner(usage_bytes=LIMIT - 129 * PAGE)),
        (checks.killed_at_the_limit, owner(limit_bytes=2 * LIMIT, usage_bytes=2 * LIMIT)),
        (checks.killed_at_the_limit, owner(usage_bytes=None)),
        (checks.cause_is_named, replace(report(), verdict=replace(report().verdict, cause="unknown"))),
        (
            checks.composition_adds_up,
            replace(report(), composition=replace(report().composition, anon=90 * MIB, other=8 * MIB)),
        ),
        (
            checks.composition_adds_up,
            replace(report(), composition=replace(report().composition, total=None)),
        ),
        (checks.evictions_equal_pgsteal, cushion(evicted_bytes=EVICTED - PAGE)),
        (checks.evictions_equal_pgsteal, cushion(evicted_bytes=None)),
        (checks.cache_gives_way, cushion(absorbed_bytes=10 * MIB)),
        (checks.cache_gives_way, cushion(evicted_bytes=50 * MIB)),
        (checks.cache_gives_way, cushion(absorbed_bytes=None)),
        (checks.cache_is_used_up, cushion(exhausted_at=None)),
        (checks.cache_is_used_up, cushion(exhausted_at=KILL + pd.Timedelta("1ms"))),
        (checks.cache_is_used_up, cushion(cache_end_bytes=30 * MIB)),
        (checks.little_was_evicted, report()),
    ],
)
def test_check_of_a_wrong_answer_fails(check: Any, changed: OomReport) -> None:
    found = check(evidence(changed))
    assert not found.passed, found


@pytest.mark.parametrize(
    ("grown", "passed", "detail"),
    [
        (code(("load_rows", 0.6), ("build_index", 0.4)), True, "60% in load_rows (app.py:26), 40% in "),
        (code(("load_rows", 0.5), ("build_index", 0.5)), False, "set up: 70%, 30%"),
        (code(("load_rows", 0.7)), False, "100% in load_rows"),
        (code(("<module>", 0.9)), True, "no function of the program was named"),
        ((), True, "no function of the program was named"),
    ],
)
def test_named_code_has_the_shares_of_its_set_up(grown: Any, passed: bool, detail: str) -> None:
    shares = {"load_rows": 0.7, "build_index": 0.3}
    found = checks.code_is_named(evidence(replace(report(), code=grown)), shares)
    assert found.passed is passed
    assert detail in found.detail


@pytest.mark.parametrize(
    ("check", "passed"),
    [(checks.only_kill, [False, True, False]), (checks.first_kill, [False, True, True])],
)
def test_number_of_kills_passes_as_the_experiment_allows(check: Any, passed: list[bool]) -> None:
    assert [check([report()] * kills).passed for kills in range(3)] == passed


def test_unknown_pgsteal_fails_the_check() -> None:
    samples = pd.DataFrame({"cgroup_id": [5], "kill_id": [1], "pgsteal": [None]}).astype("Int64")
    assert not checks.evictions_equal_pgsteal(evidence(cushion(evicted_bytes=None), samples=samples)).passed


def test_cache_check_with_usage_below_the_limit_fails() -> None:
    low = timeline()
    low["cache_bytes"] //= 2
    assert not checks.cache_fills_to_the_limit(evidence(timeline=lambda *_: low)).passed
    low["usage_bytes"] //= 2
    assert not checks.cache_fills_to_the_limit(evidence(timeline=lambda *_: low)).passed


def test_acts_with_unknown_cache_fail_their_checks() -> None:
    unknown = timeline()
    unknown["cache_bytes"] = pd.array([pd.NA] * len(unknown), dtype="Int64")
    for check in (checks.cache_fills_to_the_limit, checks.cache_gives_way):
        found = check(evidence(timeline=lambda *_: unknown))
        assert not found.passed
        assert "not known" in found.detail


@pytest.mark.parametrize("by", ["memcg", "direct", "kswapd"])
@pytest.mark.parametrize("evicted_mib", [34, 36])
def test_dip_of_usage_between_the_acts_fails_unless_others_evicted_as_much(by: str, evicted_mib: int) -> None:
    dip = timeline()
    dip.loc[BEGIN + pd.Timedelta("1.5s"), "usage_bytes"] = 60 * MIB
    assert not checks.cache_gives_way(evidence(timeline=lambda *_: dip)).passed
    dip.loc[BEGIN + pd.Timedelta("1.3s"), f"cache_evicted_{by}_bytes"] = evicted_mib * MIB
    found = checks.cache_gives_way(evidence(timeline=lambda *_: dip))
    assert found.passed == (evicted_mib == 36 and by != "memcg")


@pytest.mark.parametrize("freed_mib", [34, 36])
def test_dip_of_usage_between_the_acts_fails_unless_other_memory_was_freed(freed_mib: int) -> None:
    dip, moment = timeline(), BEGIN + pd.Timedelta("0.9s")
    dip["cache_bytes"] //= 2
    dip.loc[dip.index == moment, "cache_bytes"] -= (40 - freed_mib) * MIB
    dip.loc[moment, "usage_bytes"] = 60 * MIB
    found = checks.cache_gives_way(evidence(timeline=lambda *_: dip))
    assert found.passed == (freed_mib == 36)
    assert f"; {freed_mib} MiB of other memory freed before" in found.detail


def test_what_was_evicted_before_cache_was_full_excuses_no_dip() -> None:
    dip = timeline()
    dip.loc[BEGIN + pd.Timedelta("1.5s"), "usage_bytes"] = 60 * MIB
    dip.loc[BEGIN + pd.Timedelta("0.3s"), "cache_evicted_kswapd_bytes"] = 36 * MIB
    assert not checks.cache_gives_way(evidence(timeline=lambda *_: dip)).passed


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
    assert checks.writer_has_ended(evidence(changed), LEFT).passed is passed


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
    assert checks.memory_was_copied(evidence(changed), COPIED).passed is passed


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
    assert checks.segment_is_the_ceiling(evidence(changed), SEGMENT, 3).passed is passed
