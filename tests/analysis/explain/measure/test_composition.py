"""Composition: its parts add up to usage without overlap, although the kernel's counters overlap."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tracer.analysis.explain.measure.composition import (
    Instant,
    compose,
    memory,
    origins_of_parts,
    working_set,
)
from tracer.analysis.results.memory import COMPOSITION_PARTS, Cushion
from tracer.schema import MEMORY_STAT_BYTES, MEMORY_STAT_COLUMNS

SIZES = st.fixed_dictionaries({name: st.none() | st.integers(0, 2**50) for name in MEMORY_STAT_BYTES})


def _sizes(**given: int) -> dict[str, int | None]:
    return {**dict.fromkeys(MEMORY_STAT_BYTES, 0), **given}


@given(sizes=SIZES, total=st.integers(0, 2**50))
def test_compose_of_any_sizes_adds_up_to_usage(sizes: dict[str, int | None], total: int) -> None:
    made_of, unknown = compose(sizes, total)
    assert sum(size or 0 for _, size in made_of.parts()) == total == made_of.total
    for name, size in made_of.parts():
        assert size is None or size >= 0, "no part is negative"
        assert (size is not None) or f"composition.{name}" in unknown


def test_compose_of_folios_dirty_and_under_writeback_counts_them_once() -> None:
    made_of, _ = compose(_sizes(file=1000, file_dirty=700, file_writeback=500), 1000)
    assert (made_of.file_clean, made_of.file_dirty, made_of.writeback, made_of.other) == (0, 700, 300, 0)


def test_compose_of_counters_beyond_usage_reduces_the_largest_part() -> None:
    made_of, _ = compose(_sizes(anon=9000, sock=4000), 9000)
    assert (made_of.anon, made_of.sock, made_of.other) == (5000, 4000, 0)


def test_compose_of_unevictable_shmem_without_file_is_a_part() -> None:
    sizes: dict[str, int | None] = _sizes(shmem=4096, unevictable=4096) | {"file": None}
    made_of, _ = compose(sizes, 8192)
    assert (made_of.shmem, made_of.unevictable, made_of.file_clean) == (0, 4096, None)


@given(sizes=SIZES)
def test_compose_without_usage_has_no_rest(sizes: dict[str, int | None]) -> None:
    made_of, unknown = compose(sizes, None)
    assert made_of.other is None
    assert made_of.total is None
    assert {"composition.other", "composition.total"} <= set(unknown)


def test_composition_parts_end_with_the_rest() -> None:
    assert COMPOSITION_PARTS[-1] == "other"


def test_compose_of_file_separates_shmem_dirty_and_writeback() -> None:
    made_of, unknown = compose(_sizes(file=1000, shmem=100, file_dirty=30, file_writeback=5, sock=7), 1100)
    assert (made_of.file_clean, made_of.file_dirty, made_of.writeback, made_of.shmem) == (865, 30, 5, 100)
    assert made_of.other == 1100 - 865 - 30 - 5 - 100 - 7
    assert not unknown


def test_compose_of_swap_cache_adds_it_to_anon() -> None:
    """The sizes are those of a swapping cgroup on Debian's 6.1 (v1): anon alone had half of its memory."""
    made_of, _ = compose(
        _sizes(anon=13074432, swapcached=22933504, inactive_anon=22949888, active_anon=2105344), 25165824
    )
    assert (made_of.anon, made_of.file_clean, made_of.other) == (22949888 + 2105344, 0, 110592)
    made_of, _ = compose(_sizes(anon=100, swapcached=50, file=30, file_writeback=40), 200)
    assert (made_of.file_clean, made_of.writeback) == (0, 30)


def test_compose_without_dirty_reports_it_inside_clean_cache() -> None:
    sizes = _sizes(file=1000) | {"file_dirty": None}
    made_of, unknown = compose(sizes, 1000)
    assert (made_of.file_clean, made_of.file_dirty, made_of.other) == (1000, None, 0)
    assert {"composition.file_clean", "composition.file_dirty"} <= set(unknown)


def test_compose_of_locked_memory_counts_it_once() -> None:
    # 300 of anon and 50 of file are locked: they are on no evictable list.
    made_of, unknown = compose(
        _sizes(anon=1000, inactive_anon=600, active_anon=100, file=200, unevictable=350), 1200
    )
    assert (made_of.anon, made_of.unevictable, made_of.file_clean, made_of.other) == (700, 350, 150, 0)
    assert not unknown


def test_compose_of_locked_memory_without_some_lists_splits_it_if_sure() -> None:
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


def test_compose_of_locked_memory_beside_shmem_is_not_split() -> None:
    made_of, unknown = compose(_sizes(anon=1000, file=200, shmem=200, unevictable=350), 1200)
    assert (made_of.anon, made_of.shmem, made_of.unevictable, made_of.other) == (1000, 200, None, 0)
    assert unknown["composition.unevictable"].startswith("350 bytes ")
    assert "in which class: they are inside anon" in unknown["composition.unevictable"]


def test_working_set_is_usage_without_inactive_file() -> None:
    unknown: dict[str, str] = {}
    assert working_set(_sizes(inactive_file=30), 100, unknown) == 70
    assert working_set(_sizes(inactive_file=130), 100, unknown) == 0
    assert not unknown
    assert working_set(_sizes() | {"inactive_file": None}, 100, unknown) is None
    assert unknown.pop("working_set_bytes").startswith("inactive_file was")
    assert working_set(_sizes(), None, unknown) is None
    assert unknown["working_set_bytes"].startswith("usage was")


def test_reason_that_a_source_gives_for_an_unknown_value_stays() -> None:
    why = dict.fromkeys(("composition", "working_set_bytes"), "no limit was hit")
    unknown: dict[str, str] = {}
    at = Instant(dict.fromkeys(MEMORY_STAT_COLUMNS), None, unknown=why)
    held = memory(at, lambda **_: Cushion(), unknown)
    assert (held.working_set_bytes, unknown) == (None, why)


def _origins(sizes: dict[str, int | None], *logged: str) -> dict[str, tuple[str, ...]]:
    tables = {name: (("kernel_log",) if name in logged else ("samples",)) for name in sizes}
    return dict(origins_of_parts(sizes, tables, "oom"))


def test_part_is_from_the_tables_of_the_sizes_that_it_is_computed_from() -> None:
    sizes = _sizes(anon=50, file=40, shmem=10, file_dirty=5, kernel=9, sock=1, swapcached=0)
    origins = _origins(sizes, "file_dirty", "inactive_anon", "kernel", "zswap")
    assert origins["anon"] == origins["shmem"] == ("samples",)
    assert origins["file_clean"] == ("samples", "kernel_log")
    assert origins["file_dirty"] == origins["zswap"] == ("kernel_log",)
    assert origins["kernel"] == ("kernel_log", "samples")  # sockets are charged apart from kernel memory
    assert origins["usage"] == ("oom",)
    assert set(origins["other"]) == {"samples", "kernel_log", "oom"}


def test_locked_part_is_from_the_lists_that_tell_its_kind() -> None:
    sizes = _sizes(anon=90, file=10, unevictable=80, inactive_anon=15, inactive_file=10)
    assert _origins(sizes, "inactive_anon")["anon"] == ("samples", "kernel_log")
    assert _origins(sizes | {"anon": None}, "unevictable")["unevictable"] == ("kernel_log",)


def test_size_that_follows_from_the_kernel_is_from_no_table() -> None:
    sizes = _sizes(anon=50)
    tables = dict.fromkeys(sizes, ("samples",)) | {"hugetlb": ()}
    assert origins_of_parts(sizes, tables, "samples")["hugetlb"] == ()
