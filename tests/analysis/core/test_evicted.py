"""Evictions as arrays, against the DataFrame of the page cache."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracer.analysis.core.columns import is_one_of, times_ns
from tracer.analysis.core.evicted import Evicted, is_evicted

MOVES = [("add", "read"), *(("delete", cause) for cause in ("reclaim_memcg", "reclaim_kswapd", "truncate"))]
ROWS = st.lists(
    st.tuples(
        st.integers(0, 9),  # seconds
        st.none() | st.integers(1, 300),  # cgroup
        st.sampled_from(MOVES),
        st.integers(0, 70_000),  # pages
        st.integers(8, 9),  # tgid
    ),
    max_size=30,
)


def moved(trace: Any, rows: list[Any]) -> Evicted:
    trace.add("tasks", tgid=9, comm="kdamond.1", first_seen=trace.ns(0))
    trace.add("tasks", tgid=8, comm="kswapd0", first_seen=trace.ns(0))
    for seconds, cgroup_id, (op, cause), pages, tgid in rows:
        trace.add("pagecache", seconds, cgroup_id=cgroup_id, op=op, cause=cause, nr_pages=pages, tgid=tgid)
    return Evicted.from_events(trace.cache_events, trace.tasks)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, ids=st.sets(st.integers(1, 300)), begin=st.integers(0, 9), length=st.integers(0, 9))
def test_evicted_pages_are_those_of_rows_in_interval(
    rows: list[Any], ids: set[int], begin: int, length: int, new_trace: Any
) -> None:
    trace = new_trace()
    ids |= {cgroup_id for _, cgroup_id, *_ in rows[::2] if cgroup_id is not None}
    found = moved(trace, rows).of_cgroups(np.array(sorted(ids), dtype=np.int64))
    frame = trace.pagecache[is_evicted(trace.pagecache) & trace.pagecache["cgroup_id"].isin(ids)]
    interval = trace.ns(begin), trace.ns(begin + length)
    inside = frame[(times_ns(frame) >= interval[0]) & (times_ns(frame) <= interval[1])]
    assert found.pages_between(*interval) == inside["nr_pages"].sum()
    by_damon = inside[is_one_of(inside["cause"], ["reclaim_kswapd"]) & (inside["tgid"] == 9)]
    wanted = {9: by_damon["nr_pages"].sum()} if len(by_damon) else {}
    assert found.damons_pages_between(*interval) == wanted
    assert len(found) == len(frame)
