"""A chart of a cgroup's memory as text for the templates of the page: its views, their panels, and its
numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from tracer import units
from tracer.analysis.views.timeline import row_length
from tracer.categories import LAYERS
from tracer.render.page import drawing
from tracer.render.page.drawing import Tick
from tracer.render.picture import (
    LAYER_COLUMNS,
    WAITS,
    Floats,
    Marker,
    bounds,
    floats,
    peak,
    psi_ms,
    stacked_layers,
    stacked_waits_ms,
)

_MOST_NUMBERS: Final = 16
_FLOWS: Final = (
    ("cache added", "cache_added_bytes"),
    ("cache evicted", "cache_evicted_bytes"),
    ("read again", "cache_refaulted_bytes"),
    ("reclaim freed", "reclaimed_bytes"),
    ("to swap", "swap_written_bytes"),
    ("from swap", "swap_read_bytes"),
)


def level_texts(timeline: pd.DataFrame, times: list[str]) -> dict[str, list[str]]:
    """Return title of a column -> texts of the memory at the end of each row."""
    ends = pd.DatetimeIndex(timeline.index) + row_length(timeline)
    columns = {
        "time": times,
        "UTC": [f"{time:%H:%M:%S}.{time.microsecond // 1000:03}" for time in ends],
        "usage": _sizes(floats(timeline, "usage_bytes")),
        "limit": [
            "none" if limited is False else size
            for limited, size in zip(_limited(timeline), _sizes(floats(timeline, "limit_bytes")), strict=True)
        ],
    }
    layers = stacked_layers(timeline)
    for layer in reversed(LAYERS):
        if layers[layer.name].any():
            sizes = _sizes(layers[layer.name].to_numpy(dtype=np.float64))
            columns[layer.label] = [
                size if is_known else _bounded(size, layer.name)
                for size, is_known in zip(sizes, _is_known(timeline, layer.name), strict=True)
            ]
    return columns


def _is_known(timeline: pd.DataFrame, layer: str) -> list[bool]:
    """Return for each row whether all columns of the layer are known. Clean cache is known only if dirty
    cache is known."""
    names = (*LAYER_COLUMNS.get(layer, ()), *(LAYER_COLUMNS["dirty"] if layer == "cache" else ()))
    found: list[bool] = timeline[list(names)].notna().all(axis=1).tolist()
    return found


def _bounded(size: str, layer: str) -> str:
    """Return the size of a layer that has unknown parts."""
    if size == units.size(0):
        return units.UNKNOWN
    return f"at {'most' if layer == 'cache' else 'least'} {size}"


def flow_texts(timeline: pd.DataFrame, page_size: int) -> dict[str, list[str]]:
    """Return title of a column (with the length of a row) -> texts of the flows within each row.

    A flow of 0 is an empty text.
    """
    row = units.duration(row_length(timeline).total_seconds())
    found = [(title, floats(timeline, name)) for title, name in _FLOWS]
    found.append(("reclaim scanned", floats(timeline, "scanned_pages") * page_size))
    columns = {
        f"{title} in {row}": ["" if size == units.size(0) else size for size in _sizes(flow)]
        for title, flow in found
        if np.nansum(flow)
    }
    waits = stacked_waits_ms(timeline).sum(axis=1).tolist()
    if any(waits):
        columns[f"waits of tasks in {row}"] = [units.duration(one / 1000) if one else "" for one in waits]
    return columns


def _limited(timeline: pd.DataFrame) -> list[Any]:
    return [None if pd.isna(one) else bool(one) for one in timeline["is_limited"]]


def _sizes(values: Floats) -> list[str]:
    return [units.size(None if np.isnan(value) else value) for value in values.tolist()]


def picked(rows: int) -> list[int]:
    """Return the positions of at most `_MOST_NUMBERS` evenly spaced rows, including the last row."""
    step = -(-rows // _MOST_NUMBERS)
    return list(range(rows - 1, -1, -step))[::-1]


_MOST_RATES: Final = 100
_HEADROOM: Final = 1.06
_MOST_MOMENTS: Final = 5
_ROOM_FOR_WORDS: Final = 0.25
"""The share of the width that the words at a mark take on a narrow screen."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A curve or an area: the name of its colour, its words in the legend, and its path."""

    name: str
    label: str
    path: str


@dataclass(frozen=True, slots=True)
class Panel:
    """A part of a view with its own axis. `lines` are drawn over `areas`."""

    name: str
    title: str
    ticks: tuple[Tick, ...]
    areas: tuple[Shape, ...]
    lines: tuple[Shape, ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """An event at a place on the time axis, or an interval that begins at `left` and has a `width`."""

    left: str
    words: str
    text: str
    is_kill: bool
    is_right: bool
    """The words have room at the right of the mark."""
    width: str | None = None


@dataclass(frozen=True, slots=True)
class View:
    """A stretch of time. `rows` is JSON: the titles of the columns of numbers, and the texts of each row."""

    words: str
    note: str
    panels: tuple[Panel, ...]
    marks: tuple[Mark, ...]
    ticks: tuple[Tick, ...]
    rows: str
    number_titles: tuple[str, ...]
    numbers: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Strip:
    """A small picture of the longest stretch of time, with the (left, width) of each view in `frames`."""

    areas: tuple[Shape, ...]
    marks: tuple[Mark, ...]
    frames: tuple[tuple[str, str], ...]
    words: str


@dataclass(frozen=True, slots=True)
class Chart:
    """The views of one cgroup. The page shows the first one at the start. `key` is unique in the page."""

    key: str
    place: str
    label: str
    views: tuple[View, ...]
    layers: tuple[Shape, ...]
    strip: Strip | None = None


@dataclass(frozen=True, slots=True)
class Stretch:
    """The data of a view: its name, the rows of `analysis.views.timeline` (at least two, of one cgroup), the
    events in that time, and a sentence on the accuracy of the times."""

    words: str
    timeline: pd.DataFrame
    markers: Sequence[Marker] = ()
    note: str = ""


def drawn(
    key: str,
    place: str,
    stretches: Sequence[Stretch],
    origin: pd.Timestamp,
    *,
    is_kill: bool,
    page_size: int,
) -> Chart:
    """Return the chart with a view for each of at most three stretches. The first view is shown at the start.

    If there are several stretches, the longest one is also drawn as a strip above the views. Times count from
    `origin`: a kill, or the begin of the trace. The same arguments always give the same text.
    """
    first = stretches[0]
    counted = _since_kill if is_kill else _since_begin
    views = tuple(_view(one, origin, counted, page_size) for one in stretches)
    shown = {shape.name: shape for view in views for shape in view.panels[0].areas}
    span = units.duration((_end(first.timeline) - first.timeline.index[0]).total_seconds())
    panels = ", ".join(panel.title for panel in views[0].panels[1:])
    return Chart(
        key,
        place,
        f"Memory of {place} against its limit over {span}. Below: {panels}.",
        views,
        tuple(shown[layer.name] for layer in reversed(LAYERS) if layer.name in shown),
        _strip(stretches, origin) if len(stretches) > 1 else None,
    )


def _view(stretch: Stretch, origin: pd.Timestamp, counted: Callable[[float], str], page_size: int) -> View:
    timeline, markers = stretch.timeline, stretch.markers
    step_s = row_length(timeline).total_seconds()
    begins = np.asarray((pd.DatetimeIndex(timeline.index) - origin).total_seconds())
    begin, end = float(begins[0]), float(begins[-1] + step_s)
    # Levels hold at the end of a row, flows cover the whole row.
    ends = drawing.places(begins + step_s, begin, end)
    edges = _rate_edges(begins, step_s)
    flows = _Flows(step_s, edges, drawing.places(edges, begin, end))
    panels = [
        _memory(timeline, ends),
        flows.panel("cache", "page cache", _cache_flows(timeline)),
        flows.panel("reclaim", "reclaim", _reclaim_flows(timeline, page_size)),
        *_waits(timeline, flows),
    ]
    levels = level_texts(timeline, [counted(second) for second in np.round(begins + step_s, 6).tolist()])
    flows_of_row = flow_texts(timeline, page_size)
    titles = [*levels, *flows_of_row]
    rows = list(zip(*levels.values(), *flows_of_row.values(), strict=True))
    return View(
        stretch.words,
        f"One point is {units.round_duration(step_s)}. {stretch.note}".strip(),
        tuple(panels),
        tuple(_marks(markers, timeline, origin)),
        tuple(_moments(begin, end, counted)),
        # The text must not end the script element early. It has no names yet, but the titles might get some.
        json.dumps({"titles": titles, "rows": rows}, ensure_ascii=False, separators=(",", ":")).replace(
            "<", "\\u003c"
        ),
        tuple(levels),
        tuple(rows[row][: len(levels)] for row in picked(len(rows))),
    )


def _memory(timeline: pd.DataFrame, x: Floats) -> Panel:
    drawn = list(bounds(timeline, peak(timeline)))
    full = max([peak(timeline), *(bound.top_bytes for bound in drawn)])
    top = full * _HEADROOM or 1.0
    lines = tuple(
        Shape(one.name, one.words, drawing.line(x, drawing.heights(one.in_bytes, top))) for one in drawn
    )
    return Panel("memory", "composition of usage", _sizes_of(top, full), _stack(timeline, x, top), lines)


def _stack(timeline: pd.DataFrame, x: Floats, top: float) -> tuple[Shape, ...]:
    """Return the layers that are not empty, the lowest first."""
    layers = stacked_layers(timeline)
    found, below = [], np.zeros(len(timeline))
    for layer in LAYERS:
        above = below + layers[layer.name].to_numpy(dtype=np.float64)
        if (above > below).any():
            path = drawing.area(x, drawing.heights(below, top), drawing.heights(above, top))
            found.append(Shape(layer.name, layer.label, path))
        below = above
    return tuple(found)


def _cache_flows(timeline: pd.DataFrame) -> list[tuple[str, str, Floats]]:
    return [
        ("added", "added", floats(timeline, "cache_added_bytes")),
        ("evicted", "evicted", floats(timeline, "cache_evicted_bytes")),
        ("again", "read again", floats(timeline, "cache_refaulted_bytes")),
    ]


def _reclaim_flows(timeline: pd.DataFrame, page_size: int) -> list[tuple[str, str, Floats]]:
    found = [
        ("added", "scanned", floats(timeline, "scanned_pages") * page_size),
        ("evicted", "freed", floats(timeline, "reclaimed_bytes")),
    ]
    for name, label, way in (("again", "written to swap", "written"), ("swapin", "read from swap", "read")):
        flow = floats(timeline, f"swap_{way}_bytes")
        if np.nansum(flow):
            found.append((name, label, flow))
    return found


@dataclass(frozen=True, slots=True)
class _Flows:
    """The intervals of the drawn rates: their edges in s, and the places of the edges in a panel."""

    step_s: float
    edges: Floats
    x: Floats

    def rate(self, flow: Floats) -> Floats:
        """Return the flow (an amount for each row) per second in each interval."""
        firsts = np.rint((self.edges[:-1] - self.edges[0]) / self.step_s).astype(int)
        rate: Floats = np.add.reduceat(flow, firsts) / np.diff(self.edges)
        return rate

    def panel(self, name: str, title: str, flows: Iterable[tuple[str, str, Floats]]) -> Panel:
        """Return the panel of flows in bytes."""
        rates = [(colour, label, self.rate(flow)) for colour, label, flow in flows]
        most = max(float(np.nanmax(rate, initial=0.0)) for _, _, rate in rates)
        top = most * _HEADROOM or float(1 << 20)
        lines = tuple(self.line(colour, label, rate, top) for colour, label, rate in rates)
        return Panel(name, title, _sizes_of(top, most or top, "/s"), (), lines)

    def line(self, name: str, label: str, rate: Floats, top: float) -> Shape:
        """Return a rate as a curve, with a gap where the rate is not known."""
        known = "" if np.isfinite(rate).any() else " (not known)"
        return Shape(name, label + known, drawing.line(*drawing.stairs(self.x, drawing.heights(rate, top))))


def _rate_edges(begins: Floats, step_s: float) -> Floats:
    """Return the edges of at most `_MOST_RATES` intervals of whole rows, so that bursts do not hide
    trends."""
    return np.append(begins[:: -(-len(begins) // _MOST_RATES)], begins[-1] + step_s)


def _waits(timeline: pd.DataFrame, flows: _Flows) -> Iterable[Panel]:
    """Yield a panel with the stacked waits of all tasks and the stall time of memory.pressure; nothing
    without waits and stalls."""
    waits = stacked_waits_ms(timeline)
    pressure = [(who, flows.rate(psi_ms(timeline, who))) for who in ("some", "full")]
    rates = [(wait, flows.rate(floats(waits, wait.name))) for wait in WAITS]
    sums = np.sum([rate for _, rate in rates], axis=0)
    most = max(float(np.nanmax(rate, initial=0.0)) for rate in (sums, *(rate for _, rate in pressure)))
    if not most:
        return
    top, areas = most * _HEADROOM, []
    below = np.zeros(len(sums))
    for wait, rate in rates:
        if rate.any():
            (x, lower), (_, upper) = (
                drawing.stairs(flows.x, drawing.heights(one, top)) for one in (below, below + rate)
            )
            areas.append(Shape(f"wait-{wait.name}", wait.label, drawing.area(x, lower, upper)))
            below = below + rate
    lines = [
        flows.line(f"psi-{who}", f"PSI {who}", rate, top) for who, rate in pressure if np.isfinite(rate).any()
    ]
    yield Panel("waits", "waits of tasks", _heights_of(top, 1.0, "ms/s"), tuple(areas), tuple(lines))


def _sizes_of(top: float, most: float, per: str = "") -> tuple[Tick, ...]:
    """Return the labels of an axis of bytes, in the unit that suits `most`."""
    unit, name = units.scale_for(most)
    return _heights_of(top, unit, f"{name}{per}")


def _heights_of(top: float, unit: float, name: str) -> tuple[Tick, ...]:
    """Return the labels of the axis from 0 to `top`, at round multiples of a unit with this name."""
    step = drawing.round_step(top / unit)
    return tuple(
        Tick(drawing.percent(1 - step * i * unit / top), f"{step * i:g} {name}" if i else "0")
        for i in range(int(top / unit / step + 1e-9) + 1)
    )


def _moments(begin: float, end: float, counted: Callable[[float], str]) -> Iterable[Tick]:
    """Yield the labels of the time axis."""
    step = drawing.round_seconds(end - begin, _MOST_MOMENTS)
    first = int(np.ceil(begin / step - 1e-9))
    for number in range(first, int(end / step + 1e-9) + 1):
        yield Tick(drawing.percent((number * step - begin) / (end - begin)), counted(number * step))


def _since_kill(second: float) -> str:
    if abs(second) < 1e-9:
        return "kill"
    return f"{'−' if second < 0 else '+'}{units.round_duration(abs(second))}"


def _since_begin(second: float) -> str:
    return units.round_duration(max(second, 0.0))


def _marks(markers: Iterable[Marker], timeline: pd.DataFrame, origin: pd.Timestamp) -> Iterable[Mark]:
    """Yield the marks. If several marks of one kind are near each other, only the one nearest to `origin` has
    words."""
    begin, end = timeline.index[0], _end(timeline)
    worded: dict[str, list[float]] = {}
    for marker in sorted(markers, key=lambda one: abs(one.time - origin)):
        share = (marker.time - begin) / (end - begin)
        width = (
            None if marker.until is None else drawing.percent((marker.until - marker.time) / (end - begin))
        )
        words = "read again soon" if width else "OOM kill" if marker.is_kill else "cache used up"
        others = worded.setdefault(words, [])
        if any(abs(share - other) < _ROOM_FOR_WORDS for other in others):
            words = ""
        else:
            others.append(share)
        yield Mark(drawing.percent(share), words, marker.text, marker.is_kill, share < 0.5, width)


def _strip(stretches: Sequence[Stretch], origin: pd.Timestamp) -> Strip:
    whole = max(stretches, key=lambda one: _end(one.timeline) - one.timeline.index[0])
    timeline = whole.timeline
    begin, end = timeline.index[0], _end(timeline)
    span_s, step_s = (end - begin).total_seconds(), row_length(timeline).total_seconds()
    ends = np.asarray((pd.DatetimeIndex(timeline.index) - begin).total_seconds()) + step_s
    top = max(peak(timeline), 1.0)
    frames = []
    for one in stretches:
        left = max(0.0, (one.timeline.index[0] - begin).total_seconds() / span_s)
        right = min(1.0, (_end(one.timeline) - begin).total_seconds() / span_s)
        frames.append((drawing.percent(left), drawing.percent(right - left)))
    words = f"Usage over {units.duration(span_s)}; the frame is the time that the chart shows"
    marks = tuple(mark for mark in _marks(whole.markers, timeline, origin) if mark.is_kill)
    return Strip(_stack(timeline, drawing.places(ends, 0, span_s), top), marks, tuple(frames), words)


def _end(timeline: pd.DataFrame) -> pd.Timestamp:
    return pd.Timestamp(timeline.index[-1] + row_length(timeline))


def colours() -> list[tuple[str, str]]:
    """Return (name, colour) of every area in a chart."""
    return [(layer.name, layer.hex) for layer in LAYERS] + [(f"wait-{wait.name}", wait.hex) for wait in WAITS]
