"""The intervals in which page-cache events were summed."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

INTERVAL = st.tuples(st.integers(0, 30), st.integers(0, 30)).map(sorted)


@given(
    rows=st.lists(st.tuples(INTERVAL, st.sampled_from(["ring_full", "max_overhead"])), max_size=9),
    asked=INTERVAL,
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
