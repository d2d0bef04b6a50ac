"""Look-ups of processes and stacks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tracer.analysis.core.lookups import Functions, function_of
from tracer.schema import LATEST_NS


@pytest.mark.parametrize(
    ("exited", "is_there"),
    [
        (1.9999, True),  # ended between the signal and the report on the kill
        (2.001, True),
        (1.5, False),  # another end
    ],
)
def test_victim_has_not_ended_before_its_kill(trace: Any, exited: float, is_there: bool) -> None:
    trace.add("tasks", tgid=41, comm="java", first_seen=trace.ns(1), exited=trace.ns(exited))
    trace.add("oom", 2, kill_id=1, tgid=41, pid=41)
    found = trace.processes.exited_at(41, trace.ns(0), trace.ns(2))
    assert found == (None if is_there else trace.ns(exited))


def test_span_of_a_tgid_is_from_its_first_process_to_the_end_of_its_last(trace: Any) -> None:
    assert [times.tolist() for times in trace.processes.spans_of(np.array([41]))] == [[LATEST_NS], [0]]
    trace = type(trace)()
    for tgid, seen_s, exited_s in ((41, 3, 4), (40, 1, 2), (41, 1, 2), (42, 1, None), (42, 0, 1)):
        exited = None if exited_s is None else trace.ns(exited_s)
        trace.add("tasks", tgid=tgid, first_seen=trace.ns(seen_s), exited=exited)
    seen_ns, ended_ns = trace.processes.spans_of(np.array([42, 43, 41]))
    assert seen_ns.tolist() == [trace.ns(0), LATEST_NS, trace.ns(1)]
    assert ended_ns.tolist() == [LATEST_NS, 0, trace.ns(4)]


SUSPENDED_S = 3600


@pytest.mark.parametrize("suspended_s", [0, SUSPENDED_S])
def test_fork_is_when_the_kernel_made_the_process_not_when_it_was_seen(trace: Any, suspended_s: int) -> None:
    """CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC by the time in which the machine was suspended."""
    starts = {40: (1.0, 1.0), 41: (2.0, 2.25), 42: (3.0, 3.0)}  # 41 waits for a CPU before it acts
    for tgid, (forked_s, seen_s) in starts.items():
        start_ns = round((forked_s + suspended_s) * 1e9)
        trace.add("tasks", tgid=tgid, ppid=7, start_ns=start_ns, first_seen=trace.ns(seen_s))
    for tgid, (forked_s, _) in starts.items():
        assert trace.processes.fork_of(tgid, trace.ns(9)) == (7, trace.ns(forked_s))
    assert trace.processes.fork_of(43, trace.ns(9)) is None


def test_fork_before_a_suspension_is_not_moved_by_it(trace: Any) -> None:
    for tgid, start_s, seen_s in ((40, 1, 1.5), (41, 3 + SUSPENDED_S, 3), (42, 4 + SUSPENDED_S, 4.5)):
        trace.add("tasks", tgid=tgid, ppid=7, start_ns=start_s * 10**9, first_seen=trace.ns(seen_s))
    forks = [trace.processes.fork_of(tgid, trace.ns(9)) for tgid in (40, 41, 42)]
    assert forks == [(7, trace.ns(1)), (7, trace.ns(3)), (7, trace.ns(4))]


def test_fork_is_never_after_the_process_was_seen(trace: Any) -> None:
    trace.add("tasks", tgid=41, ppid=7, start_ns=SUSPENDED_S * 10**9, first_seen=trace.ns(2))
    assert trace.processes.fork_of(41, trace.ns(9)) == (7, trace.ns(2))


@pytest.mark.parametrize(
    ("frame", "function"),
    [
        ("try_charge+0x1a1", "try_charge"),
        ("grow [work]", "grow"),
        ("std::map<int, char>::insert(int [4]) [work]", "std::map<int, char>::insert(int [4])"),
        ("lambda+0x10 [work]", "lambda+0x10"),
        ("[libc.so.6]+0x10", "[libc.so.6]+0x10"),
        ("0x7f00", "0x7f00"),
        ("", ""),
    ],
)
def test_function_of_a_frame_is_its_symbol(frame: str, function: str) -> None:
    assert function_of(frame) == function


def test_stacks_of_older_traces_may_have_left_code_or_not() -> None:
    def functions(*left_code: bool | None) -> Functions:
        numbers = range(1, len(left_code) + 1)
        rows = {"stack_id": [*numbers], "frames": [["main"] for _ in numbers], "left_code": [*left_code]}
        return Functions(pd.DataFrame(rows).astype({"left_code": "boolean"}))

    known, older = functions(True, False, None), functions(None, None)
    assert [known.left_code(number) for number in (1, 2, 3, 4)] == [True, False, None, None]
    assert (known.cut_off(), older.cut_off(), functions().cut_off()) == (1, None, 0)
    assert older.left_code(1) is None
