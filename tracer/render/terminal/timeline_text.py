"""The timeline of a cgroup for a terminal: a row for each interval, with a bar of memory up to the limit.

`render.terminal.timeline_rows` draws the rows. This module adds the heading, the totals and the legend.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from rich.text import Text

from tracer import units
from tracer.analysis.results.quality import SummedInterval, ThinnedInterval
from tracer.analysis.views.timeline import row_length
from tracer.categories import LAYERS
from tracer.render.picture import WAITS, Marker, psi_ms, stacked_layers
from tracer.render.terminal.timeline_rows import Drawing, draw, has_lane
from tracer.render.words.escape import fitted, visible
from tracer.render.words.places import one_of
from tracer.render.words.prose import prose, unbroken
from tracer.render.words.quality_facts import coarser, summed, thinned
from tracer.schema import UNLIMITED_BYTES

_INDENT: Final = 2
_CONTINUED: Final = " \\"


def may_be_pasted(word: str, columns: int) -> bool:
    """Return whether a word is safe to show in a terminal and fits on a line of a command."""
    return visible(word) == word and len(shlex.quote(word)) + 2 * _INDENT + 10 <= columns


def command_lines(parts: Sequence[Sequence[str]], columns: int) -> list[Text]:
    """Return a command as lines that a shell joins again. The words of a part stay on one line."""
    found: list[str] = []
    for part in map(shlex.join, parts):
        if found and len(found[-1]) + len(part) + 1 + len(_CONTINUED) <= columns:
            found[-1] += f" {part}"
        else:
            found.append(" " * (_INDENT * (2 if found else 1)) + part)
    continued = [line + _CONTINUED for line in found[:-1]]
    return [Text(line, no_wrap=True) for line in (*continued, *found[-1:])]


_WHEN_SUMMED: Final = "sizes are exact; what was read again is not known there"


@dataclass(frozen=True, slots=True)
class Heading:
    """The subject of a picture: run `run` of the `runs` lives of a cgroup name. Names are not escaped.

    `origin` is the beginning of the trace. `has_clock`: rows have the time of day instead of seconds from
    there.
    """

    cgroup: str
    container: str | None
    run: int
    runs: int
    kernel: str | None
    origin: pd.Timestamp
    lost_records: int
    interrupted: bool
    summed: Sequence[SummedInterval] = ()
    thinned: Sequence[ThinnedInterval] = ()
    has_clock: bool = False

    @property
    def counted_from(self) -> pd.Timestamp | None:
        """Return the moment that the times of rows count from; None: they are times of day."""
        return None if self.has_clock else self.origin


@dataclass(frozen=True, slots=True)
class Picture:
    """The lines of a picture without its legend. `drawing` is None if nothing was measured."""

    lines: list[Text]
    drawing: Drawing | None


def picture(timeline: pd.DataFrame, heading: Heading, markers: Iterable[Marker], *, columns: int) -> Picture:
    """Return the picture: heading, ruler, a line for each row of `timeline`, and totals.

    `timeline` is the result of `analysis.views.timeline` for one cgroup. No line is wider than `columns`.
    """
    lines = _heading_lines(timeline, heading, columns)
    if timeline.empty or timeline["usage_bytes"].isna().all():
        return Picture([*lines, Text("The memory of this cgroup was not measured in that time.")], None)
    drawing = draw(timeline, markers, origin=heading.counted_from, columns=columns)
    lines += [*drawing.lines, Text(), *_totals(drawing.timeline), *_waited(drawing)]
    return Picture(lines, drawing)


def inset(
    subject: str,
    timeline: pd.DataFrame,
    heading: Heading,
    markers: Iterable[Marker],
    *,
    columns: int,
) -> list[Text]:
    """Return a part of a picture in shorter rows: a title, a ruler and the rows."""
    if len(timeline) < 2 or timeline["usage_bytes"].isna().all():
        return []
    step = units.duration((timeline.index[1] - timeline.index[0]).total_seconds())
    title = Text(f"Closer: {subject}, in rows of {step}", style="bold")
    drawing = draw(timeline, markers, origin=heading.counted_from, columns=columns)
    return [Text(), title, *drawing.lines]


def legend(pictures: Sequence[Picture]) -> list[Text]:
    """Return the legend of all glyphs, waits and columns in the pictures, below a blank line."""
    drawings = [one.drawing for one in pictures if one.drawing is not None]
    if not drawings:
        return []
    glyphs = Text()
    layers = [stacked_layers(drawing.timeline) for drawing in drawings]
    for layer in LAYERS:
        if not (layer.is_common or any(one[layer.name].any() for one in layers)):
            continue
        glyphs.append(layer.glyph, style=layer.terminal).append(f"{unbroken(f' {layer.label}')}   ")
    for glyph, style, words in (("│", "bold", " the limit"), ("✗", "bold red", " OOM kill")):
        glyphs.append(glyph, style=style).append(f"{unbroken(words)}   ")
    lane = Text("waiting:   ")
    for wait in WAITS:
        if any(drawing.waits[wait.name].any() for drawing in drawings):
            lane.append(wait.glyph, style=wait.terminal).append(
                f"{unbroken(f' {wait.label}')} ({wait.meaning})   "
            )
    columns = list(dict.fromkeys(column for drawing in drawings for column in drawing.columns))
    lanes = [lane] if any(column.is_lane for column in columns) else []
    rows = "Each row: the memory at that time, and the flows since the row before. Blank: none. ?: not known."
    meanings = "; ".join(f"{column.head}: {column.note}" for column in columns if column.note)
    return [Text(), glyphs, *lanes, Text(f"{rows} {meanings[0].upper()}{meanings[1:]}.", style="dim")]


def _heading_lines(timeline: pd.DataFrame, heading: Heading, columns: int) -> list[Text]:
    name = Text()
    if heading.runs > 1:
        name.append(f"{one_of(heading.run, heading.runs)}: ", style="bold")
    if heading.container:
        name.append("container " + fitted(heading.container, columns // 2), style="bold").append("  ")
    name.append(fitted(heading.cgroup, columns - name.cell_len), style="" if heading.container else "bold")
    facts = [_limit_words(timeline), *_high_words(timeline)]
    if not timeline.empty:
        step = row_length(timeline)
        span = timeline.index[-1] - timeline.index[0] + step
        facts.append(
            f"{units.duration(span.total_seconds())} from {timeline.index[0]:%Y-%m-%d %H:%M:%S}."
            f"{timeline.index[0].microsecond // 1000:03d} UTC "
            f"in rows of {units.duration(step.total_seconds())}"
        )
    if heading.kernel:
        facts.append("kernel " + fitted(heading.kernel, 20))
    lines = [name, prose(", ".join(facts), "dim")]
    if heading.lost_records:
        lost = f"{units.count(heading.lost_records)} records were lost: added, evicted, tries may be too low"
        lines.append(Text(lost, style="bold yellow"))
    if heading.summed:
        lines.append(prose(summed(heading.summed, _WHEN_SUMMED), "yellow"))
    if coarse := [] if timeline.empty else coarser(heading.thinned, row_length(timeline)):
        lines.append(prose(thinned(coarse), "yellow"))
    if heading.interrupted:
        lines.append(Text("the recording was interrupted: this is what had been written by then", "yellow"))
    return [*lines, Text()]


def _limit_words(timeline: pd.DataFrame) -> str:
    is_known = timeline["is_limited"].notna()
    return _in_turn(timeline["limit_bytes"][is_known], "limit") if is_known.any() else "limit not known"


def _high_words(timeline: pd.DataFrame) -> list[str]:
    """Return memory.high, if one was set."""
    is_set = timeline["high_bytes"].notna()
    is_known = is_set | timeline["is_high_limited"].notna()
    return [_in_turn(timeline["high_bytes"][is_known], "memory.high")] if is_set.any() else []


def _in_turn(read: pd.Series, name: str) -> str:
    """Return the values of a limit one after the other; null: none was set."""
    limits = pd.to_numeric(read).fillna(UNLIMITED_BYTES).to_numpy(np.int64)
    in_turn = limits[np.diff(limits, prepend=-1) != 0].tolist()
    first, *later = (
        f"no {name}" if one >= UNLIMITED_BYTES else f"{name} {units.limit(one)}" for one in in_turn
    )
    if len(later) > 2:
        return f"{first}, changed {len(later)} times, {later[-1]} at the end"
    return ", later ".join([first, *later])


def _totals(timeline: pd.DataFrame) -> list[Text]:
    def total(column: str) -> float | None:
        values = timeline[column].dropna()
        return None if values.empty else float(values.sum())

    def peak(column: str) -> float | None:
        values = timeline[column].dropna()
        return None if values.empty else float(values.max())

    at_least = "at least " if timeline["cache_refaulted_bytes"].isna().any() else ""
    attempts, stall_ms = total("reclaim_attempts"), total("reclaim_stall_ms")
    return [
        prose(
            f"Peak at the end of a row: usage {units.size(peak('usage_bytes'))}, "
            f"anon {units.size(peak('anon_bytes'))}, page cache {units.size(peak('cache_bytes'))}."
        ),
        prose(
            f"Total: page cache {units.size(total('cache_added_bytes'))} added, "
            f"{units.size(total('cache_evicted_bytes'))} evicted, "
            f"{units.size(total('cache_dropped_bytes'))} dropped, "
            f"{at_least}{units.size(total('cache_refaulted_bytes'))} read again "
            f"(by the kernel's count {units.size(total('refault_bytes'))}); "
            f"{units.count(None if attempts is None else int(attempts))} reclaim attempts freed "
            f"{units.size(total('reclaimed_bytes'))} "
            f"in {units.duration(None if stall_ms is None else stall_ms / 1000)}."
            + _swapped(total("swap_written_bytes"), total("swap_read_bytes"))
        ),
    ]


def _swapped(written_bytes: float | None, read_bytes: float | None) -> str:
    """Return the sentence about the traffic to and from swap; empty without traffic."""
    written = f"{units.size(written_bytes)} was written to swap" if written_bytes else ""
    read = f"{units.size(read_bytes)} was read from {'it' if written else 'swap'}" if read_bytes else ""
    words = " and ".join(filter(None, (written, read)))
    return f" {words}." if words else ""


def _waited(drawing: Drawing) -> list[Text]:
    """Return the totals of the waits, if they have a lane, and the totals of memory.pressure."""
    timeline, waits = drawing.timeline, drawing.waits
    if not has_lane(timeline, waits):
        return []
    kinds = ", ".join(
        f"{units.duration(ms / 1000)} {wait.label}" for wait in WAITS if (ms := float(waits[wait.name].sum()))
    )
    words = f"Tasks waited {units.duration(float(waits.to_numpy().sum()) / 1000)}" + (
        f": {kinds}" if kinds else ""
    )
    some, full = (psi_ms(timeline, level) for level in ("some", "full"))
    if np.isfinite(some).any() and np.isfinite(full).any():
        some_s, full_s = (units.duration(float(np.nansum(psi)) / 1000) for psi in (some, full))
        words += f"; according to memory.pressure (PSI), some task stalled for {some_s}, all for {full_s}"
    return [prose(words + ".")]
