"""Frames: what is drawn at several widths, and that every line fits whatever is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from support.golden import compare
from synthetic.live_view_rows import HOSTILE, MIB, NOON_NS, machine_rows, row

from tracer.render.words.escape import visible
from tracer.top.details import Sheet
from tracer.top.feed import KILL, LIMIT, NOTHING, Decision
from tracer.top.frame import fit, render, table
from tracer.top.screen.cells import Line, Size
from tracer.top.view_state import HELP_LINES, Machine, Screen, ViewState, arranged, reduce

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
            limit_bytes=limit,
            limit_owner=f"/{text}",
            kill_s=kill_s,
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
        "text": (name,),
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
    assert "file contents that can simply be dropped" in last
    every = Size(80, 100)
    shown = text_of(render(state_of(every, "h"), every)).splitlines()[1:-1]
    assert len("\n".join(shown).rstrip().split("\n")) == HELP_LINES


def test_only_visible_rows_are_drawn() -> None:
    rows = tuple(row(number, None, f"/{number:05}", usage_bytes=number) for number in range(5000))
    size = Size(80, 24)
    state = fit(arranged(ViewState(rows=rows)), size)
    text = text_of(render(state, size))
    assert sum(f"/{number:05}"[1:] in text for number in range(5000)) == state.page


def test_bar_is_the_composition_as_a_share_of_the_limit() -> None:
    size = Size(80, 24)
    half = row(1, None, "/a", usage_bytes=60, limit_bytes=100, layers={"anon": 30, "cache": 30})
    text = text_of(render(fit(arranged(ViewState(rows=(half,))), size), size))
    assert "███░░░╌╌╌╌" in text


def test_starting_screen_shows_no_time_and_no_rows() -> None:
    size = Size(80, 10)
    text = text_of(render(fit(ViewState(message="starting ..."), size), size))
    assert "no cgroup yet" in text
    assert "00:00:00" not in text
