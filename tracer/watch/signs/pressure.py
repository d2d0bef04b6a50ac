"""Pressure: all tasks of a cgroup waited for memory at the same time, for a good part of the last 10 s.

The kernel counts this time on cgroup v2 (the line `full` of memory.pressure). The descendants are included:
all tasks of the cgroup and of the cgroups below it have to wait.

A cgroup gives one alarm. The next one needs 30 s below half of the threshold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import pyarrow as pa

from tracer.live.alarm import Alarm
from tracer.live.cgroup_states import CgroupStates
from tracer.live.sample_arrays import UNKNOWN, Numbers, limits, turns, values
from tracer.schema import UNLIMITED_BYTES
from tracer.units import duration, size

_SECOND_NS: Final = 1_000_000_000
WINDOW_NS: Final = 10 * _SECOND_NS
CALM_NS: Final = 30 * _SECOND_NS
_LONGEST_NS: Final = WINDOW_NS + _SECOND_NS
"""The longest window: it begins with the first reading of a second. An older reading still has the value of
the window's begin, because a cgroup without samples did not wait."""

_SLOTS: Final = 12
"""The number of seconds whose first reading is kept. One more slot holds the last reading."""

_KIND: Final = np.dtype(
    [("time", "i8", _SLOTS + 1), ("total_us", "i8", _SLOTS + 1), ("calm_ns", "i8"), ("is_held", "?")]
)
_FRESH: Final = ((UNKNOWN,) * (_SLOTS + 1), (0,) * (_SLOTS + 1), UNKNOWN, False)


class Pressure:
    """Finds in samples that all tasks of a cgroup waited for at least `percent` of the last 10 s."""

    def __init__(self, percent: float) -> None:
        self._least = percent / 100
        self._states = CgroupStates(_KIND, _FRESH)

    def take(self, samples: pa.RecordBatch) -> Iterator[Alarm]:
        """Yield an alarm for each cgroup whose tasks waited so long, unless the cgroup has not been calm
        since its last alarm."""
        totals = values(samples, "psi_full_total_us")
        known = np.flatnonzero(totals != UNKNOWN)
        if not len(known):
            return
        read = {name: values(samples, name)[known] for name in ("cgroup_id", "time", "usage_bytes")}
        read["total_us"] = totals[known]
        read["limit_bytes"] = limits(samples, "effective_limit_bytes")[known]
        places = self._states.places(read["cgroup_id"])
        for rows in turns(places):
            yield from self._compare({name: column[rows] for name, column in read.items()}, places[rows])

    def forget(self, cgroup_ids: Iterable[int]) -> None:
        """Drop the state of removed cgroups."""
        self._states.forget(cgroup_ids)

    def _compare(self, now: dict[str, Numbers], places: Numbers) -> Iterator[Alarm]:
        """Yield the alarms of rows, each of another cgroup, and remember the rows."""
        states, time = self._states.rows, now["time"]
        last = states["time"][places, _SLOTS]
        waited_us, window_ns = self._waited(now, places)
        share = waited_us * 1000 / window_ns
        # A cgroup without samples did not wait: after 10 s of that, its share was zero.
        is_resting = (last != UNKNOWN) & (time - last > WINDOW_NS)
        calm = states["calm_ns"][places]
        calm = np.where(is_resting & (calm == UNKNOWN), last + WINDOW_NS, calm)
        is_held = states["is_held"][places] & ~((calm != UNKNOWN) & (time - calm >= CALM_NS))
        is_due = (share >= self._least) & ~is_held
        calm = np.where(share < self._least / 2, np.where(calm == UNKNOWN, time, calm), UNKNOWN)
        states["calm_ns"][places], states["is_held"][places] = calm, is_held | is_due
        for row in np.flatnonzero(is_due).tolist():
            usage, limit = int(now["usage_bytes"][row]), int(now["limit_bytes"][row])
            sentence = _sentence(int(waited_us[row]), int(window_ns[row]), usage, limit)
            yield Alarm("pressure", int(now["cgroup_id"][row]), int(time[row]), sentence)

    def _waited(self, now: dict[str, Numbers], places: Numbers) -> tuple[Numbers, Numbers]:
        """Remember the readings, and return (time waited in us, length of the window in ns).

        The window begins with the last reading before the last 10 s, or with the first known reading.
        """
        states, time = self._states.rows, now["time"]
        times, totals = states["time"][places], states["total_us"][places]
        is_before = (times != UNKNOWN) & (times <= (time - WINDOW_NS)[:, None])
        newest = np.where(is_before, times, UNKNOWN).argmax(axis=1)
        oldest = np.where(times == UNKNOWN, np.iinfo(np.int64).max, times).argmin(axis=1)
        rows = np.arange(len(time))
        base = np.where(is_before.any(axis=1), newest, oldest)
        is_first = times[rows, base] == UNKNOWN
        waited = np.where(is_first, 0, now["total_us"] - totals[rows, base])
        window = np.clip(time - times[rows, base], WINDOW_NS, _LONGEST_NS)
        slot = time // _SECOND_NS % _SLOTS
        is_new = times[rows, slot] // _SECOND_NS != time // _SECOND_NS
        for places_of, slots, of in ((places[is_new], slot[is_new], is_new), (places, _SLOTS, slice(None))):
            states["time"][places_of, slots] = time[of]
            states["total_us"][places_of, slots] = now["total_us"][of]
        return np.maximum(waited, 0), window


def _sentence(waited_us: int, window_ns: int, usage: int, limit: int) -> str:
    used = "" if usage == UNKNOWN else f"; usage is {size(usage)}"
    of = "" if not used or limit >= UNLIMITED_BYTES else f" of {size(limit)}"
    share = f"{100 * waited_us * 1000 / window_ns:.0f} %"
    return (
        f"All tasks waited for memory at the same time for {duration(waited_us / 1e6)} ({share}) of the last "
        f"{duration(round(window_ns / 1e9))}{used}{of}."
    )
