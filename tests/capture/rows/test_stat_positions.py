"""The positions of counters, learnt from a memory.stat that a simulated kernel prints."""

from __future__ import annotations

import mmap
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.capture.rows.stat_positions import STAT_COLUMNS, Numbers, StatPositions
from tracer.kernel.cgroups.memory_files import Reading

WIDTH = 96
UNITS = {"anon_bytes": mmap.PAGESIZE, "kernel_stack_bytes": 1024, "slab_reclaimable_bytes": 1, "pgfault": 1}
PARTS = ("pgscan_kswapd", "pgscan_direct")
LINES = (*UNITS, *PARTS)


def print_stat(counters: Numbers, at: dict[str, int], lines: Iterable[str] = LINES) -> Reading:
    """Return memory.stat of a memcg with these counters, where `at` has the position of each line."""
    return {line: max(int(counters[at[line]]), 0) * UNITS.get(line, 1) for line in lines}


def shown(positions: StatPositions, counters: Numbers) -> dict[str, int | None]:
    values, is_unknown = positions.values(np.atleast_2d(counters))
    return {
        name: None if is_unknown[row, 0] else int(values[row, 0]) for row, name in enumerate(STAT_COLUMNS)
    }


def expected(counters: Numbers, at: dict[str, int]) -> dict[str, int | None]:
    stat = print_stat(counters, at)
    columns: dict[str, int | None] = dict.fromkeys(STAT_COLUMNS)
    return columns | {line: stat[line] for line in UNITS} | {"pgscan": sum(stat[part] for part in PARTS)}


@given(seed=st.integers(0, 2**32 - 1), memcgs=st.integers(1, 5), most=st.sampled_from([1, 3, 1 << 40]))
def test_every_known_value_is_that_of_memory_stat(seed: int, memcgs: int, most: int) -> None:
    """Small counters leave many positions possible; a comparison with the memcg itself always decides."""
    chance = np.random.default_rng(seed)
    at = dict(zip(LINES, chance.permutation(WIDTH).tolist(), strict=False))
    positions = StatPositions({})
    for _ in range(memcgs):
        counters = chance.integers(-1, most, WIDTH)
        assert {**expected(counters, at), **shown(positions, counters)}.keys() == set(STAT_COLUMNS)
        known = {name: value for name, value in shown(positions, counters).items() if value is not None}
        assert known.items() <= expected(counters, at).items()
        stat = print_stat(counters, at)
        positions.compare(stat, counters, stat)
        assert shown(positions, counters) == expected(counters, at)
        is_ambiguous = positions.ambiguous(np.atleast_2d(counters))
        assert not is_ambiguous.any()


def test_ambiguous_sample_is_reported_until_its_memory_stat_is_compared() -> None:
    at = {line: number for number, line in enumerate(LINES)}
    positions, empty, grown = StatPositions({}), np.zeros(WIDTH, np.int64), np.zeros(WIDTH, np.int64)
    positions.compare(print_stat(empty, at), empty, print_stat(empty, at))
    grown[[at["pgfault"], 50]] = 4, 5
    assert shown(positions, empty) == expected(empty, at), "a memcg in which all counters are 0"
    is_ambiguous = positions.ambiguous(np.array([empty, grown]))
    assert is_ambiguous.tolist() == [False, True]
    assert shown(positions, grown)["pgfault"] is None
    positions.compare(print_stat(grown, at), grown, print_stat(grown, at))
    assert shown(positions, grown) == expected(grown, at)


def test_line_that_changed_during_the_first_comparison_is_compared_again() -> None:
    at = {line: number for number, line in enumerate(LINES)}
    positions, counters = StatPositions({}), np.arange(1, WIDTH + 1)
    stat = print_stat(counters, at)
    positions.compare({**stat, "pgfault": 1}, counters, stat)
    assert positions.ambiguous(np.atleast_2d(counters)).tolist() == [True]
    positions.compare(stat, counters, stat)
    assert shown(positions, counters) == expected(counters, at)


def test_line_that_changes_during_a_comparison_excludes_nothing() -> None:
    at = {line: number for number, line in enumerate(LINES)}
    positions, counters = StatPositions({}), np.arange(1, WIDTH + 1)
    before, after = print_stat(counters, at), print_stat(counters, at)
    before["pgfault"] = 77
    positions.compare(before, counters, after)
    assert shown(positions, counters) == expected(counters, at) | {"pgfault": None}


def test_position_that_was_wrong_is_learnt_anew() -> None:
    """A change of a line and its reversal between two readings, which made another position equal."""
    at = {line: number for number, line in enumerate(LINES)}
    positions, counters = StatPositions({}), np.arange(1, WIDTH + 1)
    wrong = print_stat(counters, at) | {"pgfault": 90}
    positions.compare(wrong, counters, wrong)
    assert shown(positions, counters)["pgfault"] == 90
    positions.compare(print_stat(counters, at), counters, print_stat(counters, at))
    assert shown(positions, counters) == expected(counters, at)


def test_zero_of_a_counter_that_calibration_did_not_find_is_unknown_until_one_is_seen() -> None:
    """Of an item that nothing moved: the kernel prints 0 if it does not count it."""
    at = {line: number for number, line in enumerate(LINES)}
    positions, counters = StatPositions({}, ["kernel_stack"]), np.arange(1, WIDTH + 1)
    counters[at["kernel_stack_bytes"]] = counters[at["pgfault"]] = 0
    stat = print_stat(counters, at)
    positions.compare(stat, counters, stat)
    assert shown(positions, counters) == expected(counters, at) | {"kernel_stack_bytes": None}
    assert expected(counters, at)["pgfault"] == 0, "a 0 of any other line is true"
    counted = counters.copy()
    counted[at["kernel_stack_bytes"]] = 777
    stat = print_stat(counted, at)
    positions.compare(stat, counted, stat)
    assert shown(positions, counted) == expected(counted, at)
    assert shown(positions, counters) == expected(counters, at)


def test_lines_that_are_not_printed_have_the_positions_of_calibration() -> None:
    positions, counters = StatPositions({"kernel_stack_bytes": 7, "percpu_bytes": 9}), np.arange(WIDTH)
    columns = shown(positions, counters)
    assert {name: value for name, value in columns.items() if value is not None} == {
        "kernel_stack_bytes": 7 * 1024,
        "percpu_bytes": 9,
    }


@pytest.mark.parametrize("printed", [PARTS, PARTS[:1]])
def test_pgscan_is_the_sum_of_the_kinds_that_the_kernel_counts(printed: tuple[str, ...]) -> None:
    at = {line: number for number, line in enumerate(LINES)}
    positions, counters = StatPositions({}), np.arange(1, WIDTH + 1)
    stat = print_stat(counters, at, printed)
    positions.compare(stat, counters, stat)
    assert shown(positions, counters)["pgscan"] == sum(stat.values())
    assert shown(positions, counters)["pgsteal"] is None
