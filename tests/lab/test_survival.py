"""Checks of experiments without a kill: each passes on the right answer, and fails on its own error."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from synthetic.lab_survival import FILE, HELD, MIB, OWN, PAGE, trace

from tracer.analysis.results.survivor import RereadFile
from tracer.lab import survival
from tracer.lab.experiments import EXPERIMENTS
from tracer.lab.run import examine
from tracer.lab.survival import Survival

THRASH = EXPERIMENTS["thrash"]


@pytest.mark.parametrize("check", THRASH.survival)
def test_checks_of_the_right_answer_pass(check: Any) -> None:
    found = check(Survival(trace(), HELD, THRASH.limit_bytes))
    assert found.passed, found
    assert found.detail


@pytest.mark.parametrize(
    ("check", "changes"),
    [
        (survival.at_the_limit, {"peak_usage_bytes": 37 * MIB}),
        (survival.at_the_limit, {"peak_usage_bytes": None}),
        (survival.at_the_limit, {"limit_bytes": 50 * MIB}),
        (survival.at_the_limit, {"max_events": 0}),
        (survival.cache_gave_way, {"cache_at_peak_bytes": 20 * MIB}),
        (survival.cache_gave_way, {"cache_at_peak_bytes": None}),
        (survival.cache_gave_way, {"evicted_bytes": 0}),
        (survival.evictions_equal_pgsteal, {"evicted_bytes": 217 * MIB - PAGE}),
        (survival.refaults_equal_the_kernels, {"kernel_refaulted_bytes": 2 * FILE - PAGE}),
        (survival.refaults_equal_the_kernels, {"kernel_refaulted_bytes": 2 * FILE + 9 * PAGE}),
        (survival.refaults_equal_the_kernels, {"kernel_refaulted_bytes": None}),
    ],
)
def test_check_of_a_wrong_answer_fails(check: Any, changes: dict[str, Any]) -> None:
    found = check(Survival(trace(), replace(HELD, **changes), THRASH.limit_bytes))
    assert not found.passed, found


@pytest.mark.parametrize(("damons_pages", "passed"), [(4, True), (5, False)])
def test_evictions_by_damon_are_no_difference_from_pgsteal(damons_pages: int, passed: bool) -> None:
    held = replace(HELD, evicted_bytes=217 * MIB + damons_pages * PAGE)
    found = survival.evictions_equal_pgsteal(Survival(trace(), held, THRASH.limit_bytes))
    assert found.passed is passed
    assert f"DAMON evicted {4 * PAGE} bytes" in found.detail


def test_refaults_of_earlier_evictions_pass() -> None:
    held = replace(HELD, kernel_refaulted_bytes=2 * FILE + 8 * PAGE)
    assert survival.refaults_equal_the_kernels(Survival(trace(), held, THRASH.limit_bytes)).passed


@pytest.mark.parametrize(
    "back",
    [
        pd.DataFrame({"cgroup_id": 5, "inode_id": 1, "bytes": [FILE, FILE - PAGE]}),
        pd.DataFrame({"cgroup_id": 5, "inode_id": 2, "bytes": [FILE, FILE]}),
    ],
)
def test_missing_refaults_fail_the_check(back: pd.DataFrame) -> None:
    lived = Survival(trace(refaults=back), HELD, THRASH.limit_bytes)
    assert not survival.read_again(lived, FILE, 3).passed


def test_file_that_is_added_twice_fails_the_check() -> None:
    once_less = trace()
    once_less.pagecache = once_less.pagecache.iloc[1:]
    once_less.refaults = once_less.refaults.iloc[1:]
    assert not survival.read_again(Survival(once_less, HELD, THRASH.limit_bytes), FILE, 3).passed


def test_evictions_of_a_trace_without_page_cache_work() -> None:
    empty = trace(pagecache=trace().pagecache.iloc[:0], refaults=trace().refaults.iloc[:0])
    lived = Survival(empty, HELD, THRASH.limit_bytes)
    assert not survival.read_again(lived, FILE, 3).passed
    assert not survival.refaults_equal_the_kernels(lived).passed


@pytest.mark.parametrize("cgroup_id", [6, None])
def test_thrash_check_without_own_thrash_fails(cgroup_id: int | None) -> None:
    rows = {"cgroup_id": [cgroup_id], "evicted_bytes": [200 * MIB], "refaulted_bytes": [2 * FILE]}
    found = pd.DataFrame(rows).astype("Int64")
    lived = Survival(trace(thrash=lambda: found), HELD, THRASH.limit_bytes)
    assert not survival.thrash_is_seen(lived, FILE).passed


def test_thrash_check_with_little_thrash_fails() -> None:
    rows = {"cgroup_id": [5], "evicted_bytes": [200 * MIB], "refaulted_bytes": [FILE - 1]}
    lived = Survival(trace(thrash=lambda: pd.DataFrame(rows)), HELD, THRASH.limit_bytes)
    assert not survival.thrash_is_seen(lived, FILE).passed


def test_examine_makes_all_checks_of_an_experiment() -> None:
    found = examine(THRASH, trace())
    assert len(found) == 1 + len(THRASH.survival)
    assert all(check.passed for check in found)


def test_survival_with_a_kill_has_one_failed_check() -> None:
    killed = SimpleNamespace(victims=[SimpleNamespace(cgroup=OWN)])
    found = examine(THRASH, trace(explain=lambda: [killed]))
    assert [check.passed for check in found] == [False]
    assert "1 in the trace" in found[0].detail


@pytest.mark.parametrize(
    ("high_bytes", "events", "peak_bytes", "passed"),
    [
        (41 * MIB, 17, 45 * MIB, True),
        (40 * MIB, 17, 45 * MIB, False),
        (None, None, 45 * MIB, False),
        (41 * MIB, 0, 45 * MIB, False),
        (41 * MIB, 17, 41 * MIB, False),
        (41 * MIB, 17, 100 * MIB, False),
        (41 * MIB, 17, None, False),
    ],
)
def test_work_is_slowed_above_memory_high_by_the_kernels_count(
    high_bytes: int | None, events: int | None, peak_bytes: int | None, passed: bool
) -> None:
    rows = {"cgroup_id": [5, 6], "high_bytes": [high_bytes, MIB], "high_events": [events, 9]}
    samples = pd.DataFrame(rows).astype("Int64")
    held = replace(HELD, peak_usage_bytes=peak_bytes)
    found = survival.is_slowed_above(Survival(trace(samples=samples), held, 100 * MIB), 41 * MIB)
    assert found.passed is passed


BEGIN = pd.Timestamp("2025-11-24T23:40:00+00:00")
PROGRAM = RereadFile("/proc/7/root/disk/run-me", 2 * FILE, True)


def survived(whole: Any = None, **changes: Any) -> Survival:
    return Survival(whole or trace(), replace(HELD, progress=replace(HELD.progress, **changes)), 40 * MIB)


@pytest.mark.parametrize(("state", "passed"), [("thrashing", True), ("held", False), (None, False)])
def test_state_passes_for_its_label_only(state: str | None, passed: bool) -> None:
    assert survival.state_is(survived(state=state, lost_share=0.5), "thrashing").passed is passed


def spent(seconds: int = 8, lost_ms: float = 400, work_ms: float | None = 100, again: int = PAGE) -> Any:
    """Return a trace that loses this much in each second, in which 4 pages are evicted and this much is read
    again."""
    index = pd.DatetimeIndex([BEGIN + pd.Timedelta(seconds=number) for number in range(seconds)], name="time")
    times = pd.DataFrame({"reclaim_ms": lost_ms / 4, "reread_ms": lost_ms * 3 / 4}, index=index)
    times = times.assign(swap_in_ms=None, throttled_ms=None, first_read_ms=0.0, work_ms=work_ms)
    moments = index + pd.Timedelta("300ms")
    gone = {"op": "delete", "cgroup_id": 5, "inode_id": 1, "nr_pages": 4, "cause": "reclaim_memcg"}
    return trace(
        lost_time=lambda cgroup: times.astype("float64") if cgroup == OWN else None,
        pagecache=pd.DataFrame([gone] * len(moments), index=moments),
        refaults=pd.DataFrame({"cgroup_id": 5, "inode_id": 1, "bytes": again}, index=moments),
    )


@pytest.mark.parametrize(
    ("whole", "defined"),
    [
        (spent(), "thrashing"),
        (spent(lost_ms=40), "held"),  # less than a tenth of the window
        (spent(lost_ms=199, work_ms=401), "held"),  # less than a third of the time
        (spent(lost_ms=201, work_ms=401), "thrashing"),
        (spent(again=0), "held"),
        (spent(again=PAGE - 1), "held"),  # less than a quarter of what was evicted
        (spent(seconds=1), "thrashing"),
    ],
)
def test_state_passes_for_its_definition_only(whole: Any, defined: str) -> None:
    for state in ("held", "thrashing", "throttled", None):
        check = survival.state_is_as_defined(survived(whole, state=state))
        assert check.passed is (state == defined), check


def test_state_without_known_times_fails() -> None:
    for state in ("held", None):
        assert not survival.state_is_as_defined(survived(spent(work_ms=None), state=state)).passed


@pytest.mark.parametrize(
    ("files", "passed"),
    [
        ((PROGRAM,), True),
        ((RereadFile("/data", 3 * FILE, False), PROGRAM), False),
        ((replace(PROGRAM, executable=False),), False),
        ((replace(PROGRAM, executable=None),), False),
        ((replace(PROGRAM, path=None),), False),
        ((), False),
    ],
)
def test_own_program_passes_only_if_it_is_foremost(files: tuple[RereadFile, ...], passed: bool) -> None:
    assert survival.own_program_is_foremost(survived(files=files), "run-me").passed is passed


def waiting(ms: int, cgroup_id: int = 5, inode_id: int = 1) -> Any:
    """Return a trace whose task waits for this long for the file, of which 249 MiB were added."""
    whole = trace(span_ns=(0, 20_000_000_000))
    whole.file_waits = pd.DataFrame(
        {"cgroup_id": [cgroup_id, 5], "inode_id": [inode_id, 2], "wait_ns": [ms * 1_000_000, 10**12]}
    )
    return whole


@pytest.mark.parametrize(
    ("whole", "passed"),
    [
        (waiting(8000), True),  # 1,992 parts of 128 KiB, 4 ms each: 7,968 ms
        (waiting(3985), True),
        (waiting(3983), False),
        (waiting(20_001), False),
        (waiting(8000, cgroup_id=6), False),
        (waiting(8000, inode_id=2), False),
        (waiting(8000).__class__(**vars(waiting(8000)) | {"pagecache": trace().pagecache.iloc[:0]}), False),
    ],
)
def test_waits_pass_only_if_they_are_those_of_the_disk(whole: SimpleNamespace, passed: bool) -> None:
    assert survival.waits_are_those_of_the_disk(survived(whole), 0.004).passed is passed
