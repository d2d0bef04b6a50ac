from __future__ import annotations

import json
import re
from collections.abc import Callable

import pandas as pd
import pytest

from tracer.analysis.results.kill import OomReport
from tracer.analysis.views.timeline import LEVELS
from tracer.render import picture
from tracer.render.page import chart
from tracer.render.page.chart import Chart, Panel, Stretch, View

PATH = re.compile(r"(M[0-9., ]+(L[0-9., ]+Z)?)*")


def view_of(timeline: pd.DataFrame, origin: pd.Timestamp, found: list[picture.Marker] | None = None) -> View:
    (view,) = chart.drawn(
        "1", "/a", [Stretch("all", timeline, found or [])], origin, is_kill=False, page_size=4096
    ).views
    return view


def panel(view: View, name: str) -> Panel:
    (found,) = [one for one in view.panels if one.name == name]
    return found


def labels(panel: Panel) -> list[str]:
    return [shape.label for shape in (*panel.areas, *panel.lines)]


def rows_of(view: View) -> list[dict[str, str]]:
    document = json.loads(view.rows)
    return [dict(zip(document["titles"], row, strict=True)) for row in document["rows"]]


@pytest.fixture
def drawn(timeline: pd.DataFrame, report: OomReport) -> Chart:
    found = picture.kill_markers([report], "/memcg-tracer-77-page-cache", timeline)
    assert report.time is not None
    stretches = [Stretch("the kill", timeline[30:], found), Stretch("all", timeline, found)]
    return chart.drawn("kill-1", "/a", stretches, report.time, is_kill=True, page_size=4096)


def test_chart_has_a_view_for_each_stretch_and_a_strip_of_the_longest(drawn: Chart) -> None:
    assert [view.words for view in drawn.views] == ["the kill", "all"]
    assert drawn.strip is not None
    assert drawn.strip.frames == (("75%", "25%"), ("0%", "100%"))
    assert "Usage over 4 s" in drawn.strip.words
    assert [mark.is_kill for mark in drawn.strip.marks] == [True]
    assert {layer.name for layer in drawn.layers} == {"anon", "kernel", "cache", "dirty", "other"}


def test_times_count_from_the_kill(drawn: Chart) -> None:
    assert [tick.label for tick in drawn.views[0].ticks] == [
        "−400 ms",
        "−200 ms",
        "kill",
        "+200 ms",
        "+400 ms",
    ]
    kill, used_up = sorted(drawn.views[0].marks, key=lambda mark: not mark.is_kill)
    assert (kill.words, used_up.words) == ("OOM kill", "cache used up")
    (tick,) = [tick for tick in drawn.views[0].ticks if tick.label == "kill"]
    assert float(tick.percent.rstrip("%")) == pytest.approx(float(kill.left.rstrip("%")), abs=0.01)
    assert "python3 (pid 123), anon 97 MiB" in kill.text


def test_paths_stay_in_their_panel(drawn: Chart) -> None:
    shapes = [shape for view in drawn.views for one in view.panels for shape in (*one.areas, *one.lines)]
    assert len(shapes) > 10
    for shape in shapes:
        assert PATH.fullmatch(shape.path), shape
        numbers = [float(number) for number in re.findall(r"[0-9.]+", shape.path)]
        assert min(numbers) >= 0 and max(numbers) <= 1000


def test_chart_of_the_same_rows_is_the_same(timeline: pd.DataFrame, origin: pd.Timestamp) -> None:
    assert view_of(timeline, origin) == view_of(timeline, origin)


def test_numbers_of_a_row_are_those_of_the_timeline(timeline: pd.DataFrame, origin: pd.Timestamp) -> None:
    view = view_of(timeline, origin)
    rows = rows_of(view)
    assert len(rows) == len(timeline) == 40
    row = rows[19]
    assert (row["time"], row["UTC"], row["limit"]) == ("2 s", "23:40:03.000", "100 MiB")
    assert (row["usage"], row["anon"], row["kernel"]) == ("100 MiB", "30.1 MiB", "1.5 MiB")
    assert row["cache evicted in 100 ms"] == row["reclaim freed in 100 ms"] == "4.9 MiB"
    assert row["cache added in 100 ms"] == "" and "to swap in 100 ms" not in row
    assert view.number_titles == (
        "time",
        "UTC",
        "usage",
        "limit",
        "clean cache",
        "dirty cache",
        "unnamed",
        "anon",
        "kernel",
    )
    assert len(view.numbers) <= 16 and view.numbers[-1][0] == "4 s"
    assert view.note == "One point is 100 ms."


def test_numbers_that_are_not_known_are_not_zero(timeline: pd.DataFrame, origin: pd.Timestamp) -> None:
    timeline["file_dirty_bytes"] = timeline["file_dirty_bytes"].mask(
        timeline.index < origin + pd.Timedelta("1s")
    )
    timeline["slab_bytes"] = timeline["slab_bytes"].mask(timeline["slab_bytes"] >= 0)
    timeline["limit_bytes"] = timeline["limit_bytes"].mask(timeline["limit_bytes"] >= 0)
    timeline.loc[timeline.index[10:], "is_limited"] = 0
    first, later = rows_of(view_of(timeline, origin))[5], rows_of(view_of(timeline, origin))[15]
    assert first["dirty cache"] == "not known" and first["clean cache"].startswith("at most ")
    assert first["kernel"] == "at least 512 KiB"
    assert (first["limit"], later["limit"]) == ("not known", "none")
    assert later["dirty cache"] == "8 MiB"


def test_chart_without_a_limit_and_with_gaps_is_drawn(timeline: pd.DataFrame, origin: pd.Timestamp) -> None:
    for column in timeline.columns[timeline.dtypes == "Int64"]:
        timeline[column] = timeline[column].astype("Int64").mask(timeline[column] >= 0)
    timeline["usage_bytes"] = pd.array([5 << 20] * len(timeline), dtype="Int64")
    view = view_of(timeline, origin)
    assert labels(panel(view, "memory")) == ["unnamed"]
    assert "read again (not known)" in labels(panel(view, "cache"))


@pytest.mark.parametrize(("high_mib", "is_drawn"), [(90, True), (1000, False)])
def test_chart_has_memory_high_if_usage_came_near_it(
    timeline: pd.DataFrame, origin: pd.Timestamp, high_mib: int, is_drawn: bool
) -> None:
    timeline["high_bytes"] = pd.array([high_mib << 20] * len(timeline), dtype="Int64")
    found = labels(panel(view_of(timeline, origin), "memory"))
    assert ("memory.high 90 MiB" in found) == is_drawn
    assert "limit 100 MiB" in found
    timeline.loc[timeline.index[10:], "limit_bytes"] = 80 << 20
    assert "limit" in labels(panel(view_of(timeline, origin), "memory"))


def test_labels_of_an_axis_have_one_unit(timeline: pd.DataFrame, origin: pd.Timestamp) -> None:
    timeline["reclaimed_bytes"], timeline["scanned_pages"] = 150 << 10, 0
    ticks = panel(view_of(timeline, origin), "reclaim").ticks
    assert [tick.label for tick in ticks] == ["0", "0.5 MiB/s", "1 MiB/s", "1.5 MiB/s"]
    assert ticks[0].percent == "100%"


def test_chart_of_an_empty_cgroup_is_drawn(timeline: pd.DataFrame, origin: pd.Timestamp) -> None:
    levels = [name for name in timeline.columns if name in {"usage_bytes", "file_dirty_bytes", *LEVELS}]
    timeline[levels] = timeline[levels] * 0
    view = view_of(timeline, origin)
    assert panel(view, "memory").areas == ()
    assert all(PATH.fullmatch(shape.path) for one in view.panels for shape in one.lines)


def test_swap_is_drawn_beside_reclaim(timeline: pd.DataFrame, origin: pd.Timestamp) -> None:
    assert labels(panel(view_of(timeline, origin), "reclaim")) == ["scanned", "freed"]
    timeline["swap_written_bytes"] = timeline["reclaimed_bytes"]
    assert labels(panel(view_of(timeline, origin), "reclaim")) == ["scanned", "freed", "written to swap"]


def test_waits_have_a_panel_if_there_are_any(
    timeline: pd.DataFrame, waiting: pd.DataFrame, origin: pd.Timestamp
) -> None:
    found = labels(panel(view_of(waiting, origin), "waits"))
    assert found == ["reclaim", "throttled", "dirty pages", "PSI some", "PSI full"]
    timeline["stalled_reclaim_ms"] = 0.0
    assert [one.name for one in view_of(timeline, origin).panels] == ["memory", "cache", "reclaim"]


def test_cache_read_again_soon_is_an_interval(timeline: pd.DataFrame, origin: pd.Timestamp) -> None:
    begin = origin + pd.Timedelta("1s")
    found = [picture.Marker(begin, "", is_kill=False, until=begin + pd.Timedelta("200ms"))]
    (mark,) = view_of(timeline, origin, found).marks
    assert (mark.left, mark.width, mark.words) == ("25%", "5%", "read again soon")


def test_marks_near_each_other_have_words_once(timeline: pd.DataFrame, origin: pd.Timestamp) -> None:
    times = [origin + pd.Timedelta(second, "s") for second in (0.1, 2.0, 2.5, 3.9)]
    found = [picture.Marker(time, str(number), is_kill=True) for number, time in enumerate(times)]
    (view,) = chart.drawn(
        "1", "/a", [Stretch("all", timeline, found)], times[2], is_kill=True, page_size=4096
    ).views
    assert {mark.text: mark.words for mark in view.marks} == {
        "0": "OOM kill",
        "1": "",
        "2": "OOM kill",
        "3": "OOM kill",
    }


@pytest.mark.parametrize("step_ms", [10, 100, 1000])
def test_rows_of_any_length_fill_the_chart(
    new_timeline: Callable[..., pd.DataFrame], origin: pd.Timestamp, step_ms: int
) -> None:
    view = view_of(new_timeline(step_ms), origin)
    assert view.ticks[0].percent == "0%" and view.ticks[-1].percent == "100%"
    (limit,) = panel(view, "memory").lines
    assert limit.path.endswith("1000,57")
