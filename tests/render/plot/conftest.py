"""Recorded traces to draw, without a display, and figures that are closed again."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import matplotlib
import pytest
from matplotlib import pyplot

import tracer
from tracer.render.plot.opened_trace import OpenedTrace

TRACES = Path(__file__).parents[3] / "traces"


@cache
def opened(name: str) -> OpenedTrace:
    return tracer.open(TRACES / name)


@pytest.fixture(autouse=True)
def without_display() -> Iterator[None]:
    matplotlib.use("Agg")
    yield
    pyplot.close("all")


@pytest.fixture
def trace() -> OpenedTrace:
    """Return the trace of the page-cache experiment."""
    return opened("page-cache")


@pytest.fixture
def thrash() -> OpenedTrace:
    """Return a trace without a kill, whose cache was read again."""
    return opened("thrash")


@pytest.fixture
def dirty() -> OpenedTrace:
    """Return the trace of a kill whose limit was full of dirty cache."""
    return opened("dirty")
