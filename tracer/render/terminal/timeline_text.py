"""The timeline of one cgroup, drawn for a terminal: time runs down, memory runs right, up to the limit."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from rich.text import Text

from tracer import units
from tracer.analysis.explain.measure.cushion import NEAR_LIMIT_PAGES, NEAR_LIMIT_PERCENT
from tracer.analysis.views.timeline import row_length
from tracer.categories import LAYERS
from tracer.render.picture.layers import floats, stacked, stacked_composition
from tracer.render.picture.markers import Marker
from tracer.render.picture.waits import WAITS, psi_ms, stacked_ms
from tracer.render.words import places
from tracer.render.words.escape import fitted
from tracer.render.words.prose import held_together, prose
from tracer.schema import UNLIMITED_BYTES

_TIME_CELLS: Final = 9
_LEAST_BAR_CELLS: Final = 20
_MOST_BAR_CELLS: Final = 80


@dataclass(frozen=True, slots=True)
class Heading:
    """What stands above the picture; names as the kernel gave them. `run` of `runs` lives of that name;
    `origin` is the trace's begin."""

    cgroup: str
    container: str | None
    run: int
    runs: int
    kernel: str | None
    origin: pd.Timestamp
    lost_records: int
    interrupted: bool


@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    source: str
    unit: str  # "bytes", "count" or "ms"; "waits" is a lane
    group: str
    cells: int


_COLUMNS: Final = (
    _Column("usage", "usage_bytes", "bytes", "", 7),
    _Column("added", "cache_added_bytes", "bytes", "page cache", 7),
    _Column("evicted", "cache_evicted_bytes", "bytes", "page cache", 8),
    _Column("dropped", "cache_dropped_bytes", "bytes", "page cache", 8),
    _Column("back", "cache_refaulted_bytes", "bytes", "page cache", 8),
    _Column("tries", "reclaim_attempts", "count", "reclaim", 7),
    _Column("freed", "reclaimed_bytes", "bytes", "reclaim", 7),
    _Column("stall", "reclaim_stall_ms", "ms", "reclaim", 7),
)
_SWAP: Final = (
    _Column("out", "swap_written_bytes", "bytes", "swap", 7),
    _Column("out ms", "swap_write_mean_ms", "ms", "swap", 7),
    _Column("in", "swap_read_bytes", "bytes", "swap", 7),
    _Column("in ms", "swap_read_mean_ms", "ms", "swap", 7),
)
"""Each where there was any."""

_WAITING: Final = (
    _Column("waited", "waited_ms", "ms", "waiting", 7),
    _Column("for what", "waited_ms", "waits", "waiting", 12),
    _Column("PSI", "psi_some_ms", "ms", "waiting", 7),
)
"""Where tasks waited for more than reclaim these stand in the place of `stall`."""

_GIVEN_UP_FIRST: Final = (
    *("dropped", "freed", "stall", "out ms", "back", "tries"),
    *("in ms", "out", "for what", "PSI", "waited", "in"),
)


def picture(
    timeline: pd.DataFrame, heading: Heading, markers: Iterable[Marker], *, columns: int, page_size: int
) -> list[Text]:
    """The lines of the picture: heading, ruler, a line for each row of `timeline`, totals, legend.

    `timeline` is what `analysis.views.timeline` gives for one cgroup. Nothing is wider than `columns` cells.
    """
    lines = _heading_lines(timeline, heading, columns)
    if timeline.empty or timeline["usage_bytes"].isna().all():
        return [*lines, Text("Nothing is known of this cgroup's memory in that time.")]
    waits = stacked_ms(timeline)
    timeline, shown, drawn = _drawn(timeline, waits, heading, markers, columns=columns, page_size=page_size)
    lines += drawn
    lines += [Text(), *_totals(timeline), *_waited(timeline, waits), Text()]
    lines += _legend(shown, waits)
    return lines


def inset(
    what: str,
    timeline: pd.DataFrame,
    heading: Heading,
    markers: Iterable[Marker],
    *,
    columns: int,
    page_size: int,
) -> list[Text]:
    """The lines of a part of a picture in shorter rows: a title, a ruler and the rows."""
    if len(timeline) < 2 or timeline["usage_bytes"].isna().all():
        return []
    step = units.duration((timeline.index[1] - timeline.index[0]).total_seconds())
    title = Text(f"Closer: {what}, in rows of {step}", style="bold")
    waits = stacked_ms(timeline)
    *_, drawn = _drawn(timeline, waits, heading, markers, columns=columns, page_size=page_size)
    return [Text(), title, *drawn]


def _drawn(
    timeline: pd.DataFrame,
    waits: pd.DataFrame,
    heading: Heading,
    markers: Iterable[Marker],
    *,
    columns: int,
    page_size: int,
) -> tuple[pd.DataFrame, Sequence[_Column], list[Text]]:
    """The timeline with the columns that are drawn, which of them there is room for, and ruler and rows."""
    timeline = timeline.assign(
        waited_ms=waits.sum(axis=1),
        psi_some_ms=psi_ms(timeline, "some"),
        swap_write_mean_ms=_blank_where_none(timeline, "swap_write_mean_ms", "swap_written_bytes"),
        swap_read_mean_ms=_blank_where_none(timeline, "swap_read_mean_ms", "swap_read_bytes"),
    )
    shown = _columns_that_fit(timeline, waits, columns)
    bar_cells = columns - _TIME_CELLS - 3 - sum(column.cells for column in shown)
    markers = list(markers)
    at_markers = [one.composition.total for one in markers if one.composition and one.composition.total]
    scale = _scale(timeline, at_markers, min(_MOST_BAR_CELLS, bar_cells), columns)
    reached = _limit_reached(timeline, page_size)
    rows = _rows(timeline, heading, markers, shown, scale, limit_reached=reached)
    return timeline, shown, [*_ruler(scale, shown), *rows]


@dataclass(frozen=True, slots=True)
class _Scale:
    """`full_bytes` are at the right end of a bar of `cells`; the numbers are in `unit` (bytes). A line of the
    picture has at most `columns` cells."""

    full_bytes: float
    cells: int
    unit: float
    unit_name: str
    limit_drawn: bool
    columns: int

    def cell_of(self, value_bytes: float) -> int:
        return round(value_bytes / self.full_bytes * self.cells)


def _scale(timeline: pd.DataFrame, at_markers: Sequence[int], cells: int, columns: int) -> _Scale:
    """The bar ends at the limit, unless usage never came near it: then it ends at the peak, of rows and of
    the usage at the instants that are marked."""
    peak = max(float(np.nanmax(floats(timeline, "usage_bytes"))), *map(float, at_markers), 0.0)
    limits = floats(timeline, "limit_bytes")
    limit = float(limits[limits > 0].max(initial=0.0))
    limit_drawn = limit > 0 and peak >= limit / 4
    full = max(peak, limit if limit_drawn else 0.0, 1.0)
    return _Scale(full, cells, *units.scale_of(full), limit_drawn, columns)


def _heading_lines(timeline: pd.DataFrame, heading: Heading, columns: int) -> list[Text]:
    name = Text()
    if heading.runs > 1:
        name.append(f"{places.one_of(heading.run, heading.runs)}: ", style="bold")
    if heading.container:
        name.append("container " + fitted(heading.container, columns // 2), style="bold").append("  ")
    name.append(fitted(heading.cgroup, columns - name.cell_len), style="" if heading.container else "bold")
    facts = [_limit_words(timeline)]
    if not timeline.empty:
        step = row_length(timeline)
        span = timeline.index[-1] - timeline.index[0] + step
        facts.append(
            f"{units.duration(span.total_seconds())} from {timeline.index[0]:%Y-%m-%d %H:%M:%S} UTC "
            f"in rows of {units.duration(step.total_seconds())}"
        )
    if heading.kernel:
        facts.append("kernel " + fitted(heading.kernel, 20))
    lines = [name, prose(", ".join(facts), "dim")]
    if heading.lost_records:
        lost = f"{units.count(heading.lost_records)} records were lost: added, evicted, tries may be low"
        lines.append(Text(lost, style="bold yellow"))
    if heading.interrupted:
        lines.append(Text("the recording was interrupted; this is what had been written by then", "yellow"))
    return [*lines, Text()]


def _limit_words(timeline: pd.DataFrame) -> str:
    is_known = timeline["is_limited"].notna()
    if not is_known.any():
        return "limit not known"
    limits = timeline["limit_bytes"].fillna(UNLIMITED_BYTES)[is_known]
    first, last = int(limits.iloc[0]), int(limits.iloc[-1])
    if first != last:
        return f"limit {units.limit(first)}, later {units.limit(last)}"
    return "no limit" if last >= UNLIMITED_BYTES else f"limit {units.limit(last)}"


def _columns_that_fit(timeline: pd.DataFrame, waits: pd.DataFrame, columns: int) -> list[_Column]:
    dropped, evicted = (np.nansum(floats(timeline, f"cache_{way}_bytes")) for way in ("dropped", "evicted"))
    # The totals below the picture name it in any case; a wider bar says more than a column of blanks.
    shown = [column for column in _COLUMNS if column.title != "dropped" or dropped > evicted / 10]
    for of_one_way in (_SWAP[:2], _SWAP[2:]):
        if timeline[of_one_way[0].source].gt(0).any():
            shown += of_one_way
    if _has_a_lane(timeline, waits):
        shown = [column for column in shown if column.title != "stall"]
        shown += [column for column in _WAITING if timeline[column.source].notna().any()]
    for title in _GIVEN_UP_FIRST:
        if columns - _TIME_CELLS - 3 - sum(column.cells for column in shown) >= _LEAST_BAR_CELLS:
            break
        shown = [column for column in shown if column.title != title]
    return shown


def _blank_where_none(timeline: pd.DataFrame, took: str, amount: str) -> pd.Series[float]:
    """Of what took none: blank where there was nothing; what is not known then is how long it took."""
    return timeline[took].mask(floats(timeline, amount) == 0, 0.0)


def _has_a_lane(timeline: pd.DataFrame, waits: pd.DataFrame) -> bool:
    """Whether there was more than reclaim to wait for, or pressure beside which it belongs."""
    return bool(waits.drop(columns="reclaim").to_numpy().any() or timeline["psi_some_ms"].gt(0).any())


def _ruler(scale: _Scale, shown: Sequence[_Column]) -> list[Text]:
    """Three lines: groups of columns, their titles with the scale of the bar, units with its ticks."""
    groups, titles, unit_line = Text(style="bold"), Text(style="bold"), Text(style="dim")
    for column in shown:
        titles.append(column.title.rjust(column.cells))
        unit = {"bytes": scale.unit_name, "ms": "ms"}.get(column.unit, "")
        unit_line.append(unit.rjust(column.cells))
    for group, members in itertools.groupby(shown, key=lambda column: column.group):
        cells = sum(column.cells for column in members)
        is_named = group and cells >= len(group) + 4
        groups.append((f" {group} ".center(cells - 2, "─") if is_named else "").rjust(cells))
    end = f"{scale.full_bytes / scale.unit:.4g} {scale.unit_name}" + (" limit" if scale.limit_drawn else "")
    scale_line = "0" + end.rjust(scale.cells)
    ticks = "".join("┬" if 4 * i % scale.cells < 4 else "─" for i in range(scale.cells)) + "┐"
    left = " " * _TIME_CELLS + " "
    return [
        Text(left + " " * (scale.cells + 2)) + groups,
        Text("time".rjust(_TIME_CELLS) + " ") + Text(scale_line + " ", style="dim") + titles,
        Text(left) + Text(ticks + " ", style="dim") + unit_line,
    ]


def _limit_reached(timeline: pd.DataFrame, page_size: int) -> int | None:
    """The first row at whose end usage was at the limit, as `analysis.explain.measure.cushion` has it."""
    usage, limit = floats(timeline, "usage_bytes"), floats(timeline, "limit_bytes")
    nearness = np.maximum(limit * NEAR_LIMIT_PERCENT / 100, NEAR_LIMIT_PAGES * page_size)
    near = usage >= limit - nearness
    return int(near.argmax()) if near.any() else None


def _rows(
    timeline: pd.DataFrame,
    heading: Heading,
    markers: Iterable[Marker],
    shown: Sequence[_Column],
    scale: _Scale,
    *,
    limit_reached: int | None,
) -> Iterator[Text]:
    """A line for each row, at its end; before it what happened within it, after `limit_reached` that."""
    step = row_length(timeline)
    decimals = next(
        (digits for digits, least in enumerate((1, 0.1, 0.01)) if step.total_seconds() >= least), 3
    )
    ends = pd.DatetimeIndex(timeline.index) + step
    layers, waits = stacked(timeline).to_numpy(), stacked_ms(timeline).to_numpy()
    longest_ms = waits.sum(axis=1).max()
    limits = floats(timeline, "limit_bytes")
    numbers = [floats(timeline, column.source) for column in shown]
    pending = sorted(markers, key=lambda marker: marker.time, reverse=True)
    for row, end in enumerate(ends):
        while pending and pending[-1].time < end:
            yield from _event(pending.pop(), limits[row], heading.origin, scale)
        line = _line(_moment((end - heading.origin).total_seconds(), decimals))
        line.append(_bar(layers[row], limits[row], scale)).append(" ")
        for column, values in zip(shown, numbers, strict=True):
            if column.unit == "waits":
                line.append(_lane(waits[row], longest_ms, column.cells))
            else:
                line.append(_number(values[row], column, scale.unit).rjust(column.cells))
        yield line
        if row == limit_reached:
            said = "usage is at the limit: what is charged from here on must first be freed"
            yield from _remark("", f"→ {said}", "bold", scale)


def _event(marker: Marker, limit_bytes: float, origin: pd.Timestamp, scale: _Scale) -> Iterator[Text]:
    """The marker's line; where the composition of that very instant is known, its bar before it."""
    at = _moment((marker.time - origin).total_seconds(), 3)
    if marker.composition is not None and marker.composition.total is not None:
        line = _line(at).append(_bar(stacked_composition(marker.composition), limit_bytes, scale)).append(" ")
        usage = _number(marker.composition.total, _COLUMNS[0], scale.unit)
        yield line.append(usage.rjust(_COLUMNS[0].cells))
        at = ""
    glyph, style = ("✗", "bold red") if marker.is_kill else ("→", "bold")
    yield from _remark(at, f"{glyph} {marker.text}", style, scale)


def _remark(at: str, words: str, style: str, scale: _Scale) -> Iterator[Text]:
    """Words below the bars, which go on below themselves."""
    first, *more = textwrap.wrap(
        held_together(words), scale.columns - _TIME_CELLS - 1, subsequent_indent="  "
    )
    yield _line(at).append(first, style)
    yield from (_line("").append(line, style) for line in more)


def _line(moment: str) -> Text:
    return Text(f"{moment.rjust(_TIME_CELLS)} ", no_wrap=True, overflow="ellipsis")


def _bar(layer_bytes: Iterable[float], limit_bytes: float, scale: _Scale) -> Text:
    """`scale.cells` + 1 cells: the layers one after the other, and the limit's tick."""
    bar = Text()
    for layer, total in zip(LAYERS, itertools.accumulate(layer_bytes), strict=True):
        end = min(scale.cell_of(total), scale.cells)
        bar.append(layer.glyph * (end - bar.cell_len), style=layer.terminal)
    bar.append(" " * (scale.cells + 1 - bar.cell_len))
    if not scale.limit_drawn or not limit_bytes <= scale.full_bytes:
        return bar
    tick = scale.cell_of(limit_bytes)
    return bar[:tick] + Text("│", style="bold") + bar[tick + 1 :]


def _lane(waited_ms: Iterable[float], longest_ms: float, cells: int) -> Text:
    """The waits one after the other, to the scale of the row in which most was waited."""
    lane = Text("  ")
    for wait, total in zip(WAITS, itertools.accumulate(waited_ms), strict=True):
        end = round(total / longest_ms * (cells - 2)) if longest_ms else 0
        lane.append(wait.glyph * (end + 2 - lane.cell_len), style=wait.terminal)
    lane.append(" " * (cells - lane.cell_len))
    return lane


def _number(value: float, column: _Column, unit: float) -> str:
    if np.isnan(value):
        return "?"
    if column.unit == "count":
        return f"{value:,.0f}" if value else ""
    scaled = value / unit if column.unit == "bytes" else value
    if scaled == 0 and column.title != "usage":
        return ""
    if 0 < scaled < 0.05:
        return "<0.1"
    return f"{scaled:.1f}" if scaled < 1000 else f"{scaled:.0f}"


def _moment(seconds: float, decimals: int) -> str:
    if abs(seconds) < 600:
        return f"{seconds:.{decimals}f} s"
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _totals(timeline: pd.DataFrame) -> list[Text]:
    def total(column: str) -> float | None:
        values = timeline[column].dropna()
        return None if values.empty else float(values.sum())

    def peak(column: str) -> float | None:
        values = timeline[column].dropna()
        return None if values.empty else float(values.max())

    attempts = total("reclaim_attempts")
    stall_ms = total("reclaim_stall_ms")
    written, read = total("swap_written_bytes"), total("swap_read_bytes")
    ways = [f"{units.size(written)} were written to swap"] if written else []
    ways += (
        [f"{units.size(read)} read from it" if written else f"{units.size(read)} were read from swap"]
        if read
        else []
    )
    swapped = f" {', '.join(ways)}." if ways else ""
    return [
        prose(
            f"Most at the end of a row: usage {units.size(peak('usage_bytes'))}, "
            f"anon {units.size(peak('anon_bytes'))}, page cache {units.size(peak('cache_bytes'))}."
        ),
        prose(
            f"In all: page cache {units.size(total('cache_added_bytes'))} added, "
            f"{units.size(total('cache_evicted_bytes'))} evicted, "
            f"{units.size(total('cache_dropped_bytes'))} dropped, "
            f"{units.size(total('cache_refaulted_bytes'))} came back "
            f"(by the kernel's count {units.size(total('refault_bytes'))}); "
            f"{units.count(None if attempts is None else int(attempts))} reclaim attempts freed "
            f"{units.size(total('reclaimed_bytes'))} "
            f"in {units.duration(None if stall_ms is None else stall_ms / 1000)}.{swapped}"
        ),
    ]


def _waited(timeline: pd.DataFrame, waits: pd.DataFrame) -> list[Text]:
    """What was waited for in all, where there is a lane for it, beside the kernel's own account."""
    if not _has_a_lane(timeline, waits):
        return []
    kinds = ", ".join(
        f"{units.duration(ms / 1000)} {wait.label}" for wait in WAITS if (ms := float(waits[wait.name].sum()))
    )
    said = f"Tasks waited {units.duration(float(waits.to_numpy().sum()) / 1000)}" + (
        f": {kinds}" if kinds else ""
    )
    some, full = (psi_ms(timeline, who) for who in ("some", "full"))
    if np.isfinite(some).any() and np.isfinite(full).any():
        some_s, full_s = (units.duration(float(np.nansum(psi)) / 1000) for psi in (some, full))
        said += f"; by memory.pressure (PSI) some task stalled for {some_s}, all for {full_s}"
    return [prose(said + ".")]


def _legend(shown: Sequence[_Column], waits: pd.DataFrame) -> list[Text]:
    glyphs = Text()
    for layer in LAYERS:
        glyphs.append(layer.glyph, style=layer.terminal).append(f" {layer.label}   ")
    glyphs.append("│", style="bold").append(" the limit   ").append("✗", style="bold red").append(" OOM kill")
    words = {
        "added": "added: new in the page cache (file contents in memory)",
        "evicted": "evicted: taken from it by reclaim, to make room",
        "dropped": "dropped: gone with its file, or on request",
        "back": "back: read again after it had been evicted, within the trace",
        "tries": "tries: attempts to free memory (reclaim)",
        "freed": "freed: what they gave",
        "out": "out: written to swap",
        "out ms": "out ms: how long a write took, on the average",
        "in": "in: read from swap",
        "in ms": "in ms: how long a read took",
        "stall": "stall: time that tasks spent in them",
        "waited": "waited: time that tasks waited for memory, added up over the tasks",
        "PSI": "PSI: time in which some task did, by the kernel's own account (memory.pressure)",
    }
    meaning = "; ".join(words[column.title] for column in shown if column.title in words)
    lane = Text("waiting:   ")
    for wait in WAITS:
        if waits[wait.name].any():
            lane.append(wait.glyph, style=wait.terminal).append(f" {wait.label} ({wait.meaning})   ")
    lanes = [lane] if any(column.unit == "waits" for column in shown) else []
    rows = "A row: what was held at that time, what flowed since the row before. Blank: none. ?: not known."
    return [glyphs, *lanes, Text(f"{rows} {meaning[0].upper()}{meaning[1:]}.", style="dim")]
