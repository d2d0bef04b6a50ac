"""The fineness of rows: where an interval begins, and after which rows a running sum is exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from tracer.analysis.core.gaps import Fineness

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
