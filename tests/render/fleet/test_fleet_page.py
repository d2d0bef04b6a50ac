"""The page of a fleet: self-contained, and safe whatever the names are."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

from tracer.fleet.reduction.fleet_answer import Fleet
from tracer.fleet.reduction.partial_state import Broken
from tracer.render.fleet import fleet_page
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
        *("Kills by cause and workload", "Limits", "Suggested limits, beside those of other rules"),
        *("Who evicts whom", "Hosts"),
        "Left out, because they cannot be read",
    ]
    titles = [re.findall("<th scope.*?>(.*?)</th>", row)[0] for row in re.findall("<thead>.*</thead>", page)]
    assert titles == ["workload", "workload", "workload", "by tasks of", "host"]
    assert page == fleet_page.page(fleet)


def test_page_of_a_quiet_fleet_has_only_what_there_is(quiet: Fleet) -> None:
    assert re.findall("<h2>(.*?)</h2>", fleet_page.page(quiet)) == ["Hosts"]


def test_page_runs_nothing_and_requests_nothing(fleet: Fleet) -> None:
    page = fleet_page.page(fleet)
    read = Read(page)
    assert not set(read.tags) & {"script", "link", "img", "iframe", "a"}
    assert not set(read.attributes) & {"src", "href", "style", "onclick"}
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', page)
    allowed = page_frame.source_hash(page_frame.style())
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
