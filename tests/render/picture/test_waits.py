from __future__ import annotations

import numpy as np
import pandas as pd

from tracer.analysis.views.stalls import STALLED
from tracer.categories import LAYERS
from tracer.render.picture.waits import WAITS, psi_ms, stacked_ms


def test_column_of_each_wait_is_in_the_timeline() -> None:
    assert [f"stalled_{wait.name}_ms" for wait in WAITS] == [*STALLED, "stalled_reread_ms"]


def test_waits_have_distinct_glyphs_and_colours() -> None:
    for key in ("glyph", "terminal", "hex", "label"):
        assert len({getattr(wait, key) for wait in WAITS}) == len(WAITS)
    assert {wait.glyph for wait in WAITS}.isdisjoint(layer.glyph for layer in LAYERS)


def test_throttled_waits_are_not_counted_twice(waiting: pd.DataFrame) -> None:
    stacked = stacked_ms(waiting)
    np.testing.assert_allclose(stacked["reclaim"] + stacked["throttled"], waiting["stalled_reclaim_ms"])
    assert stacked["throttled"].sum() > 0
    assert (stacked["high"] == 0).all()


def test_unread_pressure_is_nan(timeline: pd.DataFrame, waiting: pd.DataFrame) -> None:
    assert np.isnan(psi_ms(timeline, "some")).all()
    assert psi_ms(waiting, "full")[0] == 0
