"""The page cache as the cushion before a kill: how other memory replaced it, and when it was used up."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from tracer import units
from tracer.analysis.results.kill import OomReport
from tracer.categories import LAYER_BY_NAME
from tracer.render.picture import floats
from tracer.render.plot.axes_style import PLAIN, as_seconds, as_sizes, ink, legend_below, note_top
from tracer.render.plot.over_time import mark
from tracer.render.plot.subject import Subject

_HEADROOM: Final = 1.25
_ROOM_AFTER: Final = 0.1  # for the words at the kill


def draw(axes: Axes, subject: Subject, report: OomReport, held: pd.DataFrame) -> None:
    """Draw page cache on top of all other memory up to the kill, from levels of `over_time.levels`."""
    seconds = subject.seconds(pd.DatetimeIndex(held.index))
    usage, cache = floats(held, "usage_bytes"), floats(held, "cache_bytes")
    below = np.clip(usage - cache, 0, None)
    axes.fill_between(seconds, below, color=LAYER_BY_NAME["anon"].hex, linewidth=0, label="all other memory")
    axes.fill_between(
        seconds,
        below,
        below + cache,
        color=LAYER_BY_NAME["cache"].hex,
        linewidth=0,
        label="page cache: the cushion",
    )
    limit = floats(held, "limit_bytes")
    if np.isfinite(limit).any():
        axes.plot(seconds, limit, color=ink(), linestyle="--", linewidth=1.3, label="limit")
    top = float(np.nanmax(np.concatenate([usage, limit]), initial=0.0))
    axes.set_ylim(0, top * _HEADROOM or 1)
    axes.set_xlim(seconds[0], -seconds[0] * _ROOM_AFTER)
    as_sizes(axes.yaxis)
    as_seconds(axes.xaxis, subject.since)
    axes.set_title(f"The cushion of {subject.place}", **PLAIN)
    exhausted = report.cushion.exhausted_at
    if exhausted is not None:
        mark(axes, float(subject.seconds(pd.DatetimeIndex([exhausted]))[0]), is_kill=False)
    mark(axes, 0.0, is_kill=True)
    note_top(axes, "\n".join(facts(report)))
    legend_below(axes)


def facts(report: OomReport) -> list[str]:
    """Return the facts of the report about the cushion, a line each."""
    cushion = report.cushion
    again = "none" if cushion.refaulted_bytes == 0 else units.size(cushion.refaulted_bytes)
    lines = [f"{units.size(cushion.evicted_bytes)} evicted at the limit, {again} of it read again"]
    if cushion.evicted_bytes:
        lines.append(f"{units.size(cushion.absorbed_bytes)} of that room taken by other memory")
    if cushion.exhausted_at is not None and report.time is not None:
        ahead = units.duration((report.time - cushion.exhausted_at).total_seconds())
        lines.append(f"used up {ahead} before the kill")
    else:
        lines.append(f"{units.size(cushion.cache_end_bytes)} left at the kill")
    return lines
