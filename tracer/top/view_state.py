"""The state of the view: what it shows, in which order, what is selected, and the effect of each key."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from tracer.quantities import SORT_KEYS, TOP_COLUMNS
from tracer.top.details import CODE, FILES, Sheet
from tracer.top.feed import Decision
from tracer.top.help_text import help_lines
from tracer.top.list_columns import USAGE
from tracer.top.live_row import LiveRow
from tracer.top.screen.cells import Line

_MOST_DEPTH: Final = 64
_IS_ASCENDING: Final = {column.key: column.is_ascending for _, column in TOP_COLUMNS}


@dataclass(frozen=True, slots=True)
class Placed:
    """A row and its `depth` in the tree. `is_folded`: its children are hidden; None: it has no children."""

    row: LiveRow
    depth: int = 0
    is_folded: bool | None = None


def arrange(
    rows: Sequence[LiveRow],
    *,
    sort: str,
    is_reversed: bool = False,
    is_tree: bool = True,
    words: str = "",
    folded: Collection[int] = (),
) -> tuple[Placed, ...]:
    """Return the rows in the order in which they are shown.

    A tree has siblings in the order of their best descendants, so that the first row of the list is in its
    first branch; by name, in the order of their own names.

    With `words`, only rows remain whose name or path contains them, whatever the case, and in a tree their
    ancestors. The children of `folded` cgroups are hidden. Rows without a number for `sort` come last.
    """
    kept = _matching(rows, words, with_parents=is_tree)
    in_order = _sorted(kept, sort, is_reversed)
    if not is_tree:
        return tuple(map(Placed, in_order))
    return tuple(_walk(_with_branches(in_order, sort), folded))


def _with_branches(rows: Sequence[LiveRow], sort: str) -> list[LiveRow]:
    """Return sorted rows in the order of the best row at or below each of them."""
    if sort not in _IS_ASCENDING:
        return [*rows]
    by_id = {row.cgroup_id: row for row in rows}
    best: dict[int, int] = {}
    for place, row in enumerate(rows):
        if row.number(sort) is None:
            break
        above: LiveRow | None = row
        while above is not None and above.cgroup_id not in best:
            best[above.cgroup_id] = place
            above = by_id.get(above.parent_id) if above.parent_id is not None else None
    return sorted(rows, key=lambda row: best.get(row.cgroup_id, len(rows)))


def _matching(rows: Sequence[LiveRow], words: str, *, with_parents: bool) -> list[LiveRow]:
    if not words:
        return [*rows]
    wanted = words.casefold()
    found = {row.cgroup_id for row in rows if wanted in f"{row.name}\0{row.path}".casefold()}
    if with_parents:
        parents = {row.cgroup_id: row.parent_id for row in rows}
        for number in [*found]:
            above = parents.get(number)
            while above is not None and above not in found and above in parents:
                found.add(above)
                above = parents[above]
    return [row for row in rows if row.cgroup_id in found]


def _sorted(rows: Sequence[LiveRow], sort: str, is_reversed: bool) -> list[LiveRow]:
    by_name = sorted(rows, key=lambda row: (row.name, row.path))
    if sort not in _IS_ASCENDING:
        return by_name[::-1] if is_reversed else by_name
    known = [(number, row) for row in by_name if (number := row.number(sort)) is not None]
    known.sort(key=lambda pair: pair[0], reverse=_IS_ASCENDING[sort] == is_reversed)
    return [row for _, row in known] + [row for row in by_name if row.number(sort) is None]


def _walk(rows: Sequence[LiveRow], folded: Collection[int]) -> Iterator[Placed]:
    """Yield the rows as a tree. A row whose parent is not among the rows is a root."""
    ids = {row.cgroup_id for row in rows}
    children: dict[int | None, list[LiveRow]] = {}
    for row in rows:
        above = row.parent_id if row.parent_id in ids and row.parent_id != row.cgroup_id else None
        children.setdefault(above, []).append(row)
    ahead = [(row, 0) for row in reversed(children.get(None, []))]
    while ahead:
        row, depth = ahead.pop()
        below = children.get(row.cgroup_id, [])
        is_folded = row.cgroup_id in folded if below else None
        yield Placed(row, depth, is_folded)
        if not is_folded and depth < _MOST_DEPTH:
            ahead += [(child, depth + 1) for child in reversed(below)]


Screen = Literal["list", "help", "cgroup", "text"]
INTERVALS_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
QUIT: Final = "quit"
WRITE: Final = "write"
EXPLAIN: Final = "explain"
REDRAW: Final = "redraw"
READ: Final = "read"
"""The requests that a key can make, in `ViewState.asks`."""

_MOST_WORDS: Final = 60


@dataclass(frozen=True, slots=True)
class Machine:
    """The memory of the machine, and the memory and CPU use (percent of one CPU) of this process; None: not
    known."""

    total_bytes: int | None = None
    available_bytes: int | None = None
    swap_bytes: int | None = None
    swap_total_bytes: int | None = None
    own_bytes: int | None = None
    own_percent: float | None = None


@dataclass(frozen=True, slots=True)
class ViewState:
    """Everything that a frame shows.

    `placed` are the rows in their order. The screen shows `page` of them, from the position `first` on, in
    lines of `columns` cells. `selected` is the id of a cgroup, which stays selected wherever it moves.
    `sheets` are the tables of the cgroup screen, `text` the lines of the text screen, and `text_first` the
    first visible line of either. `asks` are requests of keys that are not answered yet.
    """

    rows: tuple[LiveRow, ...] = ()
    placed: tuple[Placed, ...] = ()
    time_ns: int = 0
    machine: Machine = Machine()
    kills: int = 0
    feed: tuple[Decision, ...] = ()
    message: str = ""
    interval_s: float = 1.0
    sort: str = USAGE
    is_reversed: bool = False
    is_tree: bool = True
    folded: frozenset[int] = frozenset()
    words: str = ""
    is_typing: bool = False
    is_paused: bool = False
    selected: int | None = None
    first: int = 0
    page: int = 10
    columns: int = 80
    screen: Screen = "list"
    sheets: tuple[Sheet, ...] = ()
    sheet: int = 0
    text_title: str = ""
    text: tuple[Line, ...] = ()
    text_first: int = 0
    asks: tuple[str, ...] = ()

    @property
    def selected_row(self) -> LiveRow | None:
        """Return the selected row; None: no row is selected."""
        return next((one.row for one in self.placed if one.row.cgroup_id == self.selected), None)


def arranged(state: ViewState) -> ViewState:
    """Return the state with its rows in order, and the selected row in view.

    If the selected cgroup is gone, the row at its position is selected.
    """
    placed = arrange(
        state.rows,
        sort=state.sort,
        is_reversed=state.is_reversed,
        is_tree=state.is_tree,
        words=state.words,
        folded=state.folded,
    )
    at = _at(placed, state.selected)
    if at is None and placed:
        before = _at(state.placed, state.selected)
        at = min(before or 0, len(placed) - 1)
    return _select(replace(state, placed=placed), at)


def reduce(state: ViewState, key: str) -> ViewState:
    """Return the state after a key. A key without a meaning changes nothing."""
    if key == "redraw":
        return _asking(state, REDRAW)
    if state.is_typing:
        return _typed(state, key)
    state = replace(state, message="")
    act = _ANYWHERE.get(key) or (_IN_LIST if state.screen == "list" else _IN_TEXT).get(key)
    return state if act is None else act(state)


def _asking(state: ViewState, what: str) -> ViewState:
    return replace(state, asks=(*state.asks, what))


def _typed(state: ViewState, key: str) -> ViewState:
    """Return the state after a key that edits the filter. The filter applies while it is typed."""
    if key == "enter":
        return replace(state, is_typing=False)
    if key == "esc":
        return arranged(replace(state, is_typing=False, words=""))
    if key == "backspace":
        return arranged(replace(state, words=state.words[:-1]))
    if len(key) == 1 and len(state.words) < _MOST_WORDS:
        return arranged(replace(state, words=state.words + key))
    return state


def _back(state: ViewState) -> ViewState:
    return replace(state, screen="list", sheets=(), sheet=0, text=(), text_first=0)


def _leave(state: ViewState) -> ViewState:
    return _asking(state, QUIT) if state.screen == "list" else _back(state)


def _escape(state: ViewState) -> ViewState:
    return arranged(replace(state, words="")) if state.screen == "list" else _back(state)


def _help(state: ViewState) -> ViewState:
    return _back(state) if state.screen == "help" else replace(_back(state), screen="help")


def _explain(state: ViewState) -> ViewState:
    return state if state.selected is None else _asking(state, EXPLAIN)


def _by_column(state: ViewState, step: int) -> ViewState:
    at = (SORT_KEYS.index(state.sort) + step) % len(SORT_KEYS)
    return arranged(replace(state, sort=SORT_KEYS[at], is_reversed=False))


def _move(state: ViewState, lines: float) -> ViewState:
    """Move the selection by `lines` rows, or scroll a text by `lines` lines; infinite: to the end."""
    if state.screen == "list":
        at = _at(state.placed, state.selected) or 0
        return _select(state, _within(at + lines, len(state.placed) - 1))
    last = max(lines_of(state) - state.page, 0)
    return replace(state, text_first=_within(state.text_first + lines, last))


def _drill(state: ViewState) -> ViewState:
    if state.selected is None:
        return state
    return replace(state, screen="cgroup", sheets=(), sheet=0, text_first=0)


def _read(state: ViewState) -> ViewState:
    """Read again what is in memory, in the table of files."""
    return _asking(state, READ) if state.screen == "cgroup" and state.sheet == FILES else state


def _code(state: ViewState) -> ViewState:
    """Show the code that grows in the selected cgroup."""
    if state.selected is None or state.screen not in ("list", "cgroup"):
        return state
    return replace(_drill(state), sheets=state.sheets, sheet=CODE)


def _turn(state: ViewState, step: int) -> ViewState:
    """Show the next table of a cgroup."""
    if not state.sheets:
        return state
    return replace(state, sheet=(state.sheet + step) % len(state.sheets), text_first=0)


def lines_of(state: ViewState) -> int:
    """Return the number of lines that a screen other than the list can scroll through."""
    if state.screen == "cgroup":
        return len(state.sheets[state.sheet].rows) if state.sheets else 0
    return len(state.text if state.screen == "text" else help_lines(state.columns))


def _folded(state: ViewState, is_left: bool) -> ViewState:
    """Fold (`is_left`) or unfold the children of the selected row. If nothing is left to fold, select its
    parent."""
    at = _at(state.placed, state.selected)
    if at is None or not state.is_tree:
        return state
    one = state.placed[at]
    number = one.row.cgroup_id
    if one.is_folded is not None and one.is_folded != is_left:
        return arranged(replace(state, folded=state.folded ^ {number}))
    above = _at(state.placed, one.row.parent_id) if is_left else None
    return state if above is None else _select(state, above)


def _slower(state: ViewState) -> ViewState:
    interval_s = next((one for one in INTERVALS_S if one > state.interval_s), state.interval_s)
    return replace(state, interval_s=interval_s)


def _faster(state: ViewState) -> ViewState:
    shorter = [one for one in INTERVALS_S if one < state.interval_s]
    return replace(state, interval_s=shorter[-1] if shorter else state.interval_s)


def _within(number: float, most: int) -> int:
    return int(min(max(number, 0), max(most, 0)))


def _at(placed: tuple[Placed, ...], cgroup_id: int | None) -> int | None:
    return next((at for at, one in enumerate(placed) if one.row.cgroup_id == cgroup_id), None)


def _select(state: ViewState, at: int | None) -> ViewState:
    """Select the row at a position, clamped to the list, and scroll the list so that the row is visible."""
    if at is None or not state.placed:
        return replace(state, selected=None, first=0)
    at = min(max(at, 0), len(state.placed) - 1)
    page = max(state.page, 1)
    first = min(max(state.first, at - page + 1), at, max(len(state.placed) - page, 0))
    return replace(state, selected=state.placed[at].row.cgroup_id, first=max(first, 0))


_Act = Callable[[ViewState], ViewState]
_ANYWHERE: Final[dict[str, _Act]] = {
    "q": _leave,
    "esc": _escape,
    "h": _help,
    "?": _help,
    " ": lambda state: replace(state, is_paused=not state.is_paused),
    "+": _slower,
    "=": _slower,
    "-": _faster,
    "w": lambda state: _asking(state, WRITE),
    "x": _explain,
    "c": _code,
    "up": lambda state: _move(state, -1),
    "k": lambda state: _move(state, -1),
    "down": lambda state: _move(state, 1),
    "j": lambda state: _move(state, 1),
    "pgup": lambda state: _move(state, -state.page),
    "pgdn": lambda state: _move(state, state.page),
    "home": lambda state: _move(state, -math.inf),
    "end": lambda state: _move(state, math.inf),
}
_IN_LIST: Final[dict[str, _Act]] = {
    "<": lambda state: _by_column(state, -1),
    ">": lambda state: _by_column(state, 1),
    "r": lambda state: arranged(replace(state, is_reversed=not state.is_reversed)),
    "t": lambda state: arranged(replace(state, is_tree=not state.is_tree)),
    "/": lambda state: replace(state, is_typing=True),
    "left": lambda state: _folded(state, True),
    "right": lambda state: _folded(state, False),
    "enter": _drill,
}
_IN_TEXT: Final[dict[str, _Act]] = {
    "r": _read,
    "left": lambda state: _turn(state, -1),
    **dict.fromkeys(("right", "tab", "enter"), lambda state: _turn(state, 1)),
}
