"""Columns: which fit, what they sort by, and their names on the command line."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tracer.cli.verbs.top import SORT_KEYS as OF_THE_VERB
from tracer.top.list_columns import COLUMNS, SORT_KEYS, column_of, layout


@pytest.mark.parametrize("width", range(60, 201))
def test_columns_fit_and_leave_room_for_names(width: int) -> None:
    plan = layout(width)
    used = 1 + plan.name_cells + 1 + sum(column.width + 1 for column in plan.columns) + plan.bar_cells + 1
    assert used + plan.spark_cells <= width + 1  # the last space may fall off the edge
    assert plan.name_cells >= 14
    assert plan.bar_cells >= 6


def test_wider_screens_lose_no_column() -> None:
    shown = [{column.key for column in layout(width).columns} for width in range(60, 201)]
    assert all(narrow <= wide for narrow, wide in pairwise(shown))
    assert shown[-1] == {column.key for column in COLUMNS}
    assert {"usage", "limit", "left"} <= shown[0]
    assert {"held", "cache"} <= shown[80 - 60]


def test_titles_fit_their_columns() -> None:
    assert [column.key for column in COLUMNS if len(column.title) > column.width] == []


def test_keys_of_the_command_line_are_those_of_the_columns() -> None:
    assert OF_THE_VERB == SORT_KEYS


def test_column_of_the_name_is_none() -> None:
    assert column_of("name") is None
    assert [column_of(column.key) for column in COLUMNS] == [*COLUMNS]
