"""The order of rows: siblings sorted, sums beside their parts, nothing lost in a tree of any shape."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from synthetic.live_view_rows import machine_rows, row

from tracer.quantities import SORT_KEYS
from tracer.top.live_row import LiveRow
from tracer.top.tree_order import Placed, arrange


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
