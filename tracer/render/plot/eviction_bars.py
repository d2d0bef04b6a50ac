"""The page cache that was evicted: a bar for each file, cgroup, cause or process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes

from tracer import units
from tracer.categories import LAYER_BY_NAME
from tracer.errors import UsageError
from tracer.quantities import EVICTIONS_GROUPINGS
from tracer.render.picture import WAITS
from tracer.render.plot.axes_style import PLAIN, as_sizes, legend_below, note_top
from tracer.render.words import eviction_words
from tracer.render.words.escape import fitted

MOST_BARS: Final = 12
_NAME_CELLS: Final = 44
_ROOM_FOR_WORDS: Final = 1.12
_READ_AGAIN: Final = next(wait.hex for wait in WAITS if wait.name == "reread")
_PLURAL: Final = {"file": "files", "cgroup": "pairs", "cause": "causes", "process": "processes"}


def bars(evicted: pd.DataFrame, by: str) -> pd.DataFrame:
    """Return a row for each bar, the largest first, from the rows of `analysis.views.evictions`.

    The columns are `name` (escaped), `evicted_bytes`, and `returned_bytes`, the part of them that was read
    again. Rows without evictions have no bar. The rows after the first 12 share one bar.
    """
    if by not in EVICTIONS_GROUPINGS:
        raise UsageError(f"evictions can be drawn by {', '.join(EVICTIONS_GROUPINGS)}, not by {by!r}")
    rows = evicted[evicted["evicted_bytes"] > 0]
    first, rest = rows.iloc[:MOST_BARS], rows.iloc[MOST_BARS:]
    drawn = first[["evicted_bytes", "returned_bytes"]].reset_index(drop=True)
    drawn.insert(0, "name", [_name(row, by) for row in first.to_dict("records")])
    if len(rest):
        sums = rest[["evicted_bytes", "returned_bytes"]].sum()
        drawn.loc[len(drawn)] = [f"{units.count(len(rest))} more {_PLURAL[by]}", *sums]
    return drawn


def _name(row: Mapping[Any, Any], by: str) -> str:
    if by == "file":
        return fitted(eviction_words.file_names(row)[-1], _NAME_CELLS)
    if by == "cause":
        return fitted(eviction_words.cause_names(row)[0], _NAME_CELLS)
    first, second = (eviction_words.cgroup_names if by == "cgroup" else eviction_words.process_names)(row)
    if by == "process":
        return fitted(first, _NAME_CELLS)
    return f"{fitted(first, _NAME_CELLS)}\nby {fitted(second, _NAME_CELLS)}"


def draw(axes: Axes, drawn: pd.DataFrame, by: str, *, is_exact: bool) -> None:
    """Draw the rows of `bars`. Unless `is_exact`, events were summed, so `returned_bytes` is a minimum."""
    positions = range(len(drawn))
    again, evicted = (drawn[name].astype("int64") for name in ("returned_bytes", "evicted_bytes"))
    words = "read again later" if is_exact else "read again later (at least)"
    axes.barh(positions, again, color=_READ_AGAIN, label=words, hatch="///", edgecolor="white", linewidth=0)
    axes.barh(
        positions,
        evicted - again,
        left=again,
        color=LAYER_BY_NAME["cache"].hex,
        label="not read again" if is_exact else "not seen to be read again",
    )
    for position, size in zip(positions, evicted, strict=True):
        axes.annotate(
            units.size(size),
            (size, position),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    if drawn.empty:
        note_top(axes, "No page cache was evicted.")
    axes.set_yticks(positions, drawn["name"].tolist(), **PLAIN)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(drawn) - 0.4, -0.6)
    axes.set_xlim(0, float(evicted.max()) * _ROOM_FOR_WORDS if len(drawn) else 1)
    as_sizes(axes.xaxis)
    axes.set_title(f"Page cache evicted, by {by}", **PLAIN)
    legend_below(axes, 0.4)
