"""The layers of memory in every picture: one name, glyph and colour for each, in stacking order.

What cannot be given back stands at the bottom (at the left in the terminal) with dense glyphs; what reclaim
can take stands next to the limit with light ones. The colours are told apart with any common colour
blindness (the palette of Okabe and Ito) and on light and dark grounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from tracer.analysis.results.memory import Composition


@dataclass(frozen=True, slots=True)
class Layer:
    """`glyph` tells it apart without colour, `terminal` is its colour of 256, `hex` the same in a page."""

    name: str
    label: str
    glyph: str
    terminal: str
    hex: str
    meaning: str


LAYERS: Final = (
    Layer("kernel", "kernel", "▚", "color(178)", "#E69F00", "slab, stacks, page tables, sockets"),
    Layer("anon", "anon", "█", "color(166)", "#D55E00", "process memory with no file behind it"),
    Layer("shmem", "shmem", "▓", "color(175)", "#CC79A7", "tmpfs and shared memory, reclaimed only to swap"),
    Layer("other", "unnamed", "·", "color(245)", "#808080", "charged, but in no counter read"),
    Layer("dirty", "dirty cache", "▒", "color(32)", "#0072B2", "must be written back before it can go"),
    Layer("cache", "clean cache", "░", "color(74)", "#56B4E9", "file contents that can simply be dropped"),
)
BY_NAME: Final = {layer.name: layer for layer in LAYERS}

OF_COMPOSITION: Final = {
    "anon": "anon",
    "file_clean": "cache",
    "file_dirty": "dirty",
    "writeback": "dirty",
    "shmem": "shmem",
    "unevictable": "anon",
    "slab_reclaimable": "kernel",
    "slab_unreclaimable": "kernel",
    "kernel_stack": "kernel",
    "page_tables": "kernel",
    "sock": "kernel",
    "percpu": "kernel",
    "vmalloc": "kernel",
    "other": "other",
}
"""Class of `analysis.results.memory.Composition` -> the layer in whose colour it is drawn."""

PART_LABELS: Final = {
    "anon": ("anonymous memory", "heap and stack; only swap takes it"),
    "file_clean": ("clean page cache", "file contents, free to be dropped"),
    "file_dirty": ("dirty page cache", "must be written to disk first"),
    "writeback": ("under writeback", "being written to disk"),
    "shmem": ("shared memory (shmem)", "tmpfs, memfd; only swap takes it"),
    "unevictable": ("unevictable", "locked, or on ramfs: never reclaimed"),
    "slab_reclaimable": ("reclaimable slab", "kernel objects; unused ones can go"),
    "slab_unreclaimable": ("unreclaimable slab", "kernel objects in use"),
    "kernel_stack": ("kernel stacks", "one for each thread"),
    "page_tables": ("page tables", "the maps of the processes' memory"),
    "sock": ("socket buffers", "network data in flight"),
    "percpu": ("per-CPU memory", "kernel data with a copy for each CPU"),
    "vmalloc": ("vmalloc", "large kernel allocations"),
    "other": ("other", "in none of these counters"),
}
"""Class of `Composition` -> (label, what it is in a few words)."""


def floats(frame: pd.DataFrame, column: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A column as float64 with NaN where it is not known."""
    values: np.ndarray[Any, np.dtype[np.float64]] = frame[column].to_numpy(dtype="float64", na_value=np.nan)
    return values


def stacked(timeline: pd.DataFrame) -> pd.DataFrame:
    """Bytes of each layer (columns in the order of `LAYERS`) for each row of `analysis.views.timeline`.

    Unknown columns count as nothing; what is then missing of usage is the layer `other`, as is the memory
    charged in advance to a CPU's stock.
    """
    known = {
        name: np.nan_to_num(floats(timeline, name)) for name in timeline.columns if name.endswith("_bytes")
    }
    cache = known["cache_bytes"].clip(0)
    dirty = np.clip(known["file_dirty_bytes"] + known["file_writeback_bytes"], 0, cache)
    layers = {
        "anon": known["anon_bytes"],
        "shmem": known["shmem_bytes"],
        "kernel": known["slab_bytes"]
        + known["kernel_stack_bytes"]
        + known["page_tables_bytes"]
        + known["kernel_other_bytes"]
        + known["sock_bytes"],
        "dirty": dirty,
        "cache": cache - dirty,
    }
    layers = {name: np.clip(values, 0, None) for name, values in layers.items()}
    layers["other"] = np.clip(known["usage_bytes"] - sum(layers.values()), 0, None)
    return pd.DataFrame({layer.name: layers[layer.name] for layer in LAYERS}, index=timeline.index)


def stacked_composition(composition: Composition) -> list[int]:
    """Bytes of each layer, in the order of `LAYERS`, at a kill; unknown classes are nothing."""
    sizes = dict.fromkeys(BY_NAME, 0)
    for part, value in composition.parts():
        sizes[OF_COMPOSITION[part]] += max(value or 0, 0)
    return list(sizes.values())
