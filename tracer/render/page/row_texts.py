"""The numbers of a chart as texts: title of a column -> the text of each row of the timeline."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd

from tracer import units
from tracer.analysis.views.timeline import row_length
from tracer.categories import LAYERS
from tracer.render.picture import LAYER_COLUMNS, Floats, floats, stacked_layers, stacked_waits_ms

_MOST_NUMBERS: Final = 16
_FLOWS: Final = (
    ("cache added", "cache_added_bytes"),
    ("cache evicted", "cache_evicted_bytes"),
    ("read again", "cache_refaulted_bytes"),
    ("reclaim freed", "reclaimed_bytes"),
    ("to swap", "swap_written_bytes"),
    ("from swap", "swap_read_bytes"),
)


def levels(timeline: pd.DataFrame, times: list[str]) -> dict[str, list[str]]:
    """Return title of a column -> texts of the memory at the end of each row."""
    ends = pd.DatetimeIndex(timeline.index) + row_length(timeline)
    columns = {
        "time": times,
        "UTC": [f"{time:%H:%M:%S}.{time.microsecond // 1000:03}" for time in ends],
        "usage": _sizes(floats(timeline, "usage_bytes")),
        "limit": [
            "none" if limited is False else size
            for limited, size in zip(_limited(timeline), _sizes(floats(timeline, "limit_bytes")), strict=True)
        ],
    }
    layers = stacked_layers(timeline)
    for layer in reversed(LAYERS):
        if layers[layer.name].any():
            sizes = _sizes(layers[layer.name].to_numpy(dtype=np.float64))
            columns[layer.label] = [
                size if is_known else _bounded(size, layer.name)
                for size, is_known in zip(sizes, _is_known(timeline, layer.name), strict=True)
            ]
    return columns


def _is_known(timeline: pd.DataFrame, layer: str) -> list[bool]:
    """Return for each row whether all columns of the layer are known. Clean cache is known only if dirty
    cache is known."""
    names = (*LAYER_COLUMNS.get(layer, ()), *(LAYER_COLUMNS["dirty"] if layer == "cache" else ()))
    found: list[bool] = timeline[list(names)].notna().all(axis=1).tolist()
    return found


def _bounded(size: str, layer: str) -> str:
    """Return the size of a layer that has unknown parts."""
    if size == units.size(0):
        return units.UNKNOWN
    return f"at {'most' if layer == 'cache' else 'least'} {size}"


def flows(timeline: pd.DataFrame, page_size: int) -> dict[str, list[str]]:
    """Return title of a column (with the length of a row) -> texts of the flows within each row.

    A flow of 0 is an empty text.
    """
    row = units.duration(row_length(timeline).total_seconds())
    found = [(title, floats(timeline, name)) for title, name in _FLOWS]
    found.append(("reclaim scanned", floats(timeline, "scanned_pages") * page_size))
    columns = {
        f"{title} in {row}": ["" if size == units.size(0) else size for size in _sizes(flow)]
        for title, flow in found
        if np.nansum(flow)
    }
    waits = stacked_waits_ms(timeline).sum(axis=1).tolist()
    if any(waits):
        columns[f"waits of tasks in {row}"] = [units.duration(one / 1000) if one else "" for one in waits]
    return columns


def _limited(timeline: pd.DataFrame) -> list[Any]:
    return [None if pd.isna(one) else bool(one) for one in timeline["is_limited"]]


def _sizes(values: Floats) -> list[str]:
    return [units.size(None if np.isnan(value) else value) for value in values.tolist()]


def picked(rows: int) -> list[int]:
    """Return the positions of at most `_MOST_NUMBERS` evenly spaced rows, including the last row."""
    step = -(-rows // _MOST_NUMBERS)
    return list(range(rows - 1, -1, -step))[::-1]
