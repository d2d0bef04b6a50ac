"""The pictures of the HTML page as SVG text."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tracer.categories import LAYER_BY_NAME, LAYERS
from tracer.render.picture.layers import floats, stacked
from tracer.render.picture.markers import Marker
from tracer.render.picture.waits import WAITS, psi_ms, stacked_ms

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

MIB: Final = 1 << 20
_MOST_RATES: Final = 100
_INK: Final = "#010203"
"""A placeholder for the text colour of the page, because matplotlib cannot write `currentColor`."""

_STYLE: Final[dict[str, Any]] = {
    "axes.edgecolor": _INK,
    "axes.facecolor": "none",
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "font.family": "sans-serif",
    "font.size": 10,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "path.simplify": False,
    "svg.fonttype": "none",
    "text.color": _INK,
    "text.parse_math": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


def memory_over_time(
    timeline: pd.DataFrame, origin: pd.Timestamp, markers: Iterable[Marker], *, page_size: int, salt: str
) -> str:
    """Return an `<svg>` element: composition against the limit, page-cache flows, reclaim, and any waits
    beside PSI, over the seconds since `origin`.

    `timeline` has at least two rows of one cgroup. `salt` distinguishes the ids of several pictures in a
    page. The same arguments always give the same text.
    """
    step_s = (timeline.index[1] - timeline.index[0]).total_seconds()
    # Levels hold at the end of a row, flows are of the whole row.
    begins = np.asarray((pd.DatetimeIndex(timeline.index) - origin).total_seconds())
    style: dict[Any, Any] = {**_STYLE, "svg.hashsalt": salt}
    has_waits = bool(stacked_ms(timeline).to_numpy().any() or (psi_ms(timeline, "some") > 0).any())
    with rc_context(style):
        figure = Figure(figsize=(9.6, 9.8 if has_waits else 8.0), layout="constrained")
        figure.patch.set_alpha(0)
        heights = (5, 2, 2, 2) if has_waits else (5, 2, 2)
        memory, cache, reclaim, *waiting = figure.subplots(
            len(heights), 1, sharex=True, height_ratios=heights
        )
        _draw_memory(memory, timeline, begins + step_s)
        cache_flows = {
            "added": floats(timeline, "cache_added_bytes"),
            "evicted": floats(timeline, "cache_evicted_bytes"),
            "read again": floats(timeline, "cache_refaulted_bytes"),
        }
        timed = [(marker, (marker.time - origin).total_seconds()) for marker in markers]
        lasting = [
            (second, (marker.until - origin).total_seconds())
            for marker, second in timed
            if marker.until is not None
        ]
        _draw_rates(cache, "page cache", begins, step_s, cache_flows, read_again_soon=lasting)
        reclaim_flows = {
            "scanned": floats(timeline, "scanned_pages") * page_size,
            "freed": floats(timeline, "reclaimed_bytes"),
        }
        for name, way in (("written to swap", "written"), ("read from swap", "read")):
            flow = floats(timeline, f"swap_{way}_bytes")
            if np.nansum(flow):
                reclaim_flows[name] = flow
        _draw_rates(reclaim, "reclaim", begins, step_s, reclaim_flows)
        for axes in waiting:
            _draw_waits(axes, timeline, begins, step_s)
        for marker, second in timed:
            if marker.until is None:
                _draw_marker(figure.axes, marker, second)
        figure.axes[-1].set_xlabel("seconds since the trace began")
        memory.set_xlim(begins[0], begins[-1] + step_s)
        out = io.StringIO()
        figure.savefig(
            out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    flows = "page-cache flows, reclaim and waits for memory" if has_waits else "page-cache flows and reclaim"
    label = f"Memory of the cgroup against its limit, {flows} over time"
    return _for_page(out.getvalue(), label)


def _draw_memory(axes: Axes, timeline: pd.DataFrame, seconds: Floats) -> None:
    layers = stacked(timeline) / MIB
    shown = [layer for layer in LAYERS if layers[layer.name].max() > 0]
    if shown:  # the cgroup may have no memory at the end of any row
        axes.stackplot(
            seconds,
            *(layers[layer.name].to_numpy() for layer in shown),
            labels=[layer.label for layer in shown],
            colors=[layer.hex for layer in shown],
            linewidth=0,
        )
    full = peak = np.nanmax(floats(timeline, "usage_bytes"), initial=0.0) / MIB
    for name, label, line in (("limit_bytes", "limit", "--"), ("high_bytes", "memory.high", ":")):
        bound = floats(timeline, name) / MIB
        top = np.nanmax(bound, initial=0.0)
        if top and peak >= top / 4:
            axes.plot(seconds, bound, color=_INK, linestyle=line, linewidth=1.3, label=label)
            full = max(full, top)
    axes.set_ylim(0, full * 1.12 or 1)
    axes.set_ylabel("MiB")
    axes.set_title("Composition of usage")
    handles, labels = axes.get_legend_handles_labels()
    axes.figure.legend(
        handles[::-1], labels[::-1], loc="outside upper center", ncols=len(labels), columnspacing=1.2
    )


def _draw_rates(
    axes: Axes,
    title: str,
    begins: Floats,
    step_s: float,
    flows: Mapping[str, Floats],
    *,
    read_again_soon: Sequence[tuple[float, float]] = (),
) -> None:
    """Draw flows (bytes in each row) as rates, over several rows at a time so that bursts do not hide
    trends; behind them, the intervals in which cache was read again soon (begin and end in s)."""
    edges = _rate_edges(begins, step_s)
    colours = (LAYER_BY_NAME["cache"].hex, LAYER_BY_NAME["anon"].hex, LAYER_BY_NAME["shmem"].hex)
    for (name, flow), colour, line in zip(flows.items(), colours, ("-", "-", "--"), strict=False):
        rate = _rate(flow, edges, step_s) / MIB
        label = name if np.isfinite(rate).any() else f"{name} (not known)"
        axes.stairs(rate, edges, label=label, color=colour, linestyle=line, linewidth=1.5, baseline=None)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("MiB/s")
    axes.set_title(title)
    for number, (begin, end) in enumerate(read_again_soon):
        # Words at the interval would cover a curve.
        words = "_" if number else "read again soon"
        axes.axvspan(begin, end, color=LAYER_BY_NAME["anon"].hex, alpha=0.2, linewidth=0, label=words)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 0.98), ncols=len(flows) + 1)


def _rate_edges(begins: Floats, step_s: float) -> Floats:
    """Return the edges of at most `_MOST_RATES` intervals of whole rows, for which rates are drawn."""
    return np.append(begins[:: -(-len(begins) // _MOST_RATES)], begins[-1] + step_s)


def _rate(flow: Floats, edges: Floats, step_s: float) -> Floats:
    """Return the flow between the edges, per second."""
    firsts = np.rint((edges[:-1] - edges[0]) / step_s).astype(int)
    rate: Floats = np.add.reduceat(flow, firsts) / np.diff(edges)
    return rate


def _draw_waits(axes: Axes, timeline: pd.DataFrame, begins: Floats, step_s: float) -> None:
    """Draw the stacked waits of all tasks, and the stall time of memory.pressure."""
    waits, edges = stacked_ms(timeline), _rate_edges(begins, step_s)
    below = np.zeros(len(edges) - 1)
    for wait in WAITS:
        rate = _rate(floats(waits, wait.name), edges, step_s)
        if rate.any():
            axes.stairs(
                below + rate, edges, baseline=below, fill=True, label=wait.label, color=wait.hex, linewidth=0
            )
            below = below + rate
    for who, line in (("some", "-"), ("full", ":")):
        rate = _rate(psi_ms(timeline, who), edges, step_s)
        if np.isfinite(rate).any():
            axes.stairs(
                rate, edges, label=f"PSI {who}", color=_INK, linestyle=line, linewidth=1.3, baseline=None
            )
    axes.set_ylim(bottom=0)
    axes.set_ylabel("ms/s")
    axes.set_title("waits")
    axes.legend(
        loc="lower right", bbox_to_anchor=(1, 0.98), ncols=len(WAITS) + 2, columnspacing=1, handlelength=1.4
    )


def _draw_marker(panels: list[Axes], marker: Marker, second: float) -> None:
    for axes in panels:
        axes.axvline(
            second,
            color=_INK,
            linewidth=1.5 if marker.is_kill else 1.0,
            linestyle="-" if marker.is_kill else ":",
        )
    words = "✗ OOM kill" if marker.is_kill else "cache used up"
    panels[0].annotate(
        words,
        (second, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(4 if marker.is_kill else -4, -2),
        textcoords="offset points",
        ha="left" if marker.is_kill else "right",
        va="top",
        fontweight="bold" if marker.is_kill else "normal",
    )


def _for_page(svg: str, label: str) -> str:
    """Return the element alone, scalable, in the colours of the page, without references to other places."""
    svg = svg[svg.index("<svg ") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    head, body = svg.split(">", 1)
    view_box = re.search(r'viewBox="[^"]*"', head)
    assert view_box is not None
    body = body.replace("xlink:href=", "href=").replace(_INK, "currentColor")
    referenced = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in referenced else "", body)
    return f'<svg {view_box[0]} role="img" aria-label="{html.escape(label)}">{body}'
