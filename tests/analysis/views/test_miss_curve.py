"""The miss curve against LRU lists of every size, to which it must be equal."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracer.analysis.core.subtree import Subtree, Subtrees
from tracer.analysis.views import miss_curve
from tracer.analysis.views.miss_curve import points, reuse_of

PAGE = 4096
WORK = 7


def misses_of_lru(accesses: Sequence[int], size: int) -> tuple[list[tuple[float, str, int]], int]:
    """Return (the moves of an LRU list: seconds, operation, page; how many of them brought a page back)."""
    cache: OrderedDict[int, None] = OrderedDict()
    seen, back = set[int](), 0
    moves = []
    for step, page in enumerate(accesses):
        if page in cache:
            cache.move_to_end(page)
            continue
        cache[page] = None
        moves.append((step / 1000, "add", page))
        if len(cache) > size:
            moves.append((step / 1000 + 0.0004, "delete", cache.popitem(last=False)[0]))
        back += page in seen
        seen.add(page)
    return moves, back


def recorded(
    trace: Any, moves: list[tuple[float, str, int]], *, cgroup: int = WORK, pages: int = 1
) -> Subtree:
    if not len(trace.cgroups):
        trace.add("cgroups", cgroup_id=WORK, path="/jobs", created=trace.ns(0))
        trace.add("cgroups", cgroup_id=WORK + 1, parent_id=WORK, path="/jobs/below", created=trace.ns(0))
    for seconds, op, page in moves:
        cause = "reclaim_memcg" if op == "delete" else "read"
        place = {"cgroup_id": cgroup, "inode_id": 1, "index": page * pages, "nr_pages": pages}
        trace.add("pagecache", seconds, op=op, cause=cause, **place)
    return Subtrees(trace).subtree_at(WORK)


def spared(subtree: Subtree, extra_pages: int) -> int:
    reuse = reuse_of(subtree)
    return int(reuse.pages[reuse.extra_pages <= extra_pages].sum())


@given(accesses=st.lists(st.integers(0, 11), max_size=120), size=st.integers(1, 6))
@settings(suppress_health_check=list(HealthCheck))
def test_spared_refaults_equal_those_of_a_larger_lru_list(
    new_trace: Any, accesses: list[int], size: int
) -> None:
    moves, back = misses_of_lru(accesses, size)
    subtree = recorded(new_trace(), moves)
    assert reuse_of(subtree).total_pages() == back
    for extra in range(12):
        assert back - spared(subtree, extra) == misses_of_lru(accesses, size + extra)[1]


def test_random_access_needs_no_more_than_the_set(trace: Any) -> None:
    """The number of evictions in between exceeds the size of the set."""
    accesses = np.random.default_rng(5).integers(0, 61, 3000).tolist()
    subtree = recorded(trace, misses_of_lru(accesses, 37)[0])
    *_, last = points(subtree)
    assert (last.extra_bytes, last.spared_share) == (24 * PAGE, 1.0)


def test_curve_of_a_file_read_in_turn_is_one_step(trace: Any) -> None:
    subtree = recorded(trace, misses_of_lru(list(range(53)) * 3, 41)[0], pages=3)
    (only,) = points(subtree)
    assert (only.extra_bytes, only.spared_bytes, only.spared_share) == (36 * PAGE, 318 * PAGE, 1.0)
    trace.add("samples", 0.2, cgroup_id=WORK, source="periodic", usage_bytes=0)
    frame = miss_curve.miss_curve(trace, "/jobs")
    assert frame[["cgroup_id", "extra_bytes", "spared_bytes"]].to_numpy().tolist() == [
        [WORK, 36 * PAGE, 318 * PAGE]
    ]


def test_pages_of_a_long_run_count_evenly_over_its_time(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=WORK, path="/jobs", created=trace.ns(0))
    of_work = {"cgroup_id": WORK, "op": "delete", "cause": "reclaim_memcg"}
    trace.add("pagecache", 0.1, inode_id=1, index=0, nr_pages=1, **of_work)
    trace.add("pagecache", 0.2, inode_id=2, index=0, nr_pages=1000, duration_ns=10_000_000, **of_work)
    back = {"cgroup_id": WORK, "op": "add", "cause": "read"}
    trace.add("pagecache", 0.204, inode_id=1, index=0, nr_pages=1, **back)
    extra = reuse_of(Subtrees(trace).subtree_at(WORK)).extra_pages
    assert extra.tolist() == [pytest.approx(401, abs=1)]


def test_only_cache_that_came_back_to_the_subtree_is_in_the_curve(trace: Any) -> None:
    """Evictions of a cgroup below count, evictions and refaults of another cgroup do not."""
    recorded(trace, [(0.1, "delete", 1), (0.4, "add", 1)])
    recorded(trace, [(0.2, "delete", 2), (0.3, "delete", 3), (0.5, "add", 2)], cgroup=WORK + 1)
    subtree = recorded(trace, [(0.15, "delete", 4), (0.25, "delete", 5), (0.6, "add", 3)], cgroup=9)
    assert reuse_of(subtree).extra_pages.tolist() == [2, 3]
    assert reuse_of(subtree).within(trace.ns(0.45), trace.ns(0.7)).extra_pages.tolist() == [2]


def test_memory_swapped_out_in_between_counts(trace: Any) -> None:
    for seconds, op in ((0.2, "write"), (0.3, "read"), (0.9, "write")):
        trace.add("swap_io", seconds, cgroup_id=WORK, op=op, nr_pages=32)
    subtree = recorded(trace, [(0.1, "delete", 1), (0.4, "add", 1)])
    assert reuse_of(subtree).extra_pages.tolist() == [33]


def test_of_many_refaults_a_part_stands_for_all(trace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    accesses = np.random.default_rng(7).integers(0, 401, 6000).tolist()
    subtree = recorded(trace, misses_of_lru(accesses, 203)[0])
    exact = reuse_of(subtree)
    monkeypatch.setattr(miss_curve, "_MOST_FOLLOWED", 700)
    some = reuse_of(Subtrees(trace).subtree_at(WORK))
    assert len(some.pages) <= 700
    assert some.total_pages() == exact.total_pages()
    for share in (0.5, 0.9):
        left = round(exact.total_pages() * (1 - share))
        assert some.extra_to_spare(left) == pytest.approx(exact.extra_to_spare(left), rel=0.1)


def test_extra_memory_is_the_least_that_leaves_so_many(trace: Any) -> None:
    moves = [(0.1, "delete", 1), (0.2, "delete", 2), (0.3, "delete", 3)]
    subtree = recorded(trace, [*moves, (0.4, "add", 3), (0.5, "add", 1), (0.6, "add", 2)])
    reuse = reuse_of(subtree)
    assert reuse.extra_pages.tolist() == [1, 1, 2]
    assert [reuse.extra_to_spare(left) for left in (0, 1, 2, 3)] == [2, 1, 1, 0]
    assert [(point.spared_share, point.spared_bytes) for point in points(subtree)] == [
        (pytest.approx(2 / 3), 2 * PAGE),
        (1.0, 3 * PAGE),
    ]
