"""The composition of usage over time, against the limit, with the kill at second 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from tracer.categories import LAYERS, Layer
from tracer.render.picture import Marker, bounds, peak, stacked_layers
from tracer.render.plot.axes_style import PLAIN, as_seconds, as_sizes, ink, legend_below, note_top
from tracer.render.plot.subject import Subject

_HEADROOM: Final = 1.12
_HEADROOM_OF_NOTE: Final = 1.3
_VISIBLE_SHARE: Final = 0.005
_BAR_S: Final = 0.1
_BELOW_MARKS: Final = 0.92


def levels(timeline: pd.DataFrame, at_kill: pd.DataFrame | None, step: pd.Timedelta) -> pd.DataFrame:
    """Return the levels of a timeline at the times at which they hold: the ends of its rows.

    `at_kill` is a row with the levels at the kill; its index is the time of the kill. The timeline's row that
    contains the kill ends after it.
    """
    held = timeline.set_axis(timeline.index + step)
    if at_kill is None:
        return held
    return pd.concat([held, at_kill[at_kill.columns.intersection(held.columns)]]).sort_index(kind="stable")


def draw(axes: Axes, subject: Subject, held: pd.DataFrame, markers: Sequence[Marker]) -> None:
    """Draw the layers of memory in `held` (`levels`), the limit, and the markers."""
    seconds = subject.seconds(pd.DatetimeIndex(held.index))
    begin, end = float(seconds[0]), float(seconds[-1])
    if is_moment := begin == end:  # an area would have no width: draw a bar
        held = pd.concat([held.iloc[-1:]] * 2)
        seconds = np.array([end - _BAR_S, end + _BAR_S])
        begin, end = begin - 3 * _BAR_S, end + 3 * _BAR_S
        note_top(axes, "The timeline has one row: these are the levels at its end.", _BELOW_MARKS)
    layers = stacked_layers(held)
    shown = [layer for layer in LAYERS if layers[layer.name].max() > 0]
    if shown:
        axes.stackplot(
            seconds,
            *(layers[layer.name].to_numpy() for layer in shown),
            labels=[legend_label(layers, layer) for layer in shown],
            colors=[layer.hex for layer in shown],
            linewidth=0,
        )
    full = peak(held)
    for bound in bounds(held, peak(held)):
        line = "--" if bound.name == "limit" else ":"
        axes.plot(seconds, bound.in_bytes, color=ink(), linestyle=line, linewidth=1.3, label=bound.words)
        full = max(full, bound.top_bytes)
    axes.set_ylim(0, full * (_HEADROOM_OF_NOTE if is_moment else _HEADROOM) or 1)
    axes.set_xlim(begin, end)
    if is_moment:
        axes.set_xticks([(begin + end) / 2])
    as_sizes(axes.yaxis)
    as_seconds(axes.xaxis, subject.since)
    axes.set_title(f"Memory of {subject.place}", **PLAIN)
    for marker in markers:
        if marker.until is None:
            mark(axes, float(subject.seconds(pd.DatetimeIndex([marker.time]))[0]), is_kill=marker.is_kill)
    legend_below(axes)


def legend_label(layers: pd.DataFrame, layer: Layer) -> str:
    """Return the name of a layer for the legend: hidden if the layer is too thin to be seen."""
    is_visible = layers[layer.name].max() >= layers.sum(axis=1).max() * _VISIBLE_SHARE
    return layer.label if is_visible else f"_{layer.label}"


def mark(axes: Axes, second: float, *, is_kill: bool) -> None:
    """Draw a kill, or the moment at which the page cache was used up."""
    words, line, width, side = (
        ("✗ OOM kill", "-", 1.5, 4) if is_kill else ("cache used up", (0, (1, 1.5)), 1.2, -4)
    )
    axes.axvline(second, color=ink(), linewidth=width, linestyle=line)
    axes.annotate(
        words,
        (second, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(side, -2),
        textcoords="offset points",
        ha="left" if side > 0 else "right",
        va="top",
        fontsize=9,
        fontweight="bold" if is_kill else "normal",
    )
