"""Composition: disjoint classes that add up to usage, whatever the kernel's counters overlap."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tracer.analysis.explain.measure.composition import compose, working_set
from tracer.analysis.results.memory import COMPOSITION_PARTS
from tracer.schema import MEMORY_STAT_BYTES

SIZES = st.fixed_dictionaries({name: st.none() | st.integers(0, 2**50) for name in MEMORY_STAT_BYTES})


def _sizes(**given: int) -> dict[str, int | None]:
    return dict.fromkeys(MEMORY_STAT_BYTES, 0) | given


@given(sizes=SIZES, total=st.integers(0, 2**50))
def test_adds_up_exactly(sizes: dict[str, int | None], total: int) -> None:
    made_of, unknown = compose(sizes, total)
    assert sum(size or 0 for _, size in made_of.parts()) == total == made_of.total
    for name, size in made_of.parts():
        assert size is None or size >= 0, "nothing is less than nothing"
        assert (size is not None) or f"composition.{name}" in unknown


def test_folios_that_are_dirty_and_under_writeback_are_counted_once() -> None:
    made_of, _ = compose(_sizes(file=1000, file_dirty=700, file_writeback=500), 1000)
    assert (made_of.file_clean, made_of.file_dirty, made_of.writeback, made_of.other) == (0, 700, 300, 0)


def test_counters_that_exceed_usage_cost_the_largest_class() -> None:
    made_of, _ = compose(_sizes(anon=9000, sock=4000), 9000)
    assert (made_of.anon, made_of.sock, made_of.other) == (5000, 4000, 0)


def test_unevictable_memory_that_is_none_of_an_unknown_cache() -> None:
    sizes: dict[str, int | None] = _sizes(shmem=4096, unevictable=4096) | {"file": None}
    made_of, _ = compose(sizes, 8192)
    assert (made_of.shmem, made_of.unevictable, made_of.file_clean) == (0, 4096, None)


@given(sizes=SIZES)
def test_nothing_is_made_of_an_unknown_total(sizes: dict[str, int | None]) -> None:
    made_of, unknown = compose(sizes, None)
    assert made_of.other is None
    assert made_of.total is None
    assert {"composition.other", "composition.total"} <= set(unknown)


def test_parts_are_all_but_the_total() -> None:
    assert len(COMPOSITION_PARTS) == 14
    assert COMPOSITION_PARTS[-1] == "other"


def test_file_is_taken_apart() -> None:
    made_of, unknown = compose(_sizes(file=1000, shmem=100, file_dirty=30, file_writeback=5, sock=7), 1100)
    assert (made_of.file_clean, made_of.file_dirty, made_of.writeback, made_of.shmem) == (865, 30, 5, 100)
    assert made_of.other == 1100 - 865 - 30 - 5 - 100 - 7
    assert not unknown


def test_swap_cache_is_anonymous_memory_and_no_file() -> None:
    """As Debian's 6.1 printed it (v1) of a cgroup that swapped: half of its memory was in no class."""
    made_of, _ = compose(
        _sizes(anon=13074432, swapcached=22933504, inactive_anon=22949888, active_anon=2105344), 25165824
    )
    assert (made_of.anon, made_of.file_clean, made_of.other) == (22949888 + 2105344, 0, 110592)
    made_of, _ = compose(_sizes(anon=100, swapcached=50, file=30, file_writeback=40), 200)
    assert (made_of.file_clean, made_of.writeback) == (0, 30)


def test_unread_dirty_is_said_to_be_inside_clean() -> None:
    sizes = _sizes(file=1000) | {"file_dirty": None}
    made_of, unknown = compose(sizes, 1000)
    assert (made_of.file_clean, made_of.file_dirty, made_of.other) == (1000, None, 0)
    assert {"composition.file_clean", "composition.file_dirty"} <= set(unknown)


def test_mlocked_memory_is_counted_once() -> None:
    # 300 of anon and 50 of file are locked: they are on no evictable list.
    made_of, unknown = compose(
        _sizes(anon=1000, inactive_anon=600, active_anon=100, file=200, unevictable=350), 1200
    )
    assert (made_of.anon, made_of.unevictable, made_of.file_clean, made_of.other) == (700, 350, 150, 0)
    assert not unknown


def test_locked_memory_where_lists_are_not_known() -> None:
    sizes = _sizes(
        anon=10000, file=2000, inactive_anon=6000, active_anon=1000, inactive_file=1400, unevictable=3600
    )
    expected = (7000, 3600, 1400, 0)
    for unknown_lists in (
        (),
        ("inactive_anon",),
        ("active_file", "swapcached"),
        ("active_file", "active_anon"),
    ):
        made_of, unknown = compose(sizes | dict.fromkeys(unknown_lists), 12000)
        found = (made_of.anon, made_of.unevictable, made_of.file_clean, made_of.other)
        if unknown_lists == ("active_file", "active_anon"):  # there may be 1000 on either
            assert (found, "composition.unevictable" in unknown) == ((10000, None, 2000, 0), True)
        else:
            assert (found, unknown.keys() - {"composition.file_clean"}) == (expected, set())
    few = sizes | {"active_anon": None, "active_file": None, "inactive_anon": 6990}
    made_of, _ = compose(few, 12000)  # but 10 on either make no difference
    assert (made_of.anon, made_of.unevictable, made_of.file_clean) == (6990, 3600, 1410)


def test_locked_memory_beside_shmem_cannot_be_told_apart() -> None:
    made_of, unknown = compose(_sizes(anon=1000, file=200, shmem=200, unevictable=350), 1200)
    assert (made_of.anon, made_of.shmem, made_of.unevictable, made_of.other) == (1000, 200, None, 0)
    assert "350 bytes" in unknown["composition.unevictable"]


def test_working_set() -> None:
    unknown: dict[str, str] = {}
    assert working_set(_sizes(inactive_file=30), 100, unknown) == 70
    assert working_set(_sizes(inactive_file=130), 100, unknown) == 0
    assert not unknown
    assert working_set(_sizes() | {"inactive_file": None}, 100, unknown) is None
    assert "working_set_bytes" in unknown
