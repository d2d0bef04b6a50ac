"""The same run at other limits: what it would read again, and where it would be killed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final

from matplotlib.axes import Axes

from tracer.analysis.results.outcome import AtLimit, Outcome, WhatIf
from tracer.render.plot.axes_style import PLAIN, as_sizes, ink, legend_below
from tracer.render.words.escape import fitted
from tracer.schema import UNLIMITED_BYTES
from tracer.units import size

_COLOURS: Final[Mapping[Outcome, str]] = {
    "killed": "#cf222e",
    "thrashes": "#d4a72c",
    "unknown": "#8c959f",
    "survives": "#2da44e",
}
_TITLE_CELLS: Final = 72


def draw(axes: Axes, found: WhatIf) -> None:
    """Draw the outcome at each limit as the colour of the ground, and what is read again as a range.

    Where only the lower end is known, the range is open above, and has a line alone.
    """
    for outcome, (begin, end) in _stretches(found):
        is_named = outcome in axes.get_legend_handles_labels()[1]
        axes.axvspan(
            begin, end, color=_COLOURS[outcome], alpha=0.18, linewidth=0, label=None if is_named else outcome
        )
    lows = [one for one in found.limits if one.read_again_bytes[0] is not None]
    if lows:
        least = [one.read_again_bytes[0] or 0 for one in lows]
        axes.plot(_limits(lows), least, color=ink(), linewidth=1, label="read again, at least")
    if ranged := [one for one in lows if one.read_again_bytes[1] is not None]:
        least, most = ([one.read_again_bytes[end] or 0 for one in ranged] for end in (0, 1))
        axes.fill_between(_limits(ranged), least, most, color=ink(), alpha=0.3, linewidth=0, label="at most")
    recorded = found.recorded_limit_bytes
    if recorded is not None and recorded < UNLIMITED_BYTES:
        axes.axvline(recorded, color=ink(), linestyle=":", label=f"recorded at {size(recorded)}")
    as_sizes(axes.xaxis)
    if any(one.read_again_bytes[1] for one in lows) or any(one.read_again_bytes[0] for one in lows):
        as_sizes(axes.yaxis)
    else:
        axes.set_yticks([])
    axes.set_xlim(left=0, right=_right(found))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("limit", **PLAIN)
    axes.set_ylabel("page cache read again", **PLAIN)
    name = found.container or found.cgroup
    axes.set_title(f"{fitted(name, _TITLE_CELLS)} at other limits", loc="left", **PLAIN)
    legend_below(axes)


def _limits(some: Sequence[AtLimit]) -> list[int]:
    return [one.limit_bytes for one in some]


def _right(found: WhatIf) -> int:
    return found.limits[-1].limit_bytes * 9 // 8 if found.limits else 1


def _stretches(found: WhatIf) -> Iterator[tuple[Outcome, tuple[int, int]]]:
    """Yield each outcome from one limit to the next: that of the lower one, or killed before the first.

    Both ends of what is known are exact, and stand between the limits of `found`. If all of these are too
    small to be enough, no outcome is known beyond them.
    """
    low, enough, right = found.killed_below_bytes or 0, found.survives_from_bytes, _right(found)
    if low:
        yield "killed", (0, min(low, right))
    unknown_to = right if enough is None else min(enough, right)
    if unknown_to > low:
        yield "unknown", (low, unknown_to)
    if enough is None:
        return
    if above := [one for one in found.limits if one.limit_bytes >= enough]:
        edges = [enough, *(one.limit_bytes for one in above[1:]), right]
        for one, (begin, end) in zip(above, pairwise(edges), strict=True):
            yield one.outcome, (begin, end)
