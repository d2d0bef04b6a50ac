"""Columns: which fit, and what they show."""

from __future__ import annotations

from itertools import pairwise

import pytest
from synthetic.live_view_rows import row

from tracer.quantities import TOP_COLUMNS
from tracer.top.list_columns import layout, text_of


@pytest.mark.parametrize("width", range(60, 201))
def test_columns_fit_and_leave_room_for_names(width: int) -> None:
    plan = layout(width)
    used = 1 + plan.name_cells + 1 + sum(column.cells + 1 for _, column in plan.columns) + plan.bar_cells + 1
    assert used + plan.spark_cells <= width + 1  # the last space may fall off the edge
    assert plan.name_cells >= 14
    assert plan.bar_cells >= 6


def test_wider_screens_lose_no_column() -> None:
    shown = [{column.key for _, column in layout(width).columns} for width in range(60, 201)]
    assert all(narrow <= wide for narrow, wide in pairwise(shown))
    assert shown[-1] == {column.key for _, column in TOP_COLUMNS}
    assert {"usage", "limit", "left"} <= shown[0]
    assert {"held", "cache"} <= shown[80 - 60]


def test_titles_fit_their_columns() -> None:
    assert [column.key for _, column in TOP_COLUMNS if len(column.head) > column.cells] == []


def test_number_that_is_not_known_differs_from_one_that_does_not_exist() -> None:
    def shown(**numbers: float) -> dict[str, str]:
        one = row(1, None, "/a", **numbers)
        return {column.key: text_of(one, quantity, column) for quantity, column in TOP_COLUMNS}

    unlimited = shown()
    assert {key for key, text in unlimited.items() if text == "-"} == {"limit", "cushion", "left"}
    assert set(unlimited.values()) == {"-", "?"}
    limited = shown(limit=4096, left=7.19, psi=0.04, stall=250, evict=2048)
    assert (limited["limit"], limited["cushion"], limited["left"]) == ("4.0Ki", "?", "7.1s")
    assert (limited["psi"], limited["stall"], limited["evict"]) == ("<.1%", "250%", "2.0Ki")
