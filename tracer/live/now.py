"""Now: each cgroup at this moment, with the limit at which it would be killed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from tracer.categories import usage_parts
from tracer.enumerations import CAUSE, EVICTION_CAUSES, STALL_KIND
from tracer.live.countdown import KEPT, forecast
from tracer.live.flows import ADD_CAUSES, BLOCKS, CATEGORY_NAMES, DROP_CAUSES
from tracer.live.sample_arrays import UNKNOWN, Flags, Numbers
from tracer.live.tally import SAMPLE_COLUMNS, Copy, Names, Tally
from tracer.metric_families import OUTCOMES
from tracer.schema import MEMORY_STAT_COLUMNS, UNLIMITED_BYTES

FORESEEN_S: Final = 60.0
"""The farthest forecast of a kill: it follows from the last four seconds."""

_AT: Final = {name: place for place, name in enumerate(SAMPLE_COLUMNS)}
_LIMITS: Final = [_AT["limit_bytes"], _AT["effective_limit_bytes"]]
_SIZES: Final = tuple((name, _AT[column]) for name, column in MEMORY_STAT_COLUMNS.items())
_ADDED, _EVICTED, _DROPPED = (
    tuple((name, BLOCKS[block].start + CAUSE.number(name)) for name in names)
    for block, names in (("added", ADD_CAUSES), ("deleted", EVICTION_CAUSES), ("deleted", DROP_CAUSES))
)
_FRESH_NS: Final = 4_000_000_000
_ABSENT: Final = "the kernel has no such counter"


@dataclass(frozen=True, slots=True)
class CgroupNow:
    """A cgroup at one moment. All numbers include the cgroups below it; null: not known.

    Names may be any text. `limit_bytes` is the least limit of the cgroup and all above it, null also if there
    is no limit, and `limit_owner` is the path of the cgroup that has this limit. `parts` are
    `categories.PARTS` in bytes. `cushion_bytes` is what may still be charged before the OOM killer must come
    (`live.countdown`) at the nearest limit, which `cushion_owner` has; `cushion_room_bytes` (below the
    limit) and `cushion_cache_bytes` (page cache) are parts of it. `seconds_to_kill` is the time until the
    cushion is used up at the present rate, null also if that is not within `FORESEEN_S`. `time_ns` is the
    time of the latest sample: the values hold since then.

    Sums since the recording began: `charged_bytes` (increases alone), `added_bytes`, `evicted_bytes` and
    `dropped_bytes` of page cache by cause, `evictors` ((id of the reclaiming cgroup, its path, bytes) for
    this cgroup's own cache, the most first; id 0: all others), `attempts` of reclaim for its memory by
    outcome, `reclaimed_bytes`, `reclaim_ns` (time of its tasks in reclaim), `stalled_ns` by kind, `kills`
    (OOM decisions at its limit). `ledger_bytes` is the memory of each category by the ledger. Sums since the
    cgroup was made: `refaulted_bytes`, `pressure_us` (some, full), `oom_kill_events` (killed
    tasks).
    """

    cgroup_id: int
    path: str
    parent_id: int | None
    container_id: str | None
    container: str | None
    pod: str | None
    namespace: str | None
    unit: str | None
    time_ns: int
    usage_bytes: int | None
    own_limit_bytes: int | None
    limit_bytes: int | None
    limit_owner: str | None
    high_bytes: int | None
    swap_bytes: int | None
    working_set_bytes: int | None
    parts: Mapping[str, int | None]
    cushion_bytes: int | None
    cushion_room_bytes: int | None
    cushion_cache_bytes: int | None
    cushion_owner: str | None
    seconds_to_kill: float | None
    pressure_us: Mapping[str, int | None]
    refaulted_bytes: int | None
    oom_kill_events: int | None
    charged_bytes: int
    ledger_bytes: Mapping[str, int | None]
    added_bytes: Mapping[str, int]
    evicted_bytes: Mapping[str, int]
    dropped_bytes: Mapping[str, int]
    evictors: tuple[tuple[int, str | None, int], ...]
    attempts: Mapping[str, int]
    reclaimed_bytes: int
    reclaim_ns: int
    stalled_ns: Mapping[str, int]
    kills: int

    @property
    def cache_bytes(self) -> int | None:
        """Return the page cache. Dirty pages that are not known are part of `file_clean`."""
        clean, dirty = self.parts["file_clean"], (self.parts["file_dirty"], self.parts["writeback"])
        return None if clean is None else clean + sum(size or 0 for size in dirty)

    @property
    def held_bytes(self) -> int | None:
        """Return usage without page cache, which reclaim cannot simply drop."""
        cache = self.cache_bytes
        return None if cache is None or self.usage_bytes is None else max(self.usage_bytes - cache, 0)


class Snapshots:
    """Takes snapshots of a tally, one at a time, from any thread. A cgroup that has not changed since the
    last snapshot is the same object again: on a machine with many cgroups, most are idle.
    """

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._last: _Made = {}
        self._by_path: tuple[int, list[int]] = (-1, [])  # `Copy.names_version`, and the ids of its names

    def take(self, now_ns: int) -> list[CgroupNow]:
        """Return each cgroup that exists and has a sample, in order of the path.

        `now_ns` is on the clock of `time` in the rows.
        """
        moment = self.moment(now_ns)
        return [moment.cgroup(number) for number in moment.ids]

    def moment(self, now_ns: int) -> Moment:
        """Return the cgroups as a moment, which computes single cgroups on request: each takes some 40 µs."""
        state = self._tally.copy()
        names = state.names
        if self._by_path[0] != state.names_version:
            self._by_path = state.names_version, sorted(names, key=lambda number: names[number].path)
        moment = Moment(state, now_ns, self._tally.page_bytes, self._last, self._by_path[1])
        self._last = moment.made
        return moment


_Made = dict[int, tuple[tuple[object, ...], CgroupNow]]
"""Id -> (key that stays equal while the cgroup does not change, the cgroup)."""


class _Limit(NamedTuple):
    """The least limit of a cgroup, and its smallest cushion below any limit: (left, room, cache)."""

    least_bytes: int | None
    owner: str | None
    cushion: tuple[int, int, int] | None
    cushion_owner: str | None
    seconds: float | None


_NO_LIMIT: Final = _Limit(None, None, None, None, None)


class Moment:
    """All cgroups at one moment. Each is computed when it is first requested.

    `ids` are the ids of the cgroups that exist and have a sample, in order of the path: `by_path` has the ids
    of all names in this order. `last` has the cgroups computed for an earlier moment, `made` the cgroups
    computed for this one.
    """

    def __init__(
        self, state: Copy, now_ns: int, page_bytes: int, last: _Made, by_path: Sequence[int]
    ) -> None:
        self._state = state
        self._now_ns = now_ns
        self._page_bytes = page_bytes
        self._last = last
        self.made: _Made = {}
        self._times: list[int] = state.rows["time"].tolist()
        self._is_falling = _are_falling(state.approaches)
        self._limits: dict[int, _Limit] = {}
        places, times = state.places, self._times
        self.ids = [one for one in by_path if one in places and times[places[one]]]
        self._places = np.array([places[one] for one in self.ids], np.int64)

    def names(self, cgroup_id: int) -> Names:
        """Return the names of one of `ids`."""
        return self._state.names[cgroup_id]

    def latest(self, column: str) -> Numbers:
        """Return a column of the latest sample of each of `ids`, `UNKNOWN` for null."""
        found: Numbers = self._state.rows["sample"][self._places, _AT[column]]
        return found

    def times_ns(self) -> Numbers:
        """Return the time of the latest sample of each of `ids`."""
        found: Numbers = self._state.rows["time"][self._places]
        return found

    def get(self, cgroup_id: int) -> CgroupNow | None:
        """Return a cgroup; None if it is not one of `ids`."""
        place = self._state.places.get(cgroup_id)
        if place is None or not self._times[place] or cgroup_id not in self._state.names:
            return None
        return self.cgroup(cgroup_id)

    def cgroup(self, cgroup_id: int) -> CgroupNow:
        """Return one of `ids`."""
        if (made := self.made.get(cgroup_id)) is None:
            key, last = self._key(cgroup_id), self._last.get(cgroup_id)
            made = last if last and last[0] == key else (key, self._work_out(cgroup_id))
            self.made[cgroup_id] = made
        return made[1]

    def _key(self, cgroup_id: int) -> tuple[object, ...]:
        """Return a key that stays equal while the cgroup does not change."""
        state = self._state
        changes = int(state.rows["changes"][state.places[cgroup_id]])
        return changes, state.names[cgroup_id], self._limit(cgroup_id)

    def _work_out(self, cgroup_id: int) -> CgroupNow:
        place, names = self._state.places[cgroup_id], self._state.names[cgroup_id]
        sample: list[int] = self._state.rows["sample"][place].tolist()
        flows: list[int] = self._state.rows["flows"][place].tolist()
        known = [None if value == UNKNOWN else value for value in sample]
        usage, refaulted = known[_AT["usage_bytes"]], known[_AT["workingset_refault_file"]]
        sizes = {name: known[at] for name, at in _SIZES}
        parts, _ = usage_parts(sizes, usage, lambda _: _ABSENT)
        inactive_file = sizes["inactive_file"]
        limit = self._limit(cgroup_id)
        left, room, cache = limit.cushion or (None, None, None)
        return CgroupNow(
            cgroup_id=cgroup_id,
            path=names.path,
            parent_id=names.parent_id,
            container_id=names.container_id,
            container=names.container,
            pod=names.pod,
            namespace=names.namespace,
            unit=names.unit,
            time_ns=self._times[place],
            usage_bytes=usage,
            own_limit_bytes=_finite(sample[_AT["limit_bytes"]]),
            limit_bytes=limit.least_bytes,
            limit_owner=limit.owner,
            high_bytes=_finite(sample[_AT["high_bytes"]]),
            swap_bytes=known[_AT["swap_usage_bytes"]],
            working_set_bytes=(
                None if usage is None or inactive_file is None else max(usage - inactive_file, 0)
            ),
            parts=parts,
            cushion_bytes=left,
            cushion_room_bytes=room,
            cushion_cache_bytes=cache,
            cushion_owner=limit.cushion_owner,
            seconds_to_kill=limit.seconds,
            pressure_us={kind: known[_AT[f"psi_{kind}_total_us"]] for kind in ("some", "full")},
            refaulted_bytes=None if refaulted is None else refaulted * self._page_bytes,
            oom_kill_events=known[_AT["oom_kill_events"]],
            charged_bytes=flows[BLOCKS["charged"].start],
            ledger_bytes=self._ledger(place, flows, names.is_new),
            added_bytes={name: flows[at] for name, at in _ADDED},
            evicted_bytes={name: flows[at] for name, at in _EVICTED},
            dropped_bytes={name: flows[at] for name, at in _DROPPED},
            evictors=self._evictors(cgroup_id),
            attempts=dict(zip(OUTCOMES, flows[BLOCKS["attempts"]], strict=True)),
            reclaimed_bytes=flows[BLOCKS["reclaimed"].start],
            reclaim_ns=flows[BLOCKS["reclaim"].start],
            stalled_ns=dict(zip(STALL_KIND.names, flows[BLOCKS["stalled"]], strict=True)),
            kills=flows[BLOCKS["kills"].start],
        )

    def _ledger(self, place: int, flows: list[int], is_new: bool) -> dict[str, int | None]:
        start = [0] * len(CATEGORY_NAMES) if is_new else self._state.rows["start"][place].tolist()
        return {
            name: None if at_start == UNKNOWN else at_start + change
            for name, at_start, change in zip(CATEGORY_NAMES, start, flows[BLOCKS["level"]], strict=True)
        }

    def _limit(self, cgroup_id: int) -> _Limit:
        """Return the limit of a cgroup: its own, or one of those above it."""
        if cgroup_id in self._limits:
            return self._limits[cgroup_id]
        self._limits[cgroup_id] = _NO_LIMIT  # for damaged rows that put a cgroup above itself
        names, place = self._state.names.get(cgroup_id), self._state.places.get(cgroup_id)
        if names is None or place is None:
            return _NO_LIMIT
        above = _NO_LIMIT if names.parent_id is None else self._limit(names.parent_id)
        own, told = map(_finite, self._state.rows["sample"][place, _LIMITS].tolist())
        if own is None or (told is not None and told < own):  # the own limit cannot be reached
            found = above
        else:
            found = self._with_own(above, cgroup_id, place, own)
        if told is not None and (found.least_bytes is None or told < found.least_bytes):
            found = _Limit(told, None, None, None, None)  # the limit of a cgroup that is not traced
        self._limits[cgroup_id] = found
        return found

    def _with_own(self, above: _Limit, cgroup_id: int, place: int, own_bytes: int) -> _Limit:
        """Return the limit of a cgroup with a limit of its own, below the limit `above`. The kernel charges
        the lowest cgroup first, so of two equal limits the lower one counts.
        """
        path = self._state.names[cgroup_id].path
        least, owner = above.least_bytes, above.owner
        if least is None or own_bytes <= least:
            least, owner = own_bytes, path
        left, room, cache = self._state.rows["cushion"][place].tolist()
        cushion, cushion_owner = above.cushion, above.cushion_owner
        if left != UNKNOWN and (cushion is None or left <= cushion[0]):
            cushion, cushion_owner = (left, room, cache), path
        seconds = [one for one in (self._seconds(cgroup_id), above.seconds) if one is not None]
        return _Limit(least, owner, cushion, cushion_owner, min(seconds, default=None))

    def _seconds(self, cgroup_id: int) -> float | None:
        """Return the seconds until the cushion of a cgroup's own limit is used up; None: not foreseen."""
        place = self._state.approach_places.get(cgroup_id)
        if (
            place is None
            or not self._is_falling[place]
            or self._now_ns - self._times[self._state.places[cgroup_id]] > _FRESH_NS
        ):
            return None
        found = forecast(self._state.approaches[place], self._now_ns, FORESEEN_S)
        return None if found is None else found.left_s

    def _evictors(self, cgroup_id: int) -> tuple[tuple[int, str | None, int], ...]:
        by, names = self._state.evicted.get(cgroup_id), self._state.names
        if not by:
            return ()
        return tuple(
            (evictor, names[evictor].path if evictor in names else None, size)
            for evictor, size in sorted(by.items(), key=lambda item: -item[1])
        )


def _finite(value: int) -> int | None:
    return None if value == UNKNOWN or value >= UNLIMITED_BYTES else value


def _are_falling(approaches: Any) -> Flags:
    """Return a mask of the rows of `Countdown.states` for which there may be a forecast: the last cushion is
    below an earlier one in the ring, and below all that were survived before."""
    last = approaches["left"][np.arange(len(approaches)), (approaches["taken"] - 1) % KEPT]
    highest = approaches["left"].max(axis=1, initial=0)
    for survived in (approaches["least"], approaches["least_before"]):
        highest = np.minimum(highest, survived)
    are_falling: Flags = (last < highest) & (approaches["taken"] > 1)
    return are_falling
