"""The answer of `fleet` as one self-contained HTML page, without requests and scripts, and its pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, get_args

import numpy as np
from markupsafe import Markup

from tracer import units
from tracer.analysis.results.kill import UNKNOWN, Cause
from tracer.fleet.reduction.fleet_answer import Fleet, Workload
from tracer.render.fleet import fleet_facts, fleet_tables, limit_states
from tracer.render.fleet.fleet_facts import counted, least_in_words, minute
from tracer.render.fleet.fleet_tables import MOST_ROWS_OF_PAGE, NAMES, Section
from tracer.render.page import drawing, page_frame
from tracer.render.page.chart import Panel, Shape
from tracer.render.page.drawing import Tick
from tracer.render.page.tiles import Tile
from tracer.render.words.escape import visible

_COLOURS: Final = (
    *("#D55E00", "#CC79A7", "#009E73", "#8C6BB1", "#E69F00"),
    *("#0072B2", "#56B4E9", "#F0C300", "#5B6770", "#9AA5AF"),
)
_CLASSES: Final = {cause: f"cause-{place}" for place, cause in enumerate(get_args(Cause))}
_MOST_ROWS: Final = 15
_MOST_TIMES_THE_LIMIT: Final = 2.5
_ROOM: Final = 1.06
_MOST_LABELS: Final = 4
_ROOM_FOR_LABELS: Final = 0.8
"""A label of the time axis begins at its moment: further right, it would not fit on a narrow screen."""
_DAY_S: Final = 86400


@dataclass(frozen=True, slots=True)
class Part:
    """A rectangle of a bar, with the name of its colour."""

    name: str
    left: str
    width: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A row of a picture: a workload, its bar, and its numbers. `ticks` are (name, place)."""

    label: str
    parts: tuple[Part, ...]
    ticks: tuple[tuple[str, str], ...]
    words: str


@dataclass(frozen=True, slots=True)
class Bars:
    """A picture with a row for each workload. `keys` is its legend: (name of a colour, words)."""

    keys: tuple[tuple[str, str], ...]
    bars: tuple[Bar, ...]
    note: str


@dataclass(frozen=True, slots=True)
class OverTime:
    """A picture of kills over time: a panel of a chart, and the labels of its time axis."""

    panel: Panel
    ticks: tuple[Tick, ...]
    note: str
    marks: tuple[()] = ()


def colours() -> list[tuple[str, str]]:
    """Return (name, colour) of each cause."""
    return list(zip(_CLASSES.values(), _COLOURS, strict=True))


def over_time(fleet: Fleet) -> OverTime | None:
    """Return the kills in intervals of equal length, by cause; None without kills."""
    seen = fleet.kills_over_time
    if seen is None:
        return None
    bins = len(next(iter(seen.counts.values())))
    edges = np.linspace(0, drawing.UNITS, bins + 1)
    tallest = int(np.sum(list(seen.counts.values()), axis=0).max())
    top, below, areas = tallest * _ROOM, np.zeros(bins), []
    for cause in _in_order(seen.counts):
        above = below + np.asarray(seen.counts[cause])
        (x, lower), (_, upper) = (
            drawing.stairs(edges, drawing.heights(level, top)) for level in (below, above)
        )
        areas.append(Shape(_class(cause), visible(cause), drawing.area(x, lower, upper)))
        below = above
    step = max(round(drawing.round_step(top)), 1)
    heights = [Tick(drawing.percent(1 - count / top), f"{count:,}") for count in range(0, tallest + 1, step)]
    words = "%m-%d" if seen.width.total_seconds() >= _DAY_S else "%m-%d %H:%M"
    times = [
        Tick(drawing.percent(number / bins), f"{seen.begin + number * seen.width:{words}}")
        for number in range(0, max(int(bins * _ROOM_FOR_LABELS), 1), -(-bins // _MOST_LABELS))
    ]
    width = units.round_duration(seen.width.total_seconds())
    note = f"One column is {width}; times in UTC, from {minute(seen.begin)}."
    return OverTime(Panel("kills", "kills", tuple(heights), tuple(areas), ()), tuple(times), note)


def by_workload(fleet: Fleet) -> Bars | None:
    """Return the kills of each workload, by cause; None without kills."""
    kills: dict[str, dict[str, int]] = {}
    for one in fleet.kills:
        causes = kills.setdefault(one.workload, {})
        causes[one.cause] = causes.get(one.cause, 0) + one.count
    if not kills:
        return None
    most_first = sorted(kills, key=lambda name: (-sum(kills[name].values()), name))
    shown = most_first[:_MOST_ROWS]
    most = sum(kills[shown[0]].values())
    bars = []
    for name in shown:
        left, parts = 0, []
        for cause in _in_order(kills[name]):
            count = kills[name][cause]
            parts.append(Part(_class(cause), drawing.percent(left / most), drawing.percent(count / most)))
            left += count
        bars.append(Bar(visible(name), tuple(parts), (), units.count(left)))
    seen = _in_order({cause for name in shown for cause in kills[name]})
    keys = tuple((_class(cause), visible(cause)) for cause in seen)
    return Bars(keys, tuple(bars), _left_out(len(most_first) - len(shown)))


def limits(fleet: Fleet) -> Bars | None:
    """Return the peaks of each workload against its limit; None if no limit or peak is known."""
    wrong, others = limit_states.worst_first(fleet.workloads)
    known = [one for one in (*wrong, *others) if one.limit_bytes and one.peak_unreclaimable_bytes.max]
    shown = known[:_MOST_ROWS]
    if not shown:
        return None
    reach = max(1.0, *(value for one in shown for value in _times_its_limit(one)))
    full = min(reach, _MOST_TIMES_THE_LIMIT) * _ROOM
    bars = tuple(_against_limit(one, full) for one in shown)
    keys = (("peak", "peak of the median run"), ("largest", "largest peak of a run"))
    note = (
        "Memory that reclaim could not have freed, to the scale of each workload's limit (the line). "
        "Dashed: the suggested limit, or the least that is known to be needed. "
    )
    return Bars(keys, bars, (note + _left_out(len(known) - len(shown))).strip())


def _times_its_limit(one: Workload) -> Iterator[float]:
    for value in (one.peak_unreclaimable_bytes.max, limit_states.better_limit_bytes(one)):
        if value and one.limit_bytes:
            yield value / one.limit_bytes


def _against_limit(one: Workload, full: float) -> Bar:
    limit, peaks, better = (
        one.limit_bytes or 1,
        one.peak_unreclaimable_bytes,
        limit_states.better_limit_bytes(one),
    )

    def place(value: int | None) -> str:
        return drawing.percent(min((value or 0) / limit / full, 1.0))

    ticks = [("limit", place(limit))]
    words = f"{units.size(peaks.max)} of {units.size(limit)}"
    if better is not None:
        ticks.append(("better", place(better)))
        least = least_in_words(one) if limit_states.is_only_least(one) else ""
        words += f"; {f'needs {least}' if least else f'suggested {units.size(better)}'}"
    parts = (Part("largest", "0%", place(peaks.max)), Part("peak", "0%", place(peaks.p50)))
    return Bar(visible(one.workload), parts, tuple(ticks), words)


def _in_order(causes: Iterable[str]) -> list[str]:
    """Return causes in the order of `Cause`, so that each has the same place in every bar."""
    known = list(_CLASSES)
    return sorted(causes, key=lambda name: (known.index(name) if name in _CLASSES else len(known), name))


def _class(cause: str) -> str:
    return _CLASSES.get(cause, _CLASSES[UNKNOWN])


def _left_out(more: int) -> str:
    return f"{counted(more, 'workload')} more: see the table." if more > 0 else ""


def page(fleet: Fleet) -> str:
    """Return the page. The same answer always gives the same text."""
    style = page_frame.style(colours())
    return (
        page_frame.environment()
        .get_template("fleet.html.j2")
        .render(
            title="memcg-tracer fleet",
            headline=fleet_facts.sentence(fleet),
            tiles=_tiles(fleet),
            facts=list(fleet_facts.facts(fleet)),
            warnings=list(fleet_facts.warnings(fleet)),
            sections=[_named_first(one) for one in fleet_tables.sections(fleet, MOST_ROWS_OF_PAGE)],
            over_time=over_time(fleet),
            pictures={
                fleet_tables.KILLS: by_workload(fleet),
                fleet_tables.LIMITS: limits(fleet),
            },
            names=NAMES,
            count=units.count,
            classes={"<": "left", ">": "right"},
            style=Markup(style),
            style_hash=Markup(page_frame.source_hash(style)),
        )
    )


def _named_first(section: Section) -> Section:
    """Return a table with its columns of names first: a narrow screen may show only the first columns."""
    return section.with_columns(
        sorted(range(len(section.columns)), key=lambda at: section.columns[at][0] not in NAMES)
    )


def _tiles(fleet: Fleet) -> tuple[Tile, Tile, Tile]:
    kills = sum(one.count for one in fleet.kills)
    workloads = len({one.workload for one in fleet.kills})
    others = fleet_facts.evicted_by_others(fleet)
    return (
        Tile("kills", units.count(kills), f"of {counted(workloads, 'workload')}"),
        _limits_tile([one for one in fleet.workloads if one.limit_bytes is not None]),
        Tile("page cache evicted", units.size(others), "by tasks of another workload"),
    )


def _limits_tile(limited: Sequence[Workload]) -> Tile:
    label = "limits too low"
    if not limited:
        return Tile(label, units.UNKNOWN, "no workload with a limit was recorded")
    if not any(map(limit_states.is_judged, limited)):
        return Tile(label, units.UNKNOWN, "too few runs ended without a kill")
    low, high = (units.count(len(found(limited))) for found in (limit_states.too_low, limit_states.too_high))
    return Tile(label, low, f"and {high} too high, of {units.count(len(limited))}")
