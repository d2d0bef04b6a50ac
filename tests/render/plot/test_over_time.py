"""The picture of the composition over time: its layers are those of the timeline, and of the kill."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from support.exact_seconds import exact_seconds

from tracer.categories import LAYERS
from tracer.render.picture import stacked_layers
from tracer.render.plot.opened_trace import OpenedTrace
from tracer.render.plot.over_time import levels

STEP = pd.Timedelta("20ms")


def tops(axes: Axes) -> dict[str, dict[float, float]]:
    """Return layer -> second -> the upper edge of the layer, in bytes."""
    colours = {layer.hex.lower(): layer.name for layer in LAYERS}
    found = {}
    for area in axes.collections:
        assert isinstance(area, PolyCollection)
        (path,) = area.get_paths()
        edge: dict[float, float] = {}
        for x, y in np.asarray(path.vertices):
            edge[float(x)] = max(edge.get(float(x), 0.0), float(y))
        found[colours[to_hex(np.asarray(area.get_facecolor())[0])]] = edge
    return found


def test_layers_are_those_of_the_timeline_in_bytes_and_seconds_from_the_kill(trace: OpenedTrace) -> None:
    axes = trace.plot.timeline(every="20ms")
    rows = trace.timeline(every="20ms")
    kill = trace.explain()[0].time
    edges = tops(axes)
    sums = stacked_layers(rows).cumsum(axis=1)
    for name, edge in edges.items():
        for time, top in sums[name].items():
            second = exact_seconds(time + STEP - kill)  # type: ignore[operator]
            assert edge[second] == pytest.approx(top)
    assert set(edges) == {"kernel", "anon", "other", "cache"}


def test_layers_at_the_kill_are_those_of_its_report(trace: OpenedTrace) -> None:
    edges = tops(trace.plot.timeline())
    report = trace.explain()[0]
    assert max(edge[0.0] for edge in edges.values()) == report.composition.total
    assert edges["anon"][0.0] - edges["kernel"][0.0] == report.memory_stat_bytes["anon"]


def test_limit_and_markers_are_drawn_where_they_are(trace: OpenedTrace) -> None:
    axes = trace.plot.timeline()
    report = trace.explain()[0]
    lines = {str(line.get_label()): line for line in axes.lines}
    assert set(np.asarray(lines["limit 100 MiB"].get_ydata())) == {report.limit_owner.limit_bytes}
    exhausted = report.cushion.exhausted_at
    assert exhausted is not None and report.time is not None
    marked = sorted(
        float(np.asarray(line.get_xdata())[0]) for line in axes.lines if line is not lines["limit 100 MiB"]
    )
    assert marked == [exact_seconds(exhausted - report.time), 0.0]
    assert [text.get_text() for text in axes.texts] == ["cache used up", "✗ OOM kill"]


def test_trace_without_a_kill_counts_from_its_begin(thrash: OpenedTrace) -> None:
    axes = thrash.plot.timeline()
    assert axes.get_xlabel() == "since the trace began"
    assert axes.get_xlim()[0] >= 0
    assert not axes.texts


@pytest.mark.filterwarnings("error")
def test_timeline_of_one_row_is_a_bar_with_the_levels_of_the_row(thrash: OpenedTrace) -> None:
    sums = stacked_layers(thrash.timeline(every="1h")).cumsum(axis=1)
    assert len(sums) == 1
    axes = thrash.plot.timeline(every="1h")
    left, right = axes.get_xlim()
    for name, edge in tops(axes).items():
        assert left < min(edge) < max(edge) < right
        assert len(edge) == 2
        assert [*edge.values()] == pytest.approx([sums[name].iloc[0]] * 2)
    assert [text.get_text() for text in axes.texts] == [
        "The timeline has one row: these are the levels at its end."
    ]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["3600 s"]


def test_levels_hold_at_the_end_of_a_row_and_at_the_kill_itself(trace: OpenedTrace) -> None:
    rows, window = trace.timeline(every="20ms"), trace.kill_window(1)
    held = levels(rows, window.iloc[1:], STEP)
    assert len(held) == len(rows) + 1
    assert held.index.is_monotonic_increasing
    assert held.loc[window.index[1], "anon_bytes"] == window["anon_bytes"].iloc[1]
    assert held["anon_bytes"].iloc[0] == rows["anon_bytes"].iloc[0]
    assert held.index[0] == rows.index[0] + STEP
