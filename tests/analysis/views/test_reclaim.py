from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracer.analysis.core.columns import times_ns
from tracer.analysis.core.subtree import Subtrees
from tracer.analysis.views.reclaim import KINDS, THROTTLED, by_process, longest, nested
from tracer.errors import TracerError

MS = 1_000_000
CGROUP, CHILD, STRANGER = 1, 2, 3
KSWAPD = 9


def stall(trace: Any, seconds: float, kind: str, ms: float, pid: int = 41, **row: Any) -> None:
    trace.add(
        "stalls",
        seconds,
        **{"kind": kind, "duration_ns": round(ms * MS), "cgroup_id": CGROUP, "pid": pid} | row,
    )


def attempt(trace: Any, seconds: float, ms: float, pid: int = 41, kind: str = "memcg", **row: Any) -> None:
    defaults = {"kind": kind, "duration_ns": round(ms * MS), "task_cgroup_id": CGROUP, "pid": pid}
    trace.add("reclaim", seconds, **defaults | row)


def pieces(trace: Any) -> list[tuple[float, str, float]]:
    """Return (begin in ms after the start, kind, duration in ms) of each row."""
    origin = pd.Timestamp(trace.ns(0), tz="UTC")
    return [
        ((time - origin).total_seconds() * 1e3, kind, duration / MS)
        for time, kind, duration in zip(
            trace.waits.index, trace.waits["kind"], trace.waits["duration_ns"], strict=True
        )
    ]


def test_waits_inside_waits_count_for_the_innermost(trace: Any) -> None:
    """A fault of 100 ms reclaims for 30 and 40 ms; the second attempt is throttled for 7 and 11 ms."""
    stall(trace, 0, "swap_in", 100)
    attempt(trace, 0.010, 30)
    attempt(trace, 0.050, 40)
    stall(trace, 0.055, "writeback", 7)
    stall(trace, 0.070, "noprogress", 11)
    stall(trace, 0.020, "dirty", 5, pid=42)  # another thread
    assert pieces(trace) == [
        (0, "swap_in", 10),
        (10, "reclaim", 30),
        (20, "dirty", 5),
        (40, "swap_in", 10),
        (50, "reclaim", 5),
        (55, "writeback", 7),
        (62, "reclaim", 8),
        (70, "noprogress", 11),
        (81, "reclaim", 9),
        (90, "swap_in", 10),
    ]


def test_waits_in_whole_ticks_do_not_begin_before_their_attempt(trace: Any) -> None:
    """The wait ended 3 ms after the attempt began, and took a tick of 4 ms."""
    attempt(trace, 0.010, 5)
    stall(trace, 0.009, "writeback", 4)
    attempt(trace, 0.010, 5, pid=42)
    stall(trace, 0.004, "writeback", 4)
    assert pieces(trace) == [
        (4, "writeback", 4),
        (10, "writeback", 3),
        (10, "reclaim", 5),
        (13, "reclaim", 2),
    ]


def test_waits_without_their_attempt_count_and_kswapd_does_not(trace: Any) -> None:
    attempt(trace, 0, 50, pid=KSWAPD, kind="kswapd")
    stall(trace, 0.010, "writeback", 20, pid=KSWAPD)
    stall(trace, 0.015, "congested", 3)
    assert pieces(trace) == [(15, "congested", 3)]


def test_waits_of_an_empty_trace_are_none(trace: Any) -> None:
    assert trace.waits.empty
    assert by_process(trace).empty
    assert longest(Subtrees(trace).machine(), 0, trace.ns(1)) == ()


@given(
    waits=st.lists(
        st.tuples(st.integers(0, 50), st.integers(1, 50), st.integers(1, 3), st.sampled_from(KINDS)),
        max_size=20,
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_waits_count_each_moment_of_a_thread_once(new_trace: Any, waits: list[Any]) -> None:
    """A moment counts if and only if the thread waited then, even if records contradict each other."""
    trace = new_trace()
    waited = set()
    for begin, length, thread, kind in waits:
        # Inside an attempt of its own thread, throttling begins no earlier than the attempt.
        pid = thread + 10 if kind in THROTTLED else thread
        if kind == "reclaim":
            attempt(trace, begin / 1000, length, pid=pid)
        else:
            stall(trace, begin / 1000, kind, length, pid=pid)
        waited |= {(pid, moment) for moment in range(begin, begin + length)}
    found = [
        (int(pid), round(begin) + number)
        for (begin, _, length), pid in zip(pieces(trace), trace.waits["pid"], strict=True)
        for number in range(round(length))
    ]
    assert sorted(found) == sorted(waited)


@pytest.fixture
def three_processes(trace: Any) -> Any:
    """Return waits of python3 (18 ms in two threads, 3 ms below the cgroup), dd (40 ms), others elsewhere."""
    trace.add("cgroups", cgroup_id=CGROUP, path="/a")
    trace.add("cgroups", cgroup_id=CHILD, path="/a/b")
    trace.add("cgroups", cgroup_id=STRANGER, path="/c")
    trace.add("tasks", tgid=41, comm="python3", first_seen=trace.ns(0))
    trace.add("tasks", tgid=50, comm="dd", first_seen=trace.ns(0.31))
    attempt(trace, 0.1, 13, tgid=41)
    stall(trace, 0.105, "writeback", 6, tgid=41)
    stall(trace, 0.1, "dirty", 5, pid=42, tgid=41)
    attempt(trace, 0.2, 3, tgid=41, task_cgroup_id=CHILD)
    stall(trace, 0.28, "dirty", 15, pid=50, tgid=50, cgroup_id=CHILD)  # before its name is known
    stall(trace, 0.315, "dirty", 25, pid=50, tgid=50, cgroup_id=CHILD)
    stall(trace, 0.3, "dirty", 100, pid=60, tgid=60, cgroup_id=STRANGER)
    return trace


def test_by_process_sums_up_threads_in_the_subtree(three_processes: Any) -> None:
    three_processes.meta["probes"] = {"swap-in": {"hook": "fentry", "meaning": "exact"}, "memory.high": {}}
    found = by_process(three_processes, "/a")
    assert found[["tgid", "comm", "cgroup", "stalled_ms"]].to_numpy().tolist() == [
        [50, "dd", "/a/b", 40],
        [41, "python3", "/a", 18],
        [41, "python3", "/a/b", 3],
    ]
    assert found["reclaim_ms"].tolist() == [0, 7, 3]
    assert found["writeback_ms"].tolist() == [0, 6, 0]
    assert found["dirty_ms"].tolist() == [40, 5, 0]
    assert found["swap_in_ms"].tolist() == [0, 0, 0]
    assert np.isnan(found["high_ms"]).all()
    everyone = by_process(three_processes)
    assert everyone.iloc[0][["tgid", "comm", "stalled_ms"]].tolist() == [60, None, 100]
    with pytest.raises(TracerError, match="no cgroup"):
        by_process(three_processes, "/nowhere")


def test_longest_within_an_interval_cuts_waits_at_its_ends(three_processes: Any) -> None:
    """From 0.107 s on, python3 waits 4 ms for writeback and 2 + 3 ms in reclaim; dd 25 ms until the end."""
    begin, end = three_processes.ns(0.107), three_processes.ns(0.325)
    subtrees = Subtrees(three_processes)
    first, second = longest(subtrees.subtree_at(CGROUP), begin, end)
    assert (first.tgid, first.comm, first.stalled_ms, first.kinds_ms) == (50, "dd", 25, {"dirty": 25})
    assert (second.tgid, second.stalled_ms) == (41, 9)
    assert second.kinds_ms == {"reclaim": 5, "writeback": 4}
    assert [one.tgid for one in longest(subtrees.machine(), begin, end)] == [50, 60, 41]


def nested_spans(trace: Any) -> list[tuple[int, float, float, str]]:
    """Return (pid, begin and end in ms after the start, kind) of each row of `nested`."""
    rows = nested(trace)
    begins = (times_ns(rows) - trace.ns(0)) / MS
    return [
        (pid, round(begin, 6), round(begin + duration / MS, 6), str(kind))
        for begin, duration, kind, pid in zip(
            begins, rows["duration_ns"], rows["kind"], rows["pid"], strict=True
        )
    ]


def test_nested_spans_keep_attempts_whole_and_kswapd(trace: Any) -> None:
    stall(trace, 0, "swap_in", 100)
    attempt(trace, 0.010, 30)
    stall(trace, 0.020, "writeback", 7)
    attempt(trace, 0.050, 40, pid=KSWAPD, kind="kswapd")
    assert nested_spans(trace) == [
        (KSWAPD, 50, 90, "kswapd"),
        (41, 0, 100, "swap_in"),
        (41, 10, 40, "reclaim"),
        (41, 20, 27, "writeback"),
    ]
    assert nested(trace)["attempt"].tolist() == [1, -1, 0, -1]


def test_nested_spans_that_overlap_are_cut(trace: Any) -> None:
    """An attempt would end after the fault around it, and a wait would end in the next one."""
    stall(trace, 0, "swap_in", 10)
    attempt(trace, 0.005, 9)
    stall(trace, 0.020, "high", 10)
    stall(trace, 0.025, "swap_in", 10)
    attempt(trace, 0.040, 10)
    stall(trace, 0.045, "dirty", 2)
    assert nested_spans(trace) == [
        (41, 0, 10, "swap_in"),
        (41, 5, 10, "reclaim"),
        (41, 20, 25, "high"),
        (41, 25, 35, "swap_in"),
        (41, 40, 45, "reclaim"),
        (41, 45, 47, "dirty"),
    ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["reclaim", "kswapd", *KINDS[1:]]),
            st.integers(0, 40),
            st.integers(0, 20),
            st.sampled_from([41, 42]),
        ),
        max_size=12,
    )
)
def test_nested_spans_of_a_thread_nest_and_never_grow(
    new_trace: Any, drawn: list[tuple[str, int, int, int]]
) -> None:
    trace = new_trace()
    for kind, begin, length, pid in drawn:
        if kind in ("reclaim", "kswapd"):
            attempt(trace, begin / 1e3, length, pid=pid, kind="memcg" if kind == "reclaim" else kind)
        else:
            stall(trace, begin / 1e3, kind, length, pid=pid)
    rows = nested(trace)
    found = nested_spans(trace)
    assert all(begin < end for _, begin, end, _ in found)
    assert rows["duration_ns"].sum() <= sum(length for *_, length, _ in drawn) * MS
    for number, (thread, first, last, _) in enumerate(found):
        for other, (other_thread, other_first, other_last, _) in enumerate(found[number + 1 :], number + 1):
            if thread == other_thread and other_first < last:
                assert first <= other_first and other_last <= last
                assert rows["depth"].iloc[number] < rows["depth"].iloc[other]
    if len(drawn) == 1 and drawn[0][2]:
        kind, first_ms, length_ms, pid = drawn[0]
        assert found == [(pid, float(first_ms), float(first_ms + length_ms), kind)]
