"""How the memory of processes and threads may overlap in another run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.analysis.core.ledger import Steps
from tracer.analysis.core.subtree import Subtrees
from tracer.analysis.explain.sizing import overlap
from tracer.analysis.explain.sizing.overlap import Overlap

MIB = 1 << 20
MS = 1_000_000


def held(trace: Any, tgid: int, *steps: tuple[float, int]) -> None:
    """Let a process of cgroup 7 be charged (seconds, MiB)."""
    now = {"usage_bytes": 99 * MIB, "limit_bytes": 100 * MIB}
    for seconds, mib in steps:
        trace.charged(seconds, 7, "anon", mib * MIB, tgid=tgid, **now)


def overlap_in(trace: Any) -> Overlap:
    return Overlap.of(Subtrees(trace).subtree_at(7))


def less_mib(found: Overlap, trace: Any, seconds: float) -> int:
    return (found.less.at(trace.ns(seconds)) or 0) // MIB


@pytest.fixture
def begun(trace: Any) -> Any:
    """Return a trace of 20 s whose cgroup was made in it."""
    trace.add("cgroups", cgroup_id=7, path="/work", created=trace.ns(0))
    trace.meta["ended"] = trace.ns(20)
    held(trace, 41, (0.1, 10))
    return trace


def test_peaks_that_were_apart_may_fall_together(begun: Any) -> None:
    held(begun, 42, (0.2, 40), (1.2, -35))
    held(begun, 43, (0.2, 3), (5.2, 20), (6.2, -23))
    held(begun, 44, (12.0, 30), (13.0, -30))
    # Three at once at most: the largest of them are 40, 30 and 23.
    found = overlap_in(begun)
    assert found.more_bytes == found.apart_bytes == (40 + 30 + 23 - (10 + 40 + 3)) * MIB


@pytest.mark.parametrize(("freed", "more"), [(-40, 40), (-38, 0)])
@pytest.mark.parametrize("category", ["shmem", "kernel", "sock"])
def test_other_memory_is_of_the_process_that_freed_all_of_it(
    begun: Any, category: str, freed: int, more: int
) -> None:
    """A process holds 40 MiB of it while the first one holds 10, which has 40 more before."""
    held(begun, 41, (0.2, 40), (0.9, -40))
    held(begun, 42, (1.0, 2))
    now = {"usage_bytes": 99 * MIB, "limit_bytes": 100 * MIB}
    for seconds, mib in ((1.2, 40), (3.0, freed)):
        begun.charged(seconds, 7, category, mib * MIB, tgid=42, **now)
    assert overlap_in(begun).more_bytes == max(more, 2) * MIB


def test_short_memory_of_a_process_may_miss_that_of_another(begun: Any) -> None:
    """It is there for 80 ms, and may come and go 50 ms earlier or later."""
    held(begun, 42, (1.0, 40), (1.08, -40))
    found = overlap_in(begun)
    assert less_mib(found, begun, 1.04) == -40
    assert less_mib(found, begun, 2.0) == 0
    assert found.more_bytes == 0


def test_memory_that_lasts_overlaps_whenever_it_comes(begun: Any) -> None:
    """What comes after 1 s and goes after 5 s may come after 1.3 s, and go after 3.7 s."""
    held(begun, 42, (1.0, 5), (2.0, 40), (6.0, -40))
    found = overlap_in(begun)
    at = {seconds: less_mib(found, begun, seconds) for seconds in (2.1, 2.4, 4.6, 4.8, 7.0)}
    assert at == {2.1: -40, 2.4: 0, 4.6: 0, 4.8: -40, 7.0: 0}


def test_first_process_is_the_measure_of_the_others(begun: Any) -> None:
    held(begun, 41, (15.0, 40), (15.1, -40))
    assert overlap_in(begun).less.least() == 0


def test_threads_may_hold_their_peaks_at_once(begun: Any) -> None:
    """By samples, a thread grew by 30 MiB three times, and another one kept 20 MiB after the second time."""
    held(begun, 41, (0.2, 30), (2.2, 5))
    row = {"cgroup_id": 7, "tgid": 41, "category": "anon"}
    for second in (1, 2, 4):
        begun.add("code_samples", second, **row, tid=41, bytes=30 * MIB)
        begun.add("code_samples", second + 0.5, **row, tid=41, bytes=-30 * MIB, sampled=second)
    begun.add("code_samples", 2.7, **row, tid=42, bytes=20 * MIB)
    begun.add("code_samples", 3.7, **row, tid=42, bytes=-12 * MIB, sampled=2.7)
    found = overlap_in(begun)
    assert found.by_threads_bytes == found.apart_bytes == (30 + 20 - (30 + 8)) * MIB


@given(st.data())
def test_process_holds_no_less_than_is_sure_whenever_it_comes_to_its_steps(data: st.DataObject) -> None:
    gaps = data.draw(st.lists(st.integers(0, 400), min_size=1, max_size=12))
    ages = np.cumsum([0, *gaps], dtype=np.int64) * MS
    values = data.draw(st.lists(st.integers(0, 9), min_size=len(ages), max_size=len(ages)))
    level = Steps(ages + 77, np.array(values, dtype=np.int64), 0)
    sure = overlap._surely(level)
    shifts = [data.draw(st.integers(-50 * MS - age // 4, 50 * MS + age // 4)) for age in ages.tolist()]
    moved = np.maximum.accumulate(level.times + np.array(shifts, dtype=np.int64))
    other = Steps(moved, level.values, 0)
    moments = np.sort(np.concatenate([moved, sure.times, level.times]))
    assert (sure.at_each(moments) <= other.at_each(moments)).all()
    assert sure.values[-1] == values[-1]


def test_nothing_overlaps_without_processes(trace: Any) -> None:
    found = overlap_in(trace)
    assert (found.apart_bytes, found.less.peak()) == (0, 0)
