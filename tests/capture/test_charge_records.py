"""The ledger at a kill and after a removal, from records made here."""

from __future__ import annotations

import gc
from collections import Counter
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tracer.capture.bpf.accounts import Passed
from tracer.capture.charge_records import LedgerTotals, has_levels
from tracer.categories import CATEGORIES
from tracer.enumerations import CATEGORY
from tracer.wire.dtypes import WIRE

ANON, FILE = CATEGORY.number("anon"), CATEGORY.number("file")
PAGE = 4096
KILL_NS = 1000
TRIGGER = 77
NO_KILLS = np.zeros(0, WIRE["oom"])


def record(time_ns: int, cgroup_id: int, tgid: int = 0, *, updates: int = 1, **delta: int) -> Any:
    one = np.zeros(1, WIRE["charge"])
    one["time_ns"], one["cgroup_id"], one["tgid"], one["updates"] = time_ns, cgroup_id, tgid, updates
    for name, pages in delta.items():
        one["delta_bytes"][0, CATEGORY.number(name)] = pages * PAGE
    return one


def level(cgroup_id: int, *, time_ns: int = KILL_NS, **pages: int) -> Any:
    return record(time_ns, cgroup_id, TRIGGER, updates=0, **pages)


def kills(*times_ns: int) -> Any:
    found = np.zeros(len(times_ns), WIRE["oom"])
    found["time_ns"], found["trigger_tgid"] = times_ns, TRIGGER
    return found


def joined(*records: Any) -> Any:
    return np.concatenate(records)


def pages_at(charges: Any, cgroup_id: int, category: int, time_ns: int) -> int:
    rows = charges[(charges["cgroup_id"] == cgroup_id) & (charges["time_ns"] <= time_ns)]
    return int(rows["delta_bytes"][:, category].sum()) // PAGE


def passed(cgroup_id: int, parent_id: int | None, *, primed_file: int = 0) -> Passed:
    primed = np.zeros(len(CATEGORIES), np.int64)
    primed[FILE] = primed_file * PAGE
    categories = np.ones(len(CATEGORIES), np.bool_)
    categories[CATEGORY.number("swap")] = False
    return Passed(cgroup_id, parent_id, categories, primed)


def test_eviction_that_is_found_late_is_at_the_kill() -> None:
    totals = LedgerTotals()
    totals.take(joined(record(10, 5, 4, file=47), record(20, 6, 4, file=19)), NO_KILLS)
    read = joined(level(5, file=3), level(6, file=19), record(1200, 5, file=-45), record(1300, 6, file=-2))
    assert has_levels(read)
    charges = totals.take(read, kills(KILL_NS))
    assert not has_levels(charges)
    assert [pages_at(charges, 5, FILE, time_ns) + 47 for time_ns in (999, 1000, 1200)] == [47, 3, 2]
    assert [pages_at(charges, 6, FILE, time_ns) + 19 for time_ns in (1000, 1300)] == [19, 17]
    assert (np.diff(charges["time_ns"].astype(np.int64)) >= 0).all()


def test_what_a_process_charged_late_stays_its_own() -> None:
    totals = LedgerTotals()
    read = joined(level(5, anon=30), record(1010, 5, 4, anon=20), record(1020, 5, 8, anon=25))
    charges = totals.take(read, kills(KILL_NS - 3))
    at_kill = charges[charges["time_ns"] == KILL_NS - 3]
    assert sorted(zip(at_kill["tgid"], at_kill["delta_bytes"][:, ANON] // PAGE, strict=True)) == [
        (4, 20),
        (8, 10),
    ]
    assert pages_at(charges, 5, ANON, 1020) == 45


def test_change_that_no_record_has_is_at_the_kill_and_ends_with_the_last_record() -> None:
    """It was charged and freed within one slice, which sums up to nothing."""
    totals = LedgerTotals()
    charges = totals.take(joined(level(5, anon=12), record(1050, 5, 4, anon=-2)), kills(KILL_NS))
    assert [pages_at(charges, 5, ANON, time_ns) for time_ns in (999, 1000, 1050)] == [0, 12, -2]


@given(
    before=st.lists(st.integers(-9, 9), max_size=4),
    at_kill=st.integers(-30, 30),
    after=st.lists(st.integers(-9, 9), max_size=5),
)
def test_level_holds_at_the_kill_and_totals_stay(before: list[int], at_kill: int, after: list[int]) -> None:
    totals = LedgerTotals()
    earlier = [record(number, 5, 4, file=one) for number, one in enumerate(before)]
    later = [record(KILL_NS + 1 + number, 5, 4, file=one) for number, one in enumerate(after)]
    charges = totals.take(joined(level(5, file=at_kill), *earlier, *later), kills(KILL_NS))
    assert pages_at(charges, 5, FILE, KILL_NS) == at_kill
    assert pages_at(charges, 5, FILE, 10 * KILL_NS) == sum(before) + sum(after)
    assert pages_at(charges, 5, FILE, KILL_NS - 1) == sum(before)


def test_memory_of_a_removed_cgroup_passes_to_its_parent_and_on() -> None:
    totals = LedgerTotals()
    totals.take(joined(record(10, 5, 4, file=36, swap=3), record(10, 4, 4, file=2)), NO_KILLS)
    moved = totals.pass_on([passed(4, 3), passed(5, 4, primed_file=7)])
    assert moved == {(5, FILE): -43 * PAGE, (4, FILE): -2 * PAGE, (3, FILE): 45 * PAGE}


def test_level_after_a_removal_counts_what_was_passed_on() -> None:
    """The kernel's counters of the parent lack it, and those of the removed cgroup keep it."""
    totals = LedgerTotals()
    totals.take(record(10, 5, 4, file=36), NO_KILLS)
    totals.pass_on([passed(5, 4)])
    charges = totals.take(joined(level(5, file=36), level(4, file=-11)), kills(KILL_NS))
    assert [pages_at(charges, number, FILE, KILL_NS) for number in (5, 4)] == [0, -11]


def test_removed_cgroup_whose_parent_is_not_traced_leaves_the_ledger() -> None:
    totals = LedgerTotals()
    totals.take(record(10, 5, 4, file=36), NO_KILLS)
    assert totals.pass_on([passed(5, None)]) == {(5, FILE): -36 * PAGE}


def test_what_a_closed_account_lacked_does_not_pass_to_the_parent() -> None:
    """The kernel has moved it, and freed the counters that showed it before they were read again."""
    totals = LedgerTotals()
    totals.take(joined(record(10, 5, 4, file=36), record(20, 4, file=30)), NO_KILLS)
    totals.add_sums(Counter({(5, FILE): -30 * PAGE}))
    assert totals.pass_on([passed(5, 4)]) == {(5, FILE): -6 * PAGE, (4, FILE): 6 * PAGE}


def test_closed_account_is_remembered_until_the_next_look() -> None:
    totals = LedgerTotals()
    totals.take(record(10, 5, 4, file=36), NO_KILLS)
    totals.close(5)
    assert not totals.pass_on([])
    assert totals.pass_on([passed(5, 4)])
    assert not totals.pass_on([passed(5, 4)])


def test_removals_leave_no_cyclic_garbage() -> None:
    """While cgroups come and go, this runs a hundred times a second."""
    totals = LedgerTotals()
    removed = [
        Passed(one, one - 1, np.ones(len(CATEGORIES), np.bool_), np.zeros(len(CATEGORIES), np.int64))
        for one in (3, 1, 2)
    ]
    gc.collect()
    for _ in range(10):
        totals.pass_on(removed)
    assert gc.collect() == 0
