"""`t.plot`: every picture takes Axes and gives them back, and shows hostile names as plain text."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

import tracer
from tracer.render.plot.axes_style import INK, LIGHT_INK
from tracer.render.plot.opened_trace import OpenedTrace

TOP = Path(__file__).parents[3]
ALL = ("timeline", "cushion", "waterfall", "evictions")
HOSTILE = "\x1b[31m$\\frac{$x_1$\n<b>"
SHOWN = r"\x1b[31m$\frac{$x_1$\n<b>"


@pytest.mark.parametrize("name", ALL)
def test_picture_is_drawn_on_the_given_axes_and_else_on_its_own(trace: OpenedTrace, name: str) -> None:
    _, given = pyplot.subplots()
    draw = getattr(trace.plot, name)
    assert draw(ax=given) is given
    own = draw()
    assert isinstance(own, Axes)
    assert own.figure is not given.figure
    for axes in (given, own):
        assert axes.get_title(loc="left")
        out = io.BytesIO()
        figure = axes.figure
        assert isinstance(figure, Figure)
        figure.savefig(out, format="png")
        assert out.getvalue().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ALL)
def test_sizes_have_iec_units_and_times_are_seconds(trace: OpenedTrace, name: str) -> None:
    axes = getattr(trace.plot, name)()
    axes.figure.draw_without_rendering()
    across, up = ([label.get_text() for label in axis.get_ticklabels()] for axis in (axes.xaxis, axes.yaxis))
    sizes = across if name == "evictions" else up
    assert sizes[0] == "0 B" and all(size.endswith(" MiB") for size in sizes[1:])
    assert {"20 MiB"} <= set(sizes) or {"50 MiB"} <= set(sizes)
    if name in ("timeline", "cushion"):
        assert all(label.endswith(" s") for label in across) and "0 s" in across
        assert axes.get_xlabel() == "before and after the OOM kill of python (pid 32093)"


@pytest.mark.parametrize("name", ALL)
def test_hostile_names_are_shown_as_plain_text(name: str) -> None:
    trace = tracer.open(TOP / "traces/page-cache")
    trace.cgroups["path"] = "/" + HOSTILE
    trace.inodes["path"] = "/" + HOSTILE
    trace.oom["comm"] = HOSTILE
    _, given = pyplot.subplots()
    for axes in (getattr(trace.plot, name)(ax=given), getattr(trace.plot, name)()):
        axes.figure.draw_without_rendering()  # mathtext would raise
        texts = [text for text in axes.figure.findobj(Text) if "$" in text.get_text()]
        assert texts
        for text in texts:
            assert SHOWN in text.get_text()
            assert not text.get_parse_math() and not text.get_usetex()
        assert not any("\x1b" in text.get_text() for text in axes.figure.findobj(Text))


def contrast(first: Any, second: Any) -> float:
    """Return the contrast of two colours, as WCAG 2 defines it."""

    def luminance(colour: Any) -> float:
        parts = [
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)
        ]
        return float(0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2])

    darker, lighter = sorted(map(luminance, (first, second)))
    return (lighter + 0.05) / (darker + 0.05)


def title_of(axes: Axes) -> Text:
    (title,) = (text for text in axes.findobj(Text) if text.get_text() == axes.get_title(loc="left"))
    assert isinstance(title, Text)
    return title


@pytest.mark.parametrize("style", ["default", "dark_background", "Solarize_Light2", "ggplot"])
@pytest.mark.parametrize("name", ALL)
def test_texts_and_lines_can_be_read_in_every_style(trace: OpenedTrace, name: str, style: str) -> None:
    with pyplot.style.context(style):
        _, given = pyplot.subplots()
        for axes in (getattr(trace.plot, name)(ax=given), getattr(trace.plot, name)()):
            figure = axes.figure
            figure.draw_without_rendering()
            beside = [title_of(axes), *axes.get_legend().get_texts()]
            if axes is not given:  # the others are in the colours of the caller's style
                beside += [axes.xaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()]
            for texts, face in ((axes.texts, axes.get_facecolor()), (beside, figure.get_facecolor())):
                for text in texts:
                    assert contrast(text.get_color(), face) >= 4.5, text.get_text()
            for line in axes.lines:
                if line.get_label() == "limit":
                    assert contrast(line.get_color(), axes.get_facecolor()) >= 4.5


def test_dark_axes_of_a_light_figure_have_light_texts_and_a_dark_title(trace: OpenedTrace) -> None:
    _, given = pyplot.subplots(facecolor="white", subplot_kw={"facecolor": "#202020"})
    axes = trace.plot.timeline(ax=given)
    assert {text.get_color() for text in axes.texts} == {LIGHT_INK}
    assert title_of(axes).get_color() == INK


def test_kill_and_cgroup_that_are_not_there_are_refused(trace: OpenedTrace) -> None:
    for draw in (trace.plot.timeline, trace.plot.cushion, trace.plot.waterfall):
        with pytest.raises(tracer.UsageError, match="there is no kill 9"):
            draw(kill=9)
        with pytest.raises(tracer.TracerError, match="no cgroup in this trace fits 'elsewhere'"):
            draw("elsewhere")
        assert (
            draw("*lab-page-cache", kill=1)
            .get_title(loc="left")
            .endswith("/memcg-tracer-32091-lab-page-cache")
        )


def test_kill_chooses_among_several() -> None:
    trace = tracer.open(TOP / "traces/sharedbuffers")
    kills = {report.kill_id: report for report in trace.explain()}
    assert len(kills) == 3
    for kill_id, report in kills.items():
        label = trace.plot.timeline(kill=kill_id).get_xlabel()
        assert f"(pid {report.victims[0].pid})" in label
    assert trace.plot.timeline().get_xlabel() == label


def test_matplotlib_is_loaded_by_the_first_picture_alone() -> None:
    script = (
        "import sys, tracer; t = tracer.open('traces/page-cache'); t.explain();"
        "print('matplotlib' in sys.modules); t.plot; print('matplotlib' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=TOP, check=True, capture_output=True, text=True
    )
    assert found.stdout.split() == ["False", "True"]
