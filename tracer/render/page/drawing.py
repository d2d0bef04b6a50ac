"""Curves and axes of a chart as texts of SVG attributes.

A panel is 1000 units wide and high. The page stretches it to its size on the screen. y grows downwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tracer.render.picture import Floats

UNITS: Final = 1000
_ROUND: Final = (1.0, 2.0, 2.5, 5.0, 10.0)
_SECONDS: Final = (
    *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200),
    *(86400 * days for days in (1, 2, 7, 14, 28)),
)
_MOST_TICKS: Final = 5


@dataclass(frozen=True, slots=True)
class Tick:
    """A label of an axis at `percent` of its length: from the left, or from the top."""

    percent: str
    label: str


def percent(share: float) -> str:
    """Return a share of the width or height of a panel as `37.5%`."""
    return f"{_short(100 * share, 3)}%"


def line(x: Floats, y: Floats) -> str:
    """Return the path through the points, with a gap where `y` is not known (NaN)."""
    pieces = []
    known = np.isfinite(y)
    for first, end in _runs(known):
        pieces.append("M" + _points(x[first:end], y[first:end]))
    return "".join(pieces)


def area(x: Floats, lower: Floats, upper: Floats) -> str:
    """Return the closed path between two curves over the same `x`."""
    return f"M{_points(x, upper)}L{_points(x[::-1], lower[::-1])}Z"


def stairs(edges: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Return the points of a curve that has each value from one edge to the next."""
    return np.repeat(edges, 2)[1:-1], np.repeat(values, 2)


def places(values: Floats, begin: float, end: float) -> Floats:
    """Return the places of values from `begin` to `end` on an axis of a panel, from the left."""
    return (values - begin) / (end - begin) * UNITS


def heights(values: Floats, top: float) -> Floats:
    """Return the places of values from 0 to `top` in a panel, from the top of the panel."""
    return UNITS - np.rint(values / top * UNITS)


def round_step(top: float) -> float:
    """Return the round distance of at most `_MOST_TICKS` labels from 0 to `top`."""
    wanted = top / _MOST_TICKS
    power = 10.0 ** math.floor(math.log10(wanted))
    return next(step * power for step in _ROUND if step * power >= wanted * (1 - 1e-9))


def round_seconds(span_s: float, most: int) -> float:
    """Return the round distance, in s, of at most `most` moments in `span_s`."""
    wanted = span_s / most
    if wanted > 1:
        return next((step for step in _SECONDS if step >= wanted), wanted)
    power = 10.0 ** math.floor(math.log10(wanted))
    return next(step * power for step in (1.0, 2.0, 5.0, 10.0) if step * power >= wanted * (1 - 1e-9))


def _points(x: Floats, y: Floats) -> str:
    """Return `x,y x,y` without the inner points of horizontal stretches."""
    is_corner = np.ones(len(y), dtype=bool)
    is_corner[1:-1] = (y[1:-1] != y[:-2]) | (y[1:-1] != y[2:])
    pairs = zip(x[is_corner].tolist(), y[is_corner].tolist(), strict=True)
    return " ".join(f"{_short(one)},{_short(other)}" for one, other in pairs)


def _runs(is_in: np.ndarray[Any, np.dtype[np.bool_]]) -> Iterator[tuple[int, int]]:
    """Yield (first, end) of each sequence of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_in, [False]]).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _short(value: float, digits: int = 1) -> str:
    text = f"{value:.{digits}f}".rstrip("0").rstrip(".")
    return "0" if text in ("", "-0") else text
