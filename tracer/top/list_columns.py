"""The columns of the list: their numbers and meanings, and the choice of columns that fit a width."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tracer.top.live_row import LiveRow
from tracer.top.short_numbers import NONE, short_percent, short_size, short_time

NAME: Final = "name"
USAGE: Final = "usage"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of numbers. `key` is its name for `--sort`, `since` the least width of a screen that shows it.

    Rows are sorted by `number`; rows whose number is None come last. `is_ascending`: the least number comes
    first.
    """

    key: str
    title: str
    width: int
    since: int
    meaning: str
    number: Callable[[LiveRow], float | None]
    text: Callable[[LiveRow], str]
    is_ascending: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns that fit. `name_cells`, `bar_cells` and `spark_cells` are the widths of the other parts."""

    columns: tuple[Column, ...]
    name_cells: int
    bar_cells: int
    spark_cells: int


def _size(key: str, title: str, width: int, since: int, meaning: str) -> Column:
    name = {"charge": "charge_rate", "add": "add_rate", "evict": "evict_rate", "refault": "refault_rate"}.get(
        key, f"{key}_bytes"
    )

    def number(row: LiveRow) -> float | None:
        value: float | None = getattr(row, name)
        return value

    return Column(key, title, width, since, meaning, number, lambda row: short_size(number(row)))


COLUMNS: Final = (
    _size(USAGE, "USAGE", 6, 0, "memory charged to the cgroup and its descendants"),
    Column(
        "limit", "LIMIT", 6, 0, "the lowest limit, of the cgroup or of one above it",
        lambda row: row.limit_bytes, lambda row: short_size(row.limit_bytes or 0),
    ),
    _size("held", "HELD", 6, 76, "usage without page cache: what reclaim cannot drop"),
    _size("cache", "CACHE", 6, 76, "page cache, which can be dropped; dirty pages after writeback"),
    Column(
        "cushion", "CUSHION", 7, 132, "what can still be charged before a kill; -: no limit",
        lambda row: row.cushion_bytes,
        lambda row: NONE if row.limit_bytes is None else short_size(row.cushion_bytes), is_ascending=True,
    ),
    _size("swap", "SWAP", 6, 142, "swap that it uses"),
    _size("charge", "CHRG/s", 6, 80, "memory charged in a second that stayed for 10 ms"),
    _size("add", "ADD/s", 6, 110, "page cache added in a second"),
    _size("evict", "EVICT/s", 7, 90, "page cache that reclaim evicted in a second"),
    _size("refault", "REFLT/s", 7, 116, "evicted pages that came back in a second"),
    Column(
        "stall", "STALL", 5, 104, "time that its tasks spent in reclaim, summed over tasks",
        lambda row: row.stall_percent, lambda row: short_percent(row.stall_percent),
    ),
    Column(
        "psi", "PSI", 5, 104, "time in which a task waited for memory (PSI some)",
        lambda row: row.psi_percent, lambda row: short_percent(row.psi_percent),
    ),
    Column(
        "left", "KILL IN", 7, 0, "when the cushion is used up at this rate; -: not in sight",
        lambda row: row.kill_s, lambda row: short_time(row.kill_s), is_ascending=True,
    ),
)  # fmt: skip
SORT_KEYS: Final = (NAME, *(column.key for column in COLUMNS))
_LEAST_NAME: Final = 14
_MOST_NAME: Final = 60
_BAR: Final = 10
_LEAST_BAR: Final = 6
_SPARK_SINCE: Final = 150
_MOST_SPARK: Final = 30


def column_of(key: str) -> Column | None:
    """Return the column of a sort key; None for the key of the name."""
    return next((column for column in COLUMNS if column.key == key), None)


def layout(width: int) -> Layout:
    """Return the columns for a screen of `width` cells (60 or more), with a space between columns."""
    columns = tuple(column for column in COLUMNS if column.since <= width)
    rest = width - sum(column.width + 1 for column in columns) - 1  # 1: the mark of the selected row
    bar = _BAR if rest - _BAR - 1 >= _LEAST_NAME else _LEAST_BAR
    rest -= bar + 1
    spark = 0
    if width >= _SPARK_SINCE:
        spark = min(max(rest - 30, 10), _MOST_SPARK)
        rest -= spark + 1
    return Layout(columns, max(min(rest, _MOST_NAME), 1), bar, spark)
