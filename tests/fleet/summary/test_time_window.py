"""Windows: each row is on one side of a moment, or on both, as its kind says."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic.fleets.summary_rows import DAY, at, table

from tracer.fleet.summary.time_window import ALWAYS, TimeWindow, time_ns

DAY_NS = int(DAY.timestamp()) * 10**9
MINUTE_NS = 60 * 10**9
bounds = st.none() | st.integers(-5, 65).map(lambda minutes: DAY_NS + minutes * MINUTE_NS)
minutes = st.integers(0, 60)


@given(bounds, bounds, st.lists(minutes))
def test_moments_are_from_the_begin_to_before_the_end(
    since: int | None, until: int | None, times: list[int]
) -> None:
    kept = TimeWindow(since, until).moments(table("kills", [{"time": at(time)} for time in times]))
    expected = [
        time
        for time in times
        if (since is None or since <= DAY_NS + time * MINUTE_NS)
        and (until is None or DAY_NS + time * MINUTE_NS < until)
    ]
    assert kept["time"].to_pylist() == [at(time) for time in expected]


@given(bounds, bounds, st.lists(st.tuples(minutes, st.none() | minutes)))
def test_rows_with_an_end_overlap_as_their_trace_does(
    since: int | None, until: int | None, spans: list[tuple[int, int | None]]
) -> None:
    window = TimeWindow(since, until)
    lasting = [(begin, None if length is None else begin + length) for begin, length in spans]
    rows = table(
        "sources",
        [{"time": at(begin), "end": None if end is None else at(end)} for begin, end in lasting],
    )
    expected = [
        at(begin)
        for begin, end in lasting
        if window.overlaps(
            *(DAY_NS + moment * MINUTE_NS for moment in (begin, begin if end is None else end))
        )
    ]
    assert window.overlapping(rows)["time"].to_pylist() == expected


@given(st.lists(minutes), minutes)
def test_two_windows_that_meet_share_no_moment_and_no_minute(times: list[int], border: int) -> None:
    edge = DAY_NS + border * MINUTE_NS
    before, after = TimeWindow(None, edge), TimeWindow(edge, None)
    rows = [{"time": at(time)} for time in times]
    kills, evicted = table("kills", rows), table("evictors", rows)
    assert before.moments(kills).num_rows + after.moments(kills).num_rows == len(times)
    assert before.whole_minutes(evicted).num_rows + after.whole_minutes(evicted).num_rows == len(times)


def test_minute_that_the_border_cuts_is_on_no_side() -> None:
    rows = table("timeline", [{"time": at(0)}, {"time": at(1)}, {"time": at(2)}])
    edge = DAY_NS + MINUTE_NS + 1
    assert TimeWindow(None, edge).whole_minutes(rows)["time"].to_pylist() == [at(0)]
    assert TimeWindow(edge, None).whole_minutes(rows)["time"].to_pylist() == [at(2)]


def test_part_of_a_minute_that_was_recorded_may_lie_on_one_side() -> None:
    second = 10**9
    observed = {"ktime_ns": 0, "first_ktime_ns": 10 * second, "last_ktime_ns": 20 * second}
    rows = table("evictors", [{"time": at(0), **observed}])
    for since_s, until_s, kept in ((10, 20, 1), (11, 20, 0), (10, 19, 0), (0, 60, 1)):
        window = TimeWindow(DAY_NS + since_s * second, DAY_NS + until_s * second)
        assert window.whole_minutes(rows).num_rows == kept


def test_window_without_ends_keeps_all_rows() -> None:
    rows = table("evictors", [{"time": at(0)}])
    assert ALWAYS.whole_minutes(rows) == ALWAYS.moments(rows) == rows


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-20", DAY_NS),
        ("2026-11-20T00:00:00.000001+00:00", DAY_NS + 1000),
        ("2026-11-20T02:00+02:00", DAY_NS),
    ],
)
def test_time_in_iso_8601_is_utc_unless_it_has_a_zone(text: str, expected: int) -> None:
    assert time_ns(text) == expected


@given(st.datetimes(datetime.datetime(1970, 1, 1), datetime.datetime(2261, 12, 31)))
def test_time_keeps_its_microseconds(moment: datetime.datetime) -> None:
    since_epoch = moment - datetime.datetime(1970, 1, 1)
    assert time_ns(f"{moment.isoformat()}Z") == since_epoch // datetime.timedelta(microseconds=1) * 1000
