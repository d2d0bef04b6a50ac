"""The page of a fleet: self-contained, and safe whatever the names are."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

from tracer.fleet.reduction.fleet_answer import Fleet
from tracer.fleet.reduction.partial_state import Broken
from tracer.render.fleet import fleet_page, fleet_pictures
from tracer.render.fleet.fleet_tables import MOST_ROWS_OF_PAGE
from tracer.render.page import page_frame

HOSTILE = "\x1b[31m<script>alert(1)</script>\n&\"'\u202e"


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
    allowed = page_frame.source_hash(page_frame.style(fleet_pictures.colours()))
    assert policy == f"default-src 'none'; style-src '{allowed}'; base-uri 'none'; form-action 'none'"
    (style,) = re.findall("<style>(.*?)</style>", page, flags=re.DOTALL)
    assert page_frame.source_hash(style) == allowed


def test_names_are_text_and_nothing_else(fleet: Fleet) -> None:
    hostile = replace(
        fleet,
        broken=[Broken(HOSTILE, HOSTILE)],
        hosts=[replace(one, host=HOSTILE, machines=2) for one in fleet.hosts],
        kills=[replace(one, workload=HOSTILE, host=HOSTILE, cause=HOSTILE) for one in fleet.kills],
        workloads=[replace(one, workload=HOSTILE) for one in fleet.workloads],
        evictors=[replace(one, owner_workload=HOSTILE, cause=HOSTILE) for one in fleet.evictors],
    )
    page = fleet_page.page(hostile)
    read = Read(page)
    assert "script" not in read.tags
    assert not set(page) & {"\x1b", "\u202e"}
    assert r"\x1b[31m<script>alert(1)</script>\n" in read.text


def test_print_keeps_each_picture_whole_with_its_legend() -> None:
    style = page_frame.style(fleet_pictures.colours())
    printed = style[style.index("@media print") :]
    kept = re.findall(r"([^{}]+){ break-(inside|after): avoid; }", printed)
    rules = {where: [one.strip() for one in selectors.split(",")] for selectors, where in kept}
    assert {".picture", ".bars"} <= set(rules["inside"])
    assert {"h2", ".keys"} <= set(rules["after"])
