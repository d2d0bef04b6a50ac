"""The columns of numbers beside the bars of a timeline: those that fit, and their texts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import pandas as pd

from tracer.quantities import TIMELINE_COLUMNS, TimelineColumn
from tracer.render.picture.layers import floats

USAGE: Final = TIMELINE_COLUMNS[0]
_SWAP: Final = tuple(one for one in TIMELINE_COLUMNS if one.group == "swap")
"""Two columns for each direction of swap traffic. They are shown if there was such traffic."""

_WAITING: Final = tuple(one for one in TIMELINE_COLUMNS if one.group == "waiting")
"""Shown instead of `stall` if tasks waited for more than reclaim."""


def columns_that_fit(timeline: pd.DataFrame, waits: pd.DataFrame, cells: int) -> list[TimelineColumn]:
    """Return the columns that have numbers and fit into `cells`. The least important are dropped first."""
    dropped, evicted = (np.nansum(floats(timeline, f"cache_{way}_bytes")) for way in ("dropped", "evicted"))
    # The totals below the picture always have both. A wider bar is more useful than a blank column.
    shown = [one for one in TIMELINE_COLUMNS if one not in (*_SWAP, *_WAITING)]
    if dropped <= evicted / 10:
        shown = _without("dropped", shown)
    if not floats(timeline, "cache_refaulted_bytes").any():  # NaN, which is not known, is true
        shown = _without("read again", shown)
    for direction in (_SWAP[:2], _SWAP[2:]):
        if timeline[direction[0].field].gt(0).any():
            shown += direction
    if has_lane(timeline, waits):
        shown = _without("stall", shown)
        shown += [column for column in _WAITING if timeline[column.field].notna().any()]
    for given_up in sorted((one for one in shown if one.gives_way), key=lambda one: one.gives_way):
        if width(shown) <= cells:
            break
        shown.remove(given_up)
    return shown


def width(columns: Iterable[TimelineColumn]) -> int:
    """Return the total width of the columns in cells."""
    return sum(column.cells for column in columns)


def has_lane(timeline: pd.DataFrame, waits: pd.DataFrame) -> bool:
    """Return True if tasks waited for more than reclaim, or if memory.pressure shows stalls beside it."""
    return bool(waits.drop(columns="reclaim").to_numpy().any() or timeline["psi_some_ms"].gt(0).any())


def number(value: float, column: TimelineColumn, unit_bytes: float) -> str:
    """Return the text of a number: blank for zero (except usage), and `?` for NaN (not known)."""
    if np.isnan(value):
        return "?"
    if not column.unit:
        return f"{value:,.0f}" if value else ""
    scaled = value / unit_bytes if column.unit == "bytes" else value
    if scaled == 0 and column is not USAGE:
        return ""
    if 0 < scaled < 0.05:
        return "<0.1"
    return f"{scaled:.1f}" if scaled < 1000 else f"{scaled:.0f}"


def _without(head: str, columns: Iterable[TimelineColumn]) -> list[TimelineColumn]:
    return [one for one in columns if one.head != head]
