"""What is spread over bins: waits, and memory pressure, whose totals jump though the stalls did not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from tracer.analysis.core.bins import Bins
from tracer.analysis.views.timeline import timeline

CGROUP = 7
SECOND_US = 1_000_000


def pressure(trace: Any, readings: Iterable[tuple[float, int]], every: str = "500ms", **made: Any) -> Any:
    """Return the column of a cgroup whose total was read as (seconds, microseconds)."""
    trace.add("cgroups", cgroup_id=CGROUP, path="/a", **made)
    for seconds, total_us in readings:
        trace.add("samples", seconds, cgroup_id=CGROUP, source="periodic", psi_some_total_us=total_us)
    return timeline(trace, CGROUP, every=every)["psi_some_us"]


def test_total_that_is_updated_every_2_s_is_spread_over_them(trace: Any) -> None:
    """The total is read ten times a second, and jumps by 1.5 s once: no row has more than its length."""
    readings = [(tenth / 10, 70 + (1_500_000 if tenth >= 60 else 0)) for tenth in range(80)]
    rows = pressure(trace, readings).tolist()
    assert rows == [0] * 8 + [375_000] * 4 + [0] * 4


def test_total_that_is_read_often_stays_in_its_bins(trace: Any) -> None:
    """It grows by 90 ms in each tenth from 1.0 to 1.5 s; the growth of a reading is of the tenth before."""
    totals = np.cumsum([90_000 if 10 < tenth <= 15 else 0 for tenth in range(30)]).tolist()
    rows = pressure(trace, [(tenth / 10, total) for tenth, total in enumerate(totals)], every="100ms")
    assert rows.sum() == 450_000
    assert rows.iloc[11:15].tolist() == pytest.approx([90_000] * 4, abs=1)


def test_row_never_has_more_than_its_length(trace: Any) -> None:
    """All the time is stalled, and each total is read up to 30 ms later than the time of its sample."""
    late = [0, 30, 0, 10, 20, 30] * 5
    readings = [(tenth / 10, 100_000 * tenth + 1000 * late[tenth]) for tenth in range(30)]
    rows = pressure(trace, [*readings, (3, 3_000_000)], every="100ms")
    assert rows.tolist() == [100_000] * 30 + [0]


def test_stall_of_more_than_2_s_is_spread_over_its_own_length(trace: Any) -> None:
    rows = pressure(trace, [(0, 0), (1, 0), (10, 4 * SECOND_US), (11, 4 * SECOND_US)]).tolist()
    assert rows == [0] * 12 + [500_000] * 8 + [0] * 3


@pytest.mark.parametrize(("made", "counted"), [({}, 0), ({"created": 1}, 10_000)])
def test_first_reading_counts_only_if_the_cgroup_was_made_in_the_trace(
    trace: Any, made: dict[str, int], counted: int
) -> None:
    trace.charged(0, CGROUP + 1, "anon", 4096)  # the trace begins 3 s before the reading
    created = {name: trace.ns(seconds) for name, seconds in made.items()}
    rows = pressure(trace, [(3, 10_000), (4, 10_000)], **created)
    assert rows.sum() == counted


def test_amount_is_spread_over_the_bins_of_its_interval() -> None:
    """Bins of 100 from 1000 on: one amount lies in three, one in a moment, one ends after the last bin."""
    bins = Bins(begin_ns=1000, width_ns=100, count=4)
    begin, end = np.array([1050, 1310, 1350, 900, 1500]), np.array([1250, 1310, 1550, 1100, 1600])
    amounts = np.array([2000, 7, 400, 600, 9])
    assert bins.spread(begin, end, amounts).tolist() == [300, 500 + 300, 1000, 500, 7 + 100]
    nothing = np.array([], dtype=np.int64)
    assert bins.spread(nothing, nothing, nothing).tolist() == [0] * 5


def test_total_that_was_never_read_is_not_known(trace: Any) -> None:
    trace.charged(0.1, CGROUP, "anon", 4096)
    assert pressure(trace, []).isna().all()
