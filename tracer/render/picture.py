"""Parts of every picture: layers of memory, kinds of waiting, markers of events.

The colours of waits are from the palette of `categories.LAYERS`. The glyphs are letters, because waits have
their own lane beside the bar of memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from tracer import units
from tracer.analysis.explain.words.sentence_parts import process
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.memory import Composition
from tracer.analysis.views.timeline import row_length
from tracer.categories import LAYER_BY_NAME, LAYERS, PART_BY_NAME, Layer
from tracer.render.words.escape import visible

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

_REST_OF_KERNEL: Final = "kernel_other_bytes"
LAYER_COLUMNS: Final = {
    "anon": ("anon_bytes",),
    "shmem": ("shmem_bytes",),
    "kernel": ("slab_bytes", "kernel_stack_bytes", "page_tables_bytes", _REST_OF_KERNEL, "sock_bytes"),
    "zswap": ("zswap_bytes",),
    "dirty": ("file_dirty_bytes", "file_writeback_bytes"),
    "cache": ("cache_bytes",),
}
"""Layer -> the columns of a timeline that add up to it. The columns of `cache` include dirty cache, those of
`kernel` include zswap. The layer `other` has no column."""


def floats(frame: pd.DataFrame, column: str) -> Floats:
    """Return a column as float64. An unknown value is NaN."""
    values: Floats = frame[column].to_numpy(dtype="float64", na_value=np.nan)
    return values


def stacked_layers(timeline: pd.DataFrame) -> pd.DataFrame:
    """Return the bytes of each layer (columns in the order of `LAYERS`) in each row of a timeline
    (`analysis.views.timeline`).

    An unknown column counts as 0. The layer `other` is the rest of usage: the memory of unknown columns, and
    memory that CPUs have charged in advance to their stocks.
    """
    layers = {
        layer: np.sum([np.nan_to_num(floats(timeline, name)) for name in names], axis=0).clip(0)
        for layer, names in LAYER_COLUMNS.items()
    }
    layers["dirty"] = np.clip(layers["dirty"], 0, layers["cache"])
    layers["cache"] -= layers["dirty"]
    # A sample can be older than the ledger's level: it takes at most the memory that contains zswap.
    rest = floats(timeline, _REST_OF_KERNEL)
    layers["zswap"] = np.where(np.isnan(rest), layers["zswap"], np.clip(layers["zswap"], 0, rest.clip(0)))
    layers["kernel"] -= np.where(np.isnan(rest), 0, layers["zswap"])
    usage = np.nan_to_num(floats(timeline, "usage_bytes"))
    layers["other"] = np.clip(usage - sum(layers.values()), 0, None)
    return pd.DataFrame({layer.name: layers[layer.name] for layer in LAYERS}, index=timeline.index)


def stacked_composition(composition: Composition) -> list[int]:
    """Return the bytes of each layer at a kill, in the order of `LAYERS`. An unknown part counts as 0."""
    sizes = dict.fromkeys(LAYER_BY_NAME, 0)
    for part, value in composition.parts():
        sizes[PART_BY_NAME[part].layer] += max(value or 0, 0)
    return list(sizes.values())


_SHOWN_FROM_SHARE: Final = 0.25


class Bound(NamedTuple):
    """A limit or memory.high in each row (NaN: none, or not known), and its words for a legend."""

    name: str
    words: str
    in_bytes: Floats
    top_bytes: float


def bounds(timeline: pd.DataFrame, peak_bytes: float) -> Iterator[Bound]:
    """Yield the bounds to draw: usage came to a quarter of them. One further away would flatten all else."""
    for name, label in (("limit", "limit"), ("high", "memory.high")):
        in_bytes = floats(timeline, f"{name}_bytes")
        top = float(np.nanmax(in_bytes, initial=0.0))
        if top and peak_bytes >= top * _SHOWN_FROM_SHARE:
            words = f"{label} {units.size(top)}" if np.nanmin(in_bytes) == top else label
            yield Bound(name, words, in_bytes, top)


def peak(timeline: pd.DataFrame) -> float:
    """Return the greatest usage in bytes; 0 if it is not known."""
    return float(np.nanmax(floats(timeline, "usage_bytes"), initial=0.0))


WAITS: Final = (
    Layer("reclaim", "reclaim", "r", "color(166)", "#D55E00", "tasks free memory themselves"),
    Layer("throttled", "throttled", "w", "color(74)", "#56B4E9", "in reclaim, mostly for writeback"),
    Layer("dirty", "dirty pages", "d", "color(32)", "#0072B2", "writers wait until more is written"),
    Layer("swap_in", "swap-in", "s", "color(175)", "#CC79A7", "swapped memory is read back"),
    Layer("high", "memory.high", "h", "color(178)", "#E69F00", "usage is above memory.high"),
    Layer("reread", "read again", "a", "color(36)", "#009E73", "files that had been evicted are read again"),
)


def stacked_waits_ms(timeline: pd.DataFrame) -> pd.DataFrame:
    """Return the milliseconds of each wait (columns in the order of `WAITS`) for each row of a timeline.

    The times of all tasks are summed, so a sum can exceed the length of the row. Unknown times count as 0.
    """
    waited = {wait.name: np.nan_to_num(floats(timeline, f"stalled_{wait.name}_ms")) for wait in WAITS}
    waited["reclaim"] = np.clip(waited["reclaim"] - waited["throttled"], 0, None)
    return pd.DataFrame(waited, index=timeline.index)


def psi_ms(timeline: pd.DataFrame, level: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the milliseconds of level `some` or `full` of memory.pressure; NaN where it was not read."""
    return floats(timeline, f"psi_{level}_us") / 1000


_MOST_INTERVALS: Final = 5
_MOST_KILLS: Final = 20


@dataclass(frozen=True, slots=True)
class Marker:
    """An event at `time` (UTC). Names in `text` are escaped.

    `composition` is the memory of the cgroup at that time. `until` is the end of an interval.
    """

    time: pd.Timestamp
    text: str
    is_kill: bool
    composition: Composition | None = None
    until: pd.Timestamp | None = None


def kill_markers(reports: Iterable[OomReport], cgroup: str, timeline: pd.DataFrame) -> list[Marker]:
    """Return the markers of the kills that concern the cgroup with this path, within the time of its
    `timeline`.

    For more than 20 kills, only the first one in each twentieth of that time is marked, with the number of
    later kills in this part.
    """
    if timeline.empty:
        return []
    begin, end = timeline.index[0], timeline.index[-1] + row_length(timeline)
    kills = [report for report in reports if _concerns(report, cgroup)]
    markers = [
        marker
        for report, later in _in_parts(kills, begin, end)
        for marker in _markers_for_kill(report, cgroup, len(later))
    ]
    return [marker for marker in markers if begin <= marker.time < end]


def limit_markers(
    reports: Iterable[OomReport], cgroup: str, reached: Sequence[pd.Timestamp], timeline: pd.DataFrame
) -> list[Marker]:
    """Return the markers of the moments at which the cgroup with this path came to its limit, within the time
    of its `timeline`; the first alone if there are many.

    `reached` are such moments by readings. A kill in `reports` may know an earlier one for its shortage.
    """
    if timeline.empty:
        return []
    begin, end = timeline.index[0], timeline.index[-1] + row_length(timeline)
    own = [
        (report.cushion.limit_reached_at, report.time)
        for report in reports
        if report.limit_owner.cgroup == cgroup
        and report.cushion.limit_reached_at is not None
        and report.time is not None
    ]
    others = [moment for moment in reached if not any(first <= moment <= kill for first, kill in own)]
    moments = sorted(moment for moment in {*others, *(first for first, _ in own)} if begin <= moment < end)
    text = "usage has reached the limit: from here on, each charge needs memory to be freed first"
    again = [Marker(moment, "usage has reached the limit again", is_kill=False) for moment in moments[1:]]
    first = [Marker(moment, text, is_kill=False) for moment in moments[:1]]
    return first + (again if len(again) < _MOST_INTERVALS else [])


def _in_parts(
    kills: Sequence[OomReport], begin: pd.Timestamp, end: pd.Timestamp
) -> Iterator[tuple[OomReport, Sequence[OomReport]]]:
    """Yield each kill to mark, with the later kills that it represents."""
    timed = [(kill.time, kill) for kill in kills if kill.time is not None]
    shown = [(time, kill) for time, kill in timed if begin <= time < end]
    if len(shown) <= _MOST_KILLS:
        yield from ((kill, ()) for _, kill in timed)
        return
    parts: dict[int, list[OomReport]] = {}
    for time, kill in shown:
        parts.setdefault(int((time - begin) * _MOST_KILLS / (end - begin)), []).append(kill)
    yield from ((first, rest) for first, *rest in parts.values())


def read_again_markers(thrash: pd.DataFrame, timeline: pd.DataFrame) -> list[Marker]:
    """Return the markers of the intervals with the most evictions, clipped to the time of the `timeline`.

    `thrash` has the rows of `analysis.views.thrash`.
    """
    if timeline.empty:
        return []
    begin, end = timeline.index[0], timeline.index[-1] + row_length(timeline)
    inside = thrash[(thrash["begin"] < end) & (thrash["end"] >= begin)]
    most = inside.nlargest(_MOST_INTERVALS, "evicted_bytes").sort_values("begin")
    return [
        Marker(
            max(row["begin"], begin),
            f"cache read again soon for {units.duration((row['end'] - row['begin']).total_seconds())}: "
            f"{units.size(row['evicted_bytes'])} evicted, "
            f"{units.size(row['refaulted_bytes'])} of it read again",
            is_kill=False,
            until=min(row["end"], end),
        )
        for row in most.to_dict("records")
    ]


def _concerns(report: OomReport, cgroup: str) -> bool:
    below = cgroup.rstrip("/") + "/"
    places = (report.limit_owner.cgroup, *(victim.cgroup for victim in report.victims))
    return any(place is not None and (place + "/").startswith(below) for place in places)


def _markers_for_kill(report: OomReport, cgroup: str, more: int) -> Iterator[Marker]:
    is_owner = report.limit_owner.cgroup == cgroup
    cushion = report.cushion
    if report.time is None:
        return
    if is_owner and cushion.exhausted_at is not None:
        evicted = (
            "" if cushion.evicted_bytes is None else f", {units.size(cushion.evicted_bytes)} was evicted"
        )
        yield Marker(cushion.exhausted_at, f"the page cache is used up{evicted}", is_kill=False)
    after = f"; {units.count(more)} more soon after" if more else ""
    for number, victim in enumerate(report.victims):
        anon = units.size(victim.anon_rss_bytes)
        yield Marker(
            report.time,
            f"OOM kill: {visible(process(victim.comm, victim.pid))}, anon {anon}{after}",
            is_kill=True,
            composition=report.composition if is_owner and number == 0 else None,
        )
