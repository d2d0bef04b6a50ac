"""The cost of analysis grows with the trace, not with its length times its kills or cgroups."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest
from synthetic.restarts import Restarts

from tracer.analysis.core import columns
from tracer.analysis.trace import AnalysedTrace

_FEW, _MANY = 4, 12
_WAYS_TO_NUMPY: Final = {
    function.__code__
    for function in (columns.integers, columns.known, columns.is_one_of, columns.column_times_ns)
}
"""The functions that turn a `column` of a table into an array."""


def work(look: Callable[[], Any]) -> tuple[int, int]:
    """Return (rows in the columns that became arrays, calls of functions of the analysis)."""
    rows = calls = 0

    def count(frame: FrameType, _event: str, _: Any) -> None:
        nonlocal rows, calls
        if "analysis" not in frame.f_code.co_filename:
            return
        calls += 1
        if frame.f_code in _WAYS_TO_NUMPY:
            rows += len(frame.f_locals["column"])

    before = sys.gettrace()
    sys.settrace(count)  # of each call, and of no line, since it returns None
    try:
        look()
    finally:
        sys.settrace(before)
    return rows, calls


@pytest.mark.parametrize(
    ("cgroups", "killed_for", "look"),
    [
        (lambda _: 1, "own", AnalysedTrace.explain),
        (lambda lives: lives, "own", AnalysedTrace.explain),
        (lambda lives: lives // 2, "own", AnalysedTrace.explain),
        (lambda _: 4, "parent", AnalysedTrace.explain),
        (lambda lives: lives, None, AnalysedTrace.held_cgroups),
    ],
)
def test_cost_of_three_times_the_trace_is_three_times_as_high(
    tmp_path: Path, cgroups: Callable[[int], int], killed_for: Any, look: Callable[[AnalysedTrace], Any]
) -> None:
    """A pass over a table for each kill or each cgroup would take nine times as many rows.

    All lives are alike, except that the first takes less work: what the cgroup held at its start is known.
    """

    def done(lives: int) -> tuple[int, int]:
        restarts = Restarts(lives, cgroups(lives), killed_for, charges=60, folios=40)
        trace = AnalysedTrace(restarts.write(tmp_path / str(lives)))
        return work(lambda: look(trace))

    few, many = done(_FEW), done(_MANY)
    assert all(one > 0 for one in few)
    for before, after in zip(few, many, strict=True):
        assert after <= before * _MANY / _FEW * 1.25
