"""Tables of many rows: the same text as rich draws, without rich."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.render.terminal import console, explain_text

COLUMNS = (("kill", ">"), ("limit", ">"), ("killed", "<"), ("cgroup", "<"))
WORDS = (
    "a",
    "web",
    "(pid 41)",
    "1.25 GiB",
    "/docker/" + "4f" * 32,
    "of pod",
    "café",
    "日本語",
    "  x",
    "b-c",
    "",
)
CELL = st.lists(st.sampled_from(WORDS), max_size=7).map(" ".join)


@given(
    st.lists(st.tuples(st.integers(1, 99_999).map(str), CELL, CELL, CELL), min_size=1, max_size=9),
    st.integers(60, 140),
)
def test_table_is_the_text_that_rich_draws(rows: list[tuple[str, ...]], columns: int) -> None:
    table = console.LongRows(COLUMNS, rows)
    drawn = console.to_text([table.as_rows()], columns=columns, colour=False)
    assert console.to_text([table], columns=columns, colour=False) == drawn


@pytest.mark.parametrize("count", [499, 501])
def test_list_of_many_kills_is_written_without_rich(count: int, report: object) -> None:
    (*_, table) = explain_text.listed_kills([report] * count)  # type: ignore[list-item]
    assert isinstance(table, console.LongRows) is (count > 500)
    text = console.to_text([table], columns=100, colour=False)
    assert text.count("\n") >= count
