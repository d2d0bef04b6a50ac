from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
import pytest

from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.memory import Allocator
from tracer.analysis.results.survivor import Held
from tracer.analysis.views.timeline import LEVELS
from tracer.render.page import html, plots
from tracer.render.picture import markers

HOSTILE = "\x1b[31m<script>alert(1)</script>\n&\"'$x_1$"
VOID = {"meta", "br", "hr", "img", "input", "link"}
META = {
    "page_size": 4096,
    "host_name": HOSTILE,
    "architecture": "x86_64",
    "cpus": 2,
    "cgroup_version": 1,
    "kernel_release": "6.18.5",
    "command_line": ["memcg-tracer", "record", HOSTILE],
    "started": "2025-11-24T23:40:01+00:00",
    "ended": "2025-11-24T23:40:05+00:00",
    "end_reason": "command_ended",
    "tool_version": "0.1.0",
}


class WellFormed(HTMLParser):
    """A parser that asserts that all elements are closed in order, and collects the text and the links."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [str(value) for name, value in attrs if name in ("href", "src", "xlink:href", "action")]
        self.ids += [str(value) for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> ends nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(page: str) -> WellFormed:
    parser = WellFormed()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


@pytest.fixture
def svg(timeline: pd.DataFrame, origin: pd.Timestamp, report: OomReport) -> str:
    found = markers.kill_markers([report], "/memcg-tracer-77-page-cache", timeline)
    return plots.memory_over_time(timeline, origin, found, page_size=4096, salt="7")


def page(reports: list[OomReport], held: list[Held], svg: str, **changes: object) -> str:
    subject = html.Subject("traces/x", META, False, 0, [html.Picture(HOSTILE, HOSTILE, svg)], reports, held)
    return html.page(replace(subject, **changes))  # type: ignore[arg-type]


def test_page_is_well_formed_and_self_contained(report: OomReport, svg: str) -> None:
    text = page([report, replace(report, kill_id=2)], [], svg)
    found = parsed(text)
    assert found.tags.isdisjoint({"script", "link", "img", "iframe", "object"})
    assert all(link.startswith("#") for link in found.links)
    assert "://" not in text
    assert "@import" not in text and "@font-face" not in text
    assert len(found.ids) == len(set(found.ids))
    assert text.startswith("<!DOCTYPE html>")
    assert "default-src 'none'" in text


def test_page_has_the_facts_of_a_kill(report: OomReport, svg: str) -> None:
    shown = parsed(page([report], [], svg)).text
    assert report.verdict.summary in shown
    assert "97 MiB" in shown and "OOM kill" in shown and "seconds since the trace began" in shown
    assert shown.count("try_charge_memcg") == 1
    assert "unevictable: this kernel counts it inside anon" in shown
    assert "None" not in shown


def test_hostile_names_are_escaped_in_the_page(
    new_report: Callable[..., OomReport], new_held: Callable[..., Held], svg: str
) -> None:
    hostile = new_report(HOSTILE, HOSTILE)
    hostile = replace(hostile, trigger=replace(hostile.trigger, stack=(HOSTILE,), user_stack=(HOSTILE,)))
    for text in (page([hostile], [], svg), page([], [new_held(HOSTILE, HOSTILE)], svg)):
        found = parsed(text)
        assert "script" not in found.tags
        assert "\x1b" not in text
        assert r"\x1b[31m<script>alert(1)</script>\n&" in found.text


def test_page_of_the_same_trace_is_the_same(
    timeline: pd.DataFrame, origin: pd.Timestamp, report: OomReport, svg: str
) -> None:
    found = markers.kill_markers([report], "/memcg-tracer-77-page-cache", timeline)
    again = plots.memory_over_time(timeline, origin, found, page_size=4096, salt="7")
    assert page([report], [], svg) == page([report], [], again)


def test_pictures_in_one_page_share_no_ids(timeline: pd.DataFrame, origin: pd.Timestamp) -> None:
    pictures = [plots.memory_over_time(timeline, origin, [], page_size=4096, salt=salt) for salt in "12"]
    first, second = (set(re.findall(r' id="([^"]+)"', picture)) for picture in pictures)
    assert first and first.isdisjoint(second)


def test_picture_has_the_colours_of_the_page(svg: str) -> None:
    assert "currentColor" in svg and "#010203" not in svg
    assert re.match(r'<svg viewBox="[0-9. ]+" role="img" aria-label="[^"]+">', svg)


def test_picture_without_a_limit_and_with_gaps_is_well_formed(
    timeline: pd.DataFrame, origin: pd.Timestamp
) -> None:
    for column in timeline.columns[timeline.dtypes == "Int64"]:
        timeline[column] = timeline[column].astype("Int64").mask(timeline[column] >= 0)
    timeline["usage_bytes"] = pd.array([5 << 20] * len(timeline), dtype="Int64")
    svg = plots.memory_over_time(timeline, origin, [], page_size=4096, salt="1")
    parsed(svg)
    assert ">limit<" not in svg
    assert "read again (not known)" in svg


@pytest.mark.parametrize(("high_mib", "is_drawn"), [(90, True), (1000, False)])
def test_picture_has_memory_high_if_usage_came_near_it(
    timeline: pd.DataFrame, origin: pd.Timestamp, high_mib: int, is_drawn: bool
) -> None:
    timeline["high_bytes"] = pd.array([high_mib << 20] * len(timeline), dtype="Int64")
    svg = plots.memory_over_time(timeline, origin, [], page_size=4096, salt="1")
    assert (">memory.high<" in svg) == is_drawn
    assert ">limit<" in svg


def test_picture_of_an_empty_cgroup_is_well_formed(timeline: pd.DataFrame, origin: pd.Timestamp) -> None:
    levels = [name for name in timeline.columns if name in {"usage_bytes", "file_dirty_bytes", *LEVELS}]
    timeline[levels] = timeline[levels] * 0
    parsed(plots.memory_over_time(timeline, origin, [], page_size=4096, salt="1"))


def test_swap_writes_are_drawn_beside_reclaim(timeline: pd.DataFrame, origin: pd.Timestamp) -> None:
    assert ">written to swap<" not in plots.memory_over_time(timeline, origin, [], page_size=4096, salt="1")
    timeline["swap_written_bytes"] = timeline["reclaimed_bytes"]
    assert ">written to swap<" in plots.memory_over_time(timeline, origin, [], page_size=4096, salt="1")


def test_waits_have_a_panel_if_there_are_any(
    timeline: pd.DataFrame, waiting: pd.DataFrame, origin: pd.Timestamp
) -> None:
    svg = plots.memory_over_time(waiting, origin, [], page_size=4096, salt="1")
    for words in ("waits", "throttled", "dirty pages", "PSI some", "PSI full"):
        assert svg.count(f">{words}<") == 1
    assert ">swap-in<" not in svg
    timeline["stalled_reclaim_ms"] = 0.0
    assert ">waits<" not in plots.memory_over_time(timeline, origin, [], page_size=4096, salt="1")


def test_cache_read_again_soon_is_an_area_that_only_the_legend_names(
    timeline: pd.DataFrame, origin: pd.Timestamp
) -> None:
    begins = [origin + pd.Timedelta(second, "s") for second in (0.5, 3.5)]
    lasting = [
        markers.Marker(begin, "", is_kill=False, until=begin + pd.Timedelta("200ms")) for begin in begins
    ]
    svg, without = (
        plots.memory_over_time(timeline, origin, iter(some), page_size=4096, salt="1")
        for some in (lasting, ())
    )
    legend = svg[svg.index(">read again<") : svg.index(">reclaim<")]
    assert svg.count("read again soon") == legend.count("read again soon") == 1
    assert svg.count("opacity: 0.2") == without.count("opacity: 0.2") + 3  # two intervals, and the legend
    assert "used up" not in svg
    assert "read again soon" not in without


def test_loss_and_interruption_are_reported(report: OomReport, svg: str) -> None:
    shown = parsed(page([report], [], svg, lost=12, interrupted=True)).text
    assert "12 records were lost" in shown and "interrupted" in shown


def test_page_without_a_kill_has_the_survivors(held: Held, svg: str) -> None:
    shown = parsed(page([], [held], svg)).text
    assert "came within 1 MiB of its limit of 100 MiB" in shown
    grown = Allocator(41, "writer", 9 << 20, file_bytes=9 << 20)
    named = parsed(page([], [replace(held, allocators=(grown,))], svg)).text
    assert "writer (41)" in named and "9 MiB" in named
    assert "Kill" not in shown


def test_page_of_many_kills_explains_the_newest(
    new_report: Callable[..., OomReport], new_held: Callable[..., Held], svg: str
) -> None:
    kills = [replace(new_report(HOSTILE, HOSTILE), kill_id=number) for number in range(1, 1001)]
    text = page(kills, [], svg)
    shown = parsed(text).text
    assert text.count("<h2>Kill ") == 20
    assert text.index("<h2>Kill 1000</h2>") < text.index("<h2>Kill 981</h2>")
    assert "<td>801</td>" in text and "<td>800</td>" not in text
    assert "800 earlier kills: memcg-tracer explain TRACE --list" in shown
    assert "killed 1,000 times in 0 s, the same cause each time (anon_growth)" in shown
    assert "\x1b" not in text
    shown = parsed(page([], [new_held(f"/one-{number}") for number in range(60)], svg)).text
    assert "/one-49" in shown and "/one-50" not in shown and "10 more cgroups were traced" in shown
