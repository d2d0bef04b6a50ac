"""The waterfall: its steps add up to the byte, and its bars are the steps."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.patches import Rectangle
from support.recorded import NAMES, TRACES

import tracer
from tracer.analysis.explain.kill_window import COLUMNS
from tracer.lab.experiments import EXPERIMENTS
from tracer.render.picture import stacked_layers
from tracer.render.plot import waterfall
from tracer.render.plot.opened_trace import OpenedTrace

KILLED = [name for name in NAMES if EXPERIMENTS[name].cause is not None]


def window_of(begin: Mapping[str, int | None], kill: Mapping[str, int | None]) -> pd.DataFrame:
    times = pd.DatetimeIndex(["2026-01-01T00:00:00Z", "2026-01-01T00:00:02Z"], name="time")
    columns = [name for name in COLUMNS if name.endswith("_bytes")]
    rows = [{name: row.get(name.removesuffix("_bytes"), 0) for name in columns} for row in (begin, kill)]
    return pd.DataFrame(rows, columns=columns, index=times).astype("Int64")


@pytest.mark.parametrize("name", KILLED)
def test_steps_of_recorded_kills_add_up_to_the_byte(name: str) -> None:
    trace = tracer.open(TRACES / name)
    for report in trace.explain(is_sized=False):
        rows = trace.kill_window(report.kill_id)
        begin, kill = waterfall.totals(rows)
        assert begin + sum(step.change_bytes for step in waterfall.steps(rows)) == kill
        assert kill == report.composition.total


sizes = st.one_of(st.none(), st.integers(0, 1 << 40))
rows = st.fixed_dictionaries(
    {
        name.removesuffix("_bytes"): sizes
        for name in COLUMNS
        if name.endswith("_bytes") and name != "limit_bytes"
    }
)


@given(rows, rows)
def test_steps_add_up_whatever_is_unknown_and_however_much_flowed(
    begin: dict[str, int | None], kill: dict[str, int | None]
) -> None:
    window = window_of(begin, kill)
    first, last = waterfall.totals(window)
    assert first + sum(step.change_bytes for step in waterfall.steps(window)) == last


def test_what_came_stands_before_what_went_and_small_changes_are_one() -> None:
    window = window_of(
        {"usage": 1000, "anon": 100, "cache": 900},
        {"usage": 1005, "anon": 1000, "cache": 5, "cache_added": 600, "cache_evicted": 1495},
    )
    steps = [
        (step.label.replace("\n", " "), step.layer, step.change_bytes) for step in waterfall.steps(window)
    ]
    assert steps == [
        ("anonymous", "anon", 900),
        ("page cache added", "cache", 600),
        ("page cache evicted", "cache", -1495),
    ]
    window = window_of({"usage": 1000, "anon": 1000}, {"usage": 1003, "anon": 1001, "shmem": 2})
    assert waterfall.steps(window) == [waterfall.Step("all else", "other", 3)]


def test_cache_that_went_round_many_times_is_one_step() -> None:
    flows = {"cache_added": 99_000, "cache_evicted": 99_800}
    window = window_of(
        {"usage": 1000, "cache": 900, "anon": 100}, {"usage": 1000, "cache": 100, "anon": 900} | flows
    )
    labels = [(step.label.replace("\n", " "), step.change_bytes) for step in waterfall.steps(window)]
    assert labels == [("anonymous", 800), ("page cache added less evicted", -800)]


def test_bars_are_the_layers_of_both_rows_and_the_steps_between(trace: OpenedTrace) -> None:
    axes = trace.plot.waterfall()
    window = trace.kill_window(1)
    steps, (begin, kill) = waterfall.steps(window), waterfall.totals(window)
    bars: dict[int, list[tuple[float, float]]] = {}
    for patch in axes.patches:
        assert isinstance(patch, Rectangle)
        middle = round(patch.get_x() + patch.get_width() / 2)
        bars.setdefault(middle, []).append((patch.get_y(), patch.get_height()))
    layers = stacked_layers(window)
    for position, row in ((0, 0), (len(steps) + 1, 1)):
        assert [height for _, height in bars[position] if height] == [
            size for size in layers.iloc[row].tolist() if size
        ]
    level = begin
    for position, step in enumerate(steps, start=1):
        assert bars[position] == [(level, step.change_bytes)]
        level += step.change_bytes
    assert level == kill == trace.explain()[0].composition.total
    shown = [text.get_text() for text in axes.texts]
    assert shown == ["+92.1 MiB", "+77 MiB", "−117 MiB", "+104 KiB", "47.8 MiB", "100 MiB"]
    labels = [label.get_text().replace("\n", " ") for label in axes.get_xticklabels()]
    assert labels == [
        *("1.18 s before the kill", "anonymous", "page cache added", "page cache evicted", "all else"),
        "at the kill",
    ]


def test_cache_that_became_dirty_has_the_colour_of_dirty_cache(dirty: OpenedTrace) -> None:
    (added,) = (step for step in waterfall.steps(dirty.kill_window(1)) if "added" in step.label)
    assert added.layer == "dirty"
