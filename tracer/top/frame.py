"""The lines of the screen: pure functions from the state to texts with the names of their styles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from textwrap import wrap
from typing import Final

from rich.cells import cell_len, set_cell_size

from tracer.categories import LAYERS
from tracer.render.words.escape import fitted, visible
from tracer.top.feed import KILL, LIMIT, NOTHING, SOON, Decision
from tracer.top.list_columns import COLUMNS, NAME, Layout, layout
from tracer.top.live_row import LiveRow
from tracer.top.screen.cells import Line, Size, Span, padded
from tracer.top.short_numbers import short_percent, short_size, sparkline
from tracer.top.tree_order import Placed
from tracer.top.view_state import KEYS, ViewState, arranged, lines_of

LEAST_COLUMNS: Final = 60
MOST_COLUMNS: Final = 200
_LEAST_LINES: Final = 8
_NARROW: Final = 70
_SOON_S: Final = 10.0
_ABOVE: Final = 3
_AROUND: Final = {"help": 2, "text": 3, "cgroup": 6}
"""The lines of other screens that do not scroll."""
_MOST_FEED: Final = 8
_FEED_STYLES: Final = {KILL: "kill", SOON: "kill", LIMIT: "warn", NOTHING: "warn"}
_HINTS: Final = "q quit  h help  / filter  < > sort  Enter look into  x explain  w write a trace"
_FOLDS: Final = {None: " ", True: "+", False: " "}


def fit(state: ViewState, size: Size) -> ViewState:
    """Return the state for a screen of another size: as many rows as it has room for."""
    if state.screen == "list":
        return arranged(replace(state, page=max(size.lines - _ABOVE - 1 - _feed_lines(size), 1)))
    page = max(size.lines - _AROUND[state.screen], 1)
    first = min(state.text_first, max(lines_of(state) - page, 0))
    return arranged(replace(state, page=page, text_first=first))


def render(state: ViewState, size: Size) -> list[Line]:
    """Return the lines of a frame, at most `size.lines`, each exactly as wide as the screen.

    A screen of less than 60 columns shows the left part of one of 60; more than 200 are not used.
    """
    columns = min(max(size.columns, LEAST_COLUMNS), MOST_COLUMNS)
    lines = [_head(state, columns), *_body(state, Size(columns, size.lines))]
    lines = lines[: max(size.lines - 1, 0)]
    lines += [()] * (size.lines - 1 - len(lines))
    return [padded(line, size.columns) for line in (*lines, _foot(state))]


def _body(state: ViewState, size: Size) -> Iterator[Line]:
    if state.screen == "help":
        yield from _scrolled(_help_lines(), state)
    elif state.screen == "text":
        yield (Span(f" {visible(state.text_title)}", "title"),)
        yield from _scrolled([(Span(f" {visible(line)}"),) for line in state.text], state)
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
    for _ in range(state.page - max(len(shown), 1)):
        yield ()
    feed = _feed_lines(size)
    if feed:
        yield (Span(f" {'decisions ':─<{size.columns - 2}}", "dim"),)
        yield from _feed(state.feed, feed - 1, size.columns)


def _feed(decisions: Sequence[Decision], lines: int, columns: int) -> list[Line]:
    """Return the last lines of the feed, where a long sentence goes on in the next line."""
    shown: list[Line] = []
    for decision in decisions[-lines:]:
        style = _FEED_STYLES.get(decision.kind, "")
        begin = f" {decision.clock()} "
        for text in wrap(decision.words(), columns - len(begin) - 1):
            shown.append((Span(begin, "dim"), Span(text, style)))
            begin = " " * len(begin)
    return shown[-lines:]


def _feed_lines(size: Size) -> int:
    """Return the number of lines below the list: a title, and the newest decisions."""
    if size.lines < _LEAST_LINES:
        return 0
    return min(max(size.lines // 4, 2), _MOST_FEED)


def _titles(state: ViewState, plan: Layout) -> Line:
    def title(text: str, key: str, cells: int, *, is_left: bool = False) -> Span:
        is_sorted = key == state.sort
        padded = f"{text:<{cells}}" if is_left else f"{text:>{cells}}"
        return Span(padded, "sorted" if is_sorted else "head")

    spans = [Span(" ", "head"), title("CGROUP", NAME, plan.name_cells, is_left=True), Span(" ", "head")]
    for column in plan.columns:
        spans += [title(column.title, column.key, column.width), Span(" ", "head")]
        if column.key == "limit":
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
    for column in plan.columns:
        spans.append(Span(f"{column.text(row):>{column.width}} ", style))
        if column.key == "limit":
            spans += [*_bar(row, plan.bar_cells, state.machine.total_bytes), Span(" ", style)]
    if plan.spark_cells:
        spans.append(Span(sparkline(row.usages, plan.spark_cells), style))
    return tuple(spans)


def _style_of(row: LiveRow) -> str:
    if row.kill_s is not None and row.kill_s < _SOON_S:
        return "kill"
    return "warn" if row.kills else ""


def _name(one: Placed, cells: int) -> str:
    """Return the name at its place in the tree, with the kills at its limit."""
    row = one.row
    kills = f" ✗{row.kills}" if row.kills and row.limit_owner == row.path else ""
    indent = min(2 * one.depth, cells // 2)
    mark = _FOLDS[one.is_folded]
    room = cells - indent - len(kills) - 1
    return set_cell_size(" " * indent + mark + fitted(row.name, max(room, 1)) + kills, cells)


def _bar(row: LiveRow, cells: int, machine_bytes: int | None) -> Iterator[Span]:
    """Yield the composition of usage, as a share of the limit, or of the machine if there is none."""
    whole = row.limit_bytes or machine_bytes
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


def _foot(state: ViewState) -> Line:
    if state.is_typing:
        return (
            Span(f" show names with: {visible(state.words)}▏", "title"),
            Span("  Enter keep  Esc all", "dim"),
        )
    if state.message:
        return (Span(f" {visible(state.message)}", "title"),)
    if state.screen == "list":
        return (Span(f" {_HINTS}", "dim"),)
    tables = "  left right other tables" if state.screen == "cgroup" else ""
    return (Span(f" q back  up down scroll{tables}  x explain  w write a trace", "dim"),)


# The other screens


def _help_lines() -> list[Line]:
    lines: list[Line] = [(Span(" keys", "title"),)]
    lines += [(Span(f"   {keys:<26}", "head"), Span(f" {meaning}")) for keys, meaning in KEYS]
    lines += [(), (Span(" columns (a number contains the cgroups below; ? is not known)", "title"),)]
    lines += [(Span(f"   {one.title:<8}", "head"), Span(f" {one.meaning}")) for one in COLUMNS]
    lines += [
        (),
        (Span(" the bar: usage as a share of the limit; without a limit, of the machine", "title"),),
    ]
    lines += [(Span(f"   {one.glyph * 3}", one.name), Span(f" {one.label}: {one.meaning}")) for one in LAYERS]
    return lines


def _cgroup(state: ViewState, columns: int) -> Iterator[Line]:
    row = state.selected_row
    if row is None:
        yield (Span(" this cgroup is gone", "dim"),)
        return
    limit = "no limit" if row.limit_bytes is None else f"limit {short_size(row.limit_bytes)}"
    owner = row.limit_owner if row.limit_owner not in (None, row.path) else None
    of = f" (of {fitted(owner, 30)})" if owner else ""
    yield (
        Span(f" {fitted(row.path, columns - 50)}", "title"),
        Span(f"  {short_size(row.usage_bytes)}, {limit}{of}"),
    )
    if not state.sheets:
        return
    names: list[Span] = [Span(" ")]
    for at, sheet in enumerate(state.sheets):
        names += [Span(f" {visible(sheet.title)} ", "selected" if at == state.sheet else "dim"), Span(" ")]
    sheet = state.sheets[state.sheet]
    yield tuple(names)
    yield (Span(f" {visible(sheet.note)}", "dim"),)
    rows = sheet.rows[state.text_first : state.text_first + state.page]
    widths = [
        max([cell_len(title), *(cell_len(visible(texts[at])) for texts in rows)])
        for at, title in enumerate(sheet.titles)
    ]
    first = max(columns - sum(widths[1:]) - 2 * len(widths), 10)
    titles, *lines = [
        " " + _cells((fitted(texts[0], first), *map(visible, texts[1:])), first, widths, sheet.ends_in_words)
        for texts in (sheet.titles, *rows)
    ]
    yield (Span(titles, "head"),)
    yield from ((Span(line),) for line in lines)
    if not rows:
        yield (Span(f"  {visible(sheet.empty)}", "dim"),)


def _cells(texts: Sequence[str], first: int, widths: Sequence[int], ends_in_words: bool) -> str:
    cells = [set_cell_size(texts[0], first)]
    cells += [text.rjust(width) for text, width in zip(texts[1:], widths[1:], strict=True)]
    return "  ".join([*cells[:-1], texts[-1]] if ends_in_words else cells)


def _scrolled(lines: Sequence[Line], state: ViewState) -> Iterator[Line]:
    yield from islice(lines, state.text_first, state.text_first + state.page)


# Without a terminal


def table(state: ViewState, columns: int) -> list[str]:
    """Return the cgroups as plain lines, all of them, below a line with the time."""
    columns = min(max(columns, LEAST_COLUMNS), MOST_COLUMNS)
    plan = layout(columns)
    lines = [_head(state, columns), _titles(state, plan)]
    lines += [_row(one, plan, state, is_selected=False) for one in state.placed]
    return ["".join(span.text for span in line).rstrip() for line in lines]
