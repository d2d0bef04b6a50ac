"""Learning the position of an item's counter from synthetic observations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.capture.learn.positions import first_kinds, positions_from, with_untouched
from tracer.wire.dtypes import WATCHED

NAMES = {10: "NR_FILE_PAGES", 11: "NR_SHMEM", 12: "MEMCG_KMEM", 13: "NR_FILE_DIRTY"}
TRUE = {"NR_FILE_PAGES": 4, "NR_SHMEM": 0, "MEMCG_KMEM": 63, "NR_FILE_DIRTY": 17}
AT = {item: TRUE[name] for item, name in NAMES.items()}

Update = tuple[int, int, int]  # cpu, memcg, item


def watched(
    updates: Sequence[Update], unseen: frozenset[int] = frozenset(), *, before: bool = False
) -> npt.NDArray[np.void]:
    """Return the records of these updates. Each shows the counters of its memcg on its CPU after the update,
    or `before` it. The updates whose numbers are in `unseen` happen, but leave no record.
    """
    counters: dict[tuple[int, int], npt.NDArray[np.int64]] = {}
    records = []
    for number, (cpu, memcg, item) in enumerate(updates):
        state = counters.setdefault((cpu, memcg), np.zeros(64, np.int64))
        shown = state.copy()
        if item in AT:
            state[AT[item]] += 1 + number
        if number not in unseen:
            records.append((memcg, cpu, item, shown if before else state.copy()))
    return np.array(records, WATCHED)


updates = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 2), st.sampled_from([*NAMES, 99])), max_size=80
)


moments = pytest.mark.parametrize("before", [False, True])


@moments
@given(updates=updates)
def test_positions_from_any_updates_are_true(before: bool, updates: list[Update]) -> None:
    learnt = positions_from(watched(updates, before=before), NAMES, before=before)
    assert learnt.items() <= TRUE.items()


@moments
def test_positions_from_enough_updates_are_complete(before: bool) -> None:
    updates = [(cpu, 1, item) for item in NAMES for cpu in (0, 1) for _ in range(3)]
    assert positions_from(watched(updates, before=before), NAMES, before=before) == TRUE


@moments
@given(seed=st.integers(0, 2**32 - 1))
def test_positions_with_a_few_unseen_updates_are_complete(before: bool, seed: int) -> None:
    """A record after an unseen update shows two changes, or the unseen one alone."""
    chance = np.random.default_rng(seed)
    updates = [(0, 1, int(item)) for item in chance.permutation(np.repeat(list(NAMES), 100))]
    unseen = frozenset(chance.choice(len(updates), 8, replace=False).tolist())
    assert positions_from(watched(updates, unseen, before=before), NAMES, before=before) == TRUE


def test_positions_of_an_item_with_two_candidates_stay_unknown() -> None:
    """Half of its observations are of another counter's change."""
    records = watched([(0, 1, 10)] * 21)
    records["item"][::2] = 12
    assert positions_from(records, NAMES, before=False) == {}


def test_positions_of_two_items_at_one_place_stay_unknown() -> None:
    records = watched([(0, 1, 10)] * 10 + [(0, 1, 13)] * 10)
    records["item"][5:10] = 11
    learnt = positions_from(records, NAMES, before=False)
    assert "NR_FILE_PAGES" not in learnt
    assert "NR_SHMEM" not in learnt
    assert learnt["NR_FILE_DIRTY"] == TRUE["NR_FILE_DIRTY"]


def test_positions_from_no_change_are_empty() -> None:
    assert positions_from(np.zeros(0, WATCHED), NAMES, before=False) == {}
    assert positions_from(watched([(0, 1, 10)]), NAMES, before=False) == {}


KINDS = ("KSWAPD", "DIRECT", "KHUGEPAGED", "PROACTIVE")


def test_first_kinds_follow_from_any_kind_that_happened() -> None:
    learnt = {"PGSCAN_DIRECT": 5, "PGSTEAL_PROACTIVE": 11}
    assert first_kinds(learnt, KINDS, 4) == {"pgscan": 4, "pgsteal": 8}


def test_first_kinds_with_other_counts_between_them_are_found() -> None:
    """Linux 7.1 counts reclaimed anon and file pages as well, behind the kinds of reclaim."""
    assert first_kinds({"PGSTEAL_DIRECT": 35, "PGSCAN_DIRECT": 41}, KINDS, 6) == {"pgsteal": 34, "pgscan": 40}


@pytest.mark.parametrize(
    "learnt",
    [
        {},
        {"PGSCAN_DIRECT": 5},
        {"PGSCAN_DIRECT": 5, "PGSTEAL_DIRECT": 8},  # one kind less lies between them
        {"PGSCAN_DIRECT": 5, "PGSCAN_KSWAPD": 5, "PGSTEAL_DIRECT": 9},
    ],
)
def test_first_kinds_that_contradict_the_layout_are_unknown(learnt: dict[str, int]) -> None:
    assert first_kinds(learnt, KINDS, 4) == {}


ENUM = {"MEMCG_SWAP": 50, "MEMCG_SOCK": 51, "MEMCG_PERCPU_B": 52, "MEMCG_VMALLOC": 53, "MEMCG_KMEM": 54}


def test_position_of_an_item_that_nothing_moved_follows_from_two_others() -> None:
    learnt = {"NR_SHMEM": 19, "MEMCG_PERCPU_B": 35, "MEMCG_KMEM": 37}
    known = {"NR_SHMEM": 19, "MEMCG_SWAP": 33, "MEMCG_SOCK": 34}
    assert with_untouched(learnt, ENUM).items() >= known.items()


@pytest.mark.parametrize("learnt", [{}, {"MEMCG_KMEM": 37}, {"MEMCG_PERCPU_B": 34, "MEMCG_KMEM": 37}])
def test_position_of_an_untouched_item_stays_unknown_without_two_that_agree(learnt: dict[str, int]) -> None:
    assert with_untouched(learnt, ENUM) == learnt
