"""memory.high of a cgroup, and of those above and below it: which one slowed its tasks.

A cgroup exceeded its memory.high in the trace if its count of these events (memory.events) grew, and its peak
of usage is above the value. The count alone is not enough: it includes the counts of the cgroups below.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import pandas as pd

from tracer.analysis.core import hierarchy
from tracer.analysis.core.columns import integers, optional
from tracer.analysis.core.ledger import made_in_trace
from tracer.analysis.core.limits import kernel_numbers
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import TraceTables
from tracer.analysis.results.survivor import HighOwner
from tracer.schema import UNLIMITED_BYTES

_COLUMNS: Final = ("high_bytes", "effective_high_bytes", "peak_bytes", "high_events")


@dataclass(frozen=True, slots=True)
class _Readings:
    """The last readings of a cgroup; None: not known. `has_grown`: whether its count of events grew."""

    high_bytes: int | None
    effective_bytes: int | None
    peak_bytes: int | None
    events: int | None
    has_grown: bool | None

    @property
    def is_exceeded(self) -> bool:
        if not self.has_grown or self.high_bytes is None or self.high_bytes >= UNLIMITED_BYTES:
            return False
        return self.peak_bytes is None or self.peak_bytes > self.high_bytes


class HighLimits:
    """memory.high of all cgroups that have samples."""

    def __init__(self, trace: TraceTables) -> None:
        self._trace = trace

    def effective_bytes(self, cgroup_id: int) -> int | None:
        """Return the least memory.high of the cgroup and those above it, traced or not, at its last sample.

        `UNLIMITED_BYTES` if none is set; None on v1, or if it was never read.
        """
        found = self._readings.get(cgroup_id)
        return None if found is None else found.effective_bytes

    def owner(self, subtree: Subtree, *, is_throttled: bool) -> HighOwner | None:
        """Return the memory.high that was exceeded, else the least one that is set on the cgroup or above it.

        The cgroup comes before those above it, the nearest first, and these before those below it. If tasks
        waited above a memory.high (`is_throttled`) that was none of these, it is that of a cgroup above that
        was not traced. None: no memory.high is set, or none was read.
        """
        own, readings = subtree.cgroup_id, self._readings
        chain = self._up_from(own)
        members = [number for number in subtree.members.tolist() if number in readings]
        below = sorted(members, key=lambda number: -(readings[number].events or 0))
        for number in (*chain, *below):
            if readings[number].is_exceeded:
                return self._traced(own, number)
        set_bytes = [high for number in chain if (high := readings[number].high_bytes) is not None]
        least = min(set_bytes, default=UNLIMITED_BYTES)
        effective = self.effective_bytes(own)
        above = effective if effective is not None and effective < least else None
        is_elsewhere = chain and all(readings[number].has_grown is False for number in (*chain, *below))
        if above is not None or (is_throttled and is_elsewhere):
            return HighOwner(None, None, above, None, is_ancestor=True)
        if least >= UNLIMITED_BYTES:
            return None
        return self._traced(own, next(number for number in chain if readings[number].high_bytes == least))

    def _traced(self, own: int, number: int) -> HighOwner:
        read, places = self._readings[number], self._trace.places
        is_ancestor = number != own and number in self._up_from(own)
        container, _ = places.container_of(number)
        return HighOwner(places.label_of(number), container, read.high_bytes, read.events, is_ancestor)

    def _up_from(self, cgroup_id: int) -> list[int]:
        """Return the ids of the cgroup and of those above it that have samples, the nearest first."""
        return [self._ids[position] for position in self._above.get(cgroup_id, [])]

    @cached_property
    def _ids(self) -> list[int]:
        return list(self._readings)

    @cached_property
    def _above(self) -> dict[int, list[int]]:
        return hierarchy.positions_above(self._trace.cgroups, self._ids)

    @cached_property
    def _readings(self) -> dict[int, _Readings]:
        samples = self._trace.samples
        columns = {name: kernel_numbers(samples, name).reset_index(drop=True) for name in _COLUMNS}
        by_cgroup = pd.DataFrame(columns).groupby(integers(samples["cgroup_id"]))
        last, first, most = by_cgroup.last(), by_cgroup["high_events"].first(), by_cgroup["high_events"].max()
        made = made_in_trace(self._trace.cgroups, last.index.to_numpy())
        found = {}
        for number, is_made in zip(last.index.tolist(), made.tolist(), strict=True):
            high, effective, peak, _ = (optional(last.at[number, name]) for name in _COLUMNS)
            events = optional(most.at[number])
            before = 0 if is_made else optional(first.at[number])
            has_grown = None if events is None or before is None else events > before
            found[number] = _Readings(high, effective, peak, events, has_grown)
        return found


def why_not_known(owner: HighOwner) -> dict[str, str]:
    """Return the fields of `Held.high_owner` that are not known, with the reason."""
    reasons = {
        "cgroup": "the cgroup above was not traced",
        "container": "the cgroup is no known runtime's container" if owner.cgroup else "it was not traced",
        "high_bytes": "it is not the least one, and the cgroup was not traced",
        "high_events": "the cgroup was not traced" if owner.cgroup is None else "they were never read",
    }
    return {f"high_owner.{name}": why for name, why in reasons.items() if getattr(owner, name) is None}
