"""What all pictures share: the style, axes of sizes in IEC units and of seconds, and names as plain text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from matplotlib import pyplot, rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import ScaledTranslation

from tracer import units
from tracer.render.words.escape import visible

INK: Final = "#24292f"
FAINT: Final = "#8c959f"
_STYLE: Final[dict[Any, Any]] = {
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "font.family": "sans-serif",
    "font.size": 10,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "path.simplify": False,
    "text.color": INK,
    "text.parse_math": False,
    "text.usetex": False,
    "xtick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.color": FAINT,
    "ytick.labelcolor": INK,
}
PLAIN: Final[dict[str, Any]] = {"parse_math": False, "usetex": False}
"""For a text with names: a `$` in it is a dollar. The style reaches only texts that are made inside of it,
and not the title and labels of Axes that a caller made."""


@contextmanager
def pictured(axes: Axes | None, width: float, height: float) -> Iterator[Axes]:
    """Give Axes to draw on, in the style of all pictures; new ones, of this size in inches, if None."""
    with rc_context(_STYLE):
        if axes is None:
            _, axes = pyplot.subplots(figsize=(width, height), layout="constrained")
        yield axes


class SizeLocator(MaxNLocator):
    """Ticks at round numbers of the IEC unit that suits the axis, whose data are bytes."""

    def tick_values(self, vmin: float, vmax: float) -> Any:
        """Return the positions of the ticks, in bytes."""
        unit, _ = units.scale_for(max(abs(vmin), abs(vmax)))
        return np.asarray(super().tick_values(vmin / unit, vmax / unit)) * unit


def as_sizes(axis: Axis) -> None:
    """Label an axis whose data are bytes: `20 MiB`."""
    axis.set_major_locator(SizeLocator(nbins=7, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: units.size(value)))


def as_seconds(axis: Axis, since: str) -> None:
    """Label an axis whose data are seconds since an event, which `since` names (unescaped)."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} s".replace("-", "\N{MINUS SIGN}")))
    axis.set_label_text(visible(since), **PLAIN)


def legend_below(axes: Axes, inches: float = 0.62) -> None:
    """Put the legend below the axes, by `inches`, in the order of a stack from the top."""
    handles, labels = axes.get_legend_handles_labels()
    below = ScaledTranslation(0, -inches, axes.figure.dpi_scale_trans)
    axes.legend(
        handles[::-1],
        labels[::-1],
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=axes.transAxes + below,
        ncols=max(len(labels), 1),
        columnspacing=1.2,
        handlelength=1.4,
    )


def signed(size_bytes: int) -> str:
    """Return `+92 MiB` or `−117 MiB`."""
    return ("+" if size_bytes >= 0 else "\N{MINUS SIGN}") + units.size(abs(size_bytes))
