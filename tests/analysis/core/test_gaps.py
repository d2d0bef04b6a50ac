"""The times in which a trace does not have everything."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracer.analysis.core.gaps import Fineness, Losses

LOST = st.tuples(st.integers(0, 9), st.integers(0, 9)).map(sorted)
STREAM = st.sampled_from(["charge", "kernel_log", "stack_copy", "task_time", "residue"])


@given(
    lost=st.lists(
        st.tuples(LOST, STREAM, st.integers(1, 9)),
        max_size=9,
    ),
    asked=LOST,
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
    assert losses.affecting_sizes_near(*moments) == others + sums_until
    assert losses.affecting_sizes == sum(count for _, name, count in lost if name in {"charge", "residue"})


SUMMED = st.tuples(st.integers(0, 30), st.integers(0, 30)).map(sorted)


@given(
    rows=st.lists(st.tuples(SUMMED, st.sampled_from(["ring_full", "max_overhead"])), max_size=9),
    asked=SUMMED,
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_that_touch_are_one_interval(new_trace: Any, rows: list[Any], asked: list[int]) -> None:
    trace = new_trace()
    for (begin, end), reason in rows:
        trace.add("summed", end, begin=trace.ns(begin), stream="pagecache", reason=reason)
    # Half-seconds: two rows touch only if they share a moment.
    summed = {moment for (begin, end), _ in rows for moment in range(2 * begin, 2 * end + 1)}
    begins = [moment for moment in sorted(summed) if moment - 1 not in summed]
    ends = [moment for moment in sorted(summed) if moment + 1 not in summed]
    expected = [
        (begin, end, {reason for (first, last), reason in rows if begin <= 2 * first and 2 * last <= end})
        for begin, end in zip(begins, ends, strict=True)
        if end >= 2 * asked[0] and begin <= 2 * asked[1]
    ]
    found = trace.summed_intervals.near(*map(trace.ns, asked))
    assert [
        (
            2 * (one.begin.value - trace.ns(0)) // 10**9,
            2 * (one.end.value - trace.ns(0)) // 10**9,
            {*one.reasons},
        )
        for one in found
    ] == expected
    assert all(len(one.reasons) == len({*one.reasons}) for one in found)


def test_trace_without_the_table_has_no_interval(trace: Any) -> None:
    assert trace.summed_intervals.near(0, trace.ns(100)) == ()


MS = 1_000_000
ORIGIN_NS = 7
META: dict[str, Any] = {
    "clock": {"monotonic_ns": 0, "realtime_ns": ORIGIN_NS},
    "history": {
        "fineness": [
            {"begin": "1970-01-01T00:00:00.500000+00:00", "every_ms": 100},
            {"begin": "1970-01-01T00:00:01.000000+00:00", "every_ms": 0},
        ]
    },
}


def at(ms: float) -> int:
    return round(ms * MS) + ORIGIN_NS


def test_interval_begins_at_a_multiple_of_the_monotonic_clock_or_after_a_kill() -> None:
    found = Fineness(META, np.array([at(730)]))
    assert found.is_thinned
    assert found.since(at(690)) == at(600)
    assert found.since(at(730)) == at(700), "the moment of the kill is before it"
    assert found.since(at(731)) == at(730) + 1
    assert found.since(500 * MS + 3) == 500 * MS, "no row is older than its stage"
    assert [found.since(at(ms)) for ms in (499, 1001)] == [at(499), at(1001)]


def test_value_is_held_until_the_interval_of_the_next_row_begins() -> None:
    found = Fineness(META, np.array([], np.int64))
    assert found.held_until(at(510), at(790)) == at(700)
    assert found.held_until(at(710), at(790)) == at(710)
    assert found.held_until(at(990), at(1500)) == at(990), "a row as it was recorded says nothing before it"


def test_running_sum_is_exact_after_the_last_row_of_an_interval() -> None:
    found = Fineness(META, np.array([at(730)]))
    times = np.array([at(ms) for ms in (10, 20, 610, 620, 710, 730, 740, 750, 1001, 1002)])
    assert found.are_last(times).tolist() == [
        *(True, True),
        *(False, True),
        *(False, True, False, True),
        *(True, True),
    ]


def test_thinned_times_are_those_that_overlap() -> None:
    found = Fineness(META, np.array([], np.int64))
    (one,) = found.thinned(at(0), at(2000))
    assert (one.begin, one.end) == tuple(
        pd.Timestamp(ms, unit="ms", tz="UTC").as_unit("ns") for ms in (500, 1000)
    )
    assert one.every_ms == 100
    assert found.thinned(at(1000), at(2000)) == () == found.thinned(at(0), at(499))


def test_trace_of_record_is_not_thinned() -> None:
    found = Fineness({"clock": META["clock"]}, np.array([at(1)]))
    assert not found.is_thinned
    assert found.since(at(5)) == at(5)
    assert found.thinned(0, at(5)) == ()
