"""Runs of folios against single folios: a recorder that joins what it sees on each CPU loses nothing.

A model of the page cache adds and evicts folios on several CPUs at a pace of its own, so that runs overlap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracer.analysis.views.evictions import evictions, moves, summed
from tracer.analysis.views.thrash import thrash
from tracer.quantities import EVICTIONS_GROUPINGS

PAGES: Final = 12
LONGEST_MS: Final = 10
KINDS: Final = (
    ("add", "read", 1),
    ("add", "write", 1),
    ("delete", "reclaim_memcg", 2),
    ("delete", "truncate", 3),
)
STEPS: Final = st.lists(
    st.tuples(
        st.integers(0, 2),  # CPU
        st.integers(1, 4000),  # µs since the step before
        st.integers(1, 2),  # pages of the folio
        st.one_of(
            st.none(),  # the next pages of the same file
            st.tuples(st.integers(1, 2), st.integers(0, PAGES - 1), st.sampled_from(KINDS)),
        ),
    ),
    max_size=80,
)


@dataclass(frozen=True, slots=True)
class Folio:
    cpu: int
    ms: float
    inode_id: int
    index: int
    nr_pages: int
    kind: tuple[str, str, int]

    def follows(self, run: list[Folio]) -> bool:
        first, last = run[0], run[-1]
        is_next = (last.inode_id, last.index + last.nr_pages) == (self.inode_id, self.index)
        return is_next and last.kind == self.kind and self.ms - first.ms < LONGEST_MS


def happened(steps: list[Any]) -> Iterator[Folio]:
    """Yield what happens to the page cache: no page enters twice or leaves twice. At first, it is full."""
    there, now = {(inode, page) for inode in (1, 2) for page in range(PAGES)}, 100.0
    for inode in (1, 2):
        yield Folio(0, float(inode), inode, 0, PAGES, KINDS[0])
    at: dict[int, Any] = {}
    for cpu, gap, size, jump in steps:
        now += gap / 1000
        inode, index, kind = jump or at.get(cpu, (1, 0, KINDS[0]))
        pages = {(inode, page) for page in range(index, index + size)}
        is_add = kind[0] == "add"
        if index + size <= PAGES and (pages.isdisjoint(there) if is_add else pages <= there):
            there = there | pages if is_add else there - pages
            yield Folio(cpu, now, inode, index, size, kind)
        at[cpu] = (inode, index + size, kind)


def joined(folios: list[Folio]) -> list[list[Folio]]:
    """Return the runs that a recorder makes of them, with a slot for additions and one for deletions on each
    CPU, by their first folio."""
    runs: list[list[Folio]] = []
    slots: dict[tuple[int, str], list[Folio]] = {}
    for folio in folios:
        slot = (folio.cpu, folio.kind[0])
        if slot in slots and folio.follows(slots[slot]):
            slots[slot].append(folio)
        else:
            slots[slot] = [folio]
            runs.append(slots[slot])
    return runs


def recorded(trace: Any, runs: list[list[Folio]]) -> Any:
    for run in runs:
        first, (op, cause, tgid) = run[0], run[0].kind
        trace.add(
            "pagecache",
            first.ms / 1000,
            duration_ns=trace.ns(run[-1].ms / 1000) - trace.ns(first.ms / 1000),
            folios=len(run),
            cgroup_id=1,
            tgid=tgid,
            task_cgroup_id=tgid,
            op=op,
            cause=cause,
            inode_id=first.inode_id,
            index=first.index,
            nr_pages=sum(folio.nr_pages for folio in run),
        )
    return trace


def links(trace: Any, run_of: list[int]) -> Counter[tuple[int, int]]:
    """Return (run that added, run that evicted) -> bytes."""
    found: Counter[tuple[int, int]] = Counter()
    back = trace.refaults
    for added, evicted, size in zip(back["added_row"], back["evicted_row"], back["bytes"], strict=True):
        found[run_of[added], run_of[evicted]] += size
    return found


@given(steps=STEPS)
@settings(suppress_health_check=list(HealthCheck))
def test_runs_have_the_evictions_and_refaults_of_their_folios(new_trace: Any, steps: list[Any]) -> None:
    folios = list(happened(steps))
    runs = joined(folios)
    number = {id(folio): position for position, run in enumerate(runs) for folio in run}
    in_runs = recorded(new_trace(), runs)
    one_by_one = recorded(new_trace(), [[folio] for folio in folios])
    assert links(in_runs, list(range(len(runs)))) == links(one_by_one, [number[id(one)] for one in folios])
    sums = [(trace, moves(trace)) for trace in (in_runs, one_by_one)]
    for by in EVICTIONS_GROUPINGS:
        ours, theirs = (summed(trace, of_trace, by) for trace, of_trace in sums)
        pd.testing.assert_frame_equal(ours, theirs, check_categorical=False)


def run(trace: Any, ms: float, op: str, pages: tuple[int, int], duration_ms: int = 0) -> None:
    cause = "read" if op == "add" else "reclaim_memcg"
    index, nr_pages = pages
    place = {"inode_id": 1, "index": index, "nr_pages": nr_pages, "folios": nr_pages, "cgroup_id": 1}
    trace.add("pagecache", ms / 1000, op=op, cause=cause, duration_ns=round(duration_ms * 1e6), **place)


def test_page_evicted_ahead_of_a_run_that_adds_it_again_is_refaulted(trace: Any) -> None:
    """Page 80 is evicted 1 ms after the run began, and the run comes to it after 8 of 10 ms."""
    run(trace, 1, "add", (80, 1))
    run(trace, 100, "add", (0, 101), 10)
    run(trace, 101, "delete", (80, 1))
    (row,) = trace.refaults.to_dict("records")
    assert (row["added_row"], row["evicted_row"], row["bytes"]) == (1, 2, 4096)
    assert row["away_ns"] == 7_000_000
    assert evictions(trace)["left_bytes"].tolist() == [101 * 4096]


def test_turns_decide_against_an_even_pace(trace: Any) -> None:
    """The run had added page 10 within the first millisecond, since it was evicted then."""
    run(trace, 1, "delete", (10, 1))
    run(trace, 100, "add", (0, 21), 10)  # at an even pace, page 10 after 5 ms
    run(trace, 101, "delete", (10, 1))
    (row,) = trace.refaults.to_dict("records")
    assert (row["added_row"], row["evicted_row"]) == (1, 0)
    assert evictions(trace)["left_bytes"].tolist() == [20 * 4096]


def test_order_of_overlapping_runs_without_earlier_events_is_that_of_an_even_pace(trace: Any) -> None:
    run(trace, 100, "add", (0, 11), 10)
    for ms, page in ((102, 1), (103, 9)):
        run(trace, ms, "delete", (page, 1))
    assert trace.refaults[["evicted_row", "bytes"]].to_numpy().tolist() == [[2, 4096]]


def test_thrash_counts_all_pages_of_a_run_where_it_began(trace: Any) -> None:
    run(trace, 1, "add", (0, 1024), 9)
    run(trace, 995, "delete", (0, 1024), 9)
    run(trace, 1500, "add", (0, 1024), 9)
    (row,) = thrash(trace).to_dict("records")
    assert row["evicted_bytes"] == row["refaulted_bytes"] == 1024 * 4096
    assert row["end"] - row["begin"] == pd.Timedelta("9ms")
    assert row["median_away_ms"] == 505
