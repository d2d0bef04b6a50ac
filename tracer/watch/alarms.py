"""Alarms of `watch --on limit`, `watch --on soon` and `watch --psi`, decided from the samples.

A limit is hit if a cgroup's usage was about to exceed its memory.max, or exceeded memory.high. The counts of
memory.events include the descendants. A cgroup that was not near its own limit since its last sample did not
hit it: a descendant hit another limit, and has samples of its own. memory.failcnt of v1 counts the hits of
the cgroup's own limit.

Where the kernel does not count hits of the limit (v1 with equal limits of memory and of memory + swap, since
v6.15), a hit is assumed if reclaim examines pages while usage is near the limit.

A cgroup whose page cache fills its limit hits the limit all day. While the hits go on, the time between its
alarms doubles: one minute, two, four, and at most an hour. Ten minutes without a hit reset it.

The hits of a kill give no alarm: reclaim fails at the limit, and then the kill is reported. Its samples come
before its report.

Pressure: all tasks of a cgroup waited for memory at the same time, for a good part of the last 10 s. The
kernel counts this time on cgroup v2 (the line `full` of memory.pressure). The descendants are included:
all tasks of the cgroup and of the cgroups below it have to wait.

A cgroup gives one alarm. The next one needs 30 s below half of the threshold.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa

from tracer.live.alarm import Alarm, AllWaited, LimitHit
from tracer.live.cgroup_states import CgroupStates
from tracer.live.countdown import Countdown
from tracer.live.sample_arrays import UNKNOWN, Flags, Numbers, is_word, limits, turns, values
from tracer.schema import UNLIMITED_BYTES
from tracer.trace.arrow_columns import integers, is_known

_SECOND_NS: Final = 1_000_000_000
FIRST_WAIT_NS: Final = 60 * _SECOND_NS
"""The least time between the first two alarms of a cgroup. It doubles with each alarm."""

LONGEST_WAIT_NS: Final = 3600 * _SECOND_NS
_HITS_CALM_NS: Final = 600 * _SECOND_NS

_NEAR: Final = 0.9
"""The share of the limit that usage must have reached for a counted hit. Reclaim and exits may have freed
memory in the tenth of a second since the hit."""

_KILLING_NS: Final = _SECOND_NS
"""The time after a kill in which hits belong to it. A large victim frees its memory slowly, and those that
ask for memory meanwhile hit the limit a thousand times."""

_AT: Final = 0.97
"""The same share where the kernel counts no hits. Reclaim leaves up to 2 MiB free (a large folio)."""

_COLUMNS: Final = (
    "time", "usage_bytes", "peak_bytes", "max_events", "high_events", "pgscan", "oom_kill_events"
)  # fmt: skip
_LIMIT: Final = np.dtype(
    [
        *((name, "i8") for name in (*_COLUMNS, "hit_ns", "alarmed_ns", "wait_ns", "killed_ns")),
        ("is_killing", "?"),
    ]
)
_FRESH_HITS: Final = (*[UNKNOWN] * len(_COLUMNS), 0, 0, 0, 0, False)


class LimitHits:
    """Finds in samples that a cgroup hit its memory.max or memory.high since its last sample."""

    def __init__(self) -> None:
        self._states = CgroupStates(_LIMIT, _FRESH_HITS)

    def take(self, samples: pa.RecordBatch) -> Iterator[Alarm]:
        """Yield an alarm for each cgroup that hit a limit, unless its last alarm is too recent."""
        read = {name: values(samples, name) for name in _COLUMNS}
        read["cgroup_id"] = values(samples, "cgroup_id")
        read |= {name: limits(samples, name) for name in ("limit_bytes", "high_bytes")}
        read["is_kill"] = is_word(samples, "source", "oom").astype(np.int64)
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
        killed = (now["is_kill"] > 0) | (_rise(now, before, "oom_kill_events") > 0)
        rows = np.flatnonzero((hits_max | hits_high) & ~killed & ~before["is_killing"])
        has_counts = (now["max_events"] != UNKNOWN) | (now["pgscan"] != UNKNOWN)
        killed_ns = states["killed_ns"][places] = np.where(killed, now["time"], before["killed_ns"])
        is_over = has_counts & (now["time"] - killed_ns >= _KILLING_NS)
        states["is_killing"][places] = killed | (before["is_killing"] & ~is_over)
        for row in rows[self._are_due(places[rows], now["time"][rows])].tolist():
            read = {column: int(numbers[row]) for column, numbers in now.items()}
            numbers = _hit(read, before[row], is_high=not hits_max[row])
            yield Alarm("limit", read["cgroup_id"], read["time"], numbers)

    def _are_due(self, places: Numbers, time: Numbers) -> Flags:
        """Record hits, each of another cgroup, and return which of them give an alarm."""
        states = self._states.rows
        wait = np.where(time - states["hit_ns"][places] >= _HITS_CALM_NS, 0, states["wait_ns"][places])
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


def _hit(now: dict[str, int], before: Any, *, is_high: bool) -> LimitHit:
    """Return the numbers of a hit of memory.high, else of the limit, from two samples of a cgroup."""
    name, events = ("high_bytes", "high_events") if is_high else ("limit_bytes", "max_events")
    is_counted = now[events] != UNKNOWN
    return LimitHit(
        is_high=is_high,
        limit_bytes=now[name],
        usage_bytes=now["usage_bytes"],
        within_s=(now["time"] - int(before["time"])) / _SECOND_NS,
        times=now[events] - int(before[events]) if is_counted else None,
        scanned_pages=0 if is_counted else now["pgscan"] - int(before["pgscan"]),
    )


WINDOW_NS: Final = 10 * _SECOND_NS
CALM_NS: Final = 30 * _SECOND_NS
_LONGEST_NS: Final = WINDOW_NS + _SECOND_NS
"""The longest window: it begins with the first reading of a second. An older reading still has the value of
the window's begin, because a cgroup without samples did not wait."""

_SLOTS: Final = 12
"""The number of seconds whose first reading is kept. One more slot holds the last reading."""

_PRESSURE: Final = np.dtype(
    [("time", "i8", _SLOTS + 1), ("total_us", "i8", _SLOTS + 1), ("calm_ns", "i8"), ("is_held", "?")]
)
_FRESH_PRESSURE: Final = ((UNKNOWN,) * (_SLOTS + 1), (0,) * (_SLOTS + 1), UNKNOWN, False)


class Pressure:
    """Finds in samples that all tasks of a cgroup waited for at least `percent` of the last 10 s."""

    def __init__(self, percent: float) -> None:
        self._least = percent / 100
        self._states = CgroupStates(_PRESSURE, _FRESH_PRESSURE)

    def take(self, samples: pa.RecordBatch) -> Iterator[Alarm]:
        """Yield an alarm for each cgroup whose tasks waited so long, if it was calm since its last one."""
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
            numbers = AllWaited(
                waited_s=int(waited_us[row]) / 1e6,
                window_s=int(window_ns[row]) / _SECOND_NS,
                usage_bytes=None if usage == UNKNOWN else usage,
                limit_bytes=None if limit >= UNLIMITED_BYTES else limit,
            )
            yield Alarm("pressure", int(now["cgroup_id"][row]), int(time[row]), numbers)

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


KINDS: Final = frozenset({"limit", "soon"})

MOST: Final = 10
"""The most alarms of one kind within `WITHIN_NS`, over all cgroups."""

WITHIN_NS: Final = 60_000_000_000

_KILLS_KEPT: Final = 256


class Alarms:
    """Decides from samples whether an alarm of `kinds` is due. "limit" and "soon" are decided here,
    "sigkill" only bounded; others have no meaning.

    `psi_percent`: an alarm is also due if all tasks of a cgroup waited for this share of the last 10 s.

    The state is bounded: for each cgroup that has had a sample and was not forgotten, about a kilobyte if the
    cgroup has a limit. `suppressed` counts the alarms of each kind that the bound `MOST` suppressed.
    """

    def __init__(self, kinds: frozenset[str], psi_percent: float | None = None) -> None:
        self._deciders: dict[str, LimitHits | Countdown | Pressure] = {}
        if psi_percent is not None:
            self._deciders["pressure"] = Pressure(psi_percent)
        if "soon" in kinds:
            self._deciders["soon"] = Countdown()
        if "limit" in kinds:
            self._deciders["limit"] = LimitHits()
        bounded = [*self._deciders, *({"sigkill"} & kinds)]
        self._given: dict[str, deque[int]] = {kind: deque(maxlen=MOST) for kind in bounded}
        self.suppressed = dict.fromkeys(bounded, 0)
        self._killed_ns: OrderedDict[int, int] = OrderedDict()  # cgroup -> time of its last known kill

    def killed(self, cgroup_ids: Iterable[int], time_ns: int) -> None:
        """Take a kill in a cgroup or below its limit. On a busy machine, samples from before a kill can come
        after it: they give no alarm of the way to that kill any more."""
        for cgroup_id in cgroup_ids:
            self._killed_ns[cgroup_id] = time_ns
            self._killed_ns.move_to_end(cgroup_id)
        while len(self._killed_ns) > _KILLS_KEPT:
            self._killed_ns.popitem(last=False)

    def take(self, samples: pa.RecordBatch, now_ns: int) -> list[Alarm]:
        """Return the alarms of a batch of `samples`, whose rows are in the order of time.

        Only the bound `MOST` uses `now_ns`, the time of any clock that does not go back.
        """
        is_limited = _is_any_limited(samples)  # on most idle machines, no cgroup is
        return [
            alarm
            for kind, decider in self._deciders.items()
            if is_limited or kind == "pressure"
            for alarm in decider.take(samples)
            if not self._is_too_late(alarm) and self._is_within_bound(alarm.reason, now_ns)
        ]

    def takes_sigkill(self, now_ns: int) -> bool:
        """Return whether a SIGKILL that the OOM killer did not send is an alarm, within the bound `MOST`."""
        return "sigkill" in self._given and self._is_within_bound("sigkill", now_ns)

    def forget(self, cgroup_ids: Iterable[int]) -> None:
        """Drop the state of removed cgroups."""
        gone = list(cgroup_ids)
        for decider in self._deciders.values():
            decider.forget(gone)

    def _is_too_late(self, alarm: Alarm) -> bool:
        is_before_a_kill = alarm.reason in KINDS
        return is_before_a_kill and alarm.time_ns <= self._killed_ns.get(alarm.cgroup_id, -1)

    def _is_within_bound(self, kind: str, now_ns: int) -> bool:
        given = self._given[kind]
        if len(given) == MOST and now_ns - given[0] < WITHIN_NS:
            self.suppressed[kind] += 1
            return False
        given.append(now_ns)
        return True


def ids_of_removed(cgroups: pa.RecordBatch) -> list[int]:
    """Return the ids of the removed cgroups in rows of `cgroups`."""
    is_removed = is_known(cgroups.column("removed"))
    removed: list[int] = integers(cgroups.column("cgroup_id"))[is_removed].tolist()
    return removed


def _is_any_limited(samples: pa.RecordBatch) -> bool:
    return any(
        (limits(samples, name) < UNLIMITED_BYTES).any()
        for name in ("effective_limit_bytes", "limit_bytes", "high_bytes")
    )
