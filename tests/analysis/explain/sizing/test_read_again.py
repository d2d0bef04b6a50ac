"""What a run would read again at another limit, against LRU lists of every size and runs of known times."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from analysis.explain.sizing.test_demand import OF_COMMAND, UNSEEN
from analysis.views.test_miss_curve import misses_of_lru
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic.crawling import livelock

from tracer.analysis.explain.survivors import held_cgroups
from tracer.analysis.results.outcome import AtLimit, is_wide
from tracer.analysis.whatif.outcomes import what_if
from tracer.schema import UNLIMITED_BYTES

PAGE = 4096
MIB = 1 << 20
PAGES = 256
"""The pages of what the list takes in and gives up at once: 1 MiB."""


def accessed(trace: Any, accesses: Sequence[int], size: int, *, kind: str = "memcg", **meta: Any) -> Any:
    """Record accesses to parts of 1 MiB, below a limit at which the LRU list has room for `size` of them."""
    trace.meta |= OF_COMMAND | meta
    now = {"usage_bytes": size * MIB, "limit_bytes": size * MIB}
    trace.add("cgroups", cgroup_id=7, path="/work", created=trace.ns(0))
    trace.add("samples", 0, cgroup_id=7, source="periodic", pgfault=0, **now)
    row = {"cgroup_id": 7, "inode_id": 1, "nr_pages": PAGES, "tgid": 41}
    for seconds, op, part in misses_of_lru(accesses, size)[0]:
        cause = "read" if op == "add" else "reclaim_memcg"
        trace.add("pagecache", seconds, op=op, cause=cause, index=part * PAGES, **row)
        if op == "delete":
            trace.add("reclaim", seconds, kind=kind, cgroup_id=7, task_cgroup_id=7, reclaimed=PAGES, **now)
    trace.charged(0, 7, "anon", PAGE, tgid=41, **now)
    return trace


def at(trace: Any, *mib: int) -> list[AtLimit]:
    return list(what_if(trace, [one * MIB for one in mib], 7).limits)


@given(accesses=st.lists(st.integers(0, 40), min_size=60, max_size=160), size=st.integers(8, 20))
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_more_memory_reads_again_what_a_longer_list_does(
    new_trace: Any, accesses: list[int], size: int
) -> None:
    trace = accessed(new_trace(), accesses, size)
    sizes = [size, size + 3, size + 9, size + 20, 60]
    for one, length in zip(at(trace, *sizes), sizes, strict=True):
        low, high = one.read_again_bytes
        assert low is not None and high is not None
        assert low <= misses_of_lru(accesses, length)[1] * MIB <= high


@given(accesses=st.lists(st.integers(0, 30), min_size=60, max_size=120), size=st.integers(10, 20))
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
def test_less_memory_reads_again_at_least_as_much(new_trace: Any, accesses: list[int], size: int) -> None:
    (one,) = at(accessed(new_trace(), accesses, size), size - 4)
    low, high = one.read_again_bytes
    again = misses_of_lru(accesses, size - 4)[1] * MIB
    assert low is not None and low <= again
    assert high is None or again <= high
    assert (high is None) == (len(set(accesses)) > size - 5)


def test_limit_above_usage_changes_nothing(trace: Any) -> None:
    trace = accessed(trace, [*range(9)] * 3, 50)
    for row in trace.recorded()["samples"] + trace.recorded()["charge"]:
        row["usage_bytes"] = 9 * MIB
    less, above, recorded, more = at(trace, 9, 11, 50, 90)
    assert [one.read_again_bytes for one in (above, recorded, more)] == [(0, 0)] * 3
    assert less.read_again_bytes == (0, None)
    assert "not all of its page cache" in less.why


@pytest.mark.parametrize(("cause", "around"), [("read", 0), ("fault", 1)])
def test_upper_end_has_room_for_what_page_faults_read_around(trace: Any, cause: str, around: int) -> None:
    """At a tight limit, most faults miss, and the kernel reads nothing around them."""
    trace = accessed(trace, [*range(30)] * 3, 20)
    for row in trace.recorded()["pagecache"]:
        if row["op"] == "add":
            row["cause"] = cause
    (held,) = held_cgroups(trace)
    assert held.sizing.min_limit_bytes is not None
    room = 30 * MIB + PAGE + UNSEEN
    assert held.sizing.min_limit_bytes[1] == room + around * MIB
    assert [f"read {around} MiB around" in one for one in held.sizing.basis].count(True) == around


@pytest.mark.parametrize(
    ("file_pages", "written", "around_pages"),
    [(30 * PAGES, 0, 0), (30 * PAGES + 7, 0, 7), (90 * PAGES, 0, PAGES), (30 * PAGES, 1, PAGES)],
)
def test_page_faults_read_no_more_around_than_the_files_have(
    trace: Any, file_pages: int, written: int, around_pages: int
) -> None:
    """A file that was held whole has no more pages; one that was written may have got some twice."""
    trace = accessed(trace, [*range(30)] * 3, 20)
    for row in trace.recorded()["pagecache"]:
        if row["op"] == "add":
            row["cause"] = "fault"
    trace.add("inodes", inode_id=1, size_bytes=file_pages * PAGE)
    if written:
        row = {"cgroup_id": 7, "inode_id": 1, "nr_pages": PAGES, "tgid": 41, "index": 31 * PAGES}
        trace.add("pagecache", 0.5, op="add", cause="write", **row)
    (held,) = held_cgroups(trace)
    assert held.sizing.min_limit_bytes is not None
    room = (30 + written) * MIB + PAGE + UNSEEN
    assert held.sizing.min_limit_bytes[1] == room + around_pages * PAGE


def test_room_for_all_is_known_if_shmem_comes_in_one_row_before_the_other(trace: Any) -> None:
    """Rows of a moment are in no order: between `file` and `shmem`, new shared memory looks like cache."""
    trace = accessed(trace, [*range(30)] * 3, 20)
    now = {"tgid": 41, "usage_bytes": 20 * MIB, "limit_bytes": 20 * MIB}
    for seconds, category, mib in ((0.5, "file", 29), (0.7, "file", 2), (0.7, "shmem", 2)):
        trace.charged(seconds, 7, category, mib * MIB, **now)
    (one,) = what_if(trace, [(30 + 2) * MIB + PAGE + UNSEEN], 7).limits
    assert one.read_again_bytes == (0, 256 << 10)


@pytest.mark.parametrize(("ahead_pages", "is_sure"), [(0, True), (PAGES, False)])
def test_upper_end_has_room_for_what_reads_at_random_read_ahead(
    trace: Any, ahead_pages: int, is_sure: bool
) -> None:
    """A read at random reads ahead as much as is cached before it, and with more memory that is more."""
    trace = accessed(trace, [*range(30), *range(0, 30, 2), *range(30)], 20)
    row = {"cgroup_id": 7, "inode_id": 2, "nr_pages": ahead_pages or 1, "index": 0}
    for seconds, op, cause in ((1, "delete", "reclaim_memcg"), (1.1, "add", "readahead")):
        trace.add("pagecache", seconds, op=op, cause=cause, **row)
    trace.add("reclaim", 1, kind="memcg", cgroup_id=7, task_cgroup_id=7, reclaimed=ahead_pages or 1)
    same, more = (one.read_again_bytes[1] for one in at(trace, 20, 26))
    assert same is not None and more is not None
    assert (more < same - 4 * MIB) is is_sure


@pytest.mark.parametrize(("dropped_mib", "is_sure"), [(0, True), (1, True), (9, False)])
def test_kernel_objects_that_were_dropped_may_take_further_room(
    trace: Any, dropped_mib: int, is_sure: bool
) -> None:
    """Reclaim dropped inodes beside the page cache: with more room, more of them stay. 1.4 MiB may go with
    the 45 MiB of page cache that was evicted."""
    trace = accessed(trace, [*range(30), *range(0, 30, 2), *range(30)], 20)
    now = {"tgid": 41, "usage_bytes": 20 * MIB, "limit_bytes": 20 * MIB}
    for seconds, amount in ((0.1, dropped_mib), (0.2, -dropped_mib)):
        for category in ("kernel", "slab_reclaimable"):
            trace.charged(seconds, 7, category, amount * MIB, **now)
    same, more, all_ = at(trace, 20, 26, 60)
    assert same.read_again_bytes[1] is not None and more.read_again_bytes[1] is not None
    assert (more.read_again_bytes[1] < same.read_again_bytes[1] - 4 * MIB) is is_sure
    assert (all_.read_again_bytes == (0, MIB // 4)) is is_sure
    (held,) = held_cgroups(trace)
    limits = held.sizing.min_limit_bytes
    assert limits is not None and (limits[1] is not None) is is_sure
    if not is_sure:
        dropped = "7.6 MiB of kernel objects (slab) was dropped"
        assert dropped in held.quality.unknown["sizing.min_limit_bytes"] and dropped in more.why


@pytest.mark.parametrize("dirty_mib", [0, 9])
def test_upper_end_has_room_for_pages_that_were_evicted_late_because_they_were_dirty(
    trace: Any, dirty_mib: int
) -> None:
    trace = accessed(trace, [*range(30), *range(0, 30, 2), *range(30)], 20)
    held = {"usage_bytes": 20 * MIB, "limit_bytes": 20 * MIB, "file_writeback_bytes": MIB}
    dirty = dirty_mib * MIB
    trace.add("samples", 0.1, cgroup_id=7, source="periodic", file_dirty_bytes=dirty, **held)
    same, more, all_ = (one.read_again_bytes[1] for one in at(trace, 20, 26, 40))
    assert same is not None and more is not None
    assert (more < same - 4 * MIB) is not bool(dirty_mib)
    assert all_ == MIB // 4


def test_written_pages_may_come_back_where_nearly_nothing_else_does(trace: Any) -> None:
    """Ten parts are written, and 28 others read, before the ten are read again. While they are dirty, reclaim
    passes over them. At a greater limit, they are clean when their turn comes."""
    written, others = [*range(10)], [*range(10, 38)]
    kept_at, late_mib = len({*written, *others}), 9
    first = [*others[:late_mib], *written, *others[late_mib:]]  # in the order in which they are evicted
    trace = accessed(trace, [*first, *written], 20)
    held = {"usage_bytes": 20 * MIB, "limit_bytes": 20 * MIB, "file_writeback_bytes": 0}
    trace.add("samples", 0.1, cgroup_id=7, source="periodic", file_dirty_bytes=late_mib * MIB, **held)
    misses = {size: misses_of_lru([*written, *others, *written], size)[1] for size in range(21, kept_at + 1)}
    assert misses[kept_at - 1] == 10 and misses[kept_at] == 0
    for one, (size, again) in zip(at(trace, *misses), misses.items(), strict=True):
        assert one.read_again_bytes[1] is not None
        assert again * MIB <= one.read_again_bytes[1], size
    (lived,) = held_cgroups(trace)
    assert lived.sizing.min_limit_bytes is not None and lived.sizing.min_limit_bytes[1] is not None
    assert lived.sizing.min_limit_bytes[1] >= kept_at * MIB


def beside_other_memory(accesses: Sequence[int], others: Sequence[int], size: int) -> tuple[list[Any], int]:
    """Return (the moves of an LRU list: step, operation, part; how many of them brought a part back). It has
    room for `size` parts less `others` at each step."""
    cache: dict[int, None] = {}
    seen, back = set[int](), 0
    moves: list[Any] = []
    for step, (part, taken) in enumerate(zip(accesses, others, strict=True)):
        if part not in cache:
            back += part in seen
            moves.append((step, "add", part))
        cache[part] = cache.pop(part, None)
        seen.add(part)
        for count in range(len(cache) - (size - taken)):
            moves.append((step + 0.4 + count / 99, "delete", gone := next(iter(cache))))
            del cache[gone]
    return moves, back


@given(data=st.data(), back=st.sampled_from([1, -1]))
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
def test_range_holds_where_other_memory_comes_and_goes(new_trace: Any, data: Any, back: int) -> None:
    """It takes the room of page cache that is read again later, in any order."""
    size, parts, peak = 24, data.draw(st.integers(16, 22)), data.draw(st.integers(1, 15))
    again = data.draw(st.permutations(range(parts))) if back > 0 else [*range(parts)][::-1]
    accesses = [*range(parts), *[parts - 1] * 9, *again]
    others = [1] * parts + [1, 1, 1, peak, peak, peak, 1, 1, 1] + [1] * parts
    trace = new_trace()
    trace.meta |= OF_COMMAND
    now = {"usage_bytes": size * MIB, "limit_bytes": size * MIB}
    trace.add("cgroups", cgroup_id=7, path="/work", created=trace.ns(0))
    trace.add("samples", 0, cgroup_id=7, source="periodic", **now)
    row = {"cgroup_id": 7, "inode_id": 1, "nr_pages": PAGES, "tgid": 41}
    for step, op, part in beside_other_memory(accesses, others, size)[0]:
        cause = "read" if op == "add" else "reclaim_memcg"
        trace.add("pagecache", step / 10, op=op, cause=cause, index=part * PAGES, **row)
        if op == "delete":
            trace.add(
                "reclaim", step / 10, kind="memcg", cgroup_id=7, task_cgroup_id=7, reclaimed=PAGES, **now
            )
    for step, (before, after) in enumerate(pairwise([0, *others])):
        if before != after:
            trace.charged(step / 10 + 0.02, 7, "anon", (after - before) * MIB, tgid=41, **now)
    sizes = range(size, size + peak + 3)
    for one, length in zip(at(trace, *sizes), sizes, strict=True):
        low, high = one.read_again_bytes
        assert low is not None and high is not None
        assert low <= beside_other_memory(accesses, others, length)[1] * MIB <= high


def test_reclaim_of_many_pages_at_a_time_leaves_the_lower_end(trace: Any) -> None:
    """Once, 9 parts go at a time, and the list is not full for a while. With 24, all 30 parts are still
    missing in their turn."""
    trace.meta |= OF_COMMAND
    now = {"usage_bytes": 20 * MIB, "limit_bytes": 20 * MIB}
    trace.add("cgroups", cgroup_id=7, path="/work", created=trace.ns(0))
    trace.add("samples", 0, cgroup_id=7, source="periodic", **now)
    row = {"cgroup_id": 7, "inode_id": 1, "tgid": 41}
    held: list[int] = []
    for step, part in enumerate([*range(30)] * 3):
        seconds, many = step / 10, 9 if step == 20 else 1
        if len(held) == 20:
            gone = {"index": held[0] * PAGES, "nr_pages": many * PAGES, "cause": "reclaim_memcg"}
            trace.add("pagecache", seconds - 0.02, op="delete", **row, **gone)
            attempt = {"kind": "memcg", "task_cgroup_id": 7, "reclaimed": many * PAGES}
            trace.add("reclaim", seconds, cgroup_id=7, **attempt, **now)
            del held[:many]
        held.append(part)
        trace.add("pagecache", seconds, op="add", cause="read", index=part * PAGES, nr_pages=PAGES, **row)
    trace.charged(0, 7, "anon", PAGE, tgid=41, **now)
    (one,) = at(trace, 24)
    assert one.read_again_bytes[0] is not None and one.read_again_bytes[0] >= 50 * MIB


@pytest.mark.parametrize("dirty_mib", [0, 9])
def test_lower_end_counts_no_pages_that_others_may_not_have_evicted(trace: Any, dirty_mib: int) -> None:
    """While pages are not written, others go in their place; another time, the disk may have them in time."""
    trace = accessed(trace, [*range(27), *range(27)], 20)
    held = {"usage_bytes": 20 * MIB, "limit_bytes": 20 * MIB, "file_writeback_bytes": 0}
    trace.add("samples", 0.025, cgroup_id=7, source="periodic", file_dirty_bytes=dirty_mib * MIB, **held)
    less, same, more = (one.read_again_bytes for one in at(trace, 16, 20, 22))
    for low, _ in (less, same, more):
        assert low is not None and (low == 0) is bool(dirty_mib)
    assert same[1] is not None and more[1] is not None
    assert min(same[1], more[1]) >= (27 + dirty_mib) * MIB


def test_pages_evicted_before_their_use_are_no_lower_end(trace: Any) -> None:
    """Of 90 MiB that come back, 30 were read ahead too early: evicted and read again at once."""
    trace = accessed(trace, [*range(30)] * 3, 20)
    row = {"cgroup_id": 7, "inode_id": 2, "nr_pages": 64, "index": 0}
    for step in range(120):
        trace.add("pagecache", 1 + step / 100, op="delete", cause="reclaim_memcg", **row)
        trace.add("pagecache", 1.005 + step / 100, op="add", cause="readahead", **row)
        trace.add("reclaim", 1 + step / 100, kind="memcg", cgroup_id=7, task_cgroup_id=7, reclaimed=64)
    less, same = at(trace, 16, 20)
    assert less.read_again_bytes == (60 * MIB - 60 * MIB // 32 - MIB // 4, None)
    assert same.read_again_bytes[0] == less.read_again_bytes[0]
    most = (60 + 30 + 15) * MIB
    assert same.read_again_bytes[1] == most + most // 32 + MIB // 4


@pytest.mark.parametrize("read_ahead_mib", [1, 8])
def test_pages_read_ahead_too_early_come_back_within_what_is_in_reading(
    trace: Any, read_ahead_mib: int
) -> None:
    """20 MiB of 140 come back after 8 MiB were evicted. With readahead of 8 MiB, they may have had no use."""
    trace = accessed(trace, [*range(60)] * 3, 20)
    trace.add("pagecache", 0.5, op="add", cause="readahead", cgroup_id=7, inode_id=3, index=0, tgid=41)
    trace.recorded()["pagecache"][-1]["nr_pages"] = read_ahead_mib * PAGES
    row = {"cgroup_id": 7, "inode_id": 2, "nr_pages": PAGES, "tgid": 41}
    for step in range(28):
        now, later = 1 + step / 10, 1.05 + step / 10
        if step >= 8:
            trace.add("pagecache", now, op="add", cause="readahead", index=(step - 8) * PAGES, **row)
        trace.add("pagecache", later, op="delete", cause="reclaim_memcg", index=step * PAGES, **row)
        trace.add("reclaim", later, kind="memcg", cgroup_id=7, task_cgroup_id=7, reclaimed=PAGES)
    (less,) = at(trace, 16)
    sure = 120 if read_ahead_mib == 8 else 140
    assert less.read_again_bytes == (sure * MIB - sure * MIB // 32 - MIB // 4, None)


@pytest.mark.parametrize("kind", ["kswapd", "proactive"])
def test_evictions_for_another_reason_may_go_on_with_more_room(trace: Any, kind: str) -> None:
    """They may also not happen another time, so that nothing is sure to be read again."""
    less, same, more = at(accessed(trace, [*range(30)] * 3, 20, kind=kind), 16, 20, 100)
    assert less.read_again_bytes == (0, None)
    most = 60 * MIB + 60 * MIB // 32 + MIB // 4
    assert same.read_again_bytes == more.read_again_bytes == (0, most)


def test_what_others_evicted_is_left_out_of_the_lower_end(trace: Any) -> None:
    """A shortage of the machine evicted 10 of 90 MiB, and nothing says which of 60 MiB came back for it."""
    trace = accessed(trace, [*range(30)] * 3, 20)
    attempts = trace.recorded()["reclaim"]
    others = len(attempts) // 7
    for row in attempts[:others]:
        row["kind"] = "kswapd"
    (less, same, more) = at(trace, 16, 20, 24)
    sure = (60 - others) * MIB
    for one in (less, same, more):
        assert one.read_again_bytes[0] == sure - sure // 32 - MIB // 4
    most = 60 * MIB + 60 * MIB // 32 + MIB // 4
    assert same.read_again_bytes[1] == more.read_again_bytes[1] == most


@pytest.mark.parametrize(
    "detail",
    [
        {"priority": 12, "reclaimed_file": PAGES, "reclaimed_anon": 80, "written_anon": 80},
        {"priority": 12, "reclaimed_file": PAGES},  # and slab
        {"written_anon": 80},  # the multi-gen LRU before v6.7
    ],
)
def test_swap_and_slab_that_the_cgroup_reclaimed_is_no_page_cache(trace: Any, detail: dict[str, int]) -> None:
    """A shortage of the machine evicted 10 of 70 MiB; each attempt for the own limit also freed 80 pages."""
    trace = accessed(trace, [*range(30)] * 3, 20)
    attempts = trace.recorded()["reclaim"]
    for row in attempts[:10]:
        row["kind"] = "kswapd"
    for row in attempts[10:]:
        row.update(detail, reclaimed=PAGES + 80)
    (less,) = at(trace, 16)
    assert less.read_again_bytes[0] == 50 * MIB - 50 * MIB // 32 - MIB // 4


def test_limit_that_changed_in_the_trace_leaves_reads_open_unless_all_fits(trace: Any) -> None:
    trace = accessed(trace, [*range(30)] * 3, 20)
    trace.add("samples", 0.01, cgroup_id=7, source="periodic", usage_bytes=MIB, limit_bytes=25 * MIB)
    assert [one.read_again_bytes for one in at(trace, 10, 25, 30)] == [(None, None)] * 3
    assert at(trace, 32)[0].read_again_bytes == (0, MIB // 4)


def test_run_without_a_limit_has_no_greater_one_that_is_enough(trace: Any) -> None:
    """Its page cache was evicted when its memory.high was lowered for a moment, and not all of it is in the
    events."""
    trace = accessed(trace, [*range(30)] * 3, 20)
    trace.charged(0, 7, "file", 50 * MIB, usage_bytes=20 * MIB, limit_bytes=UNLIMITED_BYTES)
    for table in ("samples", "charge", "reclaim"):
        for row in trace.recorded()[table]:
            row["limit_bytes"] = UNLIMITED_BYTES
    (one,) = held_cgroups(trace)
    _, high = one.sizing.min_limit_bytes or (0, 0)
    assert high is None
    assert one.quality.unknown["sizing.min_limit_bytes"] == (
        "it had no limit, or not the same one in the whole trace"
    )


def test_lost_events_leave_reads_open(trace: Any) -> None:
    trace = accessed(trace, [*range(30)] * 3, 20)
    trace.add("loss", 0.05, begin=trace.ns(0.01), stream="pagecache", lost=1)
    assert [one.read_again_bytes for one in at(trace, 10, 90)] == [(None, None)] * 2


def test_other_swap_than_recorded_leaves_reads_open(trace: Any) -> None:
    trace = accessed(trace, [*range(30)] * 3, 20)
    (one,) = what_if(trace, [30 * MIB], 7, swap_bytes=MIB).limits
    assert (one.outcome, one.read_again_bytes) == ("survives", (None, None))


def crawling(trace: Any, cause: str) -> Any:
    """Record a program that reads 4 MiB of itself again in each of 18 s, for its limit of 40 MiB."""
    livelock(trace)
    trace.meta |= OF_COMMAND
    for row in trace.recorded()["pagecache"]:
        row["cause"] = cause if row["op"] == "add" else row["cause"]
    trace.add("samples", 1, cgroup_id=7, source="periodic", pgfault=0)
    for second in range(2, 20):
        trace.add("reclaim", second, kind="memcg", cgroup_id=7, task_cgroup_id=7, reclaimed=4 * PAGES)
    return trace


def test_lost_time_follows_what_is_read_again(trace: Any) -> None:
    """72 MiB of a program come back in 18 s, and each 4 MiB cost 3.6 s of 4: 64.8 s lost, beside 11.2 s."""
    less, same, near, more = at(crawling(trace, "fault"), 20, 40, 41, 60)
    assert near.outcome == "unknown" and "may still be" in near.why  # the room is known to a run of 4 MiB
    assert less.outcome == same.outcome == "thrashes"
    few = 54 / 32 + 0.25, 90 / 32 + 0.25  # of a quarter less and a quarter more than 72 MiB, by page faults
    low, high = (0.9 * mib / (0.9 * mib + 11.2) for mib in (54 - few[0], 90 + few[1]))
    assert same.read_again_bytes == ((54 - few[0]) * MIB, (90 + few[1]) * MIB)
    assert same.lost_share == pytest.approx((low, high), abs=0.005)
    assert less.lost_share[0] == pytest.approx(low, abs=0.005) and less.lost_share[1] is None
    assert more.read_again_bytes == (0, MIB // 4)  # 8 MiB more would have spared all


def test_work_that_thrashed_survives_with_room_for_what_it_reads(trace: Any) -> None:
    (more,) = at(crawling(trace, "read"), 60)
    assert more.outcome == "survives"
    assert more.lost_share[0] == 0
    assert more.lost_share[1] == pytest.approx(0.225 / (0.225 + 11.2), abs=0.005)


ALL_OR_NOTHING = (
    "it reads (nearly) nothing again from 31 MiB on; with less, files read in turn may come back whole"
)


@pytest.mark.parametrize(
    ("limit_mib", "why"),
    [
        (20, None),
        (26, None),
        (29, ALL_OR_NOTHING),
        (34, None),
    ],
)
def test_wide_range_near_the_limit_for_all_says_that_all_or_nothing_comes_back(
    trace: Any, limit_mib: int, why: str | None
) -> None:
    assert why_wide(at(accessed(trace, [*range(30)] * 3, 20), limit_mib)[0]) == why


@pytest.mark.parametrize(
    ("kind", "cause", "dirty_mib", "why"),
    [
        ("memcg", "read", 9, "up to 9 MiB of its page cache was not yet on the disk at a time"),
        ("memcg", "fault", 0, "page faults (98 MiB of it) read around more with more room"),
        ("kswapd", "read", 0, "108 MiB was evicted for another reason than its limit"),
    ],
)
def test_wide_range_says_what_makes_it_wide(
    trace: Any, kind: str, cause: str, dirty_mib: int, why: str
) -> None:
    trace = accessed(trace, [*range(30), *range(0, 30, 2), *range(30)] * 2, 20, kind=kind)
    for row in trace.recorded()["pagecache"]:
        row["cause"] = cause if row["op"] == "add" else row["cause"]
    held = {"usage_bytes": 20 * MIB, "limit_bytes": 20 * MIB, "file_writeback_bytes": 0}
    trace.add("samples", 0.4, cgroup_id=7, source="periodic", file_dirty_bytes=dirty_mib * MIB, **held)
    assert why_wide(at(trace, 27)[0]) == why


def test_wide_range_with_a_little_reclaim_of_others_names_it(trace: Any) -> None:
    """Then no distance bounds the upper end, though the others evicted only a twentieth of it."""
    trace = accessed(trace, [*range(30)] * 6, 20)
    for row in trace.recorded()["reclaim"]:
        row["reclaimed"] = row["reclaimed"] * 19 // 20
    assert why_wide(at(trace, 29)[0]) == "8.1 MiB was evicted for another reason than its limit"


def test_wide_range_of_many_distances_says_how_far_they_are_known(trace: Any) -> None:
    trace = accessed(trace, [part for parts in range(21, 40) for part in range(parts)], 20)
    found = [why_wide(one) for one in at(trace, 30, 33)]
    assert found == [f"which pages stay is known to within {mib} MiB of memory" for mib in (6.1, 6.8)]


def why_wide(one: AtLimit) -> str | None:
    """Return the part of the reason that is about a wide range."""
    assert ("more closely: " in one.why) == is_wide(one.read_again_bytes)
    return one.why.rpartition("more closely: ")[2] if "more closely: " in one.why else None
