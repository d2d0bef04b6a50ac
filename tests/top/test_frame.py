"""Frames: what is drawn at several widths, and that every line fits whatever is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len
from support.golden import compare
from synthetic.live_view_rows import HOSTILE, MIB, NOON_NS, machine_rows, row

from tracer.quantities import TOP_COLUMNS
from tracer.render.words.escape import visible
from tracer.top.details import Sheet
from tracer.top.feed import KILL, LIMIT, NOTE, NOTHING, Decision
from tracer.top.frame import fit, render, table
from tracer.top.help_text import help_lines, meaning
from tracer.top.screen.cells import Line, Size, Span
from tracer.top.view_state import Machine, Screen, ViewState, arranged, reduce

GOLDEN = Path(__file__).parent / "golden"
FEED = (
    Decision(NOON_NS, LIMIT, "shop/web", "Usage hit the limit of 512 MiB 2,333 times within 117.3 ms."),
    Decision(NOON_NS, NOTHING, "shop/web", attempts=12, begin_ns=NOON_NS - 3_000_000_000),
    Decision(
        NOON_NS,
        KILL,
        "shop/web",
        "java (pid 7) asked for more memory and was killed: the cgroup /kubepods/web was at its limit of "
        f"512 MiB, 499 MiB of it anonymous memory. {HOSTILE}",
    ),
)
SHEETS = (
    Sheet(
        "memory", "the parts", ("PART", "BYTES", "MEANING"), (("anon", "1Mi", "heap"),), ends_in_words=True
    ),
    Sheet("files", "page cache", ("FILE", "ADDED"), ((HOSTILE, "1.0Mi"), ("/data/a", "900Ki"))),
    Sheet("reclaim", "attempts", ("BY PROCESS", "PID"), (), "no reclaim attempt"),
)


def state_of(size: Size, *keys: str) -> ViewState:
    machine = Machine(8192 * MIB, 6000 * MIB, 3 * MIB, 1024 * MIB, 78 * MIB, 0.8)
    state = ViewState(
        rows=machine_rows(), feed=FEED, kills=2, time_ns=NOON_NS, machine=machine, sheets=SHEETS
    )
    state = fit(arranged(state), size)
    for key in keys:
        state = fit(reduce(state, key), size)
        if state.screen == "cgroup" and not state.sheets:
            state = replace(state, sheets=SHEETS)
    return state


def text_of(lines: Sequence[Line]) -> str:
    return "".join("".join(span.text for span in line).rstrip() + "\n" for line in lines)


@pytest.mark.parametrize(
    ("columns", "lines", "keys"),
    [
        (60, 16, ()),
        (80, 24, ()),
        (120, 30, ("down", "down")),
        (200, 30, (" ",)),
        (80, 24, ("h",)),
        (80, 24, ("down", "enter", "right")),
        (80, 24, ("/", "w", "e")),
    ],
    ids=["60", "80", "120", "200-halted", "help", "cgroup", "filter"],
)
def test_frame_is_as_expected(
    columns: int, lines: int, keys: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    size = Size(columns, lines)
    name = f"frame-{request.node.callspec.id}.txt"
    compare(GOLDEN / name, text_of(render(state_of(size, *keys), size)), request.node.nodeid)


def test_table_for_a_pipe_has_all_rows(request: pytest.FixtureRequest) -> None:
    text = "".join(f"{line}\n" for line in table(state_of(Size(100, 5)), 100))
    compare(GOLDEN / "table-100.txt", text, request.node.nodeid)


NAMES = st.text(max_size=40) | st.just(HOSTILE)
NUMBERS = st.none() | st.integers(0, 1 << 62) | st.just(0)


@example([], "", 1, 8, "list")
@given(
    st.lists(
        st.tuples(NAMES, NUMBERS, NUMBERS, st.none() | st.floats(0, 1e9), st.integers(0, 9)), max_size=6
    ),
    NAMES,
    st.integers(1, 220),
    st.integers(1, 40),
    st.sampled_from(["list", "help", "text", "cgroup"]),
)
def test_every_line_is_as_wide_as_the_screen_and_printable(
    given_rows: list[tuple[str, int | None, int | None, float | None, int]],
    name: str,
    columns: int,
    lines: int,
    screen: Screen,
) -> None:
    rows = tuple(
        row(
            number,
            number - 1,
            f"/{text}",
            name=text,
            usage_bytes=usage,
            limit=limit,
            limit_owner=f"/{text}",
            left=kill_s,
            kills=kills,
            layers={"anon": usage or 0},
            usages=(usage, None),
        )
        for number, (text, usage, limit, kill_s, kills) in enumerate(given_rows)
    )
    sheets = (Sheet(name, name, (name, "N"), ((name, name),), name),)
    size = Size(columns, lines)
    feed = (Decision(NOON_NS, KILL, name, name),)
    shown = {
        "feed": feed,
        "sheets": sheets,
        "message": name,
        "text": ((Span(visible(name), "bold red"),),),
        "text_title": name,
        "screen": screen,
    }
    state = fit(arranged(replace(ViewState(rows=rows), **shown)), size)  # type: ignore[arg-type]
    frame = render(state, size)
    assert len(frame) == lines
    for line in frame:
        text = "".join(span.text for span in line)
        assert cell_len(text) == columns
        assert text == visible(text)


def test_help_can_be_scrolled_to_its_end() -> None:
    size = Size(80, 12)
    last = text_of(render(state_of(size, "h", "end"), size))
    assert "whose tasks EVICTED page cache of this cgroup" in last
    assert len(help_lines(80)) > len(help_lines(200))


@pytest.mark.parametrize("columns", range(60, 201))
def test_help_is_whole_at_every_width_and_explains_every_column(columns: int) -> None:
    lines = ["".join(span.text for span in line) for line in help_lines(columns)]
    assert max(map(cell_len, lines)) < columns
    words = " ".join(" ".join(lines).split())
    for quantity, column in TOP_COLUMNS:
        assert f"{column.head} {meaning(quantity)}" in words
    for title in ("CGROUP", "USAGE BEFORE", "ANON", "CHARGED", "ADDED", "DROPPED", "EXAMINED", "FREED NONE"):
        assert title in words
    assert "file contents that can simply be dropped" in words


@pytest.mark.parametrize("columns", range(60, 201))
@pytest.mark.parametrize("keys", [(), ("enter",), ("h",)], ids=["list", "cgroup", "help"])
def test_hints_are_whole_at_every_width(columns: int, keys: tuple[str, ...]) -> None:
    size = Size(columns, 24)
    foot = "".join(span.text for span in render(state_of(size, *keys), size)[-1]).rstrip()
    hints = "q quit|h help|Enter look into|x explain|/ filter|< > sort|w write a trace"
    hints += "|q back|left right other tables|up down scroll"
    rest = foot
    for hint in hints.split("|"):
        rest = rest.replace(f" {hint}", "")
    assert not rest.strip(), foot
    assert "x explain" in foot


@pytest.mark.parametrize("columns", [60, 70, 80, 120, 200])
def test_no_number_and_no_name_of_a_table_is_cut_off(columns: int) -> None:
    memory = Sheet(
        "memory",
        "the parts",
        ("PART", "BYTES", "SHARE", "MEANING"),
        (("reclaimable slab", "37.7Ki", "100%", f"words {'of many ' * 30}"), ("other", "9Ki", "1%", "none")),
        ends_in_words=True,
    )
    reclaim = Sheet(
        "reclaim",
        f"attempts {'and more ' * 12}at the end",
        ("BY PROCESS", "PID", "ATTEMPTS", "FREED NONE", "TIME", "EXAMINED", "FREED"),
        (("kworker/u8:2-fl", "4194304", "2,080", "1,999", "88.1 ms", "1023Mi", "1023Mi"),),
    )
    size = Size(columns, 24)
    state = replace(state_of(size, "enter"), sheets=(memory, reclaim))
    shown = text_of(render(fit(state, size), size))
    assert "reclaimable slab" in shown and "37.7Ki" in shown and "words of many" in shown
    assert "…" in shown or columns == 200
    shown = text_of(render(fit(replace(state, sheet=1), size), size))
    assert shown.count("1023Mi") == 2
    assert "at the end" in " ".join(shown.split())


def test_feed_shows_the_begin_of_what_it_has_no_room_for() -> None:
    size = Size(60, 16)  # three lines of decisions below a full list
    rows = tuple(row(number, None, f"/{number:05}", usage_bytes=number) for number in range(30))
    said = f"java (pid 7) was killed: {'many words ' * 30}"
    feed = (FEED[0], Decision(NOON_NS, KILL, "shop/web", said))
    state = fit(arranged(ViewState(rows=rows, feed=feed)), size)
    shown = [line.rstrip() for line in text_of(render(state, size)).splitlines()]
    assert shown[-4].startswith(" 12:00:00 shop/web: java (pid 7) was killed:")
    assert shown[-2].endswith("…")


def test_feed_cuts_no_sentence_while_the_list_has_empty_lines() -> None:
    size = Size(60, 24)  # six lines of decisions
    said = " ".join(f"word{number}" for number in range(60))
    decisions = (Decision(NOON_NS, KILL, "a", said), Decision(NOON_NS, LIMIT, "b", "the last one"))
    for cgroups in range(1, 30):
        rows = tuple(row(number, None, f"/{number:05}", usage_bytes=number) for number in range(cgroups))
        state = fit(arranged(ViewState(rows=rows, feed=decisions)), size)
        lines = text_of(render(state, size)).splitlines()
        feed = next(at for at, line in enumerate(lines) if "decisions ───" in line)
        assert lines[-2].endswith(" b: the last one")
        assert said in " ".join(" ".join(lines).split()) or all(lines[2:feed]), cgroups
        assert sum(line.lstrip("> ").startswith("000") for line in lines) == min(cgroups, state.page)


@pytest.mark.parametrize("columns", range(60, 120))
def test_feed_breaks_no_number_from_its_unit(columns: int) -> None:
    text = text_of(render(state_of(Size(columns, 40)), Size(columns, 40)))
    assert not [line for line in text.splitlines() if line[:1] == " " and line.endswith(" 512")]


def test_feed_breaks_no_path_at_a_hyphen() -> None:
    size = Size(60, 24)
    path = "/var/lib/memcg-tracer/a-trace-of-web"
    state = replace(state_of(size), feed=(Decision(NOON_NS, NOTE, "", f"the trace is complete: {path}"),))
    assert path in text_of(render(state, size))


def test_only_visible_rows_are_drawn() -> None:
    rows = tuple(row(number, None, f"/{number:05}", usage_bytes=number) for number in range(5000))
    size = Size(80, 24)
    state = fit(arranged(ViewState(rows=rows)), size)
    text = text_of(render(state, size))
    assert sum(f"/{number:05}"[1:] in text for number in range(5000)) == state.page
    assert f" rows 1 to {state.page} of 5,000; decisions ───" in text
    text = text_of(render(fit(reduce(state, "end"), size), size))
    assert f" rows {5001 - state.page:,} to 5,000 of 5,000; decisions ───" in text


def test_rows_that_are_all_in_view_are_not_counted_again() -> None:
    assert " decisions ───" in text_of(render(state_of(Size(80, 24)), Size(80, 24)))
    assert "rows" not in text_of(render(state_of(Size(80, 24)), Size(80, 24)))


def test_bar_is_the_composition_as_a_share_of_the_limit() -> None:
    size = Size(80, 24)
    half = row(1, None, "/a", usage_bytes=60, limit=100, layers={"anon": 30, "cache": 30})
    text = text_of(render(fit(arranged(ViewState(rows=(half,))), size), size))
    assert "███░░░╌╌╌╌" in text


def test_starting_screen_shows_no_time_and_no_rows() -> None:
    size = Size(80, 10)
    text = text_of(render(fit(ViewState(message="starting ..."), size), size))
    assert "no cgroup yet" in text
    assert "00:00:00" not in text
