"""The columns of the list: the texts of their numbers, and the choice of columns that fit a width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tracer.quantities import TOP_COLUMNS, Quantity, TopColumn
from tracer.top.live_row import LiveRow
from tracer.top.short_numbers import NONE, short_percent, short_size, short_time

NAME: Final = "name"
USAGE: Final = "usage"
BAR_AFTER: Final = "limit"
"""The column after which the bar is drawn."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns that fit. `name_cells`, `bar_cells` and `spark_cells` are the widths of the other parts."""

    columns: tuple[tuple[Quantity, TopColumn], ...]
    name_cells: int
    bar_cells: int
    spark_cells: int


_LEAST_NAME: Final = 14
_MOST_NAME: Final = 60
_BAR: Final = 10
_LEAST_BAR: Final = 6
_SPARK_SINCE: Final = 150
_MOST_SPARK: Final = 30


def text_of(row: LiveRow, quantity: Quantity, column: TopColumn) -> str:
    """Return the number of a column, in at most `column.cells` cells."""
    number = row.number(column.key)
    if quantity.absent and row.number(column.missing_with or column.key) is None:
        return NONE
    if quantity.unit == "bytes":
        return short_size(number)
    return short_time(number) if quantity.kind == "level" else short_percent(number)


def layout(width: int) -> Layout:
    """Return the columns for a screen of `width` cells (60 or more), with a space between columns."""
    columns = tuple(one for one in TOP_COLUMNS if one[1].since <= width)
    rest = width - sum(column.cells + 1 for _, column in columns) - 1  # 1: the mark of the selected row
    bar = _BAR if rest - _BAR - 1 >= _LEAST_NAME else _LEAST_BAR
    rest -= bar + 1
    spark = 0
    if width >= _SPARK_SINCE:
        spark = min(max(rest - 30, 10), _MOST_SPARK)
        rest -= spark + 1
    return Layout(columns, max(min(rest, _MOST_NAME), 1), bar, spark)
