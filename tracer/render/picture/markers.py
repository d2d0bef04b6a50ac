"""The marked events in every picture: kills, the moment at which the page cache was used up, and intervals in
which evicted cache was soon read again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd

from tracer import units
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.memory import Composition
from tracer.analysis.views.timeline import row_length
from tracer.render.words.escape import visible

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
    """Return the marker of the first moment at which the cgroup with this path came to its limit, within the
    time of its `timeline`.

    `reached` are such moments by readings; kills in `reports` may know earlier ones.
    """
    if timeline.empty:
        return []
    begin, end = timeline.index[0], timeline.index[-1] + row_length(timeline)
    own = [report.cushion.limit_reached_at for report in reports if report.limit_owner.cgroup == cgroup]
    moments = [moment for moment in (*reached, *own) if moment is not None and begin <= moment < end]
    text = "usage has reached the limit: from here on, each charge needs memory to be freed first"
    return [Marker(min(moments), text, is_kill=False)] if moments else []


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
            f"OOM kill: {visible(victim.comm)} (pid {victim.pid}), anon {anon}{after}",
            is_kill=True,
            composition=report.composition if is_owner and number == 0 else None,
        )
