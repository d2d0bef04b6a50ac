"""Checks of the state: each passes on the right answer, and fails on its own error."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from synthetic.lab_survival import FILE, HELD, MIB, OWN, PAGE, trace

from tracer.analysis.results.survivor import RereadFile
from tracer.lab import state_checks
from tracer.lab.survival import Survival

BEGIN = pd.Timestamp("2025-11-24T23:40:00+00:00")
PROGRAM = RereadFile("/proc/7/root/disk/run-me", 2 * FILE, True)


def survival(whole: Any = None, **changes: Any) -> Survival:
    return Survival(whole or trace(), replace(HELD, progress=replace(HELD.progress, **changes)), 40 * MIB)


@pytest.mark.parametrize(("state", "passed"), [("thrashing", True), ("held", False), (None, False)])
def test_state_passes_for_its_label_only(state: str | None, passed: bool) -> None:
    assert state_checks.state_is("thrashing")(survival(state=state, lost_share=0.5)).passed is passed


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
        check = state_checks.state_is_as_defined(survival(whole, state=state))
        assert check.passed is (state == defined), check


def test_state_without_known_times_fails() -> None:
    for state in ("held", None):
        assert not state_checks.state_is_as_defined(survival(spent(work_ms=None), state=state)).passed


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
    assert state_checks.own_program_is_foremost("run-me")(survival(files=files)).passed is passed


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
    assert state_checks.waits_are_those_of_the_disk(0.004)(survival(whole)).passed is passed
