"""What tasks waited for, in every picture: one name, glyph and colour for each kind, in stacking order.

The colours are those of `layers`, the glyphs letters: a wait stands in a lane of its own, never in the bar of
memory.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd

from tracer.categories import Layer
from tracer.render.picture.layers import floats

WAITS: Final = (
    Layer("reclaim", "reclaim", "r", "color(166)", "#D55E00", "tasks free memory before they get any"),
    Layer("throttled", "held in reclaim", "w", "color(74)", "#56B4E9", "for writeback, mostly"),
    Layer("dirty", "dirty pages", "d", "color(32)", "#0072B2", "writers, until more has been written"),
    Layer("swap_in", "swap-in", "s", "color(175)", "#CC79A7", "for what was swapped out"),
    Layer("high", "memory.high", "h", "color(178)", "#E69F00", "above memory.high"),
)


def stacked_ms(timeline: pd.DataFrame) -> pd.DataFrame:
    """Milliseconds of each wait (columns in the order of `WAITS`) in each row of `analysis.views.timeline`.

    Tasks are added up, so that it can be more than the row is long. What is not known counts as nothing.
    """
    waited = {wait.name: np.nan_to_num(floats(timeline, f"stalled_{wait.name}_ms")) for wait in WAITS}
    waited["reclaim"] = np.clip(waited["reclaim"] - waited["throttled"], 0, None)
    return pd.DataFrame(waited, index=timeline.index)


def psi_ms(timeline: pd.DataFrame, who: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Milliseconds in which `some` or `full` stalled, by memory.pressure; NaN where it was not read."""
    return floats(timeline, f"psi_{who}_us") / 1000
