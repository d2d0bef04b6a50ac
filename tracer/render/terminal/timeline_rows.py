"""The drawn part of a timeline in a terminal: the ruler, and a line with a bar and numbers for each row."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from rich.text import Text

from tracer import units
from tracer.analysis.views.timeline import row_length
from tracer.categories import LAYERS
from tracer.quantities import TIMELINE_COLUMNS, TimelineColumn
from tracer.render.picture import (
    WAITS,
    Marker,
    bounds,
    floats,
    peak,
    psi_ms,
    stacked_composition,
    stacked_layers,
    stacked_waits_ms,
)
from tracer.render.words.prose import held_together

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
        if width_of(shown) <= cells:
            break
        shown.remove(given_up)
    return shown


def width_of(columns: Iterable[TimelineColumn]) -> int:
    """Return the total width of the columns in cells."""
    return sum(column.cells for column in columns)


def has_lane(timeline: pd.DataFrame, waits: pd.DataFrame) -> bool:
    """Return True if tasks waited for more than reclaim, or if memory.pressure shows stalls beside it."""
    return bool(waits.drop(columns="reclaim").to_numpy().any() or timeline["psi_some_ms"].gt(0).any())


def number_text(value: float, column: TimelineColumn, unit_bytes: float) -> str:
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


_AROUND_BAR_CELLS: Final = 3
_LEAST_BAR_CELLS: Final = 20
_MOST_BAR_CELLS: Final = 80


@dataclass(frozen=True, slots=True)
class Drawing:
    """Ruler and rows of a timeline, with the shown columns. `waits` are the milliseconds of each wait.

    `timeline` is the data of the rows, including the columns that the drawing has added.
    """

    lines: list[Text]
    timeline: pd.DataFrame
    waits: pd.DataFrame
    columns: Sequence[TimelineColumn]


@dataclass(frozen=True, slots=True)
class _Times:
    """The labels of rows and events: seconds since `origin`, or the time of day in UTC if that is None.

    Rows have `decimals` digits: as many as show their times exactly, at most the 3 of events. With fewer, a
    row could seem to end before an event within it.
    """

    origin: pd.Timestamp | None
    decimals: int
    is_dated: bool

    @classmethod
    def for_rows(cls, ends: pd.DatetimeIndex, step: pd.Timedelta, origin: pd.Timestamp | None) -> _Times:
        if origin is None:
            return cls(None, 3, ends[0].date() != ends[-1].date())
        exact_ns = math.gcd(step.value, (ends[0] - origin).value)
        return cls(origin, next((n for n in range(3) if exact_ns % 10 ** (9 - n) == 0), 3), False)

    @property
    def head(self) -> str:
        return "UTC" if self.origin is None else "time"

    @property
    def cells(self) -> int:
        return 9 if self.origin is not None else 18 if self.is_dated else 12

    def label(self, time: pd.Timestamp, decimals: int = 3) -> str:
        """Return the label of an event; with `decimals`, of a row."""
        if self.origin is None:
            return f"{time:{'%m-%d ' if self.is_dated else ''}%H:%M:%S.%f}"[:-3]
        seconds = (time - self.origin).total_seconds()
        if abs(seconds) < 600:
            return f"{seconds:.{decimals}f} s"
        whole = int(seconds)
        return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


@dataclass(frozen=True, slots=True)
class _Scale:
    """The scale of the bars: a bar of `full_bytes` ends at the right end of `cells`. Numbers are in `unit`
    (bytes).

    `columns` is the greatest width of a line. `times` labels the lines.
    """

    full_bytes: float
    cells: int
    unit: float
    unit_name: str
    limit_drawn: bool
    columns: int
    times: _Times

    def cell_at(self, value_bytes: float) -> int:
        """Return the cell in which a bar of this size ends."""
        return round(value_bytes / self.full_bytes * self.cells)


def draw(
    timeline: pd.DataFrame, markers: Iterable[Marker], *, origin: pd.Timestamp | None, columns: int
) -> Drawing:
    """Draw the rows of a timeline in lines of at most `columns` cells.

    Times are relative to `origin`; None: they are of the day, in UTC.
    """
    waits = stacked_waits_ms(timeline)
    timeline = timeline.assign(
        waited_ms=waits.sum(axis=1),
        psi_some_ms=psi_ms(timeline, "some"),
        swap_write_mean_ms=_blank_without_traffic(timeline, "swap_write_mean_ms", "swap_written_bytes"),
        swap_read_mean_ms=_blank_without_traffic(timeline, "swap_read_mean_ms", "swap_read_bytes"),
    )
    step = row_length(timeline)
    ends = pd.DatetimeIndex(timeline.index) + step
    times = _Times.for_rows(ends, step, origin)
    room = columns - times.cells - _AROUND_BAR_CELLS
    shown = columns_that_fit(timeline, waits, room - _LEAST_BAR_CELLS)
    markers = list(markers)
    at_markers = [one.composition.total for one in markers if one.composition and one.composition.total]
    full_bytes, limit_drawn = _full_bytes(timeline, at_markers)
    cells = min(_MOST_BAR_CELLS, room - width_of(shown))
    scale = _Scale(full_bytes, cells, *units.scale_for(full_bytes), limit_drawn, columns, times)
    rows = _rows(timeline, ends, markers, shown, scale)
    return Drawing([*_ruler(scale, shown), *rows], timeline, waits, shown)


def _full_bytes(timeline: pd.DataFrame, at_markers: Sequence[int]) -> tuple[float, bool]:
    """Return the end of a scale and whether it shows the limit: the limit, or the peak if usage stayed far
    below it.

    The peak includes the rows and the usage at the marked times (`at_markers`, in bytes).
    """
    most = max(peak(timeline), *at_markers, 1.0)
    limits = [bound.top_bytes for bound in bounds(timeline, most) if bound.name == "limit"]
    return max([most, *limits]), bool(limits)


def _blank_without_traffic(timeline: pd.DataFrame, took: str, amount: str) -> pd.Series[float]:
    """Return the mean latencies, with 0 (drawn blank) in place of NaN for rows without traffic."""
    return timeline[took].mask(floats(timeline, amount) == 0, 0.0)


def _ruler(scale: _Scale, shown: Sequence[TimelineColumn]) -> list[Text]:
    """Return three lines: groups of columns; titles, and the ends of the scale; units, and the ticks of the
    scale."""
    groups, titles, unit_line = Text(style="bold"), Text(style="bold"), Text(style="dim")
    for column in shown:
        titles.append(column.head.rjust(column.cells))
        unit = "" if column.is_lane else scale.unit_name if column.unit == "bytes" else column.unit
        unit_line.append(unit.rjust(column.cells))
    for group, members in itertools.groupby(shown, key=lambda column: column.group):
        cells = width_of(members)
        ruled = f" {group} ".center(cells - 2, "─") if group and cells >= len(group) + 6 else group
        groups.append((ruled if cells >= len(group) + 2 else "").rjust(cells))
    end = f"{scale.full_bytes / scale.unit:.4g} {scale.unit_name}" + (" limit" if scale.limit_drawn else "")
    scale_line = "0" + end.rjust(scale.cells)
    ticks = "".join("┬" if 4 * i % scale.cells < 4 else "─" for i in range(scale.cells)) + "┐"
    left = " " * scale.times.cells + " "
    return [
        Text(left + " " * (scale.cells + 2)) + groups,
        Text(scale.times.head.rjust(scale.times.cells) + " ") + Text(scale_line + " ", style="dim") + titles,
        Text(left) + Text(ticks + " ", style="dim") + unit_line,
    ]


def _rows(
    timeline: pd.DataFrame,
    ends: pd.DatetimeIndex,
    markers: Iterable[Marker],
    shown: Sequence[TimelineColumn],
    scale: _Scale,
) -> Iterator[Text]:
    """Yield a line for each row, labelled with its end. The events within a row come before it, by time."""
    layers, waits = stacked_layers(timeline).to_numpy(), stacked_waits_ms(timeline).to_numpy()
    longest_ms = waits.sum(axis=1).max()
    limits = floats(timeline, "limit_bytes")
    numbers = [floats(timeline, column.field) for column in shown]
    pending = deque(sorted(markers, key=lambda marker: marker.time))
    for row, end in enumerate(ends):
        while pending and pending[0].time < end:
            yield from _event(pending.popleft(), limits[row], scale)
        line = _line(scale.times.label(end, scale.times.decimals), scale)
        line.append(_bar(layers[row], limits[row], scale)).append(" ")
        for column, values in zip(shown, numbers, strict=True):
            if column.is_lane:
                line.append(_lane(waits[row], longest_ms, column.cells))
            else:
                line.append(number_text(values[row], column, scale.unit).rjust(column.cells))
        yield line


def _event(marker: Marker, limit_bytes: float, scale: _Scale) -> Iterator[Text]:
    """Yield the line of a marker, below a bar if the composition at that time is known."""
    at = scale.times.label(marker.time)
    if marker.composition is not None and marker.composition.total is not None:
        line = (
            _line(at, scale)
            .append(_bar(stacked_composition(marker.composition), limit_bytes, scale))
            .append(" ")
        )
        usage = number_text(marker.composition.total, USAGE, scale.unit)
        yield line.append(usage.rjust(USAGE.cells))
        at = ""
    glyph, style = ("✗", "bold red") if marker.is_kill else ("→", "bold")
    yield from _remark(at, f"{glyph} {marker.text}", style, scale)


def _remark(at: str, words: str, style: str, scale: _Scale) -> Iterator[Text]:
    """Yield a remark in the column of the bars, wrapped with an indentation."""
    first, *more = textwrap.wrap(
        held_together(words), scale.columns - scale.times.cells - 1, subsequent_indent="  "
    )
    yield _line(at, scale).append(first, style)
    yield from (_line("", scale).append(line, style) for line in more)


def _line(moment: str, scale: _Scale) -> Text:
    return Text(f"{moment.rjust(scale.times.cells)} ", no_wrap=True, overflow="ellipsis")


def _bar(layer_bytes: Iterable[float], limit_bytes: float, scale: _Scale) -> Text:
    """Return `scale.cells` + 1 cells: the layers side by side, and the tick of the limit."""
    bar = Text()
    for layer, total in zip(LAYERS, itertools.accumulate(layer_bytes), strict=True):
        end = min(scale.cell_at(total), scale.cells)
        bar.append(layer.glyph * (end - bar.cell_len), style=layer.terminal)
    bar.append(" " * (scale.cells + 1 - bar.cell_len))
    if not scale.limit_drawn or not limit_bytes <= scale.full_bytes:
        return bar
    tick = scale.cell_at(limit_bytes)
    return bar[:tick] + Text("│", style="bold") + bar[tick + 1 :]


def _lane(waited_ms: Iterable[float], longest_ms: float, cells: int) -> Text:
    """Return the waits side by side, on the scale of the row with the most waiting."""
    lane = Text("  ")
    for wait, total in zip(WAITS, itertools.accumulate(waited_ms), strict=True):
        end = round(total / longest_ms * (cells - 2)) if longest_ms else 0
        lane.append(wait.glyph * (end + 2 - lane.cell_len), style=wait.terminal)
    lane.append(" " * (cells - lane.cell_len))
    return lane
