"""Limit hits: a cgroup's usage was about to exceed its memory.max, or exceeded memory.high.

The counts of memory.events include the descendants. A cgroup that was not near its own limit since its last
sample did not hit it: a descendant hit another limit, and has samples of its own. memory.failcnt of v1 counts
the hits of the cgroup's own limit.

Where the kernel does not count hits of the limit (v1 with equal limits of memory and of memory + swap, since
v6.15), a hit is assumed if reclaim examines pages while usage is near the limit.

A cgroup whose page cache fills its limit hits the limit all day. While the hits go on, the time between its
alarms doubles: one minute, two, four, and at most an hour. Ten minutes without a hit reset it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa

from tracer.live.alarm import Alarm
from tracer.live.cgroup_states import CgroupStates
from tracer.live.sample_arrays import UNKNOWN, Flags, Numbers, limits, turns, values
from tracer.schema import UNLIMITED_BYTES
from tracer.units import count, duration, size

_SECOND_NS: Final = 1_000_000_000
FIRST_WAIT_NS: Final = 60 * _SECOND_NS
"""The least time between the first two alarms of a cgroup. It doubles with each alarm."""

LONGEST_WAIT_NS: Final = 3600 * _SECOND_NS
_CALM_NS: Final = 600 * _SECOND_NS

_NEAR: Final = 0.9
"""The share of the limit that usage must have reached for a counted hit. Reclaim and exits may have freed
memory in the tenth of a second since the hit."""

_AT: Final = 0.97
"""The same share where the kernel counts no hits. Reclaim leaves up to 2 MiB free (a large folio)."""

_COLUMNS: Final = ("time", "usage_bytes", "peak_bytes", "max_events", "high_events", "pgscan")
_KIND: Final = np.dtype([(name, "i8") for name in (*_COLUMNS, "hit_ns", "alarmed_ns", "wait_ns")])
_FRESH: Final = (*[UNKNOWN] * len(_COLUMNS), 0, 0, 0)


class LimitHits:
    """Finds in samples that a cgroup hit its memory.max or memory.high since its last sample."""

    def __init__(self) -> None:
        self._states = CgroupStates(_KIND, _FRESH)

    def take(self, samples: pa.RecordBatch) -> Iterator[Alarm]:
        """Yield an alarm for each cgroup that hit a limit, unless its last alarm is too recent."""
        read = {name: values(samples, name) for name in _COLUMNS}
        read["cgroup_id"] = values(samples, "cgroup_id")
        read |= {name: limits(samples, name) for name in ("limit_bytes", "high_bytes")}
        places = self._states.places(read["cgroup_id"])
        for rows in turns(places):
            yield from self._compare({name: column[rows] for name, column in read.items()}, places[rows])

    def forget(self, cgroup_ids: Iterable[int]) -> None:
        """Drop the state of removed cgroups."""
        self._states.forget(cgroup_ids)

    def _compare(self, now: dict[str, Numbers], places: Numbers) -> Iterator[Alarm]:
        """Yield the alarms of rows, each of another cgroup, and remember the rows."""
        states = self._states.rows
        before = states[places]
        for name in _COLUMNS:
            states[name][places] = np.where(now[name] == UNKNOWN, before[name], now[name])
        usage = _most_used(now, before)
        hits_max = (_rise(now, before, "max_events") > 0) & (usage >= _NEAR * now["limit_bytes"])
        hits_max |= (
            (now["max_events"] == UNKNOWN)
            & (_rise(now, before, "pgscan") > 0)
            & (usage >= _AT * now["limit_bytes"])
        )
        hits_high = (_rise(now, before, "high_events") > 0) & (usage >= _NEAR * now["high_bytes"])
        hits_max &= now["limit_bytes"] < UNLIMITED_BYTES
        hits_high &= now["high_bytes"] < UNLIMITED_BYTES
        rows = np.flatnonzero(hits_max | hits_high)
        for row in rows[self._are_due(places[rows], now["time"][rows])].tolist():
            read = {column: int(numbers[row]) for column, numbers in now.items()}
            sentence = _sentence("limit_bytes" if hits_max[row] else "high_bytes", read, before[row])
            yield Alarm("limit", read["cgroup_id"], read["time"], sentence)

    def _are_due(self, places: Numbers, time: Numbers) -> Flags:
        """Record hits, each of another cgroup, and return which of them give an alarm."""
        states = self._states.rows
        wait = np.where(time - states["hit_ns"][places] >= _CALM_NS, 0, states["wait_ns"][places])
        are_due: Flags = time - states["alarmed_ns"][places] >= wait
        longer = np.clip(2 * wait, FIRST_WAIT_NS, LONGEST_WAIT_NS)
        states["hit_ns"][places] = time
        states["wait_ns"][places] = np.where(are_due, longer, wait)
        states["alarmed_ns"][places[are_due]] = time[are_due]
        return are_due


def _rise(now: dict[str, Numbers], before: Any, name: str) -> Numbers:
    """Return the increase of a count; 0 where it is not known."""
    return np.where((now[name] == UNKNOWN) | (before[name] == UNKNOWN), 0, now[name] - before[name])


def _most_used(now: dict[str, Numbers], before: Any) -> Numbers:
    """Return the highest known usage since the last sample."""
    usage: Numbers = np.maximum(now["usage_bytes"], before["usage_bytes"])
    return np.where(now["peak_bytes"] > before["peak_bytes"], np.maximum(usage, now["peak_bytes"]), usage)


def _sentence(name: str, now: dict[str, int], before: Any) -> str:
    within = duration((now["time"] - int(before["time"])) / 1e9)
    usage = f"usage is {size(now['usage_bytes'])}"
    if name == "high_bytes":
        times = now["high_events"] - int(before["high_events"])
        return f"Usage exceeded memory.high ({size(now[name])}) {_times(times)} within {within}; {usage}."
    if now["max_events"] == UNKNOWN:
        scanned = now["pgscan"] - int(before["pgscan"])
        return (
            f"Usage is at the limit of {size(now[name])}: reclaim examined {count(scanned)} pages "
            f"within {within}; {usage}."
        )
    times = now["max_events"] - int(before["max_events"])
    return f"Usage hit the limit of {size(now[name])} {_times(times)} within {within}; {usage}."


def _times(number: int) -> str:
    return "once" if number == 1 else f"{count(number)} times"
