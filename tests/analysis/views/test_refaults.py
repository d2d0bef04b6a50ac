"""Refaults against a model of single pages."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracer.analysis.views.refaults import left_pages, link

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


@given(events=EVENTS)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_refaults_of_folios_equal_those_of_single_pages(new_trace: Any, events: list[Any]) -> None:
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
    found = link(trace.pagecache)
    keys = zip(found.added.tolist(), found.evicted.tolist(), strict=True)
    assert dict(zip(keys, found.pages.tolist(), strict=True)) == linked
    left: dict[int, int] = defaultdict(int)
    for row in latest.values():
        left[row] += events[row][0][0] == "add"
    assert left_pages(trace.pagecache).tolist() == [left[row] for row in range(len(events))]


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


def many(rows: int, files: int) -> pd.DataFrame:
    """Return rows that add and evict small folios of small files."""
    random = np.random.default_rng(7)
    pages = 2 ** random.integers(0, 3, rows)
    ops = random.integers(0, 2, rows)
    return pd.DataFrame(
        {
            "inode_id": random.integers(1, 2**62, files)[random.integers(0, files, rows)],
            "index": random.integers(0, 64, rows) // pages * pages,
            "nr_pages": pages,
            "op": pd.Categorical(np.array(["add", "delete"])[ops]),
            "cause": pd.Categorical(np.array(["read", "reclaim_memcg"])[ops]),
        }
    )


def seconds_for(rows: int) -> float:
    """Return the least CPU time of several runs, since other processes use the machine as well."""
    pagecache, taken = many(rows, 10_000), []
    for _ in range(3):
        begin = time.process_time()
        assert len(link(pagecache).added) > rows // 100
        taken.append(time.process_time() - begin)
    return min(taken)


def test_refaults_of_more_rows_take_proportional_time() -> None:
    assert seconds_for(400_000) < 4 * 3 * seconds_for(100_000)
