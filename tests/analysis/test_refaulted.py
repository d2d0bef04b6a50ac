"""Refaults of a cgroup: what it, and nobody else, read again, and when."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tracer.analysis.core.subtree import Subtrees
from tracer.analysis.explain.postmortem import explain
from tracer.analysis.explain.survivors import held_cgroups
from tracer.analysis.views.evictions import evictions
from tracer.analysis.views.thrash import thrash

PAGE = 4096
MIB_PAGES = 256
PATHS = {1: "/a", 2: "/a/b", 3: "/c", 4: "/c"}  # 4 is a later life of 3


@pytest.fixture
def moved(trace: Any) -> Any:
    """Return a trace of files that leave the cache of one cgroup and return to that of another.

    A file for each pair: inode 10 * owner + reader, of 256 * inode pages, evicted at 1 s and back at 2 s.
    """
    for number, path in PATHS.items():
        removed = trace.ns(1.5) if number == 3 else None
        trace.add("cgroups", cgroup_id=number, path=path, created=trace.ns(0), removed=removed)
        trace.charged(0.1, number, "anon", PAGE)
    for owner in PATHS:
        for reader in PATHS:
            row = {"inode_id": 10 * owner + reader, "nr_pages": MIB_PAGES * (10 * owner + reader)}
            trace.add("pagecache", 1, cgroup_id=owner, op="delete", cause="reclaim_memcg", **row)
            trace.add("pagecache", 2, cgroup_id=reader, op="add", cause="read", **row)
    return trace


def test_refaults_of_a_cgroup_are_what_it_or_one_below_read_again(moved: Any) -> None:
    found = {one.cgroup_id: one.refaulted_bytes for one in held_cgroups(moved)}
    mib = {1: 11 + 12 + 21 + 22, 2: 22, 3: 33, 4: 44}
    assert found == {number: pages * MIB_PAGES * PAGE for number, pages in mib.items()}


def test_thrash_does_not_count_what_another_cgroup_reads(moved: Any) -> None:
    """All that was evicted is read again, but only 3 and 4 read a quarter of their own cache again."""
    found = thrash(moved)
    assert found["cgroup_id"].tolist() == [3, 4]
    assert found["refaulted_bytes"].tolist() == [33 * MIB_PAGES * PAGE, 44 * MIB_PAGES * PAGE]


@pytest.mark.parametrize(
    ("evicted", "back", "pages"), [(1, 2, 7), (0.9, 2, 0), (1, 3, 7), (1, 3.1, 0), (0.5, 4, 0), (2, 2.5, 7)]
)
def test_refaults_between_two_moments_were_evicted_and_back_in_between(
    trace: Any, evicted: float, back: float, pages: int
) -> None:
    row = {"inode_id": 5, "nr_pages": 7, "cgroup_id": 1}
    trace.add("cgroups", cgroup_id=1, path="/a")
    trace.add("pagecache", evicted, op="delete", cause="reclaim_memcg", **row)
    trace.add("pagecache", back, op="add", cause="fault", **row)
    trace.add("pagecache", 9, op="add", cause="read", **row | {"inode_id": 6})
    refaulted = Subtrees(trace).subtree_at(1).refaulted
    assert refaulted.pages.sum() == 7
    between = refaulted.between(trace.ns(1), trace.ns(3))
    assert between.pages.sum() == pages
    inode_ids = trace.cache_events.files["inode_id"].to_numpy(np.int64)
    assert (inode_ids[between.file] == 5).all()


def test_what_is_read_after_a_kill_is_no_refault_before_it(page_cache_experiment: Any) -> None:
    row = {"cgroup_id": 7, "tgid": 41, "op": "add", "cause": "read", "inode_id": 1}
    for seconds, index in ((3.4, 0), (3.55, 256), (3.61, 512)):  # the kill is at 3.6 s
        page_cache_experiment.add("pagecache", seconds, index=index, nr_pages=200, **row)
    (report,) = explain(page_cache_experiment)
    assert report.cushion.refaulted_bytes == 400 * PAGE
    again = next(item for item in report.verdict.contributing if item.kind == "refaulted_cache")
    assert again.numbers["refaulted_bytes"] == 400 * PAGE
    assert again.source == ("pagecache",)


def test_refaults_are_not_known_while_evictions_are_summed(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/a")
    trace.charged(0.1, 1, "anon", PAGE)
    trace.add("pagecache", 1, cgroup_id=1, op="delete", cause="reclaim_memcg", inode_id=5, nr_pages=7)
    trace.add("pagecache", 2, cgroup_id=1, op="add", cause="read", inode_id=5, nr_pages=7)
    (one,) = held_cgroups(trace)
    assert one.refaulted_bytes == 7 * PAGE
    trace.add("summed", 2, begin=trace.ns(1.5), stream="pagecache", reason="ring_full")
    (one,) = held_cgroups(trace)
    assert one.refaulted_bytes is None
    assert "events were summed" in one.quality.unknown["refaulted_bytes"]


def test_files_that_were_only_written_are_told_from_those_that_were_read_again(trace: Any) -> None:
    """1: a log. 2: written and read later. 3: read once. 4: read again. 5: written over. 6: from before.
    7: paged out and read again. 8: written and removed."""
    trace.add("cgroups", cgroup_id=1, path="/a")
    evict, drop = {"op": "delete", "cause": "reclaim_memcg"}, {"op": "delete"}
    moves = {
        1: [{"op": "add", "cause": "write"}, evict],
        2: [{"op": "add", "cause": "write"}, evict, {"op": "add", "cause": "read"}],
        3: [{"op": "add", "cause": "readahead"}, evict],
        4: [{"op": "add", "cause": "fault"}, evict, {"op": "add", "cause": "fault"}, evict],
        5: [{"op": "add", "cause": "write"}, evict, {"op": "add", "cause": "write"}, evict],
        6: [evict],
        7: [{"op": "add", "cause": "fault"}, drop | {"cause": "invalidate"}, {"op": "add", "cause": "fault"}],
        8: [{"op": "add", "cause": "write"}, drop | {"cause": "truncate"}],
    }
    for inode_id, steps in moves.items():
        for seconds, step in enumerate(steps):
            trace.add("pagecache", seconds, cgroup_id=1, inode_id=inode_id, nr_pages=inode_id, **step)
    found = evictions(trace, "file").set_index("inode_id")
    assert found["use"].astype(object).where(found["use"].notna(), None).to_dict() == {
        1: "only written",
        2: "read again",
        3: "read once",
        4: "read again",
        5: "only written",
        6: None,
        7: None,
        8: "only written",
    }
    assert (found["written_bytes"] // PAGE).sort_index().tolist() == [1, 2, 0, 0, 10, 0, 0, 8]
    assert (found["added_bytes"] // PAGE).sort_index().tolist() == [1, 4, 3, 8, 10, 0, 14, 8]
