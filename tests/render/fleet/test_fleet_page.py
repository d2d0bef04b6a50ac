"""The page of a fleet: self-contained, and safe whatever the names are."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import get_args

import pandas as pd
import pytest

from tracer.analysis.results.kill import Cause
from tracer.fleet.reduction.fleet_answer import Fleet, KillCount, KillsOverTime
from tracer.fleet.reduction.partial_state import Broken
from tracer.render.fleet import fleet_page
from tracer.render.fleet.fleet_tables import MOST_ROWS_OF_PAGE
from tracer.render.page import page_frame

BEGIN = pd.Timestamp("2026-11-20 06:00", tz="UTC")
HOSTILE = "\x1b[31m<script>&\"'"


def share(percent: str) -> float:
    return float(percent.removesuffix("%"))


def test_each_cause_has_a_colour_of_its_own() -> None:
    names, colours = zip(*fleet_page.colours(), strict=True)
    assert len(set(names)) == len(set(colours)) == len(get_args(Cause))


def test_bars_are_to_the_scale_of_the_most_kills(fleet: Fleet) -> None:
    more = KillCount("shmem", "shop/web/app", "node-2", 5, BEGIN, BEGIN)
    found = fleet_page.by_workload(replace(fleet, kills=[*fleet.kills, more]))
    assert found is not None
    assert [(bar.label, bar.words) for bar in found.bars] == [("shop/web/app", "25"), ("postgres", "3")]
    widths = [[share(part.width) for part in bar.parts] for bar in found.bars]
    assert widths == [[80, 20], [12]]
    assert [part.left for part in found.bars[0].parts] == ["0%", "80%"]
    assert [words for _, words in found.keys] == ["anon_growth", "shmem"]
    assert found.bars[0].parts[1].name == found.bars[1].parts[0].name, "a cause has one colour"


def test_workloads_beyond_the_first_are_counted(fleet: Fleet) -> None:
    kills = [replace(fleet.kills[0], workload=f"w{number:02}", count=number + 1) for number in range(20)]
    found = fleet_page.by_workload(replace(fleet, kills=kills))
    assert found is not None
    assert len(found.bars) == 15 and found.bars[0].label == "w19"
    assert found.note == "5 workloads more: see the table."


def test_peaks_and_suggestions_are_to_the_scale_of_the_limit(fleet: Fleet) -> None:
    found = fleet_page.limits(fleet)
    assert found is not None
    bars = {bar.label: bar for bar in found.bars}
    assert list(bars) == ["shop/web/app", "postgres", "batch"], "new has no known peak, cron no limit"
    app = bars["shop/web/app"]
    ticks = {name: share(place) for name, place in app.ticks}
    parts = {part.name: share(part.width) for part in app.parts}
    assert ticks["better"] / ticks["limit"] == pytest.approx(310 / 256, rel=1e-3)
    assert parts["peak"] / ticks["limit"] == pytest.approx(190 / 256, rel=1e-3)
    assert parts["largest"] == ticks["limit"]
    assert {share(place) for bar in found.bars for name, place in bar.ticks if name == "limit"} == {
        ticks["limit"]
    }
    assert [bar.words for bar in found.bars] == [
        "256 MiB of 256 MiB; suggested 310 MiB",
        "1 GiB of 1 GiB; needs more than 1 GiB",
        "97 MiB of 2 GiB; suggested 120 MiB",
    ]


def test_columns_add_up_to_the_kills_of_their_time(fleet: Fleet) -> None:
    counts = {"shmem": (0, 2, 0, 1), "anon_growth": (1, 0, 0, 3)}
    seen = replace(fleet, kills_over_time=KillsOverTime(BEGIN, pd.Timedelta("1D"), counts))
    found = fleet_page.over_time(seen)
    assert found is not None
    assert [area.label for area in found.panel.areas] == ["anon_growth", "shmem"]
    upper = [float(y) for y in re.findall(r"[\d.]+,([\d.]+)", found.panel.areas[1].path.partition("L")[0])]
    heights = {round((1000 - y) / 1000 * 4 * 1.06) for y in upper}
    assert heights == {1, 2, 0, 4}
    assert [tick.label for tick in found.panel.ticks] == ["0", "1", "2", "3", "4"]
    assert found.ticks[0].label == "11-20"
    assert found.note == "One column is 24 h; times in UTC, from 2026-11-20 06:00."


def test_fleet_without_kills_and_limits_has_no_pictures(quiet: Fleet) -> None:
    assert fleet_page.over_time(quiet) is None
    assert fleet_page.by_workload(quiet) is None
    assert fleet_page.limits(quiet) is None
    assert "<svg" not in fleet_page.page(quiet)


def test_hostile_names_are_escaped(fleet: Fleet) -> None:
    kills = [replace(fleet.kills[0], workload=HOSTILE, cause=HOSTILE)]
    seen = KillsOverTime(BEGIN, pd.Timedelta("1D"), {HOSTILE: (1,)})
    workloads = [replace(fleet.workloads[0], workload=HOSTILE)]
    page = fleet_page.page(replace(fleet, kills=kills, workloads=workloads, kills_over_time=seen))
    assert page.count("<svg") >= 3
    assert "<script" not in page and "\x1b" not in page


FLEET_PAGE_HOSTILE = "\x1b[31m<script>alert(1)</script>\n&\"'\u202e"


class Read(HTMLParser):
    """A parser that collects the elements and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_has_all_tables_with_names_first(fleet: Fleet) -> None:
    page = fleet_page.page(fleet)
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert headings == [
        *("Kills by cause and workload", "SIGKILL by others than the OOM killer"),
        *("Limits", "Suggested limits, beside those of other rules"),
        *("Who evicts whom", "Hosts"),
        "Left out, because they cannot be read",
    ]
    titles = [re.findall("<th scope.*?>(.*?)</th>", row) for row in re.findall("<thead>.*</thead>", page)]
    assert [row[0] for row in titles] == ["workload", "sender", "workload", "workload", "by tasks of", "host"]
    assert page == fleet_page.page(fleet)


def test_answer_comes_before_what_a_narrow_screen_cuts(fleet: Fleet) -> None:
    page = fleet_page.page(fleet)
    kills, _, limits, *_ = re.findall("<thead>.*</thead>", page)
    assert re.findall("<th scope.*?>(.*?)</th>", kills)[:3] == ["workload", "kills", "cause"]
    assert re.findall("<th scope.*?>(.*?)</th>", limits)[:4] == ["workload", "kills", "limit", "suggested"]


def test_structure_serves_readers_who_do_not_see_the_page(fleet: Fleet) -> None:
    page = fleet_page.page(fleet)
    assert re.findall(r"<h([1-6])>", page) == ["1"] + ["2"] * 7
    tables = re.findall('<div class="wide"(.*?)>', page)
    assert len(tables) == page.count("<table") == 6
    assert all('tabindex="0" role="group" aria-label="' in attributes for attributes in tables)


def test_what_is_missing_is_a_warning(fleet: Fleet, quiet: Fleet) -> None:
    warnings = re.findall('<p class="warning">(.*?)</p>', fleet_page.page(fleet))
    assert [words.partition(":")[0] for words in warnings] == ["lost", "interrupted", "names", "left out"]
    assert 'class="warning"' not in fleet_page.page(quiet)


def test_table_without_rows_is_not_drawn(fleet: Fleet) -> None:
    page = fleet_page.page(replace(fleet, evictors=[fleet.evictors[1]]))
    _, section = page.split("<h2>Who evicts whom</h2>")
    assert "<table" not in section.partition("</section>")[0]
    assert "all by tasks of the workload" in section


def test_rows_that_would_make_a_browser_slow_are_counted(fleet: Fleet) -> None:
    hosts = [replace(fleet.hosts[0], host=f"node-{number}") for number in range(2345)]
    page = fleet_page.page(replace(fleet, hosts=hosts))
    assert page.count(">node-") == MOST_ROWS_OF_PAGE
    assert "1,845 more: memcg-tracer fleet --json lists them all." in page


def test_tile_of_limits_counts_exceeded_ones_and_says_if_nothing_is_known(fleet: Fleet, quiet: Fleet) -> None:
    assert '<dd class="value">2</dd><dd>and 1 too high, of 4</dd>' in fleet_page.page(fleet)
    assert "no workload with a limit was recorded" in fleet_page.page(quiet)
    unjudged = [one for one in fleet.workloads if one.workload == "new"]
    assert "too few runs ended without a kill" in fleet_page.page(replace(fleet, workloads=unjudged))


def test_page_of_a_quiet_fleet_has_only_what_there_is(quiet: Fleet) -> None:
    assert re.findall("<h2>(.*?)</h2>", fleet_page.page(quiet)) == ["Hosts"]


def test_page_runs_nothing_and_requests_nothing(fleet: Fleet) -> None:
    page = fleet_page.page(fleet)
    read = Read(page)
    assert not set(read.tags) & {"script", "link", "img", "iframe", "a"}
    assert not set(read.attributes) & {"src", "href", "style", "onclick"}
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', page)
    allowed = page_frame.source_hash(page_frame.style(fleet_page.colours()))
    assert policy == f"default-src 'none'; style-src '{allowed}'; base-uri 'none'; form-action 'none'"
    (style,) = re.findall("<style>(.*?)</style>", page, flags=re.DOTALL)
    assert page_frame.source_hash(style) == allowed


def test_names_are_text_and_nothing_else(fleet: Fleet) -> None:
    hostile = replace(
        fleet,
        broken=[Broken(FLEET_PAGE_HOSTILE, FLEET_PAGE_HOSTILE)],
        hosts=[replace(one, host=FLEET_PAGE_HOSTILE, machines=2) for one in fleet.hosts],
        kills=[
            replace(one, workload=FLEET_PAGE_HOSTILE, host=FLEET_PAGE_HOSTILE, cause=FLEET_PAGE_HOSTILE)
            for one in fleet.kills
        ],
        workloads=[replace(one, workload=FLEET_PAGE_HOSTILE) for one in fleet.workloads],
        evictors=[
            replace(one, owner_workload=FLEET_PAGE_HOSTILE, cause=FLEET_PAGE_HOSTILE)
            for one in fleet.evictors
        ],
    )
    page = fleet_page.page(hostile)
    read = Read(page)
    assert "script" not in read.tags
    assert not set(page) & {"\x1b", "\u202e"}
    assert r"\x1b[31m<script>alert(1)</script>\n" in read.text


def test_print_keeps_each_picture_whole_with_its_legend() -> None:
    style = page_frame.style(fleet_page.colours())
    printed = style[style.index("@media print") :]
    kept = re.findall(r"([^{}]+){ break-(inside|after): avoid; }", printed)
    rules = {where: [one.strip() for one in selectors.split(",")] for selectors, where in kept}
    assert {".picture", ".bars"} <= set(rules["inside"])
    assert {"h2", ".keys"} <= set(rules["after"])
