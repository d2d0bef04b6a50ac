from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from tracer.render.picture.layers import stacked


def test_stacked_timeline_of_known_counters_adds_up_to_usage(
    new_timeline: Callable[..., pd.DataFrame],
) -> None:
    timeline = new_timeline(20)
    total = stacked(timeline).sum(axis=1).to_numpy()
    assert np.abs(total - timeline["usage_bytes"].to_numpy(float)).max() <= 4


def test_stacked_timeline_without_a_counter_has_the_rest_as_other(timeline: pd.DataFrame) -> None:
    timeline["anon_bytes"] = pd.array([pd.NA] * len(timeline), dtype="Int64")
    layers = stacked(timeline)
    assert (layers["anon"] == 0).all()
    np.testing.assert_allclose(layers.sum(axis=1), timeline["usage_bytes"].to_numpy(float), atol=4)
    assert layers["other"].max() > 90 << 20


def test_stacked_timeline_with_more_dirty_than_cache_has_no_clean_cache(timeline: pd.DataFrame) -> None:
    timeline["file_dirty_bytes"] = timeline["cache_bytes"] * 2
    layers = stacked(timeline)
    assert (layers["cache"] == 0).all()
    np.testing.assert_array_equal(layers["dirty"], timeline["cache_bytes"].to_numpy(float))
