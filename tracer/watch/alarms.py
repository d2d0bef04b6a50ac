"""Alarms of `watch --on limit`, `watch --on soon` and `watch --psi`, decided from the samples."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

import pyarrow as pa

from tracer.live.alarm import Alarm
from tracer.live.countdown import Countdown
from tracer.live.sample_arrays import limits
from tracer.schema import UNLIMITED_BYTES
from tracer.trace.arrow_columns import integers, is_known
from tracer.watch.signs.limit_hits import LimitHits
from tracer.watch.signs.pressure import Pressure

KINDS: Final = frozenset({"limit", "soon"})

MOST: Final = 10
"""The most alarms of one kind within `WITHIN_NS`, over all cgroups."""

WITHIN_NS: Final = 60_000_000_000


class Alarms:
    """Decides from samples whether an alarm of `kinds` is due. Only "limit" and "soon" have meanings here.

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
        self._given: dict[str, deque[int]] = {kind: deque(maxlen=MOST) for kind in self._deciders}
        self.suppressed = dict.fromkeys(self._deciders, 0)

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
            if self._is_within_bound(alarm.reason, now_ns)
        ]

    def forget(self, cgroup_ids: Iterable[int]) -> None:
        """Drop the state of removed cgroups."""
        gone = list(cgroup_ids)
        for decider in self._deciders.values():
            decider.forget(gone)

    def _is_within_bound(self, kind: str, now_ns: int) -> bool:
        given = self._given[kind]
        if len(given) == MOST and now_ns - given[0] < WITHIN_NS:
            self.suppressed[kind] += 1
            return False
        given.append(now_ns)
        return True


def ids_of_removed(cgroups: pa.RecordBatch) -> list[int]:
    """Return the ids of the removed cgroups in rows of `cgroups`."""
    is_removed = is_known(pa.chunked_array([cgroups.column("removed")]))
    ids = integers(pa.chunked_array([cgroups.column("cgroup_id")]))
    removed: list[int] = ids[is_removed].tolist()
    return removed


def _is_any_limited(samples: pa.RecordBatch) -> bool:
    return any(
        (limits(samples, name) < UNLIMITED_BYTES).any()
        for name in ("effective_limit_bytes", "limit_bytes", "high_bytes")
    )
