from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from tracer.analysis.results.memory import COMPOSITION_PARTS
from tracer.render.picture.layers import BY_NAME, LAYERS, OF_COMPOSITION, PART_LABELS, stacked


def test_every_class_of_the_composition_has_a_layer_and_words() -> None:
    assert set(OF_COMPOSITION) == set(PART_LABELS) == set(COMPOSITION_PARTS)
    assert set(OF_COMPOSITION.values()) <= set(BY_NAME)


def test_layers_are_told_apart_without_and_with_colour() -> None:
    for key in ("glyph", "terminal", "hex"):
        assert len({getattr(layer, key) for layer in LAYERS}) == len(LAYERS)


def test_layers_add_up_to_usage(new_timeline: Callable[..., pd.DataFrame]) -> None:
    timeline = new_timeline(20)
    total = stacked(timeline).sum(axis=1).to_numpy()
    assert np.abs(total - timeline["usage_bytes"].to_numpy(float)).max() <= 4


def test_memory_in_no_counter_is_its_own_layer(timeline: pd.DataFrame) -> None:
    timeline["anon_bytes"] = pd.array([pd.NA] * len(timeline), dtype="Int64")
    layers = stacked(timeline)
    assert (layers["anon"] == 0).all()
    np.testing.assert_allclose(layers.sum(axis=1), timeline["usage_bytes"].to_numpy(float), atol=4)
    assert layers["other"].max() > 90 << 20


def test_dirty_memory_is_part_of_the_cache(timeline: pd.DataFrame) -> None:
    timeline["file_dirty_bytes"] = timeline["cache_bytes"] * 2
    layers = stacked(timeline)
    assert (layers["cache"] == 0).all()
    np.testing.assert_array_equal(layers["dirty"], timeline["cache_bytes"].to_numpy(float))
