"""The losses near an interval."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracer.analysis.core.gaps import Losses

INTERVAL = st.tuples(st.integers(0, 9), st.integers(0, 9)).map(sorted)


@given(
    lost=st.lists(
        st.tuples(INTERVAL, st.sampled_from(["charge", "kernel_log", "residue"]), st.integers(1, 9)),
        max_size=9,
    ),
    asked=INTERVAL,
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_losses_near_an_interval_include_those_that_touch_it(
    new_trace: Any, lost: list[Any], asked: list[int]
) -> None:
    trace = new_trace()
    for (begin, end), stream, count in lost:
        trace.add("loss", end, begin=trace.ns(begin), stream=stream, lost=count)
    first, last = asked
    near = [(stream, count) for (begin, end), stream, count in lost if end >= first and begin <= last]
    losses, moments = Losses(trace.loss), (trace.ns(first), trace.ns(last))
    for stream in ("charge", "kernel_log", "reclaim", "residue"):
        assert losses.near(stream, *moments) == sum(count for one, count in near if one == stream)
    sums_until = sum(count for (begin, _), stream, count in lost if stream == "residue" and begin <= last)
    others = sum(count for stream, count in near if stream == "charge")
    assert losses.affecting_numbers(*moments) == others + sums_until
