"""Countdown: the time until the memory left below a limit is used up, at the present rate.

What is left is the cushion (`cushions`). It shrinks when memory grows that reclaim cannot free, whether
usage grows or cache makes room for it. So a cgroup that reads files at its limit is not near a kill.

A forecast of less than 10 s is not enough for an alarm: a start-up or a large query looks like the way to a
kill until it ends. The forecast gives an alarm only if

* the cushion falls below the smallest one that the cgroup survived in the last 10 to 20 minutes. Only the
  fall below that counts: a query or a connection that comes and goes takes the same memory each time. A
  cushion was survived if it has grown again by a twentieth of the limit, or after 4 s;
* the fall has lasted a third of the forecast time and goes on, and at least three samples show it, none of
  which has most of it. It does not slow down so that it would end before the cushion is used up;
* little is left: a twentieth of the limit; a tenth if a later alarm would not come a second before the kill,
  or if only a few samples are to come, at their present distance; in that case a third, if cache is already
  evicted for the growth; a fifth if what is left lasts for 4 s or more, or after a kill in the last 20
  minutes.

The next alarm of the cgroup needs a new approach: 10 s without a forecast of less than 30 s, or a cushion
more than twice as large as at the alarm, or a kill. A kill does not change which cushions were survived
before.

The cushion is the room below the effective limit, and the memory that reclaim can free:

* page cache: the pages on the LRU lists of files. Locked pages and shmem are not on these lists. Reclaim
  isolates pages from the lists for a moment, so at least file - shmem - unevictable counts. Dirty cache and
  cache under writeback count: they can go once they are written. A database at its limit has such cache all
  the time, so a kill because writeback is late (v1) is not foreseen. The share of the cache that memory.min
  of the children protects does not count;
* half of the reclaimable slab: objects in use stay, and no counter shows them;
* anonymous memory and shmem, as far as there is room in swap.

On v1 the limit of memory + swap bounds the cushion as well. The statistics in a sample may be older than its
usage, by at most the updates that do not yet make a reader of memory.stat flush the statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from tracer.kernel.meminfo import meminfo_bytes
from tracer.live.alarm import Alarm, UsedUpSoon
from tracer.live.cgroup_states import CgroupStates
from tracer.live.sample_arrays import UNKNOWN, Flags, Numbers, at_least_0, is_word, limits, turns, values
from tracer.schema import UNLIMITED_BYTES


class Cushions(NamedTuple):
    """A cushion for each row, in bytes, and its parts. `is_known` is false if there is no limit, or if the
    sample has no statistics."""

    left: Numbers
    room: Numbers
    cache: Numbers
    limit: Numbers
    is_known: Flags


def cushions(samples: pa.RecordBatch, free_swap_bytes: int) -> Cushions:
    """Return the cushions of these samples on a machine with so much free swap."""
    usage, file = values(samples, "usage_bytes"), values(samples, "file_bytes")
    limit = limits(samples, "effective_limit_bytes")
    limit = np.minimum(limit, limits(samples, "limit_bytes"))
    room = np.maximum(limit - usage, 0)
    cache = _cache(samples, file, usage)
    freed = cache + at_least_0(samples, "slab_reclaimable_bytes") // 2
    left = room + freed
    if free_swap_bytes:
        swap_room = limits(samples, "swap_room_bytes")
        is_v1 = values(samples, "soft_limit_bytes") != UNKNOWN
        anon = at_least_0(samples, "inactive_anon_bytes") + at_least_0(samples, "active_anon_bytes")
        to_swap = np.minimum(anon, free_swap_bytes)
        left += np.where(is_v1, to_swap, np.minimum(to_swap, swap_room))
        left = np.where(is_v1, np.minimum(left, np.minimum(swap_room, UNLIMITED_BYTES // 2) + freed), left)
    is_known = (limit < UNLIMITED_BYTES) & (usage != UNKNOWN) & (file != UNKNOWN)
    return Cushions(left, room, cache, limit, is_known)


def _cache(samples: pa.RecordBatch, file: Numbers, usage: Numbers) -> Numbers:
    """Return the page cache that reclaim can free, in bytes."""
    listed = at_least_0(samples, "inactive_file_bytes") + at_least_0(samples, "active_file_bytes")
    unlocked = file - at_least_0(samples, "shmem_bytes") - at_least_0(samples, "unevictable_bytes")
    cache: Numbers = np.minimum(np.maximum(listed, unlocked), np.maximum(usage, 0))
    return cache - _protected(samples, cache, usage)


def _protected(samples: pa.RecordBatch, cache: Numbers, usage: Numbers) -> Numbers:
    """Return the protected part of the cache. The kernel does not count protection by kind of memory, so the
    cache gets its share of usage."""
    protected = at_least_0(samples, "protected_bytes")
    if not protected.any():
        return protected
    return (cache * np.minimum(protected / np.maximum(usage, 1), 1)).astype(np.int64)


SOON_S: Final = 10.0
"""A forecast below this gives an alarm."""

_CALM_S: Final = 30.0
_CALM_NS: Final = 10_000_000_000
"""After so long without a forecast below `_CALM_S`, the next one is a new approach."""

_SECOND_NS: Final = 1_000_000_000
_WINDOWS_NS: Final = tuple(int(seconds * _SECOND_NS) for seconds in (0.25, 0.5, 1.0, 2.0, 3.4))
_INTERVAL_NS: Final = 120_000_000
_SHORTEST_NS: Final = 100_000_000  # between two samples
_LASTING_S: Final = 3.3  # of a fall with a forecast of `SOON_S`; less for less
_LEAST_STEPS: Final = 3
_LARGEST_STEP: Final = 0.6  # share of the loss
_LEAST_IN_FIRST_HALF: Final = 0.2
_LEAST_IN_LAST_QUARTER: Final = 0.1
_SLOWING_NS: Final = 2 * _SECOND_NS  # shorter windows do not show whether a fall slows down
_GROWN_AGAIN: Final = 20  # a cushion was survived if it grew by this part of the limit
_LITTLE: Final = 0.05  # of the limit
_LITTLE_IF_LAST: Final = 0.10
_LAST_S: Final = (1.0, 1.6)
"""A forecast between these is the last one that leaves a second. Growth that leaves less at a tenth of the
limit is as quick as a start-up: it has to come closer."""
_LITTLE_IF_SLOW: Final = 0.20
_LITTLE_AFTER_KILL: Final = 0.20
_SLOW_S: Final = 4.0
_LITTLE_IF_STEEP: Final = 0.33
_FEW_SAMPLES: Final = 2.5
_ROOM_AT_LIMIT: Final = 0.03
KEPT: Final = 40
"""Samples of a cgroup that are kept: 4 s at ten a second."""

_EPOCH_NS: Final = 600 * _SECOND_NS
_AFTER_KILL_NS: Final = 2 * _EPOCH_NS
_NEVER: Final = 1 << 62

_KIND: Final = np.dtype(
    [
        ("times", "i8", KEPT),
        ("left", "i8", KEPT),  # cushions, a ring like `times`
        ("taken", "i8"),  # samples since the last new beginning
        ("limit_bytes", "i8"),  # the effective one
        ("own_limit_bytes", "i8"),
        ("kills", "i8"),
        ("killed_ns", "i8"),  # when a new kill was last seen; UNKNOWN: never
        ("is_freeing", "?"),  # after a kill: the victim's memory is being freed
        ("freed_to", "i8"),  # the largest cushion since then
        ("epoch_ns", "i8"),
        ("least", "i8"),  # the least cushion in this epoch, without the cushions in the ring
        ("least_before", "i8"),  # the least cushion in the last epoch
        ("alarm_left", "i8"),  # the cushion at the last alarm; UNKNOWN: armed
        ("alarm_least", "i8"),  # the least cushion that had been survived by then
        ("urgent_ns", "i8"),
    ]
)
_FRESH: Final = (
    *(0, 0, 0, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, False, UNKNOWN),
    *(0, _NEVER, _NEVER, UNKNOWN, _NEVER, 0),
)


class _Sizes(NamedTuple):
    """A row of `Cushions`."""

    left: int
    room: int
    cache: int
    limit: int


class Forecast(NamedTuple):
    """A cushion will be used up in `left_s`: it has shrunk by `rate` bytes a second for `lasted_ns`.

    The last samples came `interval_s` apart, which is long if the machine is busy.
    """

    left_s: float
    rate: float
    lasted_ns: int
    interval_s: float


def free_swap_bytes() -> int:
    """Return the free swap space of the machine, in bytes; 0 if it is not known."""
    return meminfo_bytes().get("SwapFree", 0)


class Countdown:
    """Finds the cgroups whose samples show that their cushion will be used up within `SOON_S`.

    `states` has the input of `forecast` for each cgroup that has a limit.
    """

    def __init__(self, free_swap: Callable[[], int] = free_swap_bytes) -> None:
        self.states = CgroupStates(_KIND, _FRESH)
        self._free_swap = free_swap
        self._swap_bytes, self._swap_read_ns = 0, -_SECOND_NS

    def take(self, samples: pa.RecordBatch) -> Iterator[Alarm]:
        """Yield an alarm for each cgroup whose forecast gives one."""
        now = {
            name: values(samples, name) for name in ("time", "cgroup_id", "limit_bytes", "oom_kill_events")
        }
        found = self.cushions_of(samples, int(now["time"][-1]))
        is_kill = is_word(samples, "source", "oom")
        rows = np.flatnonzero(is_kill | (found.is_known & ~self._is_of_ancestor(now["limit_bytes"], found)))
        places = self.states.places(now["cgroup_id"][rows])
        for turn in turns(places):
            of = rows[turn]
            part = {name: column[of] for name, column in now.items()}
            yield from self._step(part, _rows_of(found, of), is_kill[of], places[turn])

    def cushions_of(self, samples: pa.RecordBatch, now_ns: int) -> Cushions:
        """Return the cushions of samples. Free swap is read at most once a second of `now_ns`."""
        if now_ns - self._swap_read_ns >= _SECOND_NS:
            self._swap_bytes, self._swap_read_ns = self._free_swap(), now_ns
        return cushions(samples, self._swap_bytes)

    def forget(self, cgroup_ids: Iterable[int]) -> None:
        """Drop what is known of cgroups that are gone."""
        self.states.forget(cgroup_ids)

    def _is_of_ancestor(self, own: Numbers, found: Cushions) -> Flags:
        """Return a mask of the samples whose effective limit belongs to an ancestor that has samples too: a
        descendant's samples do not show what the others use.
        """
        is_lower = found.limit < own
        if not is_lower.any():
            return is_lower
        owned = np.append(own[~is_lower], self.states.rows["own_limit_bytes"])
        return is_lower & np.isin(found.limit, owned)

    def _step(
        self, now: dict[str, Numbers], found: Cushions, is_kill: Flags, places: Numbers
    ) -> Iterator[Alarm]:
        """Take rows of different cgroups: keep their cushions, and yield the alarms."""
        states = self.states.rows
        self._begin_anew(now, found, is_kill, places)
        if not found.is_known.all():
            known = np.flatnonzero(found.is_known)
            now = {name: column[known] for name, column in now.items()}
            found, places = _rows_of(found, known), places[known]
        self._keep(now["time"], found.left, places)
        is_little = found.left < _LITTLE_IF_STEEP * found.limit
        is_less = found.left < np.minimum(states["least"][places], states["least_before"][places])
        is_armed = states["alarm_left"][places] == UNKNOWN
        candidates = ~is_armed | (is_little & is_less & (states["taken"][places] > _LEAST_STEPS))
        for row in np.flatnonzero(candidates).tolist():
            sizes = _Sizes(*(int(column[row]) for column in found[:-1]))
            numbers = _judge(states[int(places[row])], int(now["time"][row]), sizes)
            if numbers is not None:
                yield Alarm("soon", int(now["cgroup_id"][row]), int(now["time"][row]), numbers)

    def _begin_anew(self, now: dict[str, Numbers], found: Cushions, is_kill: Flags, places: Numbers) -> None:
        """Forget the cushions that a kill or a changed limit made worthless. Cushions on the way to a kill
        were not survived. If there was an alarm, `alarm_least` is the least cushion from before that way.
        """
        states = self.states.rows
        kills, limit = states["kills"][places], states["limit_bytes"][places]
        killed = is_kill | ((kills != UNKNOWN) & (now["oom_kill_events"] > kills))
        freed_to = np.where(killed, UNKNOWN, states["freed_to"][places])
        is_freeing = (states["is_freeing"][places] | killed) & (found.left >= freed_to - found.limit // 64)
        is_other = found.is_known & (limit != found.limit)
        anew = (is_freeing & (found.left >= freed_to)) | is_other
        states["is_freeing"][places] = is_freeing
        states["freed_to"][places] = np.where(found.is_known, np.maximum(freed_to, found.left), freed_to)
        states["kills"][places] = np.maximum(kills, now["oom_kill_events"])
        states["killed_ns"][places[killed]] = now["time"][killed]
        states["limit_bytes"][places] = np.where(found.is_known, found.limit, limit)
        states["own_limit_bytes"][places] = now["limit_bytes"]
        was_foreseen = places[killed & (states["alarm_left"][places] != UNKNOWN)]
        states["least"][was_foreseen] = states["alarm_least"][was_foreseen]
        states["least_before"][was_foreseen] = _NEVER
        states["least"][places[is_other]] = states["least_before"][places[is_other]] = _NEVER
        states["taken"][places[anew]] = 0
        states["alarm_left"][places[anew]] = UNKNOWN

    def _keep(self, time: Numbers, left: Numbers, places: Numbers) -> None:
        """Put cushions into the rings. A cushion that falls out of its ring counts as survived."""
        states = self.states.rows
        is_new_epoch = time - states["epoch_ns"][places] >= _EPOCH_NS
        if is_new_epoch.any():
            these = places[is_new_epoch]
            states["least_before"][these] = states["least"][these]
            states["least"][these] = _NEVER
            states["epoch_ns"][these] = time[is_new_epoch]
        taken = states["taken"][places]
        slot = taken % KEPT
        fallen = np.where(taken >= KEPT, states["left"][places, slot], _NEVER)
        states["least"][places] = np.minimum(states["least"][places], fallen)
        states["times"][places, slot] = time
        states["left"][places, slot] = left
        states["taken"][places] = taken + 1


def _rows_of(found: Cushions, rows: Numbers) -> Cushions:
    left, room, cache, limit, is_known = found
    return Cushions(left[rows], room[rows], cache[rows], limit[rows], is_known[rows])


def _judge(state: Any, time_ns: int, sizes: _Sizes) -> UsedUpSoon | None:
    """Return the numbers of an alarm that is due; rearm a cgroup that is out of danger."""
    if state["alarm_left"] != UNKNOWN:
        is_away = sizes.left > 2 * state["alarm_left"] + sizes.limit // 20
        if is_away or time_ns - state["urgent_ns"] >= _CALM_NS:
            state["alarm_left"] = UNKNOWN
        elif forecast(state, time_ns, _CALM_S):
            state["urgent_ns"] = time_ns
        return None
    found = forecast(state, time_ns, SOON_S)
    is_after_kill = state["killed_ns"] != UNKNOWN and time_ns - state["killed_ns"] < _AFTER_KILL_NS
    least_share = _LITTLE_AFTER_KILL if is_after_kill else _LITTLE
    if found is None or sizes.left > max(least_share, _share(found, sizes)) * sizes.limit:
        return None
    state["alarm_left"], state["urgent_ns"] = sizes.left, time_ns
    state["alarm_least"] = min(state["least"], state["least_before"])
    return UsedUpSoon(
        limit_bytes=sizes.limit,
        left_bytes=sizes.left,
        room_bytes=sizes.room,
        cache_bytes=sizes.cache,
        left_s=found.left_s,
        rate=found.rate,
        lasted_s=found.lasted_ns / _SECOND_NS,
    )


def _share(found: Forecast, sizes: _Sizes) -> float:
    """Return the share of the limit below which a cushion counts as small."""
    if found.left_s >= _SLOW_S:
        return _LITTLE_IF_SLOW
    if found.left_s < _FEW_SAMPLES * found.interval_s:
        return _LITTLE_IF_STEEP if sizes.room <= _ROOM_AT_LIMIT * sizes.limit else _LITTLE_IF_LAST
    return _LITTLE_IF_LAST if _LAST_S[0] <= found.left_s < _LAST_S[1] else _LITTLE


def forecast(state: Any, time_ns: int, within_s: float) -> Forecast | None:
    """Return the forecast if it is less than `within_s`; None: there is none.

    `state` is a row of `Countdown.states`. The rate is measured in the shortest window in which the fall
    lasted long enough, and `lasted_ns` is the length of the longest such window. The fall is assumed to begin
    at the last sample before the window, but at most the interval of samples of a changing cgroup before it.
    """
    taken = int(state["taken"])
    if not taken:
        return None
    order = np.arange(max(taken - KEPT, 0), taken) % KEPT
    times, left = state["times"][order], state["left"][order]
    lowest = np.minimum.accumulate(np.minimum(left, _survived(state, left)))
    last = int(left[-1])
    found: Forecast | None = None
    for window_ns in _WINDOWS_NS:
        first, half, quarter = np.searchsorted(
            times, [time_ns - window_ns // part for part in (1, 2, 4)], side="right"
        ).tolist()
        if not first:
            break
        base = int(lowest[first - 1])
        lost, span_s = (
            base - last,
            min(time_ns - int(times[first - 1]), window_ns + _INTERVAL_NS) / _SECOND_NS,
        )
        if lost <= 0 or last * span_s > min(within_s, span_s * within_s / _LASTING_S) * lost:
            continue
        lost_first = base - int(left[half - 1])
        if window_ns >= _SLOWING_NS and _ends_before(last, lost_first, lost - lost_first):
            return None
        steps = -np.diff(np.minimum(np.append(base, left[first:]), base))
        if (
            np.count_nonzero(steps > 0) >= _LEAST_STEPS
            and steps.max() <= _LARGEST_STEP * lost
            and lost_first >= _LEAST_IN_FIRST_HALF * lost
            and int(left[quarter - 1]) - last >= _LEAST_IN_LAST_QUARTER * lost
        ):
            interval_s = (
                max(int(times[-1] - times[-1 - _LEAST_STEPS]) / _LEAST_STEPS, _SHORTEST_NS) / _SECOND_NS
            )
            found = found or Forecast(last * span_s / lost, lost / span_s, window_ns, interval_s)
            found = found._replace(lasted_ns=window_ns)
    return found


def _survived(state: Any, left: Numbers) -> int:
    """Return the smallest cushion that was survived, `left` being the cushions in the ring in their order."""
    highest_since = np.maximum.accumulate(left[::-1])[::-1]
    grew_again = np.flatnonzero(highest_since - left > state["limit_bytes"] // _GROWN_AGAIN)
    in_ring = int(left[: grew_again[-1] + 1].min()) if len(grew_again) else _NEVER
    return min(in_ring, int(state["least"]), int(state["least_before"]))


def _ends_before(last: int, lost_first: int, lost_then: int) -> bool:
    """Return whether a fall that goes on to slow down ends before `last` bytes are used up.

    Half a window lost `lost_first`, the next `lost_then`: by the same ratio q, all further ones together lose
    lost_then * q / (1 - q).
    """
    return lost_then < lost_first and lost_then * lost_then < last * (lost_first - lost_then)
