"""The choice of cgroups, times and moments to draw if the user names none.

A moment is drawn in shorter rows, because the rows of its timeline are too long to show it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from tracer.analysis.core import ledger, naming
from tracer.analysis.core.bins import Readings, interval_ns
from tracer.analysis.core.naming import with_data
from tracer.analysis.core.subtree import Subtrees
from tracer.analysis.core.tables import TraceTables, start_ns
from tracer.analysis.core.tables import end_ns as trace_end_ns
from tracer.analysis.kernel_log import decisions
from tracer.analysis.views.timeline import timeline
from tracer.schema import UNLIMITED_BYTES

_MOST_SHOWN: Final = 3
_LEAST_OF_ALL_S: Final = 0.1

_STEPS_MS: Final = (
    *(10, 20, 50, 100, 200, 500),
    *(seconds * 1000 for seconds in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)),
    *(seconds * 1000 for seconds in (21600, 43200, 86400)),
)
"""Round lengths of a row. The kernel side sums charges over up to 10 ms, so a shorter row shows nothing
more."""


def ranked(trace: TraceTables) -> pd.DataFrame:
    """Return a row for each cgroup with data, the most important first.

    Cgroups whose limit led to a kill come first, in the order of the kills; then those with a limit, by peak
    usage; then all others, by peak usage.

    The index is `cgroup_id`. Columns: `limit_bytes` (the last one read, `UNLIMITED_BYTES` if none is set),
    `peak_usage_bytes` (`ledger.peak_usage`; both NA if no counter was read), and `kills` (the number of
    decisions of the OOM killer for this cgroup's limit).
    """
    ids = sorted(with_data(trace))
    limits, subtrees = Readings.from_counter(trace, "limit_bytes").last(), Subtrees(trace)
    peaks = [
        ledger.peak_usage(subtrees.subtree_at(number, members))
        for number, members in naming.descendants_of(trace.cgroups, ids).items()
    ]
    found = limits.astype("Int64").reindex(ids).to_frame("limit_bytes")
    found["peak_usage_bytes"] = pd.array(peaks, dtype="Int64")
    kills = _kills(trace).reindex(found.index)
    found["kills"], found["first_kill"] = kills["kills"].fillna(0).astype("int64"), kills["first_kill"]
    found["limited"] = found["limit_bytes"].lt(UNLIMITED_BYTES).fillna(False).astype(bool)
    order = ["first_kill", "limited", "peak_usage_bytes"]
    found = found.sort_values(order, ascending=[True, False, False], na_position="last")
    return found[["limit_bytes", "peak_usage_bytes", "kills"]]


def _kills(trace: TraceTables) -> pd.DataFrame:
    """Return `kills` and `first_kill` of each cgroup whose limit led to a kill, in the order of the kills."""
    of_limits = decisions.victims(trace).dropna(subset="limit_owner_cgroup_id")
    kills = of_limits.groupby("limit_owner_cgroup_id")["kill_id"]
    found = pd.DataFrame({"kills": kills.nunique(), "first_kill": kills.min()})
    return found.sort_values("first_kill")


def to_show(trace: TraceTables, most: int = _MOST_SHOWN) -> tuple[list[int], int]:
    """Return (ids of the cgroups to show, number of cgroups with data that are left out).

    These are at most `most` cgroups with a kill for their limit, and only the last such life of each name;
    without any kill, the first cgroups of `ranked`.
    """
    there = set(with_data(trace))
    killed = [int(cgroup_id) for cgroup_id in _kills(trace).index if cgroup_id in there]
    last_lives = [lives[-1].cgroup_id for lives in trace.places.lives.by_name(killed)]
    ids = (last_lives or [int(cgroup_id) for cgroup_id in ranked(trace).index[:1]])[:most]
    return ids, len(there) - len(ids)


def lives_to_show(
    trace: TraceTables,
    cgroup_ids: Sequence[int],
    *,
    begin: str | None = None,
    end: str | None = None,
    most: int = _MOST_SHOWN,
) -> list[int]:
    """Return at most `most` of these lives, in the same order.

    Only lives that overlap the time from `begin` to `end` are taken: first those with a kill for their limit,
    then the latest ones.
    """
    first, last = interval_ns(trace, begin, end)
    spans = {number: trace.places.lifetime_ns(number) for number in cgroup_ids}
    there = [number for number, (made, left) in spans.items() if made <= last and left >= first]
    killed = set(_kills(trace).index)
    by_weight = sorted(range(len(there)), key=lambda position: (there[position] in killed, position))
    return [there[position] for position in sorted(by_weight[-most:])]


def lifetime(trace: TraceTables, cgroup_id: int) -> tuple[pd.Timestamp, pd.Timestamp]:
    """Return (begin, end) of the part of the trace in which the cgroup existed, UTC."""
    made, left = trace.places.lifetime_ns(cgroup_id)
    return (
        pd.Timestamp(max(start_ns(trace), made), tz="UTC"),
        pd.Timestamp(min(trace_end_ns(trace), left), tz="UTC"),
    )


def timeline_of_life(
    trace: TraceTables,
    cgroup_id: int,
    rows: int,
    *,
    every: str | None = None,
    begin: str | None = None,
    end: str | None = None,
) -> pd.DataFrame:
    """Return the timeline of the cgroup over its life, or from `begin` to `end`.

    It has at most `rows` rows of a round length, unless `every` gives their length. The other arguments are
    those of `analysis.views.timeline.timeline`.
    """
    born, died = lifetime(trace, cgroup_id)
    first = begin if begin is not None else born.isoformat()
    last = end if end is not None else (died + pd.Timedelta(1, "ns")).isoformat()
    if every is not None:
        return timeline(trace, cgroup_id, every, first, last)
    begin_ns, end_ns = interval_ns(trace, first, last)
    begin_ns, end_ns = max(begin_ns, start_ns(trace)), min(end_ns, trace_end_ns(trace))
    if end is None:
        rows -= 1  # the instant `died` may need a row of its own
    return timeline(trace, cgroup_id, row_width((end_ns + 1 - begin_ns) / 1e9, rows), first, last)


def row_width_of_all(trace: TraceTables, cgroups: int, most_rows: int) -> str:
    """Return the length of a row that gives a timeline of this many cgroups over the whole trace at most
    `most_rows` rows: 100 ms, or a longer round length."""
    first, last = interval_ns(trace, None, None)
    rows_each = most_rows // max(cgroups, 1)
    return row_width(max((last + 1 - first) / 1e9, rows_each * _LEAST_OF_ALL_S), rows_each)


def row_width(seconds: float, rows: int) -> str:
    """Return the shortest round length of a row, such as "200ms", that divides `seconds` into at most `rows`
    rows."""
    wanted_ms = seconds * 1000 / max(1, rows)
    longest = _STEPS_MS[-1]
    step = next((step for step in _STEPS_MS if step >= wanted_ms), longest * math.ceil(wanted_ms / longest))
    return f"{step}ms"


COARSE: Final = pd.Timedelta("1s")
"""The shortest length of a row in which kills, evictions and reclaim can no longer be distinguished."""

_AFTER: Final = 8
"""An eighth of a row is shown after a kill."""


@dataclass(frozen=True, slots=True)
class Moment:
    """An interval (UTC) to draw in shorter rows, and its event in words."""

    what: str
    begin: pd.Timestamp
    end: pd.Timestamp


def to_look_at(timeline: pd.DataFrame, kills: Sequence[pd.Timestamp]) -> list[Moment]:
    """Return the moments of the timeline of one cgroup, most important first.

    These are the last of `kills`, the row with the most evictions, and the first row with reclaim. A moment
    whose middle lies in an earlier one is left out. Timelines with rows shorter than `COARSE` have no such
    moments.
    """
    if len(timeline) < 2 or (step := timeline.index[1] - timeline.index[0]) < COARSE:
        return []
    found: list[Moment] = []
    for moment in _candidates(timeline, kills, step):
        middle = moment.begin + (moment.end - moment.begin) / 2
        if not any(other.begin <= middle < other.end for other in found):
            found.append(moment)
    return found


def _candidates(
    timeline: pd.DataFrame, kills: Sequence[pd.Timestamp], step: pd.Timedelta
) -> Iterator[Moment]:
    within = [kill for kill in kills if timeline.index[0] <= kill < timeline.index[-1] + step]
    if within:
        last = max(within)
        yield Moment("the last kill", max(last - step, timeline.index[0]), last + step / _AFTER)
    evicted = timeline["cache_evicted_bytes"].to_numpy(dtype=np.float64, na_value=0)
    if evicted.any():
        begin = timeline.index[int(evicted.argmax())]
        yield Moment("the most evictions", begin, begin + step)
    tries = timeline["reclaim_attempts"].to_numpy(dtype=np.float64, na_value=0)
    if tries.any():
        begin = timeline.index[int((tries > 0).argmax())]
        yield Moment("the first reclaim", begin, begin + step)
