from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tracer.analysis.views.thrash import thrash

MIB_PAGES = 256


def evicted(trace: Any, seconds: float, index: int, nr_pages: int, owner: int | None = 1) -> None:
    row = {"op": "delete", "cause": "reclaim_memcg", "inode_id": 5, "cgroup_id": owner}
    trace.add("pagecache", seconds, index=index, nr_pages=nr_pages, **row)


def read(trace: Any, seconds: float, index: int, nr_pages: int, owner: int | None = 1) -> None:
    row = {"op": "add", "cause": "read", "inode_id": 5, "cgroup_id": owner}
    trace.add("pagecache", seconds, index=index, nr_pages=nr_pages, **row)


def test_thrash_of_consecutive_seconds_is_one_interval(trace: Any) -> None:
    """Second 0: evictions without refaults. 2 and 3: 513 pages evicted twice, most refaulted. 5: too few."""
    evicted(trace, 0.1, 10_000, 2 * MIB_PAGES)
    for second in (2, 3):
        evicted(trace, second + 0.2, 0, 300)
        evicted(trace, second + 0.3, 300, 213)
        read(trace, second + 0.25, 0, 300)  # after 50 ms
        read(trace, second + 0.7, 300, 100)  # after 400 ms
    evicted(trace, 5.1, 0, 255)
    read(trace, 5.2, 0, 255)
    (row,) = thrash(trace).to_dict("records")
    assert (row["cgroup_id"], row["evicted_bytes"], row["refaulted_bytes"]) == (1, 1026 * 4096, 800 * 4096)
    assert (row["begin"].value, row["end"].value) == (trace.ns(2.2), trace.ns(3.3))
    assert row["median_away_ms"] == pytest.approx(50)
    assert np.isnan(row["psi_some_share"])


@pytest.mark.parametrize(
    ("returned", "after", "is_thrash"), [(128, 10, True), (127, 10, False), (512, 10.1, 0)]
)
def test_thrash_begins_at_a_quarter_read_again_within_10_s(
    trace: Any, returned: int, after: float, is_thrash: bool
) -> None:
    evicted(trace, 0, 0, 512, owner=None)
    read(trace, after, 0, returned, owner=None)
    found = thrash(trace)
    assert len(found) == is_thrash
    assert found["cgroup_id"].isna().all()
    assert (found["refaulted_bytes"] == returned * 4096).all()


def test_thrash_of_two_cgroups_has_an_interval_for_each(trace: Any) -> None:
    """Cgroup 2 thrashes between two intervals of 1, which is stalled for 150 of 600 ms between samples."""
    for owner, second in ((1, 1), (2, 2), (1, 4)):
        evicted(trace, second, 0, MIB_PAGES, owner)
        read(trace, second + 0.1, 0, MIB_PAGES, owner)
    for seconds, stalled_us in ((0.1, 7), (0.7, 7), (1.3, 150_007), (1.4, 160_000)):
        trace.add("samples", seconds, cgroup_id=1, source="periodic", psi_some_total_us=stalled_us)
    found = thrash(trace)
    assert found["cgroup_id"].tolist() == [1, 1, 2]
    assert found["psi_some_share"].tolist()[0] == pytest.approx(0.25)
    assert found["psi_some_share"].isna().tolist() == [False, True, True]


def test_thrash_of_an_empty_trace_is_none(trace: Any) -> None:
    empty = thrash(trace)
    assert empty.empty
    evicted(trace, 1, 0, MIB_PAGES)
    read(trace, 1, 0, MIB_PAGES)
    assert thrash(trace).dtypes.equals(empty.dtypes)
