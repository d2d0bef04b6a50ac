"""The picture of the cushion: cache on top of all other memory, up to the kill, with the report's facts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.exact_seconds import exact_seconds

from tracer.render.plot import cushion_area
from tracer.render.plot.opened_trace import OpenedTrace


def test_areas_end_at_the_kill_with_the_levels_of_its_window(trace: OpenedTrace) -> None:
    axes = trace.plot.cushion()
    window = trace.kill_window(1)
    other, cache = (np.asarray(area.get_paths()[0].vertices) for area in axes.collections)
    seconds = exact_seconds(window.index[0] - window.index[1])
    for second, row in ((seconds, 0), (0.0, 1)):
        usage, cached = window["usage_bytes"].iloc[row], window["cache_bytes"].iloc[row]
        assert other[other[:, 0] == second][:, 1].max() == usage - cached
        assert cache[cache[:, 0] == second][:, 1].max() == usage
    assert cache[:, 0].min() == seconds and cache[:, 0].max() == 0


def test_levels_between_are_those_of_the_timeline(trace: OpenedTrace) -> None:
    axes = trace.plot.cushion()
    begin, kill = trace.kill_window(1).index
    rows = trace.timeline(every="10ms", begin=begin.isoformat(), end=kill.isoformat())
    other = np.asarray(axes.collections[0].get_paths()[0].vertices)
    for time, row in list(rows.iterrows())[:-1]:
        second = exact_seconds(time - kill) + 0.01
        (position,) = np.flatnonzero((np.abs(other[:, 0] - second) < 1e-9) & (other[:, 1] > 0))
        assert other[position, 1] == row["usage_bytes"] - row["cache_bytes"]


def test_facts_are_those_of_the_report(trace: OpenedTrace) -> None:
    report = trace.explain()[0]
    assert cushion_area.facts(report) == [
        "117 MiB evicted at the limit, none of it read again",
        "92.2 MiB of that room taken by other memory",
        "used up 31.3 ms before the kill",
    ]
    unknown = replace(report.cushion, evicted_bytes=None, refaulted_bytes=None, exhausted_at=None)
    assert cushion_area.facts(replace(report, cushion=unknown)) == [
        "not known evicted at the limit, not known of it read again",
        "0 B left at the kill",
    ]


def test_trace_without_a_kill_has_no_cushion_to_draw(thrash: OpenedTrace) -> None:
    for draw in (thrash.plot.cushion, thrash.plot.waterfall):
        with pytest.raises(Exception, match="nothing was killed"):
            draw()
