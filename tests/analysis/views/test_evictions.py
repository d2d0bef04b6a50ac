"""Evictions by owners and actors: all amounts are powers of two, so a sum shows its summands."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from tracer.analysis.views.cache_flow import cache_flow
from tracer.analysis.views.evictions import AMOUNTS, evictions, moves
from tracer.analysis.views.timeline import timeline
from tracer.errors import TracerError, UsageError

PAGE = 4096
WEB, DB, GONE, ROOT = 1, 2, 3, 9
LOG, LIB, LOST = 101, 102, 103
READER, BACKUP, KSWAPD = 11, 22, 33
ACTOR_CGROUP = {READER: WEB, BACKUP: DB, KSWAPD: ROOT}


def moved(trace: Any, seconds: float, cause: str, tgid: int | None, **row: Any) -> None:
    op = "add" if cause in ("read", "write", "readahead", "fault") else "delete"
    known = {"op": op, "cause": cause, "tgid": tgid, "task_cgroup_id": ACTOR_CGROUP[tgid or READER]}
    trace.add("pagecache", seconds, **(known | row))


@pytest.fixture
def shared(trace: Any) -> Any:
    """Return a trace in which web (1) and db (2) read the same library.

    db's backup evicts web's cache; kswapd evicts cache of a removed cgroup (3) and cache without an owner.
    """
    for number, path in ((WEB, "/web"), (DB, "/db"), (ROOT, "/")):
        trace.add("cgroups", cgroup_id=number, path=path, container="shop" if number == WEB else None)
    trace.add("cgroups", cgroup_id=GONE, path="/web/job", removed=trace.ns(2))
    for tgid, comm in ((READER, "nginx"), (BACKUP, "pg_dump"), (KSWAPD, "kswapd0")):
        trace.add("tasks", tgid=tgid, comm=comm, first_seen=trace.ns(0))
    trace.add("inodes", inode_id=LOG, dev="8:3", ino=7, path="/var/log/a", deleted=True)
    trace.add("inodes", inode_id=LIB, dev="8:3", ino=8, path="/lib/x.so")
    moved(trace, 1, "read", READER, inode_id=LIB, cgroup_id=WEB, index=0, nr_pages=16)
    moved(trace, 1.1, "fault", BACKUP, inode_id=LIB, cgroup_id=DB, index=16, nr_pages=8)
    moved(trace, 1.2, "write", READER, inode_id=LOG, cgroup_id=WEB, index=0, nr_pages=64)
    moved(trace, 1.3, "reclaim_direct", BACKUP, inode_id=LIB, cgroup_id=WEB, index=0, nr_pages=16)
    moved(trace, 1.5, "readahead", BACKUP, inode_id=LIB, cgroup_id=DB, index=0, nr_pages=4)  # 4 of those 16
    moved(trace, 1.6, "truncate", READER, inode_id=LOG, cgroup_id=WEB, index=0, nr_pages=64)
    moved(trace, 1.9, "reclaim_kswapd", KSWAPD, inode_id=LOST, cgroup_id=GONE, index=0, nr_pages=1, **AT)
    moved(trace, 2.1, "reclaim_kswapd", KSWAPD, inode_id=LOST, cgroup_id=GONE, index=1, nr_pages=2, **AT)
    moved(trace, 2.2, "reclaim_kswapd", KSWAPD, inode_id=LOST, index=32, nr_pages=32, **AT)
    return trace


AT = {"dev": 259 << 20 | 5, "ino": 77}


def pages(frame: pd.DataFrame, amount: str) -> list[int]:
    return [int(value) // PAGE for value in frame[f"{amount}_bytes"]]


def test_evictions_leave_out_shared_memory(shared: Any) -> None:
    """runc copies itself into a memfd: its pages are deleted, but never added."""
    before = evictions(shared)
    shared.add("inodes", inode_id=104, dev="0:1", ino=9, path="memfd:runc", fs_type="tmpfs")
    moved(shared, 1.7, "truncate", READER, inode_id=104, cgroup_id=WEB, index=0, nr_pages=128)
    pd.testing.assert_frame_equal(evictions(shared), before)
    dropped = timeline(shared, WEB, every="100ms")["cache_dropped_bytes"]
    assert dropped.sum() == 64 * PAGE  # of LOG


def test_shared_memory_that_comes_back_is_no_refault(shared: Any) -> None:
    before, linked, needed = evictions(shared), shared.refaults, shared.refaulted
    flow = cache_flow(shared, moves(shared))
    shared.add("inodes", inode_id=104, dev="0:1", ino=9, path="/dev/shm/a", fs_type="tmpfs")
    moved(shared, 1.7, "reclaim_memcg", READER, inode_id=104, cgroup_id=WEB, index=0, nr_pages=512)
    moved(shared, 1.8, "read", READER, inode_id=104, cgroup_id=WEB, index=0, nr_pages=512)
    pd.testing.assert_frame_equal(evictions(shared), before)
    assert cache_flow(shared, moves(shared)).refaults == flow.refaults
    assert (len(shared.refaults), len(shared.refaulted)) == (len(linked), len(needed))
    refaulted = [int(timeline(shared, owner)["cache_refaulted_bytes"].sum()) for owner in (WEB, DB)]
    assert refaulted == [0, 4 * PAGE]


def test_evictions_by_file_have_owners_and_main_evictor(shared: Any) -> None:
    by_file = evictions(shared)
    assert by_file["inode_id"].tolist() == [LOST, LIB, LOG]
    assert [None if pd.isna(path) else path for path in by_file["path"]] == [None, "/lib/x.so", "/var/log/a"]
    assert (by_file["dev"][0], by_file["ino"][0]) == ("259:5", 77)
    assert by_file["deleted"].tolist() == [pd.NA, False, True]
    assert by_file["owners"].tolist() == [1, 2, 1]
    assert pages(by_file, "added") == [0, 28, 64]
    assert pages(by_file, "evicted") == [35, 16, 0]
    assert pages(by_file, "dropped") == [0, 0, 64]
    assert pages(by_file, "refaulted") == pages(by_file, "returned") == [0, 4, 0]
    assert pages(by_file, "left") == [0, 12, 0]
    assert by_file["evictor_tgid"].tolist() == [KSWAPD, BACKUP, pd.NA]
    assert (
        by_file["evictor_comm"].tolist()[:2] == ["kswapd0", "pg_dump"] and by_file["evictor_comm"].isna()[2]
    )
    assert by_file["evictor_cgroup"].tolist()[:2] == ["/", "/db"] and by_file["evictor_cgroup"].isna()[2]
    assert pages(by_file, "evictor") == [35, 16, 0]


def test_evictions_by_cgroup_have_a_row_for_each_owner_and_actor(shared: Any) -> None:
    matrix = evictions(shared, "cgroup").set_index(["cgroup", "charged_to", "task_cgroup"])
    evicted: dict[Any, int] = {
        pair: amount // PAGE for pair, amount in matrix["evicted_bytes"].items() if amount
    }
    assert len(evicted) == 4
    assert evicted["/web", "live", "/db"] == 16
    assert evicted["/web/job", "live", "/"] == 1
    assert evicted["/web/job", "removed", "/"] == 2
    (nobody,) = [
        amount for (owner, kind, _), amount in evicted.items() if pd.isna(owner) and kind == "nobody"
    ]
    assert nobody == 32
    assert matrix.loc[("/web", "live", "/web"), "container"] == "shop"
    assert matrix.loc[("/web", "live", "/web"), "dropped_bytes"] == 64 * PAGE
    assert matrix.loc[("/db", "live", "/db"), "refaulted_bytes"] == 4 * PAGE
    assert matrix.loc[("/web", "live", "/db"), "returned_bytes"] == 4 * PAGE
    assert matrix["evicted_from_others_bytes"].sum() == (16 + 1 + 2) * PAGE


def test_evictions_by_cause_and_by_process_have_their_sums(shared: Any) -> None:
    by_cause = evictions(shared, "cause").set_index("cause")
    assert by_cause["evicted_bytes"].to_dict()["reclaim_kswapd"] == 35 * PAGE
    assert [by_cause[column]["readahead"] for column in ("added_bytes", "refaulted_bytes")] == [
        4 * PAGE,
        4 * PAGE,
    ]
    assert by_cause.loc["reclaim_direct", "returned_bytes"] == 4 * PAGE
    assert by_cause["op"].to_dict()["truncate"] == "delete"
    by_process = evictions(shared, "process")
    assert by_process["comm"].tolist() == ["kswapd0", "pg_dump", "nginx"]
    assert by_process["task_cgroup"].tolist() == ["/", "/db", "/web"]
    assert pages(by_process, "evicted_from_others") == [3, 16, 0]


@pytest.mark.parametrize("by", ["file", "cgroup", "cause", "process"])
def test_evictions_by_any_grouping_have_one_total(shared: Any, by: str) -> None:
    whole = {"added": 92, "evicted": 51, "dropped": 64, "refaulted": 4, "returned": 4, "left": 12}
    assert evictions(shared, by)[list(AMOUNTS)].sum().to_dict() == {
        **{f"{amount}_bytes": total * PAGE for amount, total in whole.items()},
        "evicted_from_others_bytes": 19 * PAGE,
        "written_bytes": 64 * PAGE,
    }
    of_web = evictions(shared, by, "shop")
    assert sum(pages(of_web, "evicted")) == 16 + 1 + 2
    assert sum(pages(of_web, "returned")) == 4
    assert sum(pages(of_web, "refaulted")) == 0


def test_sums_count_in_totals_and_nowhere_else(shared: Any) -> None:
    """Sums of a known file, and of files that were not told apart, one of which is tmpfs's."""
    summed = {"index": None, "duration_ns": 10**8, "folios": 2, "cgroup_id": WEB}
    nameless = summed | {"inode_id": None, "ino": None}
    shared.add("inodes", inode_id=104, dev="0:1", ino=9, path="memfd:runc", fs_type="tmpfs")
    shared.add("summed", 2.4, begin=shared.ns(2.2), stream="pagecache", reason="ring_full")
    moved(shared, 2.3, "reclaim_memcg", BACKUP, **summed, inode_id=LIB, nr_pages=256)
    moved(shared, 2.3, "read", None, **nameless, dev=8 << 20 | 3, nr_pages=512)
    moved(shared, 2.3, "truncate", None, **nameless, dev=1, nr_pages=1024)
    whole = {"added": 604, "evicted": 307, "dropped": 64, "refaulted": 4, "returned": 4, "left": 0}
    for by in ("file", "cgroup", "cause", "process"):
        totals = evictions(shared, by)[[f"{amount}_bytes" for amount in whole]].sum()
        assert totals.to_dict() == {f"{amount}_bytes": total * PAGE for amount, total in whole.items()}
    by_file, by_process = evictions(shared), evictions(shared, "process")
    (nobody,) = by_file[by_file["inode_id"].isna()].to_dict("records")
    assert (nobody["added_bytes"], nobody["owners"]) == (512 * PAGE, 1)
    assert pd.isna([nobody[name] for name in ("path", "dev", "ino", "deleted", "evictor_tgid")]).all()
    assert by_file.set_index("inode_id")["evicted_bytes"][LIB] == 272 * PAGE
    assert pages(by_process[by_process["tgid"].isna()], "added") == [512]
    flow = cache_flow(shared, moves(shared))
    assert flow.evictor is not None and flow.evictor.tgid == BACKUP
    assert flow.shared_files == 1
    assert [(one.reasons, one.end) for one in flow.quality.summed] == [
        (("ring_full",), pd.Timestamp(shared.ns(2.4), tz="UTC"))
    ]


def test_left_bytes_ignore_evictions_of_older_cache(trace: Any) -> None:
    """100 pages from before the trace are evicted and 9 are added: 9 are left, not 0."""
    moved(trace, 1, "reclaim_memcg", READER, inode_id=LIB, cgroup_id=WEB, index=0, nr_pages=100)
    moved(trace, 2, "read", READER, inode_id=LIB, cgroup_id=WEB, index=200, nr_pages=9)
    (row,) = evictions(trace).to_dict("records")
    assert (row["evicted_bytes"], row["left_bytes"]) == (100 * PAGE, 9 * PAGE)
    assert pd.isna(row["path"]) and pd.isna(row["evictor_comm"])
    assert row["evictor_cgroup"] == "id:1"
    evictor = cache_flow(trace, moves(trace)).evictor
    assert evictor is not None and evictor.comm is None


@pytest.mark.parametrize("by", ["file", "cgroup", "cause", "process"])
def test_evictions_of_an_empty_trace_have_the_same_columns(trace: Any, shared: Any, by: str) -> None:
    columns = evictions(shared, by).columns.tolist()
    shared.forget("pagecache")
    assert evictions(shared, by).empty
    assert evictions(shared, by).columns.tolist() == columns


def test_evictions_of_unknown_grouping_or_cgroup_are_refused(shared: Any) -> None:
    with pytest.raises(UsageError, match="by file, cgroup, cause, process, not by 'inode'"):
        evictions(shared, "inode")
    with pytest.raises(TracerError, match="no cgroup"):
        evictions(shared, "file", "nope")


def test_cache_flow_sums_up_additions_evictions_and_refaults(shared: Any) -> None:
    shared.add("loss", 2, stream="pagecache", lost=5)
    shared.add("loss", 2, stream="charge", lost=7)
    shared.add("samples", 0.5, cgroup_id=DB, source="start", workingset_refault_file=1000)
    shared.add("samples", 2.5, cgroup_id=DB, source="end", workingset_refault_file=1006)
    flow = cache_flow(shared, moves(shared))
    assert flow.evicted_by_cause == {"reclaim_kswapd": 35 * PAGE, "reclaim_direct": 16 * PAGE}
    assert list(flow.evicted_by_cause) == ["reclaim_kswapd", "reclaim_direct"]
    assert flow.added_by_cause == {
        "write": 64 * PAGE,
        "read": 16 * PAGE,
        "fault": 8 * PAGE,
        "readahead": 4 * PAGE,
    }
    assert flow.dropped_by_cause == {"truncate": 64 * PAGE}
    assert flow.evicted_from_removed_bytes == 2 * PAGE
    assert flow.evicted_from_nobody_bytes == 32 * PAGE
    assert flow.shared_files == 1
    assert flow.evictor is not None
    assert (flow.evictor.comm, flow.evictor.cgroup, flow.evictor.evicted_bytes) == ("kswapd0", "/", 35 * PAGE)
    back = flow.refaults
    assert (back.bytes, back.same_cgroup_bytes, back.other_cgroup_bytes) == (4 * PAGE, 0, 4 * PAGE)
    assert back.median_away_ms == pytest.approx(200)
    (counted,) = back.kernel
    assert (counted.cgroup, counted.refaulted_bytes, counted.kernel_bytes) == ("/db", 4 * PAGE, 6 * PAGE)
    assert counted.end - counted.begin == pd.Timedelta("2s")
    (document,) = flow.to_dict()["refaults"]["kernel"]
    assert document["end"] == counted.end.isoformat(timespec="microseconds")
    assert (flow.quality.lost_records, set(flow.quality.unknown)) == (5, {"first_look"})
    web = cache_flow(shared, moves(shared, WEB), WEB)
    assert (web.cgroup, web.evicted_bytes) == ("/web", 19 * PAGE)
    assert (web.returned_bytes, web.returned_elsewhere_bytes) == (4 * PAGE, 4 * PAGE)
    assert flow.returned_elsewhere_bytes == 0
    assert web.refaults.bytes == 0 and web.refaults.median_away_ms is None
    assert web.quality.unknown["refaults.kernel"] == "the kernel's count was not sampled twice"


def looked_at(trace: Any, seconds: float, pages: int, **row: Any) -> None:
    row = {"cgroup_id": WEB, "kind": "file", "files": 1, "bytes": pages * PAGE} | row
    trace.add("contents", seconds, **row)


def test_first_look_at_each_cgroup_is_the_cache_from_before(shared: Any) -> None:
    """Later looks, shmem, and cgroups that were not asked for do not count."""
    looked_at(shared, 0.1, 700, inode_id=LIB)
    looked_at(shared, 0.1, 30, inode_id=None, files=4)
    looked_at(shared, 0.1, 5000, inode_id=LIB, kind="shmem")
    looked_at(shared, 0.3, 8, inode_id=LIB, cgroup_id=DB)
    looked_at(shared, 2.5, 10, inode_id=LIB)
    flow = cache_flow(shared, moves(shared))
    assert flow.first_look is not None
    assert (flow.first_look.bytes, flow.first_look.time.value) == (738 * PAGE, shared.ns(0.3))
    assert "first_look" not in flow.quality.unknown
    web = cache_flow(shared, moves(shared, WEB), WEB)
    assert web.first_look is not None
    assert web.first_look.bytes == 730 * PAGE
    files = evictions(shared).set_index("inode_id")["first_look_bytes"]
    assert files[LIB] == 708 * PAGE
    assert files.drop(LIB).isna().all()


def test_look_at_a_cgroup_that_began_empty_is_not_of_before(shared: Any) -> None:
    shared.add("cgroups", cgroup_id=77, path="/late", created=shared.ns(0.2))
    shared.add("cgroups", cgroup_id=78, path="/own")
    for number, levels in ((78, (0, 5)), (WEB, (9, 0))):
        for at, pages in zip((0.05, 0.3), levels, strict=True):
            shared.add("samples", at, cgroup_id=number, file_bytes=pages * PAGE)
    looked_at(shared, 0.1, 30, inode_id=LIB)
    looked_at(shared, 0.4, 700, inode_id=LIB, cgroup_id=77)
    looked_at(shared, 0.4, 700, inode_id=LIB, cgroup_id=78)
    flow = cache_flow(shared, moves(shared))
    assert flow.first_look is not None
    assert flow.first_look.bytes == 30 * PAGE
    late = cache_flow(shared, moves(shared, 77), 77).first_look
    assert late is not None
    assert late.bytes == 0
    assert evictions(shared).set_index("inode_id")["first_look_bytes"][LIB] == 30 * PAGE


@pytest.mark.parametrize(
    ("meta", "reason"),
    [
        ({}, "an older version recorded the trace, or it has no end"),
        (
            {"contents_left_out": None},
            "no cgroup was looked at: none with a limit held page cache at the begin or near it",
        ),
        ({"contents_left_out": "too much memory"}, "too much memory"),
    ],
)
def test_cache_without_a_look_has_a_reason(trace: Any, meta: dict[str, Any], reason: str) -> None:
    trace.meta |= meta
    flow = cache_flow(trace, moves(trace))
    assert flow.first_look is None
    assert flow.quality.unknown["first_look"] == reason


def test_kernel_count_of_nested_cgroups_is_that_of_the_parent(trace: Any) -> None:
    """The count of a cgroup that was made during the trace begins at 0."""
    for number, path in ((1, "/a"), (2, "/a/b"), (3, "/c")):
        trace.add("cgroups", cgroup_id=number, path=path, created=trace.ns(0) if number == 3 else None)
        trace.add("samples", 1, cgroup_id=number, source="periodic", workingset_refault_file=30 * number)
        trace.add("samples", 2, cgroup_id=number, source="periodic", workingset_refault_file=33 * number)
    counts = cache_flow(trace, moves(trace)).refaults.kernel
    assert [(count.cgroup, count.kernel_bytes // PAGE) for count in counts] == [("/a", 3), ("/c", 99)]


def test_thrash_of_the_cache_flow_has_names_and_is_ordered_by_time(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=WEB, path="/web")
    for second, owner in ((1, None), (0, WEB)):
        moved(trace, second, "reclaim_memcg", READER, inode_id=LIB, cgroup_id=owner, nr_pages=257)
        moved(trace, second + 0.01, "read", READER, inode_id=LIB, cgroup_id=owner, nr_pages=257)
    found = cache_flow(trace, moves(trace)).thrash
    assert [one.cgroup for one in found] == ["/web", None]
    assert [one.psi_some_share for one in found] == [None, None]
    assert found[0].median_away_ms == pytest.approx(10)
    assert len(cache_flow(trace, moves(trace, WEB), WEB).thrash) == 1
