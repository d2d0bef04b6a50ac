"""Refaults against a model of single pages."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic.cache_moves import CacheMoves

from tracer.analysis.core import page_cache
from tracer.analysis.core.columns import sums_of, times_ns
from tracer.analysis.views import page_histories
from tracer.analysis.views.refaults import _of_each_group, page_moves

CAUSES = {"add": ("read", "write", "fault"), "delete": ("reclaim_memcg", "reclaim_kswapd", "truncate")}
EVENTS = st.lists(
    st.tuples(
        st.sampled_from([(op, cause) for op, causes in CAUSES.items() for cause in causes]),
        st.integers(1, 3),  # inode
        st.integers(0, 12),  # index
        st.integers(0, 9),  # pages
    ),
    max_size=60,
)


def add(trace: Any, seconds: float, op: str, cause: str, **row: Any) -> None:
    trace.add("pagecache", seconds, op=op, cause=cause, **({"cgroup_id": 1, "inode_id": 1} | row))


def links_of(trace: Any) -> dict[tuple[int, int], int]:
    """Return (row that added, row that evicted) -> pages."""
    found = trace.refaults
    keys = zip(found["added_row"].tolist(), found["evicted_row"].tolist(), strict=True)
    return dict(zip(keys, (found["bytes"] // 4096).tolist(), strict=True))


def left_pages(trace: Any) -> list[int]:
    """Return for each row of `pagecache` the pages that it added and that were there at the end."""
    groups, nothing = [*_of_each_group(trace, lambda moves: moves)], np.zeros(0, dtype=np.int64)
    rows = np.concatenate([nothing, *(trace.cache_events.rows_of_group(moves.group) for moves in groups)])
    times = np.concatenate([nothing, *(moves.events.time for moves in groups)])
    of_groups = (sums_of(moves.left, moves.left_pages, len(moves.events)) for moves in groups)
    left = np.concatenate([nothing, *of_groups])
    totals = trace.page_moves.totals
    assert totals["left"].sum() == left.sum()
    assert totals["refaulted"].sum() == totals["returned"].sum() == trace.page_moves.links.pages.sum()
    return [int(pages) for pages in left[np.lexsort((rows, times))]]


BOUNDS: dict[str, dict[str, int]] = {
    "pages are pieces": {},
    "pieces are cut": {"_MOST_PAGES_EACH": 0},
    "few events at a time": {"_MOST_EVENTS": 4},
    "few pieces at a time": {"_MOST_PAGES_EACH": 0, "_MOST_ENTRIES": 6},
    "addresses are ranks": {"_WORD_BITS": 5},
    "few events in a group": {"_MOST_TOGETHER": 3},
    "few events in a group, and few cells": {"_MOST_TOGETHER": 3, "_CELL_BITS": 1},
}


@pytest.mark.parametrize("bounds", BOUNDS.values(), ids=BOUNDS)
@given(events=EVENTS)
@settings(suppress_health_check=list(HealthCheck))
def test_refaults_of_folios_equal_those_of_single_pages(
    new_trace: Any, bounds: dict[str, int], events: list[Any]
) -> None:
    trace = new_trace()
    latest: dict[tuple[int, int], int] = {}  # page -> the last row that covers it
    linked: Counter[tuple[int, int]] = Counter()
    for row, ((op, cause), inode, index, pages) in enumerate(events):
        # Pairs of rows have one time: the order of the table decides.
        add(trace, row // 2, op, cause, inode_id=inode, index=index, nr_pages=pages)
        for page in range(index, index + pages):
            before = latest.get((inode, page))
            was_evicted = before is not None and events[before][0][1].startswith("reclaim")
            if before is not None and was_evicted and op == "add" and cause != "write":
                linked[row, before] += 1
            latest[inode, page] = row
    with pytest.MonkeyPatch.context() as patch:
        for name, value in bounds.items():
            patch.setattr(page_histories if hasattr(page_histories, name) else page_cache, name, value)
        found, found_left = links_of(trace), left_pages(trace)
    assert found == linked
    left: dict[int, int] = defaultdict(int)
    for row in latest.values():
        left[row] += events[row][0][0] == "add"
    assert found_left == [left[row] for row in range(len(events))]


def test_refaults_of_folios_of_other_sizes_name_both_sides(trace: Any) -> None:
    """Cgroup 2 evicts a folio of 16 pages of cgroup 1; 2 and 6 pages are read again, charged to 1 and 3."""
    add(trace, 1, "delete", "reclaim_direct", index=16, nr_pages=16, tgid=22, task_cgroup_id=2)
    add(trace, 1.5, "add", "readahead", index=30, nr_pages=3, tgid=11, task_cgroup_id=1)  # 2 of them evicted
    add(trace, 3, "add", "fault", index=16, nr_pages=6, tgid=33, task_cgroup_id=3, cgroup_id=3)
    add(trace, 4, "add", "read", index=16, nr_pages=6)  # not evicted in between
    add(trace, 5, "add", "read", index=16, nr_pages=16, inode_id=2)  # another file
    found = trace.refaults
    assert found["bytes"].tolist() == [2 * 4096, 6 * 4096]
    assert found["away_ns"].tolist() == [500_000_000, 2_000_000_000]
    assert found["cgroup_id"].tolist() == [1, 3]
    assert found["tgid"].tolist() == [11, 33]
    assert found["task_cgroup_id"].tolist() == [1, 3]
    assert found["cause"].tolist() == ["readahead", "fault"]
    assert found["added_row"].tolist() == [1, 2]
    assert found.index.tolist() == trace.pagecache.index[[1, 2]].tolist()
    first = {"evicted_cgroup_id": 1, "evicted_cause": "reclaim_direct", "evictor_tgid": 22}
    for column, value in {**first, "evictor_cgroup_id": 2, "evicted_row": 0, "inode_id": 1}.items():
        assert found[column].tolist() == [value, value], column
    assert found["evicted"].tolist() == trace.pagecache.index[[0, 0]].tolist()


def test_refaults_without_evictions_are_none(trace: Any) -> None:
    assert trace.refaults.empty
    empty = trace.refaults.dtypes
    add(trace, 1, "add", "read", nr_pages=7)
    add(trace, 2, "delete", "truncate", nr_pages=7)
    add(trace, 3, "add", "read", nr_pages=7)
    assert trace.refaults.empty
    add(trace, 4, "delete", "reclaim_memcg", nr_pages=7)
    add(trace, 5, "add", "read", nr_pages=7, cgroup_id=None)
    assert trace.refaults["cgroup_id"].isna().tolist() == [True]
    assert trace.refaults.dtypes.astype(str).tolist() == empty.astype(str).tolist()


def seconds_for(new_trace: Any, rows: int) -> float:
    """Return the least CPU time of several runs, since other processes use the machine as well."""
    batches, taken = [batch for part in CacheMoves(rows).parts() for batch in part.to_batches()], []
    for _ in range(3):
        trace = new_trace()
        trace.batches = lambda _table, columns: (batch.select(columns) for batch in batches)
        begin = time.process_time()
        assert len(page_moves(trace).links) > rows // 100
        taken.append(time.process_time() - begin)
    return min(taken)


def test_refaults_of_more_rows_take_proportional_time(new_trace: Any) -> None:
    assert seconds_for(new_trace, 400_000) < 4 * 3 * seconds_for(new_trace, 100_000)


DEVICE = 8 << 20 | 3
SUM = st.tuples(
    st.sampled_from([None, 1, 2, 3]),  # inode
    st.sampled_from([DEVICE, 9]),
    st.integers(0, 30).map(lambda step: step + 0.5),
    st.integers(0, 6),  # duration in seconds
    st.sampled_from(["add", "delete"]),
)


@given(events=EVENTS.map(lambda events: events[:30]), sums=st.lists(SUM, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_page_is_followed_through_a_sum_of_its_file(
    new_trace: Any, events: list[Any], sums: list[Any]
) -> None:
    whole, trace = new_trace(), new_trace()
    for one in (whole, trace):
        for row, ((op, cause), inode, index, pages) in enumerate(events):
            add(one, row, op, cause, inode_id=inode, dev=DEVICE, index=index, nr_pages=pages)
    for inode, dev, begin, seconds, op in sums:
        cause = "read" if op == "add" else "reclaim_memcg"
        sum_of = {
            "inode_id": inode,
            "index": None,
            "duration_ns": seconds * 10**9,
            "nr_pages": 3,
            "folios": 3,
        }
        add(trace, begin, op, cause, **sum_of, dev=dev)

    def may_concern(inode: int, begin: float, end: float, ops: tuple[str, ...]) -> bool:
        return any(
            (which == inode or (which is None and dev == DEVICE))
            and first <= end
            and first + seconds >= begin
            and op in ops
            for which, dev, first, seconds, op in sums
        )

    def rows_of(pagecache: pd.DataFrame) -> Any:
        """Return the second of each event: rows of events have whole seconds."""
        return ((times_ns(pagecache) - trace.ns(0)) / 1e9).tolist()

    seconds = rows_of(trace.pagecache)
    expected = {
        (added, evicted): pages
        for (added, evicted), pages in links_of(whole).items()
        if not may_concern(events[added][1], evicted, added, ("add", "delete"))
    }
    found = {(seconds[added], seconds[evicted]): pages for (added, evicted), pages in links_of(trace).items()}
    assert found == expected
    left = dict(zip(seconds, left_pages(trace), strict=True))
    for row, pages in enumerate(left_pages(whole)):
        assert left[row] == (0 if may_concern(events[row][1], row, 99, ("delete",)) else pages)
    assert all(not pages for second, pages in left.items() if second % 1)
