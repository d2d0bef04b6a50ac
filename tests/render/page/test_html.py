from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pandas as pd
import pytest
from support.contrast import contrast

from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.memory import (
    Allocator,
    CodeFrame,
    GrownCode,
    GrownProcess,
    MappedPart,
    ProcessMemory,
)
from tracer.analysis.results.sigkill import Party, Sigkill
from tracer.analysis.results.survivor import Held
from tracer.analysis.views.code_samples import SampledStack, growth_tree
from tracer.kernel.anatomy.mapping_kinds import KINDS
from tracer.render import picture
from tracer.render.page import chart, flame_graph, html, page_frame
from tracer.render.page.chart import Chart, Stretch
from tracer.render.page.flame_graph import FlameGraph
from tracer.render.words import survivor_facts

HOSTILE = "\x1b[31m<script>alert(1)</script>\n&\"'$x_1$"
RIGHT_TO_LEFT = "שלום-\u202eevil"
VOID = {"meta", "br", "hr", "img", "input", "link"}
HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
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
    """A parser that asserts that all elements are closed in order, and collects what tests look at.

    `text` is what a reader sees. `ran` and `styles` are the scripts and styles that a browser applies.
    """

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.ran: list[str] = []
        self.styles: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
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
        inside = self.open[-1] if self.open else ""
        if inside == "style":
            self.styles.append(data)
        elif inside == "script":
            self.ran += [data] if "type" not in self.tags[-1][1] else []
        else:
            self.text += data.replace("\u00a0", " ")

    def values_of(self, *names: str) -> list[str]:
        return [value for _, found in self.tags for name, value in found.items() if name in names]


def parsed(page: str) -> WellFormed:
    parser = WellFormed()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


@pytest.fixture
def drawn(timeline: pd.DataFrame, report: OomReport) -> Chart:
    found = picture.kill_markers([report], "/memcg-tracer-77-page-cache", timeline)
    assert report.time is not None
    stretches = [Stretch("the kill", timeline[20:], found), Stretch("all", timeline, found)]
    return chart.drawn("kill-1", "/a", stretches, report.time, is_kill=True, page_size=4096)


def page(reports: list[OomReport], held: list[Held], drawn: Chart, **changes: object) -> str:
    subject = html.Subject("traces/x", META, False, 0, reports, held, {1: drawn}, {None: drawn})
    return html.page(replace(subject, **changes))  # type: ignore[arg-type]


def test_page_is_well_formed_and_self_contained(report: OomReport, drawn: Chart) -> None:
    text = page([report, replace(report, kill_id=2)], [], drawn)
    found = parsed(text)
    assert {tag for tag, _ in found.tags}.isdisjoint({"link", "img", "iframe", "object", "base", "form"})
    ids = found.values_of("id")
    assert len(ids) == len(set(ids))
    links = found.values_of("href", "src", "xlink:href", "action")
    assert links and {link.removeprefix("#") for link in links} <= set(ids)
    assert "://" not in text.replace('"http://www.w3.org/2000/svg"', "")
    assert "@import" not in text and "@font-face" not in text
    assert text.startswith("<!DOCTYPE html>")


def test_policy_allows_this_style_and_this_script_and_nothing_else(report: OomReport, drawn: Chart) -> None:
    """Inline styles, event handlers and a script in a name are not run: the hashes do not fit them."""
    found = parsed(page([report], [], drawn))
    (policy,) = [value for value in found.values_of("content") if "default-src" in value]
    (style,), (script,) = found.styles, found.ran
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in (style, script)
    ]
    assert policy == (
        f"default-src 'none'; style-src {hashes[0]}; script-src {hashes[1]}; "
        "base-uri 'none'; form-action 'none'"
    )
    assert found.values_of("style") == []
    assert [name for _, names in found.tags for name in names if name.startswith("on")] == []
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|eval|innerHTML|import)\b", script)


def test_page_is_in_the_order_of_the_questions(report: OomReport, drawn: Chart) -> None:
    """The sentence, how often, the tiles, what to do, the chart, all kills, and then the rest, folded."""
    text = page([report, replace(report, kill_id=2)], [], drawn, charts_of_kills={2: drawn})
    order = (
        "<h1>",
        "killed twice",
        '<dl class="tiles">',
        "What to do",
        '<figure class="chart"',
        "<h2>All kills",
        "<details><summary><h3>Evidence",
    )
    body = text[text.index("<body>") :]
    assert [body.count(words) > 0 for words in order] == [True] * len(order)
    places = [body.index(words) for words in order]
    assert places == sorted(places)
    assert body.count('<dl class="tiles">') == 1
    opened = re.findall(r"<details open", body)
    assert opened == []


def test_structure_serves_readers_who_do_not_see_the_page(report: OomReport, drawn: Chart) -> None:
    found = parsed(page([report, replace(report, kill_id=2)], [], drawn))
    levels = [int(tag[1]) for tag, _ in found.tags if tag in HEADINGS]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    pictures = [names for tag, names in found.tags if names.get("role") in ("img", "group")]
    assert pictures and all(names.get("aria-label") for names in pictures)
    assert [names["lang"] for tag, names in found.tags if tag == "html"] == ["en"]
    tags = [tag for tag, _ in found.tags]
    assert tags.count("label") == tags.count("input") > 4
    assert tags.count("legend") == tags.count("fieldset") > 0
    assert tags.count("main") == 1
    assert all(names["scope"] for tag, names in found.tags if tag == "th")
    for _, names in found.tags:
        if "wide" in names.get("class", "").split():
            assert names.get("tabindex") == "0", "the keyboard cannot scroll it"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_of_text_have_enough_contrast(report: OomReport, drawn: Chart, scheme: str) -> None:
    """WCAG 2.2 asks for 4.5 to 1 for text, and for 3 to 1 for curves."""
    (style,) = parsed(page([report], [], drawn)).styles
    light, dark = re.findall(r":root \{(.*?)\}", style, flags=re.DOTALL)
    found = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", light))
    if scheme == "dark":
        found |= dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", dark))
    for ground in ("ground", "panel"):
        for ink in ("ink", "soft", "link", "alarm"):
            assert contrast(found[ink], found[ground]) >= 4.5, (ink, ground)
        for curve in ("added", "evicted", "again", "swapin"):
            assert contrast(found[curve], found[ground]) >= 3, (curve, ground)


def test_contrast_is_that_of_the_definition() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_labels_of_low_panels_do_not_touch_in_print(report: OomReport, drawn: Chart) -> None:
    """A panel has up to five labels, and is lower in print than on a screen."""
    (style,) = parsed(page([report], [], drawn)).styles
    printed = style[style.index("@media print") :]
    height = re.search(r"\.row svg \{ height: ([\d.]+)rem", printed)
    letters = re.search(r"\.axis text \{ font-size: (\d+)px", printed)
    assert height is not None and letters is not None
    assert int(letters[1]) <= float(height[1]) * 16 / 5


def test_names_keep_room_on_a_narrow_screen(report: OomReport, drawn: Chart) -> None:
    """`memory.high` needs 105 px, and the words beside a bar took all of the line but four letters."""
    (style,) = parsed(page([report], [], drawn)).styles
    narrow = style[style.index("@media (max-width: 40rem)") : style.index("@media print")]
    columns = dict(
        re.findall(r"^  (\S[^{]*?) \{[^}]*grid-template-columns: (\S+)", narrow, flags=re.MULTILINE)
    )
    assert float(columns["dl"].removesuffix("rem")) * 16 >= 105
    assert float(columns[".tiles > div"].removesuffix("rem")) * 16 >= 105
    assert columns[".bars"] == "minmax(50%,"


def test_print_shows_what_is_folded_in_the_light_colours(report: OomReport, drawn: Chart) -> None:
    found = parsed(page([report], [], drawn))
    (style,), (script,) = found.styles, found.ran
    assert "details::details-content { content-visibility: visible" in style[style.index("@media print") :]
    assert "beforeprint" in script and "afterprint" in script
    assert re.findall(r"@media ([^{]*prefers-color-scheme[^{]*) \{", style) == [
        "screen and (prefers-color-scheme: dark)"
    ]


def test_page_has_the_facts_of_a_kill(report: OomReport, drawn: Chart) -> None:
    shown = parsed(page([report], [], drawn)).text
    assert report.verdict.summary in shown
    assert "97 MiB" in shown and "OOM kill" in shown and "cache used up" in shown
    assert shown.count("try_charge_memcg") == 1
    assert "unevictable: this kernel counts it inside anon" in shown
    assert "None" not in shown


def test_page_breaks_no_number_from_its_unit(report: OomReport, held: Held, drawn: Chart) -> None:
    for text in (page([report], [], drawn), page([], [held], drawn)):
        visible_text = re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", text, flags=re.DOTALL)
        assert "\u00a0MiB" in visible_text
        assert re.findall(r".{20}\d (?:[KMGT]iB|B|ms|s|min|%)(?!\w).*", visible_text) == []


def test_command_that_is_copied_from_the_page_keeps_its_spaces() -> None:
    template = page_frame.environment().from_string("{{ words }}")
    shown = template.render(words="kill 3 at 5 MiB: memcg-tracer explain TRACE --kill 3 --json")
    assert shown == "kill\u00a03 at 5\u00a0MiB: memcg-tracer explain TRACE --kill 3 --json"


def mapped(name: str) -> ProcessMemory:
    """Return the memory of a process of this name, all of whose mappings have it as well."""
    parts = tuple(MappedPart(kind, name, 1, 1 << 20, None, 1 << 20, 0) for kind in KINDS)
    return ProcessMemory(7, name, pd.Timestamp("2025-11-24T23:40:01+00:00"), len(parts) << 20, 0, parts)


def test_hostile_names_are_escaped_in_the_page(
    new_report: Callable[..., OomReport], new_held: Callable[..., Held], drawn: Chart
) -> None:
    hostile = new_report(HOSTILE, HOSTILE)
    hostile = replace(hostile, trigger=replace(hostile.trigger, stack=(HOSTILE,), user_stack=(HOSTILE,)))
    owner = replace(hostile.limit_owner, pod=HOSTILE, namespace=HOSTILE, image=HOSTILE)
    hostile = replace(hostile, limit_owner=owner, mappings=(mapped(HOSTILE),))
    for text in (page([hostile], [], drawn), page([], [new_held(HOSTILE, HOSTILE)], drawn)):
        found = parsed(text)
        assert len(found.ran) == 1 and "alert" not in found.ran[0]
        assert "\x1b" not in text
        assert r"\x1b[31m<script>alert(1)</script>\n&" in found.text


CODE = GrownCode(
    share=0.7,
    share_error=0.06,
    bytes=7 << 20,
    of="anon",
    process=GrownProcess(41, HOSTILE, 1),
    language="python",
    mapping=None,
    frames=(CodeFrame("load", HOSTILE, 41, None), CodeFrame("main", None, None, "work")),
)


@pytest.fixture
def flame() -> FlameGraph:
    frames = (f"{HOSTILE} [work]", "main [work]")
    stacks = [SampledStack("/a", None, HOSTILE, 41, "anon", frames, (), 7 << 20)]
    graph = flame_graph.flame_graph(growth_tree(stacks), ("anon",), 1 << 20)
    assert graph is not None
    return graph


def test_code_that_grew_is_on_the_first_screen_and_in_a_graph(
    report: OomReport, held: Held, drawn: Chart, flame: FlameGraph
) -> None:
    """It stands before the first heading and outside all that is folded. Hostile names are escaped."""
    sampled = replace(report, code=(CODE,), code_sampled_share=1.0)
    shown = page([sampled], [], drawn, flames_of_kills={1: flame})
    found = parsed(shown)
    first_screen = shown[: shown.index("<h2>")]
    assert "70 ± 6 % in load" in first_screen.replace("\u00a0", " ") and "<details" not in first_screen
    assert shown.count("70\u00a0±\u00a06\u00a0% in load") == 1
    assert "The code that grew" in found.text
    blocks = [names for tag, names in found.tags if tag == "svg" and "y" in names]
    assert len(blocks) == len(flame.blocks) == 4
    assert "\x1b" not in shown and "<script>alert" not in shown
    assert r"\x1b[31m<script>alert(1)</script>" in found.text
    survived = page([], [replace(held, code=(CODE,), code_sampled_share=1.0)], drawn)
    assert "70\u00a0±\u00a06\u00a0% in load" in survived[: survived.index("<h2>")]
    assert "The code that grew" not in parsed(page([report], [], drawn)).text


def test_each_kill_and_the_foremost_survivor_have_a_graph(
    report: OomReport, held: Held, drawn: Chart, flame: FlameGraph
) -> None:
    """The graph of a kill after the first one is folded, at the end of what its section says first."""
    kills = [replace(report, kill_id=number) for number in (1, 2, 3)]
    shown = page(kills, [], drawn, flames_of_kills={3: flame, 1: flame})
    first, second, third = (shown.index(f'<section id="kill-{number}">') for number in (3, 2, 1))
    graphs = [found.start() for found in re.finditer('<figure class="flame">', shown)]
    assert len(graphs) == 2 and first < graphs[0] < second < third < graphs[1]
    assert "<details" not in shown[shown.rindex("<h2>", 0, graphs[0]) : graphs[0]]
    assert "<details><summary><h3>The code that grew</h3></summary>" in shown[third : graphs[1]]
    survivors = [replace(held, cgroup_id=number) for number in (7, 8)]
    lived = page([], survivors, drawn, flames_of_held={7: flame})
    assert lived.count('<figure class="flame">') == 1
    assert "<details" not in lived[: lived.index('<figure class="flame">')]
    parsed(shown), parsed(lived)


def test_names_from_right_to_left_change_the_order_of_nothing_else(
    new_report: Callable[..., OomReport], drawn: Chart
) -> None:
    text = page([new_report(RIGHT_TO_LEFT, f"/{RIGHT_TO_LEFT}")], [], drawn)
    assert "\u202e" not in text and r"\u202e" in text
    assert "\u2068שלום\u2069" in text
    assert "שלום" not in text.replace("\u2068שלום\u2069", "")


def test_page_of_the_same_trace_is_the_same(report: OomReport, drawn: Chart) -> None:
    assert page([report], [], drawn) == page([report], [], drawn)


def test_loss_and_interruption_are_reported(report: OomReport, drawn: Chart) -> None:
    shown = parsed(page([report], [], drawn, lost=12, interrupted=True)).text
    assert "12 records were lost" in shown and "interrupted" in shown


def test_page_without_a_chart_says_so(report: OomReport, held: Held, drawn: Chart) -> None:
    for text in (page([report], [], drawn, charts_of_kills={}), page([], [held], drawn, charts_of_held={})):
        assert "There is no chart" in parsed(text).text and "<figure" not in text


def test_page_without_a_kill_has_the_survivors(held: Held, drawn: Chart) -> None:
    text = page([], [held], drawn)
    shown = parsed(text).text
    assert "came within 1 MiB of its limit of 100 MiB" in shown
    assert (
        "Minimum limit: killed below 47 MiB; from 50 MiB, it survives, and reads 12 MiB to 14 MiB again; "
        "with 63 MiB, the same work reads (nearly) nothing again." in shown
    )
    assert text.count("<figure") == 1 and text.count("<details open") == 1
    grown = Allocator(41, "writer", 9 << 20, file_bytes=9 << 20)
    named = parsed(page([], [replace(held, allocators=(grown,))], drawn)).text
    assert "writer (41)" in named and "9 MiB" in named
    assert "Kill" not in shown


def test_page_of_a_trace_without_any_cgroup_is_well_formed(drawn: Chart) -> None:
    shown = parsed(page([], [], drawn)).text
    assert "No OOM kill" in shown and "limit" not in shown.replace("no cgroup of this trace has a limit", "")


def test_page_of_many_kills_explains_the_newest(
    new_report: Callable[..., OomReport], new_held: Callable[..., Held], drawn: Chart
) -> None:
    kills = [replace(new_report(HOSTILE, HOSTILE), kill_id=number) for number in range(1, 1001)]
    charts = {number: replace(drawn, key=f"kill-{number}") for number in range(981, 1001)}
    text = page(kills, [], drawn, charts_of_kills=charts)
    found = parsed(text)
    assert text.count("<h2>Kill ") == text.count('<figure class="chart"') == 20
    assert text.index("<h2>Kill 1000:") < text.index("<h2>Kill 981:")
    targets = [link for link in found.values_of("href") if re.fullmatch("#kill-[0-9]+", link)]
    assert targets == [f"#kill-{number}" for number in range(1000, 980, -1)]
    assert {link.removeprefix("#") for link in targets} <= set(found.values_of("id"))
    assert ">801<" in text and ">800<" not in text
    assert "800 earlier kills: memcg-tracer explain TRACE --list" in found.text
    assert "killed 1,000 times in 0 s, the same cause each time (anon_growth)" in found.text
    assert "\x1b" not in text
    shown = parsed(page([], [new_held(f"/one-{number}") for number in range(60)], drawn)).text
    assert "/one-49" in shown and "/one-50" not in shown and "10 more cgroups were traced" in shown


STOP = Sigkill(
    pd.Timestamp("2025-11-24T23:40:03Z"),
    Party(7, HOSTILE, "/docker/1", HOSTILE),
    Party(9, "runc", "/system.slice"),
    (Party(4, HOSTILE),),
    *("pidfd", 10.0, 30 << 20, 100 << 20),
)


def test_newest_sigkill_is_the_headline_of_a_page_without_an_oom_kill(held: Held, drawn: Chart) -> None:
    """One sentence needs no list. Hostile names are escaped."""
    shown = page([], [held], drawn, sigkills=[STOP])
    found = parsed(shown)
    (headline,) = re.findall(r"<h1>(.*?)</h1>", shown)
    assert headline.startswith("Not an OOM kill: runc (pid\u00a09), child of ")
    assert "10\u00a0s after SIGTERM: a stop that took too long." in headline
    assert f"<p>{survivor_facts.summary([held])}" in shown.replace("\u00a0", " ")
    assert "\x1b" not in shown and len(found.ran) == 1
    assert "#sigkills" not in found.values_of("href")
    before = replace(STOP, target=Party(6, "before"))
    found = parsed(page([], [held], drawn, sigkills=[before, STOP]))
    assert "1 more process was ended by SIGKILL before that: listed below." in found.text
    assert "#sigkills" in found.values_of("href") and "sigkills" in found.values_of("id")
    assert found.text.count("sent SIGKILL to before (pid 6)") == 1


def test_sigkills_beside_oom_kills_are_counted_below_the_headline_and_listed(
    report: OomReport, drawn: Chart
) -> None:
    many = [replace(STOP, target=Party(number, "job")) for number in range(100, 153)]
    found = parsed(page([report], [], drawn, sigkills=many))
    header, _, rest = found.text.partition(
        "SIGKILL of others ended 53 more processes (runc 53): listed below."
    )
    assert report.verdict.summary in header
    assert "#sigkills" in found.values_of("href")
    assert [number for number in range(100, 153) if f"to job (pid {number})" in rest] == [*range(103, 153)]
    assert "3 more processes were ended by SIGKILL before that: memcg-tracer explain TRACE --json" in rest
    assert "SIGKILL" not in parsed(page([report], [], drawn)).text
