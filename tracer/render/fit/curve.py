"""The curve of `fit` as an SVG picture: the time of the command and the cache it read again at each limit."""

from __future__ import annotations

import io
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tracer.fit.search import Bounds, Run, by_limit
from tracer.units import size

if TYPE_CHECKING:
    from tracer.fit.driver import Found

_MIB: Final = 1 << 20
_GOOD, _SLOW, _FAILED, _LINE = "#2a7f3f", "#c98a00", "#b3261e", "#57606a"
_STYLE: Final[dict[Any, Any]] = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "sans-serif",
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "fit",
}


def curve(found: Found, runs: Sequence[Run], bounds: Bounds) -> str:
    """Return an SVG document. The same runs always give the same text.

    Failed runs have crosses, with the number of OOM kills if there are any. The line goes through the median
    times of the limits at which all runs succeeded.
    """
    with rc_context(_STYLE):
        figure = Figure(figsize=(9.0, 6.0), layout="constrained")
        times, read_again = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        _draw_times(times, found, runs, bounds)
        known = [run for run in runs if run.limit_bytes is not None and run.refaulted_bytes is not None]
        read_again.vlines(
            [(run.limit_bytes or 0) / _MIB for run in known],
            0,
            [(run.refaulted_bytes or 0) / _MIB for run in known],
            color=_LINE,
            linewidth=3,
        )
        read_again.set_yscale("symlog", linthresh=1)
        read_again.set_ylim(bottom=0)
        read_again.set_ylabel("read again, MiB")
        read_again.set_xlabel("limit, MiB")
        read_again.set_xlim(left=0)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def _draw_times(axes: Axes, found: Found, runs: Sequence[Run], bounds: Bounds) -> None:
    limited = [(run, run.limit_bytes / _MIB) for run in runs if run.limit_bytes is not None]
    by = found.by
    succeeded = [at for at in limited if at[0].status == 0]
    slow = [at for at in succeeded if by is not None and by.is_slow([at[0]], bounds)]
    medians = sorted(
        (limit_bytes / _MIB, median(run.wall_s for run in at_limit))
        for limit_bytes, at_limit in by_limit(runs).items()
        if all(run.status == 0 for run in at_limit)
    )
    axes.plot(*zip(*medians, strict=True) if medians else ([], []), color=_LINE, linewidth=1)
    groups = (
        ("succeeded", _GOOD, "o", [at for at in succeeded if at not in slow]),
        ("succeeded, slower", _SLOW, "o", slow),
        ("failed", _FAILED, "x", [at for at in limited if at[0].status != 0]),
    )
    for label, colour, marker, points in groups:
        if points:
            walls_s = [run.wall_s for run, _ in points]
            axes.scatter([x for _, x in points], walls_s, color=colour, marker=marker, label=label, zorder=3)
    for run, x in limited:
        if run.kills:
            words = f"{run.kills} kill{'s' * (run.kills != 1)}"
            axes.annotate(
                words, (x, run.wall_s), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8
            )
    axes.axhline(found.unlimited_wall_s, color=_LINE, linestyle="--", linewidth=1, label="without a limit")
    if by is not None and by.name == "wall_s":
        most_s, label = found.unlimited_wall_s * (1 + bounds.slowdown), f"{bounds.slowdown * 100:g} % slower"
        axes.axhline(most_s, color=_LINE, linestyle=":", linewidth=1, label=label)
    for words, limit_bytes in (
        ("least limit", found.least_limit_bytes),
        ("comfortable limit", found.comfortable_limit_bytes),
    ):
        if limit_bytes is not None:
            axes.axvline(limit_bytes / _MIB, color=_LINE, linewidth=0.6)
            axes.annotate(
                f"{words} {size(limit_bytes)}",
                (limit_bytes / _MIB, 0.5),
                xycoords=("data", "axes fraction"),
                xytext=(-3, 0),
                textcoords="offset points",
                rotation=90,
                ha="right",
                va="center",
                fontsize=8,
            )
    axes.set_ylim(bottom=0)
    axes.set_ylabel("time, s")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=5, fontsize=8)
