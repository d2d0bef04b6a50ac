"""The lines of the screen: pure functions from the state to texts with the names of their styles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from typing import Final

from rich.cells import cell_len, set_cell_size

from tracer.categories import LAYERS
from tracer.render.words.escape import fitted, visible
from tracer.render.words.prose import wrapped
from tracer.top.details import Sheet
from tracer.top.feed import KILL, LIMIT, NOTHING, SOON, Decision
from tracer.top.help_text import help_lines
from tracer.top.list_columns import BAR_AFTER, NAME, Layout, layout, text_of
from tracer.top.live_row import LiveRow
from tracer.top.screen.cells import Line, Size, Span, padded
from tracer.top.short_numbers import short_percent, short_size, sparkline
from tracer.top.view_state import Placed, ViewState, arranged, lines_of
from tracer.units import count

LEAST_COLUMNS: Final = 60
MOST_COLUMNS: Final = 200
_LEAST_LINES: Final = 8
_NARROW: Final = 70
_LEAST_FIRST: Final = 14
_SOON_S: Final = 10.0
_ABOVE: Final = 3
_AROUND: Final = {"help": 2, "text": 3, "cgroup": 5}
"""Screen -> the number of its lines that do not scroll, without the note on a table."""
_MOST_FEED: Final = 8
_FEED_STYLES: Final = {KILL: "kill", SOON: "kill", LIMIT: "warn", NOTHING: "warn"}
_HINTS: Final = (
    *("q quit", "h help", "Enter look into", "x explain", "/ filter", "< > sort", "w write a trace"),
)
_HINTS_OF_TABLES: Final = (
    *("q back", "left right other tables", "up down scroll", "x explain", "w write a trace"),
)
_HINTS_OF_TEXTS: Final = ("q back", "up down scroll", "x explain", "w write a trace")
"""Hints that do not fit are left out, from the end."""
_FOLDS: Final = {None: " ", True: "+", False: " "}


def fit(state: ViewState, size: Size) -> ViewState:
    """Return the state with as many rows as a screen of this size has room for."""
    state = replace(state, columns=_columns(size))
    if state.screen == "list":
        return arranged(replace(state, page=max(size.lines - _ABOVE - 1 - _feed_lines(size), 1)))
    page = max(size.lines - _AROUND[state.screen] - len(_note(state)), 1)
    first = min(state.text_first, max(lines_of(state) - page, 0))
    return arranged(replace(state, page=page, text_first=first))


def render(state: ViewState, size: Size) -> list[Line]:
    """Return the lines of a frame, at most `size.lines`, each exactly as wide as the screen.

    A screen of less than 60 columns shows the left part of a 60-column frame. Columns after the 200th stay
    empty.
    """
    columns = _columns(size)
    lines = [_head(state, columns), *_body(state, Size(columns, size.lines))]
    lines = lines[: max(size.lines - 1, 0)]
    lines += [()] * (size.lines - 1 - len(lines))
    return [padded(line, size.columns) for line in (*lines, _foot(state, columns))]


def _columns(size: Size) -> int:
    return min(max(size.columns, LEAST_COLUMNS), MOST_COLUMNS)


def _body(state: ViewState, size: Size) -> Iterator[Line]:
    if state.screen == "help":
        yield from _scrolled(help_lines(size.columns), state)
    elif state.screen == "text":
        yield (Span(f" {fitted(state.text_title, size.columns - 2)}", "title"),)
        yield from _scrolled(state.text, state)
    elif state.screen == "cgroup":
        yield from _cgroup(state, size.columns)
    else:
        yield _machine(state)
        yield from _list(state, size)


# The list


def _head(state: ViewState, columns: int) -> Line:
    parts = [f"{len(state.rows)} cgroup{'' if len(state.rows) == 1 else 's'}"]
    parts += [f"{state.kills} kill{'' if state.kills == 1 else 's'}"] if state.kills else []
    parts += [f"every {state.interval_s:g} s"]
    parts += [f"only {visible(state.words)}"] if state.words else []
    halted = (Span(" HALTED ", "warn"),) if state.is_paused else ()
    moment = datetime.fromtimestamp(state.time_ns // 1_000_000_000, UTC)
    clock = moment.strftime("%H:%M:%S UTC ") if state.time_ns else ""
    left: Line = (
        Span(" memcg-tracer top" if columns > _NARROW else " top", "title"),
        Span("  " + ", ".join(parts) + " "),
        *halted,
    )
    room = columns - len(clock)
    return (*padded(left, room), Span(clock, "dim"))


def _machine(state: ViewState) -> Line:
    machine = state.machine
    words = ""
    if machine.total_bytes is not None and machine.available_bytes is not None:
        used = machine.total_bytes - machine.available_bytes
        words = f" machine: {short_size(used)} of {short_size(machine.total_bytes)}"
    if machine.swap_total_bytes:
        words += f", swap {short_size(machine.swap_bytes)} of {short_size(machine.swap_total_bytes)}"
    if machine.own_bytes is not None:
        words += f"; this view: {short_size(machine.own_bytes)}"
        words += "" if machine.own_percent is None else f", {short_percent(machine.own_percent)} of a CPU"
    return (Span(words, "dim"),)


def _list(state: ViewState, size: Size) -> Iterator[Line]:
    plan = layout(size.columns)
    yield _titles(state, plan)
    shown = state.placed[state.first : state.first + state.page]
    for one in shown:
        yield _row(one, plan, state, is_selected=one.row.cgroup_id == state.selected)
    if not shown:
        yield (Span("  no cgroup has this name" if state.words else "  no cgroup yet", "dim"),)
    empty = state.page - max(len(shown), 1)
    feed = _feed_lines(size)
    decisions = _feed(state.feed, feed - 1 + empty, size.columns) if feed else []
    for _ in range(empty - max(len(decisions) - (feed - 1), 0)):
        yield ()
    if feed:
        yield (Span(f" {f'{_cut_rows(state)}decisions ':─<{size.columns - 2}}", "dim"),)
        yield from decisions


def _cut_rows(state: ViewState) -> str:
    """Return which rows are in view, if not all are."""
    if len(state.placed) <= state.page:
        return ""
    last = min(state.first + state.page, len(state.placed))
    return f"rows {count(state.first + 1)} to {count(last)} of {count(len(state.placed))}; "


def _feed(decisions: Sequence[Decision], lines: int, columns: int) -> list[Line]:
    """Return the newest decisions, the newest at the bottom. A long sentence continues on the next line.

    The end of a decision is left out if it does not fit.
    """
    shown: list[Line] = []
    for decision in reversed(decisions):
        room = lines - len(shown)
        if room <= 0:
            break
        begin = f" {decision.clock()} "
        cells = columns - len(begin) - 1
        texts = wrapped(decision.words(), cells) or [""]
        if len(texts) > room:
            texts = [*texts[: room - 1], _cut(f"{texts[room - 1]} {texts[room]}", cells)]
        begins = [begin, *[" " * len(begin)] * (len(texts) - 1)]
        style = _FEED_STYLES.get(decision.kind, "")
        shown = [
            *((Span(one, "dim"), Span(text, style)) for one, text in zip(begins, texts, strict=True)),
            *shown,
        ]
    return shown


def _feed_lines(size: Size) -> int:
    """Return the number of lines below the list: a title, and the newest decisions. Lines of the list that
    are empty come on top.
    """
    if size.lines < _LEAST_LINES:
        return 0
    return min(max(size.lines // 4, 2), _MOST_FEED)


def _titles(state: ViewState, plan: Layout) -> Line:
    def title(text: str, key: str, cells: int, *, is_left: bool = False) -> Span:
        is_sorted = key == state.sort
        padded = f"{text:<{cells}}" if is_left else f"{text:>{cells}}"
        return Span(padded, "sorted" if is_sorted else "head")

    spans = [Span(" ", "head"), title("CGROUP", NAME, plan.name_cells, is_left=True), Span(" ", "head")]
    for _, column in plan.columns:
        spans += [title(column.head, column.key, column.cells), Span(" ", "head")]
        if column.key == BAR_AFTER:
            spans += [Span(f"{'':{plan.bar_cells}} ", "head")]
    if plan.spark_cells:
        spans.append(Span(f"{'USAGE BEFORE':>{plan.spark_cells}}", "head"))
    return tuple(spans)


def _row(one: Placed, plan: Layout, state: ViewState, *, is_selected: bool) -> Line:
    row = one.row
    style = "selected" if is_selected else _style_of(row)
    spans = [
        Span(">" if is_selected else " ", style),
        Span(_name(one, plan.name_cells), style),
        Span(" ", style),
    ]
    for quantity, column in plan.columns:
        spans.append(Span(f"{text_of(row, quantity, column):>{column.cells}} ", style))
        if column.key == BAR_AFTER:
            spans += [*_bar(row, plan.bar_cells, state.machine.total_bytes), Span(" ", style)]
    if plan.spark_cells:
        spans.append(Span(sparkline(row.usages, plan.spark_cells), style))
    return tuple(spans)


def _style_of(row: LiveRow) -> str:
    if (left_s := row.number("left")) is not None and left_s < _SOON_S:
        return "kill"
    return "warn" if row.kills else ""


def _name(one: Placed, cells: int) -> str:
    """Return the name, indented by its depth in the tree, with the kills at the cgroup's limit."""
    row = one.row
    kills = f" ✗{row.kills}" if row.kills and row.limit_owner == row.path else ""
    indent = min(2 * one.depth, cells // 2)
    mark = _FOLDS[one.is_folded]
    room = cells - indent - len(kills) - 1
    return set_cell_size(" " * indent + mark + fitted(row.name, max(room, 1)) + kills, cells)


def _bar(row: LiveRow, cells: int, machine_bytes: int | None) -> Iterator[Span]:
    """Yield the composition of usage, as a share of the limit, or of the machine's memory without a limit."""
    whole = row.number("limit") or machine_bytes
    if not whole or not row.layers:
        yield Span(" " * cells)
        return
    begin, total = 0, 0
    for layer in LAYERS:
        total += row.layers.get(layer.name, 0)
        end = min(round(total / whole * cells), cells)
        if end > begin:
            yield Span(layer.glyph * (end - begin), layer.name)
        begin = max(begin, end)
    yield Span("╌" * (cells - begin), "dim")


def _foot(state: ViewState, columns: int) -> Line:
    if state.is_typing:
        return (
            Span(f" show names with: {visible(state.words)}▏", "title"),
            Span("  Enter keep  Esc all", "dim"),
        )
    if state.message:
        return (Span(f" {fitted(state.message, columns - 2)}", "title"),)
    hints = {"list": _HINTS, "cgroup": _HINTS_OF_TABLES}.get(state.screen, _HINTS_OF_TEXTS)
    shown = ""
    for hint in hints:
        if len(longer := f"{shown} {hint} ") > columns + 1:
            break
        shown = longer
    return (Span(shown, "dim"),)


# The other screens


def _cgroup(state: ViewState, columns: int) -> Iterator[Line]:
    row = state.selected_row
    if row is None:
        yield (Span(" this cgroup is gone", "dim"),)
        return
    limit_bytes = row.number("limit")
    limit = "no limit" if limit_bytes is None else f"limit {short_size(limit_bytes)}"
    owner = row.limit_owner if row.limit_owner not in (None, row.path) else None
    of = f" (of {fitted(owner, columns // 4)})" if owner else ""
    levels = f"  {short_size(row.usage_bytes)}, {limit}{of}"
    yield (Span(f" {fitted(row.path, max(columns - cell_len(levels) - 2, 1))}", "title"), Span(levels))
    if not state.sheets:
        return
    names: list[Span] = [Span(" ")]
    for at, sheet in enumerate(state.sheets):
        names += [Span(f" {visible(sheet.title)} ", "selected" if at == state.sheet else "dim"), Span(" ")]
    yield tuple(names)
    yield from ((Span(f" {text}", "dim"),) for text in _note(state))
    yield from _table(state.sheets[state.sheet], state, columns)


def _note(state: ViewState) -> list[str]:
    """Return the lines of the note on the shown table."""
    if state.screen != "cgroup" or not state.sheets:
        return []
    return wrapped(visible(state.sheets[state.sheet].note), state.columns - 2)


def _table(sheet: Sheet, state: ViewState, columns: int) -> Iterator[Line]:
    """Yield the titles and the visible rows of a table.

    The first column gets the remaining room. If the last column has words, it gets the room instead, and
    words that do not fit are cut.
    """
    rows = sheet.rows[state.text_first : state.text_first + state.page]
    texts = [[visible(text) for text in row] for row in (sheet.titles, *rows)]
    widths = [max(map(cell_len, column)) for column in zip(*texts, strict=True)]
    between = 2 if sum(widths[1:]) + 2 * len(widths) + _LEAST_FIRST <= columns else 1
    rest = columns - 2 - between * (len(widths) - 1)
    if sheet.ends_in_words:
        widths[0] = min(widths[0], columns // 3)
        widths[-1] = max(rest - sum(widths[:-1]), 1)
    else:
        widths[0] = max(rest - sum(widths[1:]), 1)
    for number, row in enumerate(texts):
        cells = [set_cell_size(fitted(row[0], widths[0]), widths[0])]
        cells += [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)]
        if sheet.ends_in_words:
            cells[-1] = _cut(row[-1], widths[-1])
        yield (Span(" " + (" " * between).join(cells), "" if number else "head"),)
    if not rows:
        yield (Span(f"  {visible(sheet.empty)}", "dim"),)


def _cut(text: str, cells: int) -> str:
    """Return a text, cut at its end if it does not fit."""
    return text if cell_len(text) <= cells else set_cell_size(text, cells - 1) + "…"


def _scrolled(lines: Sequence[Line], state: ViewState) -> Iterator[Line]:
    yield from islice(lines, state.text_first, state.text_first + state.page)


# Without a terminal


def table(state: ViewState, columns: int) -> list[str]:
    """Return all cgroups as plain lines, below a line with the time."""
    columns = min(max(columns, LEAST_COLUMNS), MOST_COLUMNS)
    plan = layout(columns)
    lines = [_head(state, columns), _titles(state, plan)]
    lines += [_row(one, plan, state, is_selected=False) for one in state.placed]
    return ["".join(span.text for span in line).rstrip() for line in lines]
