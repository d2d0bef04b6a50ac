"""The memory of each layer, for every picture. tracer/categories.py defines the layers."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd

from tracer.analysis.results.memory import Composition
from tracer.categories import LAYER_BY_NAME, LAYERS, PART_BY_NAME

COLUMNS: Final = {
    "anon": ("anon_bytes",),
    "shmem": ("shmem_bytes",),
    "kernel": ("slab_bytes", "kernel_stack_bytes", "page_tables_bytes", "kernel_other_bytes", "sock_bytes"),
    "dirty": ("file_dirty_bytes", "file_writeback_bytes"),
    "cache": ("cache_bytes",),
}
"""Layer -> the columns of a timeline that add up to it. The columns of `cache` include dirty cache. The layer
`other` has no column."""


def floats(frame: pd.DataFrame, column: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return a column as float64. An unknown value is NaN."""
    values: np.ndarray[Any, np.dtype[np.float64]] = frame[column].to_numpy(dtype="float64", na_value=np.nan)
    return values


def stacked(timeline: pd.DataFrame) -> pd.DataFrame:
    """Return the bytes of each layer (columns in the order of `LAYERS`) in each row of a timeline
    (`analysis.views.timeline`).

    An unknown column counts as 0. The layer `other` is the rest of usage: the memory of unknown columns, and
    memory that CPUs have charged in advance to their stocks.
    """
    layers = {
        layer: np.sum([np.nan_to_num(floats(timeline, name)) for name in names], axis=0).clip(0)
        for layer, names in COLUMNS.items()
    }
    layers["dirty"] = np.clip(layers["dirty"], 0, layers["cache"])
    layers["cache"] -= layers["dirty"]
    usage = np.nan_to_num(floats(timeline, "usage_bytes"))
    layers["other"] = np.clip(usage - sum(layers.values()), 0, None)
    return pd.DataFrame({layer.name: layers[layer.name] for layer in LAYERS}, index=timeline.index)


def stacked_composition(composition: Composition) -> list[int]:
    """Return the bytes of each layer at a kill, in the order of `LAYERS`. An unknown part counts as 0."""
    sizes = dict.fromkeys(LAYER_BY_NAME, 0)
    for part, value in composition.parts():
        sizes[PART_BY_NAME[part].layer] += max(value or 0, 0)
    return list(sizes.values())
