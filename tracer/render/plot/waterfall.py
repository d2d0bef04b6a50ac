"""The waterfall from the memory at the begin of the window before a kill, by its changes, to the kill."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final

import pandas as pd
from matplotlib.axes import Axes

from tracer import units
from tracer.categories import LAYER_BY_NAME, LAYERS
from tracer.render.picture import stacked_layers
from tracer.render.plot.axes_style import FAINT, PLAIN, as_sizes, ink, legend_below, signed
from tracer.render.plot.over_time import legend_label
from tracer.render.plot.subject import Subject

_LEAST_SHARE: Final = 0.01
_MOST_FACTOR: Final = 8
_WIDTH: Final = 0.62
_HEADROOM: Final = 1.14
_CACHE: Final = ("cache", "dirty")
_WORDS: Final = {
    "anon": "anonymous",
    "shmem": "shared\nmemory",
    "kernel": "kernel",
    "zswap": "zswap",
    "other": "unnamed",
}
_REST: Final = "other"


@dataclass(frozen=True, slots=True)
class Step:
    """A change of usage between the begin of the window and the kill, in bytes. `layer` gives its colour."""

    label: str
    layer: str
    change_bytes: int


def totals(window: pd.DataFrame) -> tuple[int, int]:
    """Return usage at the begin of the window and at the kill, in bytes: the sums of the layers in its rows.

    A sum can exceed the page counter by the memory of unfinished charges.
    """
    begin, kill = stacked_layers(window).sum(axis=1)
    return int(begin), int(kill)


def steps(window: pd.DataFrame) -> list[Step]:
    """Return the changes between the two rows of `analysis.explain.kill_window`: first increases, then
    decreases, then all small changes.

    The changes add up to the difference of `totals`. Page cache has a step each for added, evicted and
    dropped cache. If one of these flows exceeds the larger total more than 8 times, there is only one step,
    their difference. Changes of less than 1 % of the larger total are one step, "all else".
    """
    layers = stacked_layers(window)
    change = {layer.name: int(layers[layer.name].iloc[1] - layers[layer.name].iloc[0]) for layer in LAYERS}
    largest = max(totals(window))
    found = [Step(_WORDS[name], name, size) for name, size in change.items() if name not in _CACHE]
    found += _of_cache(window.iloc[1], change["cache"], change["dirty"], largest * _MOST_FACTOR)
    is_large = [abs(step.change_bytes) >= largest * _LEAST_SHARE for step in found]
    shown = [step for step, large in zip(found, is_large, strict=True) if large]
    shown.sort(key=lambda step: step.change_bytes < 0)
    rest = sum(step.change_bytes for step, large in zip(found, is_large, strict=True) if not large)
    if rest:
        shown.append(Step("all else", _REST, rest))
    return shown


def _of_cache(at_kill: pd.Series, clean: int, dirty: int, most: int) -> Iterator[Step]:
    """Yield the changes of page cache, which add up to the changes of `clean` and `dirty` cache."""
    change, grown = clean + dirty, "dirty" if dirty > max(clean, 0) else "cache"
    flows = [at_kill[f"cache_{flow}_bytes"] for flow in ("added", "evicted", "dropped")]
    added, evicted, dropped = (0 if pd.isna(flow) else int(flow) for flow in flows)
    if max(added, evicted, dropped) > most:
        yield Step("page cache\nadded less\nevicted", grown, change)
        return
    yield Step("page cache\nadded", grown, added)
    yield Step("page cache\nevicted", "cache", -evicted)
    yield Step("page cache\ndropped", "cache", -dropped)
    # A folio can be charged on one side of a moment, and enter or leave the page cache on the other side.
    yield Step("page cache\nunder way", "cache", change - added + evicted + dropped)


def draw(axes: Axes, subject: Subject, window: pd.DataFrame) -> None:
    """Draw the two rows of `analysis.explain.kill_window` as stacks, and the `steps` between them."""
    changes, (begin, kill) = steps(window), totals(window)
    reached = list(accumulate((step.change_bytes for step in changes), initial=begin))
    layers = stacked_layers(window)
    for position, row in ((0, 0), (len(changes) + 1, 1)):
        below = 0.0
        for layer in LAYERS:
            size = float(layers[layer.name].iloc[row])
            if layers[layer.name].any():
                axes.bar(
                    position,
                    size,
                    _WIDTH,
                    bottom=below,
                    color=layer.hex,
                    label=legend_label(layers, layer) if row == 0 else "_",
                )
            below += size
    for position, (step, (before, after)) in enumerate(zip(changes, pairwise(reached), strict=True), start=1):
        axes.bar(
            position,
            step.change_bytes,
            _WIDTH,
            bottom=before,
            color=LAYER_BY_NAME[step.layer].hex,
            hatch="///" if step.change_bytes < 0 else None,
            edgecolor="white",
            linewidth=0,
        )
        _value(axes, position, max(before, after), signed(step.change_bytes))
    for position, level in enumerate(reached):
        axes.plot(
            [position + _WIDTH / 2, position + 1 - _WIDTH / 2], [level, level], color=FAINT, linewidth=0.8
        )
    _value(axes, 0, begin, units.size(begin), is_bold=True)
    _value(axes, len(changes) + 1, kill, units.size(kill), is_bold=True)
    _finish(axes, subject, window, [step.label for step in changes], max(reached))


def _value(axes: Axes, position: int, top: float, words: str, *, is_bold: bool = False) -> None:
    axes.annotate(
        words,
        (position, top),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=9,
        fontweight="bold" if is_bold else "normal",
        bbox={"facecolor": axes.get_facecolor(), "edgecolor": "none", "pad": 1.0},
    )


def _finish(
    axes: Axes, subject: Subject, window: pd.DataFrame, labels: Sequence[str], highest: float
) -> None:
    before = units.duration((window.index[1] - window.index[0]).total_seconds())
    axes.set_xticks(
        range(len(labels) + 2), [f"{before}\nbefore the kill", *labels, "at the kill"], fontsize=9
    )
    axes.tick_params(axis="x", length=0)
    limit = window["limit_bytes"].iloc[1]
    if not pd.isna(limit):
        axes.axhline(float(limit), color=ink(), linestyle="--", linewidth=1.3, label="limit", zorder=0.5)
        highest = max(highest, float(limit))
    axes.set_ylim(0, highest * _HEADROOM or 1)
    axes.set_xlim(-0.6, len(labels) + 1.6)
    as_sizes(axes.yaxis)
    axes.set_title(f"What filled {subject.place}", **PLAIN)
    legend_below(axes)
