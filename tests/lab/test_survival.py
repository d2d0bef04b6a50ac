"""Checks of experiments without a kill: each passes on the right answer, and fails on its own error."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic.lab_kill import processes

from tracer.analysis.core.evicted import Evicted
from tracer.analysis.results.conclusions import Sizing
from tracer.analysis.results.quality import Quality
from tracer.analysis.results.reclaim_attempts import Reclaim
from tracer.analysis.results.survivor import Held
from tracer.lab import survival
from tracer.lab.experiments import EXPERIMENTS
from tracer.lab.run import examine
from tracer.lab.survival import Survival

MIB = 1 << 20
PAGE = 4096
THRASH = EXPERIMENTS["thrash"]
FILE = 83 * MIB
OWN = "/memcg-tracer-1-lab"

HELD = Held(
    cgroup=OWN,
    container=None,
    limit_bytes=40 * MIB,
    peak_usage_bytes=40 * MIB,
    peak_time=pd.Timestamp("2025-11-24T23:40:01+00:00"),
    headroom_bytes=0,
    peak_anon_bytes=7 * MIB,
    cache_at_peak_bytes=32 * MIB,
    evicted_bytes=217 * MIB,
    refaulted_bytes=2 * FILE,
    kernel_refaulted_bytes=2 * FILE,
    max_events=None,
    reclaim=Reclaim(1, 1, 1, 1.0, ()),
    sizing=Sizing(None),
    quality=Quality(0, "missing", {}),
)


def trace(**changes: Any) -> Any:
    """Return a trace in which the file is read three times, and a library of 8 pages once.

    The library's pages were evicted before the trace; the kernel counts a refault for each.
    """
    added = {"op": "add", "cgroup_id": 5}
    pagecache = [{**added, "inode_id": 1, "nr_pages": FILE // PAGE}] * 3
    pagecache += [{**added, "inode_id": 2, "nr_pages": 8}, {**added, "inode_id": 1, "cgroup_id": 6}]
    evicted = {**added, "op": "delete", "inode_id": 1, "tgid": 8, "cause": "reclaim_memcg"}
    pagecache += [{**evicted, "nr_pages": 217 * MIB // PAGE}]
    moments = pd.DatetimeIndex([HELD.peak_time] * len(pagecache), name="time")
    by_damon = {"pages": np.array([4]), "damon_tgid": np.array([77])}
    moment_ns = int(moments.as_unit("ns").asi8[0])
    samples = pd.DataFrame({"cgroup_id": [5, 5, 6], "pgsteal": [0, 217 * MIB // PAGE, 9]})
    thrashed = {"cgroup_id": [5, 6], "evicted_bytes": [200 * MIB, 1], "refaulted_bytes": [2 * FILE, 1]}
    parts = {
        "meta": {"page_size": PAGE, "cpus": 2, "filters": {"cgroups": [OWN]}},
        "samples": samples.astype("Int64"),
        "cgroups": pd.DataFrame({"cgroup_id": [5, 6], "path": [OWN, "/"]}),
        "pagecache": pd.DataFrame(pagecache, index=moments).fillna(
            {"tgid": 0, "nr_pages": 0, "cause": "read"}
        ),
        "evicted": Evicted(
            time=np.array([moment_ns]), duration_ns=np.array([0]), cgroup_id=np.array([5]), **by_damon
        ),
        "span_ns": (moment_ns, moment_ns),
        "processes": processes(),
        "refaults": pd.DataFrame({"cgroup_id": 5, "inode_id": 1, "bytes": [FILE, FILE]}),
        "thrash": lambda: pd.DataFrame(thrashed),
        "explain": list,
        "held_cgroups": lambda: [HELD],
    }
    return SimpleNamespace(**parts | changes)


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
    check = survival.read_again(FILE, 3)
    assert not check(Survival(trace(refaults=back), HELD, THRASH.limit_bytes)).passed


def test_file_that_is_added_twice_fails_the_check() -> None:
    once_less = trace()
    once_less.pagecache = once_less.pagecache.iloc[1:]
    once_less.refaults = once_less.refaults.iloc[1:]
    assert not survival.read_again(FILE, 3)(Survival(once_less, HELD, THRASH.limit_bytes)).passed


def test_evictions_of_a_trace_without_page_cache_work() -> None:
    empty = trace(pagecache=trace().pagecache.iloc[:0], refaults=trace().refaults.iloc[:0])
    for check in (survival.read_again(FILE, 3), survival.refaults_equal_the_kernels):
        assert not check(Survival(empty, HELD, THRASH.limit_bytes)).passed


@pytest.mark.parametrize("cgroup_id", [6, None])
def test_thrash_check_without_own_thrash_fails(cgroup_id: int | None) -> None:
    rows = {"cgroup_id": [cgroup_id], "evicted_bytes": [200 * MIB], "refaulted_bytes": [2 * FILE]}
    found = pd.DataFrame(rows).astype("Int64")
    check = survival.thrash_is_seen(FILE)
    assert not check(Survival(trace(thrash=lambda: found), HELD, THRASH.limit_bytes)).passed


def test_thrash_check_with_little_thrash_fails() -> None:
    rows = {"cgroup_id": [5], "evicted_bytes": [200 * MIB], "refaulted_bytes": [FILE - 1]}
    check = survival.thrash_is_seen(FILE)
    assert not check(Survival(trace(thrash=lambda: pd.DataFrame(rows)), HELD, THRASH.limit_bytes)).passed


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
    found = survival.is_slowed_above(41 * MIB)(Survival(trace(samples=samples), held, 100 * MIB))
    assert found.passed is passed
