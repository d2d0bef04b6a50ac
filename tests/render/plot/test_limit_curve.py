"""The picture of a run at other limits: the ends and the ranges of `what_if`."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from tracer.analysis.trace import AnalysedTrace
from tracer.analysis.whatif.outcomes import what_if
from tracer.render.plot.opened_trace import OpenedTrace

MIB = 1 << 20


def grounds(axes: Axes) -> dict[str, tuple[float, float]]:
    """Return the first stretch of each outcome that has a name."""
    named = [one for one in axes.patches if not str(one.get_label()).startswith("_")]
    boxes = [one.get_path().transformed(one.get_patch_transform()).get_extents() for one in named]
    return {str(one.get_label()): (box.x0, box.x1) for one, box in zip(named, boxes, strict=True)}


def test_grounds_have_the_ends_of_the_answer(thrash: OpenedTrace) -> None:
    found, axes = what_if(AnalysedTrace(thrash.path)), thrash.plot.whatif()
    ends = grounds(axes)
    assert ends["killed"] == (0, found.killed_below_bytes)
    assert ends["unknown"] == (found.killed_below_bytes, found.survives_from_bytes)
    assert ends["survives"][0] == found.survives_from_bytes
    assert axes.get_title(loc="left").endswith("-lab-thrash at other limits")


def test_line_is_the_lower_end_at_each_limit_and_falls_where_the_cache_fits(thrash: OpenedTrace) -> None:
    (line,) = (one for one in thrash.plot.whatif().lines if one.get_label() == "read again, at least")
    limits, least = (np.asarray(one, dtype=np.int64) for one in (line.get_xdata(), line.get_ydata()))
    asked = what_if(AnalysedTrace(thrash.path), limits.tolist()).limits
    assert [one.read_again_bytes[0] for one in asked] == least.tolist()
    assert least[limits <= 60 * MIB].min() > 150 * MIB  # a file that is read in turn needs room for all of it
    assert least[-1] == 0


def test_limits_that_are_not_enough_have_grounds_as_far_as_they_go(thrash: OpenedTrace) -> None:
    low = what_if(AnalysedTrace(thrash.path)).killed_below_bytes
    ends = grounds(thrash.plot.whatif(limits=[20 * MIB]))
    assert ends == {"killed": (0, low), "unknown": (low, 20 * MIB * 9 // 8)}
    assert grounds(thrash.plot.whatif(limits=[4 * MIB])) == {"killed": (0, 4 * MIB * 9 // 8)}


def test_run_whose_reads_are_not_known_has_grounds_alone(trace: OpenedTrace) -> None:
    axes = trace.plot.whatif()
    assert [one.get_label() for one in axes.lines] == ["recorded at 100 MiB"]
    assert set(grounds(axes)) == {"killed", "unknown"}
