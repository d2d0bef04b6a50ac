"""The drawn part of a timeline in a terminal: the ruler, and a line with a bar and numbers for each row."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from rich.text import Text

from tracer import units
from tracer.analysis.explain.measure.window import NEAR_LIMIT_PAGES, NEAR_LIMIT_PERCENT
from tracer.analysis.views.timeline import row_length
from tracer.categories import LAYERS
from tracer.quantities import TimelineColumn
from tracer.render.picture.layers import floats, stacked, stacked_composition
from tracer.render.picture.markers import Marker
from tracer.render.picture.waits import WAITS, psi_ms, stacked_ms
from tracer.render.terminal.timeline_columns import USAGE, columns_that_fit, number, width
from tracer.render.words.prose import held_together

_TIME_CELLS: Final = 9
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
class _Scale:
    """The scale of the bars: a bar of `full_bytes` ends at the right end of `cells`. Numbers are in `unit`
    (bytes).

    `columns` is the greatest width of a line.
    """

    full_bytes: float
    cells: int
    unit: float
    unit_name: str
    limit_drawn: bool
    columns: int

    def cell_at(self, value_bytes: float) -> int:
        """Return the cell in which a bar of this size ends."""
        return round(value_bytes / self.full_bytes * self.cells)


def draw(
    timeline: pd.DataFrame, markers: Iterable[Marker], *, origin: pd.Timestamp, columns: int, page_size: int
) -> Drawing:
    """Draw the rows of a timeline in lines of at most `columns` cells. Times are relative to `origin`."""
    waits = stacked_ms(timeline)
    timeline = timeline.assign(
        waited_ms=waits.sum(axis=1),
        psi_some_ms=psi_ms(timeline, "some"),
        swap_write_mean_ms=_blank_without_traffic(timeline, "swap_write_mean_ms", "swap_written_bytes"),
        swap_read_mean_ms=_blank_without_traffic(timeline, "swap_read_mean_ms", "swap_read_bytes"),
    )
    room = columns - _TIME_CELLS - _AROUND_BAR_CELLS
    shown = columns_that_fit(timeline, waits, room - _LEAST_BAR_CELLS)
    markers = list(markers)
    at_markers = [one.composition.total for one in markers if one.composition and one.composition.total]
    scale = _scale(timeline, at_markers, min(_MOST_BAR_CELLS, room - width(shown)), columns)
    rows = _rows(
        timeline, markers, shown, scale, origin=origin, limit_reached=_limit_reached(timeline, page_size)
    )
    return Drawing([*_ruler(scale, shown), *rows], timeline, waits, shown)


def _scale(timeline: pd.DataFrame, at_markers: Sequence[int], cells: int, columns: int) -> _Scale:
    """Return a scale that ends at the limit, or at the peak if usage stayed far below the limit.

    The peak includes the rows and the usage at the marked times (`at_markers`, in bytes).
    """
    peak = max(float(np.nanmax(floats(timeline, "usage_bytes"))), *map(float, at_markers), 0.0)
    limits = floats(timeline, "limit_bytes")
    limit = float(limits[limits > 0].max(initial=0.0))
    limit_drawn = limit > 0 and peak >= limit / 4
    full = max(peak, limit if limit_drawn else 0.0, 1.0)
    return _Scale(full, cells, *units.scale_for(full), limit_drawn, columns)


def _blank_without_traffic(timeline: pd.DataFrame, took: str, amount: str) -> pd.Series[float]:
    """Return the mean latencies, with 0 (drawn blank) in place of NaN for rows without traffic."""
    return timeline[took].mask(floats(timeline, amount) == 0, 0.0)


def _limit_reached(timeline: pd.DataFrame, page_size: int) -> int | None:
    """Return the first row that ends with usage at the limit, as in `analysis.explain.measure.window`."""
    usage, limit = floats(timeline, "usage_bytes"), floats(timeline, "limit_bytes")
    nearness = np.maximum(limit * NEAR_LIMIT_PERCENT / 100, NEAR_LIMIT_PAGES * page_size)
    near = usage >= limit - nearness
    return int(near.argmax()) if near.any() else None


def _ruler(scale: _Scale, shown: Sequence[TimelineColumn]) -> list[Text]:
    """Return three lines: groups of columns; titles, and the ends of the scale; units, and the ticks of the
    scale."""
    groups, titles, unit_line = Text(style="bold"), Text(style="bold"), Text(style="dim")
    for column in shown:
        titles.append(column.head.rjust(column.cells))
        unit = "" if column.is_lane else scale.unit_name if column.unit == "bytes" else column.unit
        unit_line.append(unit.rjust(column.cells))
    for group, members in itertools.groupby(shown, key=lambda column: column.group):
        cells = width(members)
        is_named = group and cells >= len(group) + 4
        groups.append((f" {group} ".center(cells - 2, "─") if is_named else "").rjust(cells))
    end = f"{scale.full_bytes / scale.unit:.4g} {scale.unit_name}" + (" limit" if scale.limit_drawn else "")
    scale_line = "0" + end.rjust(scale.cells)
    ticks = "".join("┬" if 4 * i % scale.cells < 4 else "─" for i in range(scale.cells)) + "┐"
    left = " " * _TIME_CELLS + " "
    return [
        Text(left + " " * (scale.cells + 2)) + groups,
        Text("time".rjust(_TIME_CELLS) + " ") + Text(scale_line + " ", style="dim") + titles,
        Text(left) + Text(ticks + " ", style="dim") + unit_line,
    ]


def _rows(
    timeline: pd.DataFrame,
    markers: Iterable[Marker],
    shown: Sequence[TimelineColumn],
    scale: _Scale,
    *,
    origin: pd.Timestamp,
    limit_reached: int | None,
) -> Iterator[Text]:
    """Yield a line for each row, labelled with its end. The events within a row come before it.

    A remark follows the row `limit_reached`.
    """
    step = row_length(timeline)
    decimals = next(
        (digits for digits, least in enumerate((1, 0.1, 0.01)) if step.total_seconds() >= least), 3
    )
    ends = pd.DatetimeIndex(timeline.index) + step
    layers, waits = stacked(timeline).to_numpy(), stacked_ms(timeline).to_numpy()
    longest_ms = waits.sum(axis=1).max()
    limits = floats(timeline, "limit_bytes")
    numbers = [floats(timeline, column.field) for column in shown]
    pending = sorted(markers, key=lambda marker: marker.time, reverse=True)
    for row, end in enumerate(ends):
        while pending and pending[-1].time < end:
            yield from _event(pending.pop(), limits[row], origin, scale)
        line = _line(_moment((end - origin).total_seconds(), decimals))
        line.append(_bar(layers[row], limits[row], scale)).append(" ")
        for column, values in zip(shown, numbers, strict=True):
            if column.is_lane:
                line.append(_lane(waits[row], longest_ms, column.cells))
            else:
                line.append(number(values[row], column, scale.unit).rjust(column.cells))
        yield line
        if row == limit_reached:
            remark = "usage has reached the limit: from here on, each charge needs memory to be freed first"
            yield from _remark("", f"→ {remark}", "bold", scale)


def _event(marker: Marker, limit_bytes: float, origin: pd.Timestamp, scale: _Scale) -> Iterator[Text]:
    """Yield the line of a marker, below a bar if the composition at that time is known."""
    at = _moment((marker.time - origin).total_seconds(), 3)
    if marker.composition is not None and marker.composition.total is not None:
        line = _line(at).append(_bar(stacked_composition(marker.composition), limit_bytes, scale)).append(" ")
        usage = number(marker.composition.total, USAGE, scale.unit)
        yield line.append(usage.rjust(USAGE.cells))
        at = ""
    glyph, style = ("✗", "bold red") if marker.is_kill else ("→", "bold")
    yield from _remark(at, f"{glyph} {marker.text}", style, scale)


def _remark(at: str, words: str, style: str, scale: _Scale) -> Iterator[Text]:
    """Yield a remark in the column of the bars, wrapped with an indentation."""
    first, *more = textwrap.wrap(
        held_together(words), scale.columns - _TIME_CELLS - 1, subsequent_indent="  "
    )
    yield _line(at).append(first, style)
    yield from (_line("").append(line, style) for line in more)


def _line(moment: str) -> Text:
    return Text(f"{moment.rjust(_TIME_CELLS)} ", no_wrap=True, overflow="ellipsis")


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


def _moment(seconds: float, decimals: int) -> str:
    if abs(seconds) < 600:
        return f"{seconds:.{decimals}f} s"
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
