"""The columns of numbers beside the bars of a timeline: their sources, units and meanings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd

from tracer.render.picture.layers import floats


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a timeline. `source` names the column of the data, `cells` is the width.

    `waits` is the unit of a lane of glyphs, which is shown instead of a number.
    """

    title: str
    source: str
    unit: Literal["bytes", "count", "ms", "waits"]
    group: str
    cells: int
    meaning: str = ""


USAGE: Final = Column("usage", "usage_bytes", "bytes", "", 7)
_COLUMNS: Final = (
    USAGE,
    Column("added", "cache_added_bytes", "bytes", "page cache", 7, "new in the page cache (file contents)"),
    Column("evicted", "cache_evicted_bytes", "bytes", "page cache", 8, "removed by reclaim, to make room"),
    Column(
        "dropped", "cache_dropped_bytes", "bytes", "page cache", 8, "removed with its file, or on request"
    ),
    Column("back", "cache_refaulted_bytes", "bytes", "page cache", 8, "read again after an eviction"),
    Column("tries", "reclaim_attempts", "count", "reclaim", 7, "reclaim attempts"),
    Column("freed", "reclaimed_bytes", "bytes", "reclaim", 7, "memory that they freed"),
    Column("stall", "reclaim_stall_ms", "ms", "reclaim", 7, "time that tasks spent in them"),
)
_SWAP: Final = (
    Column("out", "swap_written_bytes", "bytes", "swap", 7, "written to swap"),
    Column("out ms", "swap_write_mean_ms", "ms", "swap", 7, "mean time of a write"),
    Column("in", "swap_read_bytes", "bytes", "swap", 7, "read from swap"),
    Column("in ms", "swap_read_mean_ms", "ms", "swap", 7, "mean time of a read"),
)
"""Two columns for each direction of swap traffic. They are shown if there was such traffic."""

_WAITING: Final = (
    Column("waited", "waited_ms", "ms", "waiting", 7, "time that tasks waited for memory, summed"),
    Column("for what", "waited_ms", "waits", "waiting", 12),
    Column("PSI", "psi_some_ms", "ms", "waiting", 7, "time in which some task stalled, from memory.pressure"),
)
"""Shown instead of `stall` if tasks waited for more than reclaim."""

_GIVEN_UP_FIRST: Final = (
    *("dropped", "freed", "stall", "out ms", "back", "tries"),
    *("in ms", "out", "for what", "PSI", "waited", "in"),
)


def columns_that_fit(timeline: pd.DataFrame, waits: pd.DataFrame, cells: int) -> list[Column]:
    """Return the columns that have numbers and fit into `cells`. The least important are dropped first."""
    dropped, evicted = (np.nansum(floats(timeline, f"cache_{way}_bytes")) for way in ("dropped", "evicted"))
    # The totals below the picture always have dropped cache. A wider bar is more useful than a blank column.
    shown = [column for column in _COLUMNS if column.title != "dropped" or dropped > evicted / 10]
    for direction in (_SWAP[:2], _SWAP[2:]):
        if timeline[direction[0].source].gt(0).any():
            shown += direction
    if has_lane(timeline, waits):
        shown = [column for column in shown if column.title != "stall"]
        shown += [column for column in _WAITING if timeline[column.source].notna().any()]
    for title in _GIVEN_UP_FIRST:
        if width(shown) <= cells:
            break
        shown = [column for column in shown if column.title != title]
    return shown


def width(columns: Iterable[Column]) -> int:
    """Return the total width of the columns in cells."""
    return sum(column.cells for column in columns)


def has_lane(timeline: pd.DataFrame, waits: pd.DataFrame) -> bool:
    """Return True if tasks waited for more than reclaim, or if memory.pressure shows stalls beside it."""
    return bool(waits.drop(columns="reclaim").to_numpy().any() or timeline["psi_some_ms"].gt(0).any())


def number(value: float, column: Column, unit_bytes: float) -> str:
    """Return the text of a number: blank for zero (except usage), and `?` for NaN (not known)."""
    if np.isnan(value):
        return "?"
    if column.unit == "count":
        return f"{value:,.0f}" if value else ""
    scaled = value / unit_bytes if column.unit == "bytes" else value
    if scaled == 0 and column is not USAGE:
        return ""
    if 0 < scaled < 0.05:
        return "<0.1"
    return f"{scaled:.1f}" if scaled < 1000 else f"{scaled:.0f}"
