"""The state: what each key does, and that no series of keys breaks it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic.live_view_rows import machine_rows, row

from tracer.quantities import SORT_KEYS
from tracer.top.details import CODE, FILES, Sheet
from tracer.top.live_row import LiveRow
from tracer.top.view_state import (
    EXPLAIN,
    INTERVALS_S,
    QUIT,
    READ,
    REDRAW,
    WRITE,
    Placed,
    ViewState,
    arrange,
    arranged,
    lines_of,
    reduce,
)


@st.composite
def forests(draw: st.DrawFn) -> list[LiveRow]:
    """Draw rows whose parents may be missing, themselves, or in a circle."""
    count = draw(st.integers(0, 12))
    parents = st.none() | st.integers(0, count)
    usages = st.none() | st.integers(0, 5)
    return [
        row(number, draw(parents), f"/{number}", usage_bytes=draw(usages), left=draw(usages))
        for number in range(count)
    ]


def names(placed: tuple[Placed, ...]) -> list[str]:
    return [" " * one.depth + one.row.path for one in placed if one.row.cgroup_id != 4]


def test_tree_has_the_largest_sibling_first() -> None:
    assert names(arrange(machine_rows(), sort="usage")) == ["/kubepods", " /kubepods/db", " /kubepods/web"]


def test_tree_in_reverse_keeps_parents_above_their_children() -> None:
    placed = arrange(machine_rows(), sort="usage", is_reversed=True)
    assert names(placed) == ["/kubepods", " /kubepods/web", " /kubepods/db"]


def test_unknown_numbers_come_last_in_either_order() -> None:
    for is_reversed in (False, True):
        placed = arrange(machine_rows(), sort="usage", is_reversed=is_reversed, is_tree=False)
        assert placed[-1].row.cgroup_id == 4


def test_nearest_kill_comes_first() -> None:
    rows = (row(1, None, "/late", left=40.0), row(2, None, "/never"), row(3, None, "/soon", left=2.0))
    placed = arrange(rows, sort="left", is_tree=False)
    assert [one.row.path for one in placed] == ["/soon", "/late", "/never"]


def test_branch_with_the_nearest_kill_comes_first_with_all_above_it() -> None:
    rows = (
        row(1, None, "/big", usage_bytes=9),
        row(2, None, "/pods", usage_bytes=8),
        row(3, 2, "/pods/a", usage_bytes=7),
        row(4, 2, "/pods/z", usage_bytes=1),
        row(5, 4, "/pods/z/job", usage_bytes=1, left=1.0),
        row(6, 1, "/big/slow", usage_bytes=9, left=30.0),
    )
    soonest = ["/pods", " /pods/z", "  /pods/z/job", " /pods/a", "/big", " /big/slow"]
    assert [" " * one.depth + one.row.path for one in arrange(rows, sort="left")] == soonest
    assert names(arrange(rows, sort="usage", folded={1, 2})) == ["/big", "/pods"]
    assert names(arrange(rows, sort="left", folded={1, 2})) == ["/pods", "/big"]
    assert [one.row.path for one in arrange(rows, sort="name")][:2] == ["/big", "/big/slow"]


@given(forests(), st.sampled_from(SORT_KEYS), st.booleans())
def test_first_row_of_the_list_is_in_the_first_branch_of_the_tree(
    rows: list[LiveRow], sort: str, is_reversed: bool
) -> None:
    tree = arrange(rows, sort=sort, is_reversed=is_reversed)
    best = arrange(rows, sort=sort, is_reversed=is_reversed, is_tree=False)[:1]
    if not best or best[0].row.number(sort) is None or best[0].row not in [one.row for one in tree]:
        return
    branch = next((at for at, one in enumerate(tree) if at and not one.depth), len(tree))
    assert best[0].row in [one.row for one in tree[:branch]]


def test_words_keep_what_is_above_the_match() -> None:
    assert names(arrange(machine_rows(), sort="name", words="WEB")) == ["/kubepods", " /kubepods/web"]
    assert names(arrange(machine_rows(), sort="name", words="web", is_tree=False)) == ["/kubepods/web"]


def test_folded_cgroups_hide_what_is_below() -> None:
    placed = arrange(machine_rows(), sort="usage", folded={1})
    assert [(one.row.cgroup_id, one.is_folded) for one in placed] == [(1, True), (4, None)]


@given(forests(), st.sampled_from(SORT_KEYS), st.booleans(), st.booleans())
def test_each_row_is_shown_at_most_once_and_below_its_parent(
    rows: list[LiveRow], sort: str, is_reversed: bool, is_tree: bool
) -> None:
    placed = arrange(rows, sort=sort, is_reversed=is_reversed, is_tree=is_tree)
    ids = [one.row.cgroup_id for one in placed]
    assert len(ids) == len(set(ids))
    if not is_tree:
        assert sorted(ids) == sorted(row.cgroup_id for row in rows)
    for at, one in enumerate(placed):
        if one.depth:
            above = next(before for before in reversed(placed[:at]) if before.depth == one.depth - 1)
            assert above.row.cgroup_id == one.row.parent_id


@given(forests())
def test_tree_loses_only_rows_of_a_circle(rows: list[LiveRow]) -> None:
    parents = {row.cgroup_id: row.parent_id for row in rows}

    def is_in_a_circle(number: int) -> bool:
        seen = set[int]()
        at: int | None = number
        while at is not None and at in parents and parents[at] != at:
            if at in seen:
                return True
            seen.add(at)
            at = parents[at]
        return False

    shown = {one.row.cgroup_id for one in arrange(rows, sort="usage")}
    assert shown == {row.cgroup_id for row in rows if not is_in_a_circle(row.cgroup_id)}


SHEET = Sheet("files", "", ("FILE", "ADDED"), tuple((f"/{number}", "1Mi") for number in range(50)))


def begun(**changes: object) -> ViewState:
    return arranged(replace(ViewState(rows=machine_rows(), page=2), **changes))  # type: ignore[arg-type]


def after(state: ViewState, *keys: str) -> ViewState:
    for key in keys:
        state = reduce(state, key)
    return state


def test_first_row_is_selected_and_arrows_move_within_the_list() -> None:
    state = begun()
    assert [one.row.cgroup_id for one in state.placed] == [1, 3, 2, 4]
    assert state.selected == 1
    assert after(state, "down").selected == 3
    assert after(state, "up").selected == 1
    assert after(state, *["down"] * 9).selected == 4
    assert after(state, "end", "home").selected == 1
    assert after(state, "pgdn").selected == 2


def test_list_scrolls_with_the_selection() -> None:
    state = after(begun(), "end")
    assert (state.first, state.page) == (2, 2)
    assert after(state, "home").first == 0


def test_selected_cgroup_stays_selected_in_another_order() -> None:
    state = after(begun(), "down", "down", ">", ">", "r", "t")
    assert state.selected == 2
    assert state.sort == "held"


def test_row_at_the_place_of_a_gone_cgroup_is_selected() -> None:
    state = after(begun(), "down")
    rows = tuple(row for row in state.rows if row.cgroup_id != 3)
    assert arranged(replace(state, rows=rows)).selected == 2
    assert arranged(replace(state, rows=())).selected is None


def test_columns_are_sorted_in_a_round() -> None:
    state = begun()
    assert after(state, "<").sort == "name"
    assert after(state, "<", "<").sort == "left"
    assert after(state, "r", ">").is_reversed is False


def test_filter_is_used_as_it_is_typed() -> None:
    state = after(begun(), "/", "w", "e", "q")
    assert (state.is_typing, state.words, state.placed) == (True, "weq", ())
    state = after(state, "backspace", "enter")
    assert [one.row.cgroup_id for one in state.placed] == [1, 2]
    assert (state.is_typing, state.asks) == (False, ())
    assert after(state, "esc").words == ""
    assert after(begun(), "/", "x", "esc").words == ""


def test_key_of_code_shows_its_table_from_the_list_and_from_another_table() -> None:
    shown = after(begun(), "c")
    assert (shown.screen, shown.sheet, shown.sheets) == ("cgroup", CODE, ())
    tables = tuple(Sheet(str(number), "", ("NAME",), ()) for number in range(CODE + 1))
    other = replace(shown, sheets=tables, sheet=1)
    assert (after(other, "c").sheet, after(other, "c").sheets) == (CODE, tables)
    assert after(begun(), "h", "c").screen == "help"
    assert after(ViewState(), "c").screen == "list", "nothing is selected"


@pytest.mark.parametrize(("key", "asked"), [("q", QUIT), ("w", WRITE), ("x", EXPLAIN), ("redraw", REDRAW)])
def test_keys_ask_for_what_the_recorder_does(key: str, asked: str) -> None:
    assert reduce(begun(), key).asks == (asked,)


def test_r_reads_again_in_the_table_of_files_alone() -> None:
    tables = tuple(Sheet(str(number), "", ("NAME",), ()) for number in range(CODE + 1))
    shown = replace(after(begun(), "enter"), sheets=tables, sheet=FILES)
    assert after(shown, "r").asks == (READ,)
    assert after(replace(shown, sheet=FILES + 1), "r").asks == ()
    assert (after(begun(), "r").asks, after(begun(), "r").is_reversed) == ((), True)
    assert after(begun(), "h", "r").asks == ()


def test_nothing_is_explained_without_a_cgroup() -> None:
    assert reduce(ViewState(), "x").asks == ()


def test_q_and_esc_leave_another_screen_first() -> None:
    for key in ("q", "esc"):
        state = after(begun(), "h", key)
        assert (state.screen, state.asks) == ("list", ())


def test_interval_has_steps_and_ends() -> None:
    assert reduce(begun(), "+").interval_s == 2.0
    assert reduce(begun(), "-").interval_s == 0.5
    assert after(begun(), *["+"] * 20).interval_s == INTERVALS_S[-1]
    assert after(begun(), *["-"] * 20).interval_s == INTERVALS_S[0]
    assert reduce(begun(interval_s=0.1), "-").interval_s == 0.1


def test_arrows_fold_and_unfold_the_tree() -> None:
    state = after(begun(), "left")
    assert [one.row.cgroup_id for one in state.placed] == [1, 4]
    assert [one.row.cgroup_id for one in after(state, "right").placed] == [1, 3, 2, 4]
    assert after(begun(), "down", "left").selected == 1, "a child goes to its parent"
    assert after(begun(), "t", "left").folded == frozenset()


def test_enter_shows_tables_of_the_cgroup_and_arrows_turn_them() -> None:
    state = after(begun(), "down", "enter")
    assert (state.screen, state.selected) == ("cgroup", 3)
    state = replace(state, sheets=(SHEET, SHEET, SHEET))
    assert after(state, "right").sheet == 1
    assert after(state, "left").sheet == 2
    assert after(state, "tab", "tab", "tab").sheet == 0
    assert after(state, "end").text_first == 48
    assert after(state, "end", "right").text_first == 0


def test_space_halts_and_goes_on() -> None:
    assert after(begun(), " ").is_paused
    assert not after(begun(), " ", " ").is_paused


NAMED = "up down left right pgup pgdn home end enter esc tab backspace delete redraw"
KEYS = st.sampled_from([*"qh?/<>r+-=xw tjka漢", *NAMED.split()])


@given(st.lists(KEYS, max_size=30), st.integers(1, 5), st.sampled_from([(), (SHEET,), (SHEET, SHEET)]))
def test_no_keys_break_the_state(keys: list[str], page: int, sheets: tuple[Sheet, ...]) -> None:
    state = begun(page=page)
    for key in keys:
        state = reduce(state, key)
        if state.screen == "cgroup" and not state.sheets:
            state = replace(state, sheets=sheets)
        ids = [one.row.cgroup_id for one in state.placed]
        assert state.selected in ids or not ids
        if ids and state.selected is not None:
            assert state.first <= ids.index(state.selected) < state.first + page
        assert 0 <= state.text_first <= max(lines_of(state) - page, 0)
        assert state.sheet < max(len(state.sheets), 1)
