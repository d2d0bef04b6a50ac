"""The kinds of waiting in every picture: a name, a glyph and a colour for each, in stacking order.

The colours are from the palette of `categories.LAYERS`. The glyphs are letters, because waits have their own
lane beside the bar of memory.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd

from tracer.categories import Layer
from tracer.render.picture.layers import floats

WAITS: Final = (
    Layer("reclaim", "reclaim", "r", "color(166)", "#D55E00", "tasks free memory themselves"),
    Layer("throttled", "throttled", "w", "color(74)", "#56B4E9", "in reclaim, mostly for writeback"),
    Layer("dirty", "dirty pages", "d", "color(32)", "#0072B2", "writers wait until more is written"),
    Layer("swap_in", "swap-in", "s", "color(175)", "#CC79A7", "swapped memory is read back"),
    Layer("high", "memory.high", "h", "color(178)", "#E69F00", "usage is above memory.high"),
    Layer("reread", "read again", "a", "color(36)", "#009E73", "files that had been evicted are read again"),
)


def stacked_ms(timeline: pd.DataFrame) -> pd.DataFrame:
    """Return the milliseconds of each wait (columns in the order of `WAITS`) for each row of a timeline.

    The times of all tasks are summed, so a sum can exceed the length of the row. Unknown times count as 0.
    """
    waited = {wait.name: np.nan_to_num(floats(timeline, f"stalled_{wait.name}_ms")) for wait in WAITS}
    waited["reclaim"] = np.clip(waited["reclaim"] - waited["throttled"], 0, None)
    return pd.DataFrame(waited, index=timeline.index)


def psi_ms(timeline: pd.DataFrame, level: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the milliseconds of level `some` or `full` of memory.pressure; NaN where it was not read."""
    return floats(timeline, f"psi_{level}_us") / 1000
