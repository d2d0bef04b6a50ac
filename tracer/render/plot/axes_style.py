"""The common parts of all pictures: the style, axes of IEC sizes and of seconds, and names as plain text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from matplotlib import pyplot, rc_context, rcParams
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgba
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import ScaledTranslation

from tracer import units
from tracer.render.words.escape import visible

INK: Final = "#24292f"
LIGHT_INK: Final = "#e6edf3"
FAINT: Final = "#8c959f"
_WEIGHTS: Final = np.array([0.2126, 0.7152, 0.0722])
_DARK: Final = 0.5
_STYLE: Final[dict[Any, Any]] = {
    "axes.edgecolor": FAINT,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "font.family": "sans-serif",
    "font.size": 10,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "path.simplify": False,
    "text.parse_math": False,
    "text.usetex": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
}
_AROUND: Final = (
    *("axes.labelcolor", "axes.titlecolor", "legend.labelcolor"),
    *("xtick.labelcolor", "ytick.labelcolor"),
)
"""The settings for the colours of texts that are beside the Axes, not on them."""
PLAIN: Final[dict[str, Any]] = {"parse_math": False, "usetex": False}
"""Settings for a text with names: a `$` in it is a dollar. The style applies only to texts that are made
while it is active, and not to the title and labels of a caller's Axes."""


_WIDTH: Final = 9.0


@contextmanager
def pictured(axes: Axes | None, height: float) -> Iterator[Axes]:
    """Yield Axes to draw on, in the style of all pictures. If `axes` is None, they are new, of this height in
    inches.

    Texts are light if the caller's style makes the Axes or the figure dark.
    """
    if axes is None:
        figure, face = [rcParams["figure.facecolor"]], rcParams["axes.facecolor"]
    else:
        figure, face = [axes.figure.figure.get_facecolor(), axes.figure.get_facecolor()], axes.get_facecolor()
    around = dict.fromkeys(_AROUND, _ink_on(*figure))
    with rc_context(_STYLE | around | {"text.color": _ink_on(*figure, face)}):
        if axes is None:
            _, axes = pyplot.subplots(figsize=(_WIDTH, height), layout="constrained")
        yield axes


def _ink_on(*faces: Any) -> str:
    """Return the colour of texts on a stack of faces. Each face covers the faces before it."""
    shown = np.ones(3)  # the background of a transparent figure is most often white
    for face in faces:
        *colour, alpha = to_rgba(face)
        shown = np.array(colour) * alpha + shown * (1 - alpha)
    return LIGHT_INK if shown @ _WEIGHTS < _DARK else INK


def ink() -> str:
    """Return the colour of lines and texts on the Axes. Call it inside of `pictured`."""
    colour: str = rcParams["text.color"]
    return colour


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
    """Put the legend `inches` below the axes, in the order of a stack from the top."""
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


def note_top(axes: Axes, words: str, height: float = 0.97) -> None:
    """Write plain words at the left of the axes, with their top at this share of the axes' height."""
    axes.text(0.012, height, words, transform=axes.transAxes, va="top", fontsize=9)


def signed(size_bytes: int) -> str:
    """Return `+92 MiB` or `−117 MiB`."""
    return ("+" if size_bytes >= 0 else "\N{MINUS SIGN}") + units.size(abs(size_bytes))
